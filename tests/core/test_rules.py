"""What may be shown, and what is said of the rest."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_candidates import candidates_of
from nearkin.core.candidates import ItemFacts
from nearkin.core.evidence import Metric
from nearkin.core.filters import ItemFilter, PriceRange
from nearkin.core.item import Availability
from nearkin.core.rules import Curation, Moved, Rule, Rules, apply_rules
from nearkin.core.sketch import sketch


def kept(candidates, rules=None, **about):
    """The ids that the rules leave of candidates whose rows are ranked as they stand."""
    ruled = apply_rules(range(len(candidates)), candidates, rules or Rules(), **about)
    return [candidates.facts[row].id for row in ruled.order]


def moves(candidates, rules=None, **about):
    return apply_rules(range(len(candidates)), candidates, rules or Rules(), **about).moved


def vector(seed):
    return np.random.default_rng(seed).standard_normal(64).astype(np.float32)


def test_without_a_reason_everything_stays_in_its_order():
    candidates = candidates_of(*(ItemFacts(name, title=f"thing {name}") for name in "abc"))
    ruled = apply_rules([2, 0, 1], candidates, Rules())
    assert ruled.order == (2, 0, 1)
    assert ruled.moved == ()


def test_a_blocked_item_is_shown_beside_nothing():
    candidates = candidates_of(ItemFacts("a"), ItemFacts("b"))
    curation = Curation(blocked_items=frozenset({"a"}))
    assert kept(candidates, curation=curation) == ["b"]
    assert moves(candidates, curation=curation) == (Moved("a", Rule.BLOCKED_ITEM, 1),)


def test_a_blocked_pair_is_not_shown_together_and_either_item_is_elsewhere():
    candidates = candidates_of(ItemFacts("a"), ItemFacts("b"))
    curation = Curation(blocked_pairs={"x": frozenset({"a"})})
    assert kept(candidates, curation=curation, anchor_id="x") == ["b"]
    assert kept(candidates, curation=curation, anchor_id="y") == ["a", "b"]


def test_what_is_discontinued_is_not_shown_unless_it_is_asked_for():
    candidates = candidates_of(ItemFacts("old", availability=Availability.DISCONTINUED), ItemFacts("new"))
    assert kept(candidates) == ["new"]
    assert kept(candidates, conditions=ItemFilter(availability=(Availability.DISCONTINUED,))) == ["old"]


def test_what_is_not_sold_in_the_market_is_not_shown_there():
    everywhere, here, there = ItemFacts("e"), ItemFacts("h", markets=("de", "at")), ItemFacts("t", markets=("fr",))
    candidates = candidates_of(everywhere, here, there)
    assert kept(candidates, market="de") == ["e", "h"]
    assert kept(candidates, conditions=ItemFilter(market="fr")) == ["e", "t"]
    assert kept(candidates) == ["e", "h", "t"]
    assert moves(candidates, market="de") == (Moved("t", Rule.MARKET, 3),)


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        (ItemFilter(exclude_ids=("a",)), ["b", "c"]),
        (ItemFilter(categories_any=(("home", "mugs"), ("toys",))), ["a", "c"]),
        (ItemFilter(categories_all=(("home", "mugs"), ("gifts",))), ["a"]),
        (ItemFilter(category_prefix=("home",)), ["a", "b"]),
        (ItemFilter(category_prefix=("home", "mugs")), ["a"]),
        (ItemFilter(category_prefix=("ho",)), []),
        (ItemFilter(price=PriceRange("EUR", low=2.0)), ["b"]),
        (ItemFilter(price=PriceRange("EUR", low=1.0, high=2.0)), ["a", "b"]),
        (ItemFilter(price=PriceRange("USD", high=9.0)), []),
    ],
)
def test_what_evidence_brought_meets_the_conditions_of_the_request_too(conditions, left):
    candidates = candidates_of(
        ItemFacts("a", categories=("home/mugs", "gifts"), price=1.0, currency="EUR"),
        ItemFacts("b", categories=("home/pots",), price=2.0, currency="EUR"),
        ItemFacts("c", categories=("toys",)),
    )
    assert kept(candidates, conditions=conditions) == left
    assert {one.rule for one in moves(candidates, conditions=conditions)} <= {Rule.FILTER}


def test_a_pair_that_many_hid_goes_and_one_that_few_of_very_many_hid_stays():
    often, seldom, once = (
        [(row, Metric.EXPOSURES, exposures), (row, Metric.HIDES, hides)]
        for row, exposures, hides in ((0, 50, 6), (1, 5000, 6), (2, 2, 1))
    )
    candidates = candidates_of(*map(ItemFacts, ("often", "seldom", "once")), counts=often + seldom + once)
    assert kept(candidates) == ["seldom", "once"]
    assert moves(candidates) == (Moved("often", Rule.HIDDEN, 1),)


def test_a_pair_that_some_reported_goes():
    candidates = candidates_of(ItemFacts("a"), counts=[(0, Metric.EXPOSURES, 20), (0, Metric.REPORTS, 3)])
    assert moves(candidates) == (Moved("a", Rule.REPORTED, 1),)


@pytest.mark.parametrize(
    ("metric", "said", "rule"), [(Metric.HIDES, 5, Rule.HIDDEN), (Metric.REPORTS, 3, Rule.REPORTED)]
)
def test_as_many_as_the_rule_names_are_enough_though_they_have_decayed_a_little(metric, said, rule):
    after_a_day = 2 ** (-1 / 90)
    candidates = candidates_of(
        ItemFacts("enough"), ItemFacts("one-less"), counts=[(0, metric, said * after_a_day), (1, metric, said - 1)]
    )
    assert moves(candidates) == (Moved("enough", rule, 1),)


def test_where_less_than_one_hide_is_enough_a_pair_that_nobody_hid_stays():
    candidates = candidates_of(ItemFacts("hidden"), ItemFacts("never"), counts=[(0, Metric.HIDES, 0.9)])
    assert kept(candidates, Rules(hidden_after=0.4, reported_after=0.4)) == ["never"]


def test_one_variant_of_a_product_is_enough_and_the_anchors_own_are_too_many():
    candidates = candidates_of(
        ItemFacts("own", variant_group="anchor"),
        ItemFacts("red", variant_group="mug"),
        ItemFacts("alone"),
        ItemFacts("blue", variant_group="mug"),
        ItemFacts("alone too"),
    )
    anchor = ItemFacts("x", variant_group="anchor")
    assert kept(candidates, anchor=anchor) == ["red", "alone", "alone too"]
    assert moves(candidates, anchor=anchor) == (
        Moved("own", Rule.VARIANT, 1),
        Moved("blue", Rule.VARIANT, 4, because_of="red"),
    )
    assert len(kept(candidates, Rules(collapse_variants=False), anchor=anchor)) == 5


def test_a_near_duplicate_makes_room_for_another():
    one = vector(1)
    nearly = one + np.float32(0.01) * vector(2)
    candidates = candidates_of(
        ItemFacts("first", sketch=sketch(one)),
        ItemFacts("again", sketch=sketch(nearly)),
        ItemFacts("other", sketch=sketch(vector(3))),
        ItemFacts("unknown"),
    )
    assert kept(candidates) == ["first", "other", "unknown"]
    assert moves(candidates) == (Moved("again", Rule.NEAR_DUPLICATE, 2, because_of="first"),)
    assert len(kept(candidates, Rules(near_duplicate=2.0))) == 4


def test_the_same_words_are_a_duplicate_unless_the_items_are_known_to_be_apart():
    apart = (sketch(vector(1)), sketch(vector(2)))
    candidates = candidates_of(
        ItemFacts("a", title="Blue Mug!"),
        ItemFacts("b", title="blue  mug"),
        ItemFacts("c", title="Hamlet", sketch=apart[0]),
        ItemFacts("d", title="hamlet", sketch=apart[1]),
        ItemFacts("e"),
        ItemFacts("f"),
    )
    assert kept(candidates) == ["a", "c", "d", "e", "f"]
    assert len(kept(candidates, Rules(same_title=2.0))) == 6


def test_what_only_a_removed_item_was_like_stays():
    """The middle one is like both ends, which are not like each other."""
    one, other = vector(1), vector(2)
    middle = one + other
    candidates = candidates_of(
        *(ItemFacts(n, sketch=sketch(v)) for n, v in zip("amz", (one, middle, other), strict=True))
    )
    assert kept(candidates, Rules(near_duplicate=0.5)) == ["a", "z"]


def test_at_most_so_many_of_a_category_and_of_a_maker():
    candidates = candidates_of(
        *(
            ItemFacts(f"{maker}{number}", maker=maker, categories=("c", f"only {maker}"))
            for number in range(3)
            for maker in "xy"
        ),
        ItemFacts("none"),
    )
    assert kept(candidates, Rules(most_per_maker=1)) == ["x0", "y0", "none"]
    assert kept(candidates, Rules(most_per_category=3)) == ["x0", "y0", "x1", "none"]
    assert {one.rule for one in moves(candidates, Rules(most_per_category=3))} == {Rule.CATEGORY_CAP}


def test_pins_come_first_in_their_order_and_count_for_what_follows():
    candidates = candidates_of(*(ItemFacts(name, maker="m") for name in "abcd"))
    curation = Curation(pins={"x": ("d", "c", "not a candidate")})
    ruled = apply_rules(range(4), candidates, Rules(most_per_maker=3), anchor_id="x", curation=curation)
    assert [candidates.facts[row].id for row in ruled.order] == ["d", "c", "a"]
    assert ruled.pins == 2
    assert ruled.moved[:2] == (Moved("d", Rule.PIN, 4, 1), Moved("c", Rule.PIN, 3, 2))
    assert kept(candidates, curation=curation, anchor_id="y") == list("abcd")


def test_a_pin_may_be_a_variant_of_the_anchor_but_not_one_that_the_request_leaves_out():
    candidates = candidates_of(
        ItemFacts("other"), ItemFacts("blue", variant_group="mug"), ItemFacts("green", variant_group="mug")
    )
    ruled = apply_rules(
        [0, 1, 2],
        candidates,
        Rules(),
        anchor_id="red",
        anchor=ItemFacts("red", variant_group="mug"),
        conditions=ItemFilter(exclude_ids=("green",)),
        curation=Curation(pins={"red": ("blue", "green")}),
    )
    assert (ruled.order, ruled.pins) == ((1, 0), 1)
    assert {(one.item, one.rule) for one in ruled.moved} == {("blue", Rule.PIN), ("green", Rule.FILTER)}


def test_a_pin_that_is_blocked_or_cannot_be_had_is_not_shown():
    candidates = candidates_of(
        ItemFacts("gone", availability=Availability.DISCONTINUED), ItemFacts("bad"), ItemFacts("c")
    )
    curation = Curation(blocked_items=frozenset({"bad"}), pins={"x": ("gone", "bad")})
    ruled = apply_rules(range(3), candidates, Rules(), anchor_id="x", curation=curation)
    assert (ruled.order, ruled.pins) == ((2,), 0)
    assert [one.rule for one in ruled.moved] == [Rule.AVAILABILITY, Rule.BLOCKED_ITEM]


GROUPS = st.sampled_from(["", "g", "h"])
FACTS = st.lists(
    st.builds(
        ItemFacts,
        id=st.just(""),
        title=st.sampled_from(["", "mug", "Mug.", "pot"]),
        categories=st.lists(st.sampled_from("pqr"), max_size=2, unique=True).map(tuple),
        maker=GROUPS,
        variant_group=GROUPS,
        availability=st.sampled_from(Availability),
        sketch=st.sampled_from([b"", *(sketch(vector(seed)) for seed in range(4))]),
    ),
    max_size=40,
).map(lambda some: [replace(one, id=f"i{number}") for number, one in enumerate(some)])


@given(FACTS, st.integers(0, 3), st.integers(0, 3), st.integers(1, 12), st.lists(st.integers(0, 39), max_size=3))
def test_whatever_the_items_no_rule_is_broken_and_nothing_goes_without_a_reason(facts, category, maker, enough, pinned):
    candidates = candidates_of(*facts)
    rules = Rules(most_per_category=category, most_per_maker=maker)
    curation = Curation(pins={"x": tuple(f"i{number}" for number in pinned)})
    order = range(len(facts))
    whole = apply_rules(order, candidates, rules, anchor_id="x", curation=curation)
    shown = [facts[row] for row in whole.order[whole.pins :]]
    assert len(set(whole.order)) == len(whole.order)
    assert all(one.availability is not Availability.DISCONTINUED for one in shown)
    groups = [one.variant_group for one in shown if one.variant_group]
    assert len(set(groups)) == len(groups)
    for of, most in ((lambda one: one.categories, category), (lambda one: (one.maker,) * bool(one.maker), maker)):
        named = [name for one in shown for name in of(one)]
        assert not most or all(named.count(name) <= most for name in named)
    assert list(whole.order[whole.pins :]) == sorted(whole.order[whole.pins :])
    removed = {one.item for one in whole.moved if one.now is None}
    assert removed.isdisjoint(facts[row].id for row in whole.order)
    assert len(removed) + len(whole.order) == len(facts)
    # Asking for less gives the beginning of the same.
    part = apply_rules(order, candidates, rules, anchor_id="x", curation=curation, enough=enough)
    assert part.order == whole.order[: whole.pins + enough]
