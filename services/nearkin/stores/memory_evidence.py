"""Evidence in this process's memory: what tests and examples use, with the meaning of the real store.

It passes the suite that the real one passes (`tests/stores`); nothing of it survives the process.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from nearkin.core.evidence import (
    AnchorDelta,
    AnchorEvidence,
    Bookkeeping,
    Effect,
    EvidenceRules,
    Metric,
    Outcome,
    Remembered,
    ShardBatch,
    Source,
    decay_to,
    merge_landmarks,
    strength,
)
from nearkin.core.former_sources import Standstill, former_sources
from nearkin.core.position_priors import PositionPriors
from nearkin.stores.shards import SHARDS, check_shards, shard_of


@dataclass
class _Total:
    """A sum on its landmark."""

    landmark: int
    visits: float = 0.0

    def add(self, landmark: int, visits: float) -> tuple[float, float]:
        """Add to it; returns what everything else on its landmark, held and added, has to be multiplied by."""
        self.landmark, keep, scale = merge_landmarks(self.landmark, landmark)
        self.visits = self.visits * keep + visits * scale
        return keep, scale


@dataclass
class _Anchor:
    total: _Total
    forgotten_at: float = 0.0
    pairs: dict[str, list[float]] = field(default_factory=dict)


class MemoryEvidence:
    """What is remembered of pairs of items.

    Args:
        rules: how long evidence counts, and how much of it is kept.
        clock: seconds of real time, by which idle anchors are forgotten.
    """

    def __init__(self, rules: EvidenceRules, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules, self._clock = rules, clock
        self._guards: dict[tuple[Source, int], int] = {}
        self._former: dict[Source, Standstill] = {}
        self._anchors: dict[str, _Anchor] = {}
        self._visits: dict[int, _Total] = {}
        self._newest = 0
        self._priors = PositionPriors()

    async def check(self) -> None:
        """Nothing is evicted before the process ends, and that is known."""

    def shard_of(self, item_id: str) -> int:
        """The shard that holds an item's evidence."""
        return shard_of(item_id)

    async def read_guards(self, source: Source) -> list[int]:
        """For each shard the offset of the first event of a partition that it has not applied; 0 at first."""
        return [self._guards.get((source, shard), 0) for shard in range(SHARDS)]

    async def apply(self, batches: Sequence[ShardBatch]) -> list[Outcome]:
        """Apply batches, each wholly and only where its shard's guard is at its start."""
        check_shards(batches)
        return [self._apply(batch) for batch in batches]

    async def read(self, anchors: Sequence[str], marginals_of: Sequence[str], at_ms: int) -> Remembered:
        """What is remembered of some anchors, and how often other items were visited."""
        return Remembered(
            {anchor: self._read(anchor, at_ms) for anchor in anchors},
            {item_id: self._read(item_id, at_ms).visits for item_id in marginals_of},
        )

    async def read_visits(self, at_ms: int) -> float:
        """All visits, decayed to a moment."""
        return sum(total.visits * self._decay(total, at_ms) for total in self._visits.values())

    async def read_bookkeeping(self, anchor: str) -> Bookkeeping:
        """Where an anchor's evidence is kept, and how far its shard is."""
        held, shard = self._held(anchor), shard_of(anchor)
        guards = {source: guard for (source, of), guard in self._guards.items() if of == shard}
        return Bookkeeping(shard, None if held is None else held.total.landmark, guards)

    async def forget_former(
        self, present: Collection[str], now_ms: int, still_ms: int, least_looks: int
    ) -> frozenset[Source]:
        """Forget the guards of topics that are gone, where none moved for so long and so many looks."""
        totals: Counter[Source] = Counter()
        for (source, _), guard in self._guards.items():
            totals[source] += guard
        self._former, due = former_sources(totals, self._former, present, now_ms, still_ms, least_looks)
        self._guards = {place: guard for place, guard in self._guards.items() if place[0] not in due}
        return due

    async def read_newest(self) -> int:
        """The newest time that an applied event told, in milliseconds; 0 before the first."""
        return self._newest

    async def publish_priors(self, priors: PositionPriors) -> bool:
        """Put priors in force where those before them are."""
        if priors.version != self._priors.version + 1:
            return False
        self._priors = priors
        return True

    async def read_priors(self) -> PositionPriors:
        """The position priors in force."""
        return self._priors

    async def close(self) -> None:
        """Nothing is open."""

    def _apply(self, batch: ShardBatch) -> Outcome:
        guard = self._guards.get((batch.source, batch.shard), 0)
        if guard >= batch.end:
            return Outcome(Effect.DUPLICATE, guard)
        if guard != batch.start:
            return Outcome(Effect.MISMATCH, guard)
        for delta in batch.deltas:
            self._add(delta, batch.landmark)
        self._visits.setdefault(batch.shard, _Total(batch.landmark)).add(batch.landmark, batch.visits)
        self._newest = max(self._newest, batch.newest_ms)
        self._guards[batch.source, batch.shard] = batch.end
        return Outcome(Effect.APPLIED, batch.end)

    def _add(self, delta: AnchorDelta, landmark: int) -> None:
        anchor = self._held(delta.anchor) or self._anchors.setdefault(delta.anchor, _Anchor(_Total(landmark)))
        anchor.forgotten_at = self._clock() + self._rules.idle_ms / 1000
        keep, scale = anchor.total.add(landmark, delta.visits)
        if keep != 1:
            anchor.pairs = {candidate: [count * keep for count in counts] for candidate, counts in anchor.pairs.items()}
        for candidate, added in delta.pairs.items():
            counts = anchor.pairs.get(candidate) or [0.0] * len(Metric)
            anchor.pairs[candidate] = [count + more * scale for count, more in zip(counts, added, strict=True)]
        anchor.pairs = {candidate: counts for candidate, counts in anchor.pairs.items() if any(counts)}
        if len(anchor.pairs) > self._rules.most_pairs:
            ranked = sorted(anchor.pairs, key=lambda candidate: (-strength(anchor.pairs[candidate]), candidate))
            anchor.pairs = {candidate: anchor.pairs[candidate] for candidate in ranked[: self._rules.pairs_after_trim]}

    def _held(self, anchor: str) -> _Anchor | None:
        held = self._anchors.get(anchor)
        if held is not None and self._clock() >= held.forgotten_at:
            del self._anchors[anchor]
            return None
        return held

    def _read(self, anchor: str, at_ms: int) -> AnchorEvidence:
        held = self._held(anchor)
        if held is None:
            return AnchorEvidence(0.0, (), np.zeros((0, len(Metric))))
        scale = self._decay(held.total, at_ms)
        counts = np.array(list(held.pairs.values()), np.float64).reshape(-1, len(Metric)) * scale
        return AnchorEvidence(held.total.visits * scale, tuple(held.pairs), counts)

    def _decay(self, total: _Total, at_ms: int) -> float:
        return decay_to(at_ms, total.landmark, self._rules.half_life_ms)
