"""Features: what each means on small cases, and that any candidates give finite numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.candidates import AnchorContext, Candidates, CandidateSource, ItemFacts, Source
from nearkin.core.evidence import DAY_MS, Metric
from nearkin.core.features import FEATURE_NAMES, FEATURES, compute_features
from nearkin.core.fusion import fuse
from nearkin.core.vectors import Hit

NOW = 1_300_000_000_000


def candidates(*facts, content=None, lexical=None, visits=None, sources=None, **counted):
    """Candidates with the facts given, or two without any; `counted` names metrics, a value a candidate."""
    facts = facts or (ItemFacts("x"), ItemFacts("y"))
    counts = np.zeros((len(facts), len(Metric)))
    for name, values in counted.items():
        counts[:, Metric[name.upper()]] = values
    return Candidates(
        facts=facts,
        sources=sources or tuple((Source(CandidateSource.CONTENT, 0.5, n),) for n in range(1, len(facts) + 1)),
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
    nothing = Candidates((), (), np.empty(0), np.empty(0), np.empty((0, len(Metric))), np.empty(0))
    assert compute_features(anchor(), nothing).shape == (0, len(FEATURES))


@given(
    st.lists(
        st.tuples(st.integers(-9, 9).map(lambda one: one / 9), st.integers(0, 50), st.booleans(), st.booleans()).filter(
            lambda one: one[2] or (one[3] and one[1] > 0)
        ),
        min_size=1,
        max_size=30,
    )
)
def test_fused_orders_content_as_fusion_does(drawn):
    dense = sorted(
        ((c, f"i{n}") for n, (c, _, listed, _) in enumerate(drawn) if listed), key=lambda one: (-one[0], one[1])
    )
    words = sorted(
        ((w, f"i{n}") for n, (_, w, _, listed) in enumerate(drawn) if listed and w > 0),
        key=lambda one: (-one[0], one[1]),
    )
    fused = {
        one.id: one.score for one in fuse(*([Hit(i, s, ItemFacts(i)) for s, i in some] for some in (dense, words)), 99)
    }
    cosines, scores = {i: s for s, i in dense}, {i: s for s, i in words}
    ids = list(fused)
    named = tuple(
        tuple(
            Source(name, 0.0, 1)
            for name, held in ((CandidateSource.CONTENT, cosines), (CandidateSource.LEXICAL, scores))
            if one in held
        )
        for one in ids
    )
    found = candidates(
        *map(ItemFacts, ids),
        sources=named,
        content=[cosines.get(one, math.nan) for one in ids],
        lexical=[scores.get(one, 0.0) for one in ids],
    )
    assert column("fused", found) == pytest.approx([fused[one] for one in ids])


def test_what_evidence_named_is_as_far_as_its_cosine_and_does_not_move_what_words_named():
    word, pair = (Source(CandidateSource.LEXICAL, 1.0, 1),), (Source(CandidateSource.CO_VISITS, 1.0, 1),)
    meaning = (Source(CandidateSource.CONTENT, 0.8, 1),)
    found = candidates(
        ItemFacts("a"), ItemFacts("b"), ItemFacts("c"),
        sources=(meaning, word, pair), content=[0.8, math.nan, 0.2], lexical=[0.0, 1.0, 0.0],
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
def test_every_feature_is_finite_whatever_was_counted(data, n):
    column_of = lambda values: data.draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    found = Candidates(
        facts=tuple(
            ItemFacts(str(i), price=price, currency="GBP", first_seen=at)
            for i, (price, at) in enumerate(
                zip(column_of(st.none() | st.floats(0, 1e9)), column_of(st.integers(0, 2**53)), strict=True)
            )
        ),
        sources=tuple(column_of(st.just((Source(CandidateSource.LEXICAL, 0.0, 1),)))),
        content=np.array(column_of(st.floats(-1, 1) | st.just(math.nan))),
        lexical=np.array(column_of(amounts)),
        counts=np.array(column_of(st.lists(amounts, min_size=len(Metric), max_size=len(Metric)))),
        visits=np.array(column_of(amounts)),
    )
    own = ItemFacts("anchor", price=data.draw(st.floats(0, 1e9)), currency="GBP")
    context = AnchorContext(own, data.draw(amounts), data.draw(amounts), NOW)
    assert np.isfinite(compute_features(context, found)).all()
