"""Decay, tallies and measures against their closed forms."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.evidence import (
    FEWEST_PARTNERS,
    VISIT_PAIRS,
    AnchorDelta,
    EvidenceRules,
    Metric,
    ShardBatch,
    Source,
    Tally,
    coec,
    coec_deviation,
    cosine,
    decay_to,
    lift,
    merge_landmarks,
    partners_of_each,
    shrunk_pmi,
    strength,
    visit_pairs,
    weight_at,
)

HALF_LIFE = 60_000
NOW = 1_700_000_000_000

times = st.integers(NOW - 200 * HALF_LIFE, NOW + 200 * HALF_LIFE)
events = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from(Metric), times, st.floats(1e-3, 100)),
    min_size=1,
    max_size=30,
)


def decayed(tally: Tally, at: int) -> dict[tuple[str, str, int], float]:
    scale = decay_to(at, tally.landmark, HALF_LIFE)
    return {
        (delta.anchor, candidate, metric): count * scale
        for delta in tally.deltas()
        for candidate, counts in delta.pairs.items()
        for metric, count in enumerate(counts)
        if count * scale > 1e-200
    }


def tallied(some: list[tuple[str, str, Metric, int, float]]) -> Tally:
    tally = Tally(HALF_LIFE)
    for anchor, candidate, metric, at, amount in some:
        tally.add(anchor, candidate, metric, at, amount)
    return tally


@given(times, st.integers(-400, 400))
def test_an_event_counts_half_after_a_half_life_whatever_the_landmark(at: int, moved: int) -> None:
    landmark = at // HALF_LIFE + moved
    weight = weight_at(at, landmark, HALF_LIFE)
    assert weight * decay_to(at, landmark, HALF_LIFE) == pytest.approx(1, rel=1e-12)
    assert weight * decay_to(at + HALF_LIFE, landmark, HALF_LIFE) == pytest.approx(0.5, rel=1e-12)


@given(st.floats(1e-100, 1e100), st.integers(0, 2**20), st.integers(-100, 100))
def test_a_landmark_moves_without_losing_a_bit(total: float, held: int, ahead: int) -> None:
    landmark, kept, added = merge_landmarks(held, held + ahead)
    assert math.ldexp(total * kept, landmark - held) == total
    assert math.ldexp(total * added, landmark - held - ahead) == total


@given(events, st.randoms())
def test_a_tally_is_the_closed_form_in_every_order(some: list, random: object) -> None:
    expected: Counter = Counter()
    for anchor, candidate, metric, at, amount in some:
        expected[anchor, candidate, int(metric)] += amount * 2.0 ** ((at - NOW) / HALF_LIFE)
    shuffled = list(some)
    random.shuffle(shuffled)
    for order in (some, shuffled, sorted(some, key=lambda event: event[3])):
        found = decayed(tallied(order), NOW)
        assert found == pytest.approx({key: value for key, value in expected.items() if value > 1e-200}, rel=1e-9)


class TestLargeVisits:
    def test_the_cost_grows_with_the_items_not_with_their_square(self) -> None:
        items = [f"i{number}" for number in range(500)]
        pairs = visit_pairs("v", items, 20)
        assert len(pairs) == 500 * 20
        assert len({(anchor, partner) for anchor, partner, _ in pairs}) == len(pairs)
        assert all(anchor != partner for anchor, partner, _ in pairs)

    def test_every_anchor_keeps_the_weight_of_all_its_partners(self) -> None:
        pairs = visit_pairs("v", [f"i{number}" for number in range(30)], 7)
        weights: Counter = Counter()
        for anchor, _, weight in pairs:
            weights[anchor] += weight
        assert list(weights.values()) == pytest.approx([29] * 30)

    def test_every_pair_is_expected_once(self) -> None:
        items = list("abcdef")
        totals: Counter = Counter()
        for visit in range(4000):
            for anchor, partner, weight in visit_pairs(str(visit), items, 2):
                totals[anchor, partner] += weight / 4000
        assert len(totals) == 30
        # Each is the mean of 4,000 draws of 2.5 with probability 2/5: its standard deviation is .0194.
        assert all(abs(mean - 1) < 6 * 0.0194 for mean in totals.values())

    def test_a_repeat_draws_the_same_pairs(self) -> None:
        items = [f"i{number}" for number in range(30)]
        assert visit_pairs("v", items, 5) == visit_pairs("v", items, 5)
        assert visit_pairs("v", items, 5) != visit_pairs("w", items, 5)


class TestMeasures:
    def test_coec_of_nothing_is_one_and_follows_the_data(self) -> None:
        found = coec(np.array([0.0, 2.0, 200.0, 0.0]), np.array([0.0, 1.0, 100.0, 100.0]), 5.0)
        assert found == pytest.approx([1, 7 / 6, 205 / 105, 5 / 105])

    def test_more_actions_make_coec_more_certain(self) -> None:
        assert coec_deviation(np.array([0.0, 96.0]), 4.0) == pytest.approx([0.5, 0.1])

    def test_co_visits_by_hand(self) -> None:
        together, marginals = np.array([4.0, 1.0, 0.0, 0.0]), np.array([4.0, 1.0, 10.0, 0.0])
        assert cosine(together, 16.0, marginals) == pytest.approx([0.5, 0.25, 0, 0])
        assert lift(together, 16.0, marginals, 64.0) == pytest.approx([4, 4, 0, 0])
        shrunk = shrunk_pmi(together, 16.0, marginals, 64.0, 4.0)
        assert shrunk == pytest.approx([math.log(4) / 2, math.log(4) / 5, 0, 0])

    @given(st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.floats(0, 20))
    def test_a_cosine_is_at_most_one_even_of_a_pair_that_a_sample_counted_twenty_times(
        self, a: float, b: float, share: float
    ) -> None:
        together = np.array([share * min(a, b)])
        assert 0 <= cosine(together, a, np.array([b]))[0] <= 1 + 1e-12

    def test_what_a_sample_of_one_large_visit_tells_of_a_pair_is_no_more_than_one_visit(self) -> None:
        items = [str(number) for number in range(2000)]
        _, _, weight = visit_pairs("v", items, 400)[0]
        assert weight > 15
        together, marginals = np.array([weight]), np.array([1.0])
        assert cosine(together, 1.0, marginals) == pytest.approx([1])
        assert lift(together, 1.0, marginals, 3.0) == pytest.approx([3])
        assert shrunk_pmi(together, 1.0, marginals, 3.0, 5.0) == pytest.approx([math.log(3) / 6])

    def test_decay_changes_neither_cosine_nor_lift(self) -> None:
        together, marginals = np.array([4.0, 1.0]), np.array([9.0, 7.0])
        assert cosine(together / 8, 2.0, marginals / 8) == pytest.approx(cosine(together, 16.0, marginals))
        assert lift(together / 8, 2.0, marginals / 8, 5.0) == pytest.approx(lift(together, 16.0, marginals, 40.0))

    def test_expectations_keep_no_pair(self) -> None:
        counts = [0.0] * len(Metric)
        counts[Metric.EXPECTED], counts[Metric.EXPOSURES], counts[Metric.CO_VISITS] = 100, 2, 3
        assert strength(counts) == 5


class TestWhatIsRefused:
    @pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
    def test_counts_that_would_poison_a_counter(self, value: float) -> None:
        source = Source("t", 0)
        with pytest.raises(ValueError, match="anchor 'a' holds a count that is negative or not finite"):
            ShardBatch(source, 0, 0, 1, 0, [AnchorDelta("a", 0.0, {"x": [value]})])
        with pytest.raises(ValueError, match="anchor 'a'"):
            ShardBatch(source, 0, 0, 1, 0, [AnchorDelta("a", value)])
        with pytest.raises(ValueError, match="visits are negative or not finite"):
            ShardBatch(source, 0, 0, 1, 0, visits=value)

    def test_batches_that_are_none(self) -> None:
        with pytest.raises(ValueError, match="from offset 3 to 3 holds no events"):
            ShardBatch(Source("t", 0), 0, 3, 3, 0)
        with pytest.raises(ValueError, match="two deltas of one anchor"):
            ShardBatch(Source("t", 0), 0, 0, 1, 0, [AnchorDelta("a"), AnchorDelta("a")])

    def test_rules_that_cannot_hold(self) -> None:
        with pytest.raises(ValueError, match="half_life_ms is 1; it must be at least 60000"):
            EvidenceRules(half_life_ms=1)
        with pytest.raises(ValueError, match="most_pairs"):
            EvidenceRules(most_pairs=7)


@given(st.integers(1, 5_000), st.integers(1, 2_000))
def test_an_item_is_paired_with_all_others_as_long_as_that_is_affordable(items, most):
    partners = partners_of_each(items, most)
    assert partners <= min(items - 1, most)
    assert partners * items <= max(VISIT_PAIRS, FEWEST_PARTNERS * items)
    if items <= 400:
        assert partners == min(items - 1, most)


def test_the_largest_visit_is_paired_with_a_hundred_others_an_item():
    items = [str(number) for number in range(2_000)]
    pairs = visit_pairs("large", items, 400)
    assert len(pairs) == 200_000
    assert {weight for _, _, weight in pairs} == {1999 / 100}
