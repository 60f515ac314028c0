"""Features: what each means on small cases, and that any candidates give finite numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.candidates import AnchorContext, Candidates, CandidateSource, ItemFacts, SourcesOf
from nearkin.core.evidence import DAY_MS, Metric
from nearkin.core.features import FEATURE_NAMES, FEATURES, LEXICAL_WEIGHT, compute_features

NOW = 1_300_000_000_000


def candidates(*facts, content=None, lexical=None, visits=None, named=None, **counted):
    """Candidates with the facts given, or two without any; `counted` names metrics, a value a candidate."""
    facts = facts or (ItemFacts("x"), ItemFacts("y"))
    counts = np.zeros((len(facts), len(Metric)))
    for name, values in counted.items():
        counts[:, Metric[name.upper()]] = values
    return Candidates(
        facts=facts,
        sources=SourcesOf(
            [one.id for one in facts], named or {CandidateSource.CONTENT: dict.fromkeys([one.id for one in facts], 0.5)}
        ),
        content=np.array(content or [0.5] * len(facts), dtype=float),
        lexical=np.array(lexical or [0.0] * len(facts), dtype=float),
        counts=counts,
        visits=np.array(visits or [0.0] * len(facts), dtype=float),
    )


def anchor(facts=None, visits=0.0, all_visits=0.0):
    return AnchorContext(facts or ItemFacts("anchor"), visits, all_visits, NOW)


def column(name, found, context=None):
    return compute_features(context or anchor(), found)[:, FEATURE_NAMES.index(name)]


def test_a_feature_has_one_name_and_a_meaning():
    assert len(set(FEATURE_NAMES)) == len(FEATURES)
    assert all(feature.meaning for feature in FEATURES)


def test_no_candidates_give_no_rows():
    nothing = Candidates((), SourcesOf((), {}), np.empty(0), np.empty(0), np.empty((0, len(Metric))), np.empty(0))
    assert compute_features(anchor(), nothing).shape == (0, len(FEATURES))


def fused(dense, lexical):
    """What fusion makes of two lists of (id, score), best first: the score of each item by its id."""
    cosines, words = dict(dense), dict(lexical)
    ids = list({**cosines, **words})
    found = candidates(
        *map(ItemFacts, ids),
        named={CandidateSource.CONTENT: cosines, CandidateSource.LEXICAL: words},
        content=[cosines.get(one, math.nan) for one in ids],
        lexical=[words.get(one, 0.0) for one in ids],
    )
    return dict(zip(ids, column("fused", found).tolist(), strict=True)) if ids else {}


@st.composite
def hits(draw, scores):
    """The hits of one search, best first; scores may tie."""
    ids = draw(st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=10))
    return list(zip(ids, sorted((draw(scores) for _ in ids), reverse=True), strict=True))


#: Cosines may be negative; a search by words returns what shares one, a search by meaning whatever is nearest.
by_meaning, by_words = hits(st.floats(-1, 1, width=32)), hits(st.floats(0.125, 50, width=32))


@given(by_meaning, by_words)
def test_fused_is_from_0_to_1(dense, lexical):
    assert all(0 <= score <= 1 + 1e-9 for score in fused(dense, lexical).values())


@given(by_meaning, by_words, st.floats(0.125, 64), st.floats(0.125, 1))
def test_the_scale_of_the_engines_scores_changes_nothing(dense, lexical, stretched, shrunk):
    scaled = fused([(one, score * shrunk) for one, score in dense], [(one, s * stretched) for one, s in lexical])
    assert scaled == pytest.approx(fused(dense, lexical))


@given(by_meaning, by_words)
def test_the_order_in_which_hits_arrive_changes_nothing(dense, lexical):
    assert fused(dense[::-1], lexical[::-1]) == pytest.approx(fused(dense, lexical))


@given(by_meaning, by_words)
def test_being_in_the_list_by_words_never_costs_an_item(dense, lexical):
    alone, both = fused(dense, []), fused(dense, lexical)
    assert all(both[item] >= score - 1e-12 for item, score in alone.items())


@given(by_meaning, by_words)
def test_a_longer_list_by_meaning_moves_nobody_of_it_and_brings_nobody_else_nearer(dense, lexical):
    whole = fused(dense, lexical)
    for depth in range(1, len(dense)):
        head = dict(dense[:depth])
        for item, score in fused(dense[:depth], lexical).items():
            assert whole[item] == pytest.approx(score) if item in head else whole[item] <= score + 1e-12


def test_an_item_in_both_lists_outranks_items_of_the_same_places_in_one():
    scores = fused(
        [("first", 0.9), ("both", 0.8), ("dense", 0.8), ("far", 0.3)],
        [("other", 12.0), ("both", 9.0), ("lexical", 9.0)],
    )
    assert max(scores, key=scores.get) == "both"


def test_fused_is_a_share_of_each_lists_best_and_who_is_not_in_the_dense_list_counts_as_its_last():
    scores = fused([("a", 0.8), ("b", 0.4)], [("b", 20.0), ("c", 5.0)])
    dense = 1 - LEXICAL_WEIGHT
    assert scores == pytest.approx({"a": dense, "b": dense / 2 + LEXICAL_WEIGHT, "c": dense / 2 + LEXICAL_WEIGHT / 4})


def test_what_evidence_named_is_as_far_as_its_cosine_and_does_not_move_what_words_named():
    named = {
        CandidateSource.CONTENT: {"a": 0.8},
        CandidateSource.LEXICAL: {"b": 1.0},
        CandidateSource.CO_VISITS: {"c": 1.0},
    }
    found = candidates(
        ItemFacts("a"), ItemFacts("b"), ItemFacts("c"),
        named=named, content=[0.8, math.nan, 0.2], lexical=[0.0, 1.0, 0.0],
    )  # fmt: skip
    assert column("fused", found) == pytest.approx([0.4, 0.4 + 0.6, 0.1])
    assert column("content", found) == pytest.approx([0.8, 0.2, 0.2])
    assert list(column("content_missing", found)) == [0, 1, 0]


def test_a_pair_with_no_click_and_no_expectation_has_no_coec():
    assert list(column("coec", candidates())) == [0, 0]


def test_coec_is_above_0_where_more_clicked_than_positions_promise():
    found = candidates(clicks=[9, 0], expected=[4, 9], exposures=[40, 90])
    assert column("coec", found) == pytest.approx([math.log(10 / 5), math.log(1 / 10)])
    assert column("coec_deviation", found) == pytest.approx([1 / math.sqrt(10), 1])


def test_reactions_are_weighed_for_each_exposure():
    found = candidates(exposures=[80, 80], purchases=[4, 0], likes=[2, 0], hides=[0, 5])
    assert column("conversions", found) == pytest.approx([5 / 100, 0])
    assert column("complaints", found) == pytest.approx([0, 5 / 100])


def test_co_visits_are_held_against_chance():
    found = candidates(co_visits=[15, 0], visits=[100, 100])
    lift = column("co_visit_lift", found, anchor(visits=50, all_visits=1000))
    assert lift == pytest.approx([math.log(20 / 10), math.log(5 / 10)])


def test_a_pair_that_a_sample_of_one_large_visit_counted_twenty_times_was_visited_once():
    found, context = candidates(co_visits=[20, 0], visits=[1, 1]), anchor(visits=1, all_visits=3)
    assert column("co_visit_cosine", found, context) == pytest.approx([1 / 21, 0])
    assert column("co_visit_lift", found, context)[0] == pytest.approx(math.log(6 / (1 / 3 + 5)))


def test_what_was_never_visited_is_neither_together_nor_apart():
    found = candidates(visits=[0, 0])
    context = anchor(visits=50, all_visits=1000)
    assert list(column("co_visit_lift", found, context)) == [0, 0]
    assert list(column("unvisited", found, context)) == [1, 1]


def test_an_anchor_without_visits_is_ranked_by_content_alone():
    context = anchor(all_visits=1000)
    for name in ("co_visit_lift", "co_visit_cosine", "coec", "conversions", "unexposed"):
        assert list(column(name, candidates(visits=[3, 900]), context)) == [0, 0]


def test_an_item_is_half_as_fresh_after_thirty_days():
    new, old, unknown = (ItemFacts(n, first_seen=at) for n, at in (("a", NOW), ("b", NOW - 30 * DAY_MS), ("c", 0)))
    assert column("freshness", candidates(new, old, unknown)) == pytest.approx([1, 0.5, 0])


def test_an_item_from_a_clock_that_is_ahead_is_new():
    assert column("freshness", candidates(ItemFacts("a", first_seen=NOW + DAY_MS))) == pytest.approx([1])


def test_categories_agree_by_the_names_they_share_from_the_top():
    own = ItemFacts("anchor", categories=("home/kitchen/mugs", "gifts"))
    same, near, far, none = (
        ItemFacts(name, categories=paths)
        for name, paths in (
            ("a", ("home/kitchen/mugs",)), ("b", ("home/kitchen/pots/iron",)), ("c", ("garden/kitchen",)), ("d", ())
        )
    )  # fmt: skip
    found = candidates(same, near, far, none)
    assert column("category", found, anchor(own)) == pytest.approx([1, 0.5, 0, 0])
    assert list(column("category_missing", found, anchor(own))) == [0, 0, 0, 1]
    assert list(column("category_missing", found)) == [1, 1, 1, 1]


def test_prices_agree_in_one_currency_only():
    own = ItemFacts("anchor", price=4.0, currency="GBP")
    facts = (
        ItemFacts("a", price=8.0, currency="GBP"), ItemFacts("b", price=2.0, currency="GBP"),
        ItemFacts("c", price=4.0, currency="EUR"), ItemFacts("d"), ItemFacts("e", price=0.0, currency="GBP"),
    )  # fmt: skip
    assert column("price", candidates(*facts), anchor(own)) == pytest.approx([0.5, 0.5, 0, 0, 0])
    assert list(column("price_missing", candidates(*facts), anchor(own))) == [0, 0, 1, 1, 1]
    assert list(column("price_missing", candidates(*facts))) == [1] * 5


def test_an_anchor_that_the_index_does_not_hold_has_features_all_the_same():
    found = compute_features(AnchorContext(None, 0.0, 0.0, NOW), candidates(ItemFacts("a", price=1.0, currency="GBP")))
    assert np.isfinite(found).all()


amounts = st.floats(0, 1e12)


@given(st.data(), st.integers(1, 6))
def test_every_feature_is_finite_and_a_cosine_no_more_than_1_whatever_was_counted(data, n):
    column_of = lambda values: data.draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    found = Candidates(
        facts=tuple(
            ItemFacts(str(i), price=price, currency="GBP", first_seen=at)
            for i, (price, at) in enumerate(
                zip(column_of(st.none() | st.floats(0, 1e9)), column_of(st.integers(0, 2**53)), strict=True)
            )
        ),
        sources=SourcesOf([str(i) for i in range(n)], {CandidateSource.LEXICAL: {str(i): 0.0 for i in range(n)}}),
        content=np.array(column_of(st.floats(-1, 1) | st.just(math.nan))),
        lexical=np.array(column_of(amounts)),
        counts=np.array(column_of(st.lists(amounts, min_size=len(Metric), max_size=len(Metric)))),
        visits=np.array(column_of(amounts)),
    )
    own = ItemFacts("anchor", price=data.draw(st.floats(0, 1e9)), currency="GBP")
    context = AnchorContext(own, data.draw(amounts), data.draw(amounts), NOW)
    features = compute_features(context, found)
    assert np.isfinite(features).all()
    cosines = features[:, FEATURE_NAMES.index("co_visit_cosine")]
    assert ((cosines >= 0) & (cosines <= 1)).all()
