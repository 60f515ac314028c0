"""Maximal marginal relevance against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_candidates import candidates_of
from nearkin.core.candidates import ItemFacts
from nearkin.core.diversity import POOL, diversify, likeness
from nearkin.core.rules import Moved, Rule
from nearkin.core.sketch import similarities, sketch


def drawn(count, seed=0, groups=5):
    """Candidates in a few groups of items that are alike, with descending scores."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, 64))
    vectors = centres[rng.integers(0, groups, count)] + 0.5 * rng.standard_normal((count, 64))
    facts = [ItemFacts(f"i{row}", sketch=sketch(one.astype(np.float32))) for row, one in enumerate(vectors)]
    return candidates_of(*facts), np.sort(rng.normal(5, 3, count))[::-1].copy()


def by_definition(scores, alike, strength, k, pins):
    """Carbonell and Goldstein's greedy rule, one comparison at a time."""
    own = scores[pins:]
    relevance = (scores - own.min()) / (np.ptp(own) or 1.0)
    chosen = list(range(pins))
    while len(chosen) < min(k, len(scores)):
        rest = [one for one in range(len(scores)) if one not in chosen]
        worth = {
            one: (1 - strength) * relevance[one] - strength * max((alike[one, other] for other in chosen), default=0.0)
            for one in rest
        }
        chosen.append(max(rest, key=lambda one: (worth[one], -one)))
    return chosen


@given(st.integers(2, 30), st.integers(1, 12), st.floats(0.05, 1), st.integers(0, 3), st.integers(0, 5))
def test_each_place_goes_to_what_the_definition_says(count, k, strength, pins, seed):
    candidates, scores = drawn(count, seed)
    pins = min(pins, k, count - 1)
    found = diversify(range(count), scores, candidates, strength, k, pins)
    expected = by_definition(scores, likeness(candidates, range(count)), strength, k, pins)
    assert list(found.order[: len(expected)]) == expected or k - pins < 2
    assert sorted(found.order) == list(range(count))


def test_no_strength_leaves_the_order_as_it_is():
    candidates, scores = drawn(20)
    found = diversify([3, 1, 2], scores, candidates, 0.0, 2)
    assert found.order == (3, 1, 2)
    assert found.moved == ()


def test_a_second_item_of_the_same_kind_makes_room_and_the_explanation_says_so():
    same, other = (sketch(np.random.default_rng(seed).standard_normal(64).astype(np.float32)) for seed in (1, 2))
    candidates = candidates_of(ItemFacts("a", sketch=same), ItemFacts("b", sketch=same), ItemFacts("c", sketch=other))
    found = diversify([0, 1, 2], np.array([1.0, 0.9, 0.5]), candidates, 0.8, 2)
    assert found.order == (0, 2, 1)
    assert found.moved == (Moved("c", Rule.DIVERSITY, 3, 2),)


def test_pins_stay_and_what_is_like_them_makes_room():
    same, other = (sketch(np.random.default_rng(seed).standard_normal(64).astype(np.float32)) for seed in (1, 2))
    candidates = candidates_of(ItemFacts("pin", sketch=same), ItemFacts("b", sketch=same), ItemFacts("c", sketch=other))
    found = diversify([0, 1, 2], np.array([-5.0, 0.9, 0.5]), candidates, 0.9, 3, pins=1)
    assert found.order == (0, 2, 1)


def test_what_lies_beyond_the_pool_is_not_brought_up():
    candidates, scores = drawn(POOL + 20)
    found = diversify(range(POOL + 20), scores, candidates, 1.0, 10)
    assert found.order[POOL:] == tuple(range(POOL, POOL + 20))


def test_the_scale_of_the_scores_does_not_matter():
    candidates, scores = drawn(40)
    one = diversify(range(40), scores, candidates, 0.4, 10)
    assert diversify(range(40), scores * 1e3 - 77, candidates, 0.4, 10).order == one.order


def test_equal_scores_are_spread_by_likeness_alone():
    candidates, _ = drawn(12)
    found = diversify(range(12), np.ones(12), candidates, 0.5, 5)
    assert found.order[0] == 0
    assert len(set(found.order)) == 12


def test_where_a_sketch_is_missing_categories_and_makers_say_what_is_alike():
    known = sketch(np.ones(8, np.float32))
    candidates = candidates_of(
        ItemFacts("a", categories=("mugs", "gifts"), maker="m"),
        ItemFacts("b", categories=("mugs",), maker="m", sketch=known),
        ItemFacts("c", categories=("pots",), maker="m"),
        ItemFacts("d"),
        ItemFacts("e", categories=("pots",), maker="", sketch=known),
    )
    alike = likeness(candidates, range(5))
    assert alike[0].tolist() == [1, 1, 0.5, 0, 0]
    assert alike[2, 4] == 0.5
    assert alike[1, 4] == similarities([known, known])[0, 1] == pytest.approx(1)
    assert (alike == alike.T).all()
