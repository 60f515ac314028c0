"""Batches whose counters tell their offsets: whatever happens to a store, a counter is what its guard has passed."""

import asyncio

from nearkin.core.errors import Unavailable
from nearkin.core.evidence import AnchorDelta, EvidenceRules, Metric, ShardBatch, Source
from nearkin.core.ports import EvidenceStore
from nearkin.stores.shards import shard_of

SOURCE = Source("topic", 0)
ANCHORS = ["a", "b", "c", "d"]
LANDMARK = 28_000_000
RULES = EvidenceRules(half_life_ms=60_000)
AT = LANDMARK * RULES.half_life_ms


def events(anchor: str, start: int) -> ShardBatch:
    """One event a batch, of an anchor whose shard has a partition of its own: offsets are what was counted."""
    row = [0.0] * len(Metric)
    row[Metric.EXPOSURES], row[Metric.CO_VISITS] = 1, 2
    pairs = {f"x{start % 50}": row, "always": row}
    source = Source(SOURCE.topic_id, ANCHORS.index(anchor))
    return ShardBatch(source, shard_of(anchor), start, start + 1, LANDMARK, [AnchorDelta(anchor, 1.0, pairs)], 1.0)


async def publish(store: EvidenceStore, anchor: str, stopped: asyncio.Event, told: dict[str, int]) -> None:
    """Applies one event after another; after an outage goes on from the guard, as a worker does."""
    start: int | None = None
    while not stopped.is_set():
        try:
            if start is None:
                guards = await store.read_guards(Source(SOURCE.topic_id, ANCHORS.index(anchor)))
                start = guards[shard_of(anchor)]
            (outcome,) = await store.apply([events(anchor, start)])
            start = told[anchor] = outcome.guard
        except Unavailable:
            start = None
            await asyncio.sleep(0.02)


async def read_guards(store: EvidenceStore) -> dict[str, int]:
    """For each anchor the offset of its first event that is not applied."""
    return {
        anchor: (await store.read_guards(Source(SOURCE.topic_id, number)))[shard_of(anchor)]
        for number, anchor in enumerate(ANCHORS)
    }


async def check(store: EvidenceStore) -> dict[str, int]:
    """Every counter is the number of events that its guard has passed; the guards."""
    guards = await read_guards(store)
    found = (await store.read(ANCHORS, ANCHORS, AT)).anchors
    for anchor, guard in guards.items():
        evidence = found[anchor]
        always = {Metric.EXPOSURES: guard, Metric.CO_VISITS: 2 * guard} if guard else {}
        assert evidence.visits == guard
        assert evidence.of("always") == always
        others = [candidate for candidate in evidence.candidates if candidate != "always"]
        assert sum(evidence.of(candidate)[Metric.EXPOSURES] for candidate in others) == guard
    assert await store.read_visits(AT) == sum(guards.values())
    return guards
