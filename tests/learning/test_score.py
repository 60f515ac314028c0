"""Scores: small cases computed by hand, what must hold for any answer, and intervals that mean what they say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.errors import Misconfigured
from nearkin.learning import score
from nearkin.learning.score import Interval, score_run
from nearkin.learning.truth import Truth

#: a and c are found at ranks 1 and 3, d is not.
ANSWER, GRADES = ["a", "x", "c", "y"], {"a": 1.0, "c": 1.0, "d": 1.0}


def test_recall_is_what_was_found_of_what_could_be():
    assert score.recall(ANSWER, GRADES, 10) == pytest.approx(2 / 3)
    assert score.recall(ANSWER, GRADES, 2) == 1 / 2
    assert score.recall(["a"], GRADES, 1) == 1


def test_ndcg_discounts_a_hit_by_the_logarithm_of_its_rank():
    best = 1 + 1 / math.log2(3) + 1 / 2
    assert score.ndcg(ANSWER, GRADES, 10) == pytest.approx((1 + 1 / 2) / best)
    assert score.ndcg(ANSWER, GRADES, 2) == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_ndcg_gains_what_an_item_is_graded():
    assert score.ndcg(["b", "a"], {"a": 3.0, "b": 1.0}, 10) == pytest.approx(
        (1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3))
    )


def test_reciprocal_rank_is_that_of_the_first_hit():
    assert score.reciprocal_rank(["x", "y", "d", "a"], GRADES, 10) == 1 / 3
    assert score.reciprocal_rank(["x", "y", "d", "a"], GRADES, 2) == 0


def test_average_precision_is_precision_at_each_hit():
    assert score.average_precision(ANSWER, GRADES, 10) == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert score.average_precision(ANSWER, GRADES, 1) == 1


def test_novelty_is_surprise_in_bits_and_finite_for_what_nobody_ever_took():
    assert score.novelty(["often", "seldom"], {"often": 7, "seldom": 0}, 7) == pytest.approx((0 + 3) / 2)
    assert score.novelty([], {}, 7) == 0


def test_coverage_counts_each_item_of_the_catalogue_once():
    assert score.coverage([["a", "b"], ["b", "gone"]], frozenset("abcd")) == 1 / 2


def test_neither_the_anchor_nor_a_repeat_takes_a_place():
    assert score.cut(["a", "q", "a", "b", "c"], "q", 2) == ["a", "b"]


answers = st.lists(st.sampled_from("abcdefgh"), unique=True)
positives = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.5, 4), min_size=1)
METRICS = (score.recall, score.ndcg, score.reciprocal_rank, score.average_precision)


@given(answers, positives, st.integers(1, 10))
def test_every_metric_lies_between_0_and_1_and_reaches_1_for_the_best_answer(answer, grades, k):
    best = sorted(grades, key=grades.__getitem__, reverse=True)
    for metric in METRICS:
        assert 0 <= metric(answer, grades, k) <= 1 + 1e-12
        assert metric(best, grades, k) == pytest.approx(1)
        assert metric([], grades, k) == 0


@given(answers, positives, st.integers(1, 10), st.data())
def test_moving_an_item_that_is_right_up_by_one_never_costs(answer, grades, k, data):
    misses = [i for i, item in enumerate(answer[1:]) if item in grades and answer[i] not in grades]
    if not misses:
        return
    place = data.draw(st.sampled_from(misses))
    better = [*answer[:place], answer[place + 1], answer[place], *answer[place + 2 :]]
    for metric in METRICS:
        assert metric(better, grades, k) >= metric(answer, grades, k) - 1e-12


TRUTH = Truth(
    positives={"1": {"a": 1.0, "b": 1.0}, "2": {"c": 1.0}, "3": {"a": 1.0}},
    slices={"warm": ["1", "2"], "cold": ["3"]},
    catalogue=frozenset("abcd"),
    visits=7,
    popularity={"a": 3, "c": 7},
)


def by_metric(scores, name):
    return {one.metric: one for one in scores if one.slice == name}


def test_a_run_is_scored_on_each_slice():
    scores = score_run({"1": ["1", "a", "c"], "3": ["d", "a"]}, TRUTH)
    warm, cold = by_metric(scores, "warm"), by_metric(scores, "cold")
    assert warm["Recall@10"].value.mean == pytest.approx((1 / 2 + 0) / 2)
    assert warm["MAP@10"].value.mean == pytest.approx(1 / 4)
    assert warm["Novelty@10"].value.mean == pytest.approx(((1 + 0) / 2 + 0) / 2)
    assert warm["Coverage@10"].value == 2 / 4
    assert cold["MRR@10"].value == Interval(1 / 2, 1 / 2, 1 / 2)
    assert [one.anchors for one in (warm["MRR@10"], cold["MRR@10"])] == [2, 1]


def test_what_the_truth_does_not_know_is_not_scored():
    metrics = [one.metric for one in score_run({"1": ["a"]}, Truth(TRUTH.positives, TRUTH.slices), k=3)]
    assert metrics == 2 * ["Recall@3", "NDCG@3", "MRR@3", "MAP@3"]


def test_a_run_differs_from_itself_by_nothing():
    run = {"1": ["a"], "2": ["d", "c"]}
    for one in score_run(run, TRUTH, run):
        assert one.value == one.against
        assert one.difference in (0, Interval(0, 0, 0))


def test_turning_a_comparison_round_turns_its_sign():
    first, second = {"1": ["a"], "2": ["c"]}, {"1": ["b", "a"], "3": ["a"]}
    for one, other in zip(score_run(first, TRUTH, second), score_run(second, TRUTH, first), strict=True):
        assert (one.value, one.against) == (other.against, other.value)
        if isinstance(one.difference, Interval):
            turned = (-other.difference.mean, -other.difference.high, -other.difference.low)
            assert (one.difference.mean, one.difference.low, one.difference.high) == pytest.approx(turned, abs=1e-12)


@pytest.mark.parametrize("second", [{"9": ["a"]}, {"1": []}, {}])
def test_a_run_of_other_anchors_is_refused_rather_than_scored_0(second):
    with pytest.raises(Misconfigured, match="run: answers none of the anchors"):
        score_run(second, TRUTH)
    with pytest.raises(Misconfigured, match="the run to compare with: answers none"):
        score_run({"1": ["a"]}, TRUTH, second)


def test_the_interval_of_a_mean_is_that_of_the_normal_law_where_anchors_are_many():
    values = np.random.default_rng(1).normal(5, 2, (4000, 1))
    (interval,) = score.bootstrap(values, np.random.default_rng(0))
    spread = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert (interval.mean - interval.low, interval.high - interval.mean) == pytest.approx((spread, spread), rel=0.1)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    found = [score.bootstrap(rng.binomial(1, 0.4, (80, 1)).astype(float), rng)[0] for _ in range(200)]
    held = sum(one.low <= 0.4 <= one.high for one in found)
    assert 200 * 0.95 - 4 * math.sqrt(200 * 0.95 * 0.05) <= held


def test_a_paired_interval_is_narrower_than_what_two_runs_share():
    rng = np.random.default_rng(3)
    shared = rng.normal(0, 1, 300)
    one, other = shared + 0.1, shared + rng.normal(0, 0.05, 300)
    single, _, paired = score.bootstrap(np.column_stack((one, other, one - other)), rng)
    assert paired.low > 0
    assert paired.high - paired.low < (single.high - single.low) / 5


def test_how_many_drawn_anchors_are_in_memory_changes_nothing(monkeypatch):
    values = np.random.default_rng(4).normal(0, 1, (37, 2))
    whole = score.bootstrap(values, np.random.default_rng(0))
    monkeypatch.setattr(score, "_DRAWN_AT_ONCE", 37 * 3 + 1)
    assert score.bootstrap(values, np.random.default_rng(0)) == whole
