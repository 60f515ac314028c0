"""Marginals are remembered for a minute, of the wall's clock and of the stream's; pairs never are."""

from collections.abc import Sequence

import pytest

from nearkin.core.evidence import EvidenceRules, Remembered
from nearkin.lookup.recall_evidence import ANCHORS_PER_CALL, VISITS_PER_CALL, RecallEvidence
from nearkin.stores.memory_evidence import MemoryEvidence
from remembered import now_ms, remember, visit


class Counted(MemoryEvidence):
    """Evidence that keeps what it is asked: how many anchors, how many marginals."""

    def __init__(self) -> None:
        super().__init__(EvidenceRules())
        self.asked: list[tuple[int, int]] = []

    async def read(self, anchors: Sequence[str], marginals_of: Sequence[str], at_ms: int) -> Remembered:
        self.asked.append((len(anchors), len(marginals_of)))
        return await super().read(anchors, marginals_of, at_ms)


async def test_only_marginals_that_are_not_remembered_are_asked_for():
    store = Counted()
    recall = RecallEvidence(store)
    at_ms = now_ms()
    await remember(store, visit("a", "b"), visit("a", "c"))
    first = await recall.visits(["a", "b"], at_ms)
    assert await recall.visits(["b", "a"], at_ms + 5_000) == first
    assert (await recall.visits(["a", "b", "c"], at_ms))["a"] == first["a"]
    assert store.asked == [(0, 2), (0, 1)]
    assert first["a"] > first["b"] > 0


async def test_a_marginal_that_a_pairs_count_refutes_is_read_anew_once():
    store = Counted()
    recall = RecallEvidence(store)
    at_ms = now_ms()
    await remember(store, visit("a", "new"))
    assert (await recall.visits(["a", "new"], at_ms))["new"] == pytest.approx(1, rel=1e-3)
    await remember(store, visit("a", "new"), visit("a", "new"))
    assert (await recall.visits(["new"], at_ms, {"new": 1.0}))["new"] == pytest.approx(1, rel=1e-3)
    assert (await recall.visits(["new"], at_ms, {"new": 3.0}))["new"] == pytest.approx(3, rel=1e-3)
    asked = len(store.asked)
    # A sample of a large visit says more than is true, and is not asked about again and again.
    for _ in range(3):
        assert (await recall.visits(["new"], at_ms, {"new": 20.0}))["new"] == pytest.approx(3, rel=1e-3)
    assert len(store.asked) == asked + 1


async def test_a_clock_that_moved_on_by_their_age_makes_marginals_unknown_whatever_the_walls_time():
    store = Counted()
    recall = RecallEvidence(store, visits_age_s=10.0)
    at_ms = now_ms()
    half_life = EvidenceRules().half_life_ms
    await remember(store, visit("a", "b"))
    now = (await recall.visits(["a"], at_ms))["a"]
    later = (await recall.visits(["a"], at_ms + half_life))["a"]
    assert abs(later / now - 0.5) < 0.01
    assert (await recall.visits(["a"], at_ms))["a"] == now, "a clock may be set back"
    assert len(store.asked) == 3


async def test_a_batch_is_read_in_portions_and_nothing_of_it_is_lost():
    store = Counted()
    recall = RecallEvidence(store)
    anchors = [f"item-{n}" for n in range(2 * ANCHORS_PER_CALL + 1)]
    await remember(store, *[visit(anchor, "other") for anchor in anchors])
    found = await recall.pairs(anchors, now_ms())
    assert [found[anchor].candidates for anchor in anchors] == [("other",)] * len(anchors)
    assert store.asked == [(ANCHORS_PER_CALL, 0), (ANCHORS_PER_CALL, 0), (1, 0)]
    many = [f"item-{n}" for n in range(VISITS_PER_CALL + 5)]
    assert len(await recall.visits(many, now_ms())) == len(many)
    assert store.asked[3:] == [(0, VISITS_PER_CALL), (0, 5)]
    assert await recall.pairs([], now_ms()) == {}
