"""Fusion: what any two rankings must give, and the figures of a small example."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.candidates import CandidateSource, ItemFacts
from nearkin.core.fusion import LEXICAL_WEIGHT, Fused, fuse
from nearkin.core.vectors import Hit


def hit(item_id: str, score: float) -> Hit:
    return Hit(item_id, score, ItemFacts(item_id, item_id.upper()))


@st.composite
def rankings(draw: st.DrawFn) -> list[Hit]:
    """Hits of one search, best first: cosines may be negative, and scores may tie."""
    ids = draw(st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=10))
    scores = draw(st.lists(st.floats(-1, 50, width=32), min_size=len(ids), max_size=len(ids)))
    return [hit(item, score) for item, score in zip(ids, sorted(scores, reverse=True), strict=True)]


def scores_of(fused: list[Fused]) -> dict[str, float]:
    return {one.id: one.score for one in fused}


@given(rankings(), rankings(), st.integers(1, 30))
def test_every_hit_comes_once_best_first_with_a_score_from_0_to_1(dense: list[Hit], lexical: list[Hit], k: int) -> None:
    fused = fuse(dense, lexical, k)
    ids = {one.id for one in dense + lexical}
    assert len(fused) == min(k, len(ids))
    assert {one.id for one in fused} <= ids
    assert len({one.id for one in fused}) == len(fused)
    assert [one.score for one in fused] == sorted((one.score for one in fused), reverse=True)
    assert all(0 <= one.score <= 1 + 1e-9 for one in fused)


@given(rankings(), rankings())
def test_a_shorter_answer_is_the_head_of_a_longer_one(dense: list[Hit], lexical: list[Hit]) -> None:
    whole = fuse(dense, lexical, 100)
    for k in range(1, len(whole)):
        assert fuse(dense, lexical, k) == whole[:k]


@given(rankings(), rankings(), st.floats(0.125, 64))
def test_the_scale_of_an_engines_scores_changes_nothing(dense: list[Hit], lexical: list[Hit], scale: float) -> None:
    scaled = [Hit(one.id, one.score * scale, one.facts) for one in lexical]
    before, after = scores_of(fuse(dense, lexical, 100)), scores_of(fuse(dense, scaled, 100))
    assert after == pytest.approx(before)


@given(rankings(), rankings())
def test_the_order_in_which_ties_arrive_changes_nothing_but_their_ranks(dense: list[Hit], lexical: list[Hit]) -> None:
    shuffled = sorted(lexical, key=lambda one: (-one.score, one.id))
    assert scores_of(fuse(dense, lexical, 100)) == pytest.approx(scores_of(fuse(dense, shuffled, 100)))


@given(rankings(), rankings())
def test_being_in_a_list_never_costs_an_item(dense: list[Hit], lexical: list[Hit]) -> None:
    alone, both = scores_of(fuse(dense, [], 100)), scores_of(fuse(dense, lexical, 100))
    assert all(both[item] >= score for item, score in alone.items())


def test_an_item_in_both_lists_outranks_items_of_the_same_places_in_one() -> None:
    dense = [hit("first", 0.9), hit("both", 0.8), hit("dense", 0.8), hit("far", 0.3)]
    lexical = [hit("other", 12.0), hit("both", 9.0), hit("lexical", 9.0)]
    assert fuse(dense, lexical, 1)[0].id == "both"


def test_scores_are_shares_of_each_lists_best_and_who_is_not_in_the_dense_list_counts_as_its_last() -> None:
    fused = scores_of(fuse([hit("a", 0.8), hit("b", 0.4)], [hit("b", 20.0), hit("c", 5.0)], 10))
    dense_weight = 1 - LEXICAL_WEIGHT
    assert fused == pytest.approx(
        {"a": dense_weight, "b": dense_weight / 2 + LEXICAL_WEIGHT, "c": dense_weight / 2 + LEXICAL_WEIGHT / 4},
    )


def test_each_neighbour_says_which_list_named_it_at_which_rank_and_score() -> None:
    fused = {one.id: one for one in fuse([hit("a", 0.8), hit("b", 0.4)], [hit("b", 20.0)], 10)}
    assert [(source.name, source.score, source.rank) for source in fused["b"].sources] == [
        (CandidateSource.CONTENT, 0.4, 2),
        (CandidateSource.LEXICAL, 20.0, 1),
    ]
    assert fused["b"].facts.title == "B"
    assert [source.name for source in fused["a"].sources] == [CandidateSource.CONTENT]


def test_equal_scores_come_by_their_best_rank_and_then_by_id() -> None:
    assert [one.id for one in fuse([hit("b", 0.5), hit("a", 0.5)], [], 10)] == ["b", "a"]
    dissimilar = [hit("z", -0.1), hit("y", -0.2)]
    assert [one.id for one in fuse(dissimilar, [], 10)] == ["z", "y"]
    assert [one.id for one in fuse([hit("b", 1.0)], [hit("a", 1.0)], 10)] == ["a", "b"]


def test_an_item_that_a_list_holds_twice_counts_once_at_its_better_rank() -> None:
    (a, _) = fuse([hit("a", 0.9), hit("b", 0.5), hit("a", 0.4)], [], 10)
    assert (a.id, a.score, [source.rank for source in a.sources]) == ("a", pytest.approx(1 - LEXICAL_WEIGHT), [1])


def test_nothing_found_gives_nothing() -> None:
    assert fuse([], [], 10) == []
