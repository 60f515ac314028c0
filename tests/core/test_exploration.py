"""The propensities that are logged are the probabilities with which items are shown."""

import itertools
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core import exploration
from nearkin.core.evidence import DAY_MS
from nearkin.core.exploration import ExplorationRules, Policy, Slate, draw

RULES = ExplorationRules(share=0.25, pool=4, new_item_share=0.5)


def enumerate_slates(order, new_items, k, rules, pins=0):
    """Every slate that the mixture can give, with its exact probability: by hand, from what the policies are."""
    greedy = tuple(order[:k])
    free = len(greedy) - pins
    pool = order[pins : pins + max(rules.pool, free)]
    unseen = [row for row in order[k:] if row in new_items]
    lower = [place for place in range(1, len(greedy)) if place >= max(pins, len(greedy) // 2)]
    shuffled, new_item = Fraction(rules.share), Fraction(rules.new_item_share) if unseen and lower else Fraction(0)
    chances = Counter()
    chances[greedy] += 1 - shuffled - new_item
    draws = list(itertools.permutations(pool, free))
    for one in draws:
        chances[greedy[:pins] + one] += shuffled / len(draws)
    for place, row in itertools.product(lower, unseen):
        chances[(*greedy[:place], row, *greedy[place + 1 :])] += new_item / (len(lower) * len(unseen))
    return {slate: chance for slate, chance in chances.items() if chance}


CASES = {
    "no pins, one new": ([5, 3, 8, 1, 0, 2, 7], {0}, 3, 0),
    "one pin, three new of which one is shown": ([5, 3, 8, 1, 0, 2, 7], {3, 2, 7}, 4, 1),
    "a pool smaller than the answer": ([5, 3, 8, 1, 0, 2, 7], {7}, 5, 0),
    "nothing new": ([5, 3, 8, 1], {}, 2, 0),
    "an order shorter than the answer": ([5, 3], {3}, 4, 0),
    "all but one place pinned": ([5, 3, 8, 1], {1}, 3, 2),
    "one place": ([5, 3, 8], {8}, 1, 0),
    "two places": ([5, 3, 8, 1], {8, 1}, 2, 0),
    "one place, and nobody to draw it from": ([5, 3, 8], {8}, 1, 0, 1),
    "one place left by pins, and nobody to draw it from": ([5, 3, 8, 1], {8, 1}, 3, 2, 1),
    "nobody to draw from": ([5, 3, 8, 1], {8, 1}, 2, 0, 1),
}


def case_of(name):
    """The order, the new items, k, how many are pinned, and the rules."""
    order, new_items, k, pins, *pool = CASES[name]
    return order, new_items, k, pins, replace(RULES, pool=pool[0] if pool else RULES.pool)


@pytest.mark.parametrize("case", CASES)
def test_every_propensity_is_the_sum_over_all_slates_that_could_have_been(case):
    order, new_items, k, pins, rules = case_of(case)
    slates = enumerate_slates(order, new_items, k, rules, pins)
    assert sum(slates.values()) == 1
    seen = set()
    for number in range(10_000):
        slate = draw(order, new_items, k, f"request {number}", rules, pins=pins)
        assert slate.items in slates
        if slate.items in seen:
            continue
        seen.add(slate.items)
        for place, (row, propensity) in enumerate(zip(slate.items, slate.propensities, strict=True)):
            exact = sum(chance for items, chance in slates.items() if items[place] == row)
            assert propensity == pytest.approx(float(exact), rel=1e-12)
    assert seen == set(slates), "each slate that the policies can give is drawn"


@pytest.mark.parametrize("case", CASES)
def test_at_every_position_the_propensities_of_all_items_sum_to_one(case):
    order, new_items, k, pins, rules = case_of(case)
    fixed = min(pins, len(order))
    mixture = exploration._Mixture(order, new_items, k, rules, fixed)
    for place in range(min(k, len(order))):
        assert sum(mixture.propensity(row, place) for row in order) == pytest.approx(1, abs=1e-12)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_in_a_million_draws_each_item_stands_at_each_place_as_often_as_its_propensity_says():
    order, new_items, k, pins, draws = list(range(12)), {4, 9, 11}, 6, 1, 1_000_000
    rules = ExplorationRules(share=0.1, pool=8, new_item_share=0.2)
    counts = np.zeros((k, len(order)))
    told = np.zeros((k, len(order)))
    for number in range(draws):
        slate = draw(order, new_items, k, f"{number:x}", rules, pins=pins)
        for place, row in enumerate(slate.items):
            counts[place, row] += 1
            told[place, row] = slate.propensities[place]
    assert told.sum(1) == pytest.approx(np.ones(k), abs=1e-12), "everything possible was drawn"
    deviation = np.sqrt(told * (1 - told) / draws)
    # 72 cells: one beyond 4.5 deviations is a matter of one in two thousand.
    assert (np.abs(counts / draws - told) <= 4.5 * deviation + 1e-12).all()


def test_the_same_request_gets_the_same_answer_and_another_one_another():
    order = list(range(30))
    rules = ExplorationRules(share=1.0, new_item_share=0.0)
    answers = [draw(order, (), 10, f"request {number}", rules) for number in range(50)]
    assert answers == [draw(order, (), 10, f"request {number}", rules) for number in range(50)]
    assert len({one.items for one in answers}) == 50


def test_an_answer_can_be_given_again_by_a_later_version():
    """If this fails, `nearkin replay` of an older answer draws another one."""
    slate = draw(list(range(30)), (), 5, "a request", ExplorationRules(share=1.0, new_item_share=0.0))
    assert slate.items == (13, 6, 19, 8, 9)


def test_opting_out_gives_the_order_with_certainty():
    order = list(range(30))
    everything = ExplorationRules(share=0.5, new_item_share=0.5)
    for number in range(100):
        slate = draw(order, {20}, 3, str(number), everything, explore=False)
        assert slate.items == (0, 1, 2)
        assert slate.propensities == (1.0, 1.0, 1.0)
        assert (slate.policy, slate.explored) == (Policy.GREEDY, (False, False, False))


def test_pins_are_never_drawn_away():
    order = list(range(30))
    for number in range(300):
        slate = draw(order, {20, 21}, 5, str(number), ExplorationRules(0.5, 20, 0.5), pins=2)
        assert slate.items[:2] == (0, 1)
        assert slate.propensities[:2] == (1.0, 1.0)
        assert slate.explored[:2] == (False, False)


def test_an_answer_of_pins_alone_is_certain():
    slate = draw([4, 2, 9], {9}, 2, "request", ExplorationRules(0.5, 20, 0.5), pins=3)
    assert (slate.items, slate.propensities) == ((4, 2), (1.0, 1.0))


def test_a_new_item_gets_its_floor_of_exposure_in_the_lower_places():
    order, new_items = list(range(30)), {25, 28}
    rules = ExplorationRules(share=0.0, new_item_share=0.1)
    places = Counter()
    for number in range(20_000):
        slate = draw(order, new_items, 10, str(number), rules)
        for place, row in enumerate(slate.items):
            if row in new_items:
                places[place] += 1
                assert slate.policy is Policy.NEW_ITEM
                assert slate.explored == tuple(other == place for other in range(10))
                assert slate.propensities[place] == pytest.approx(0.1 / 5 / 2)
    assert set(places) == {5, 6, 7, 8, 9}
    assert sum(places.values()) / 20_000 == pytest.approx(0.1, abs=0.01)


def test_a_new_item_that_is_shown_anyway_needs_no_floor():
    slates = {draw([0, 1, 2, 3], {1}, 2, str(n), ExplorationRules(0.0, 20, 1.0)).items for n in range(50)}
    assert slates == {(0, 1)}


@given(
    st.integers(0, 25), st.integers(1, 12), st.sets(st.integers(0, 24)), st.integers(0, 4),
    st.floats(0, 0.5), st.floats(0, 0.5), st.integers(1, 30), st.text(max_size=10),
)  # fmt: skip
def test_whatever_is_asked_the_answer_is_distinct_rows_with_true_probabilities(
    size, k, new, pins, share, new_share, pool, request_id
):
    slate = draw(range(size), new, k, request_id, ExplorationRules(share, pool, new_share), pins=pins)
    assert len(slate.items) == len(slate.propensities) == len(slate.explored) == min(k, size)
    assert len(set(slate.items)) == len(slate.items)
    assert set(slate.items) <= set(range(size))
    assert all(0 < one <= 1 for one in slate.propensities)


def test_a_lone_place_is_never_given_away_to_a_new_item():
    given = {draw([4, 2, 9], {2, 9}, 1, str(number), ExplorationRules(0.0, 20, 1.0)) for number in range(50)}
    assert given == {Slate((4,), (1.0,), Policy.GREEDY, (False,))}


def test_an_item_is_new_for_its_time_and_one_of_unknown_age_is_not():
    rules = ExplorationRules(new_item_age_ms=7 * DAY_MS)
    assert rules.new_since(107 * DAY_MS) == 100 * DAY_MS
    assert rules.new_since(3 * DAY_MS) == 0


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.0, -0.1), (0.6, 0.5), (float("nan"), 0.0)])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ValueError, match="must add up to 1"):
        ExplorationRules(share=shares[0], new_item_share=shares[1])
