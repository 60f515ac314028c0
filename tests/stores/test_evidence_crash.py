"""Redis is killed while batches come in, again and again: guards and counters never part."""

import asyncio
import random
from pathlib import Path

import pytest

from nearkin.core.errors import Unavailable
from nearkin.core.evidence import AnchorDelta, EvidenceRules, Metric, ShardBatch, Source
from nearkin.core.ports import EvidenceStore
from nearkin.ops.settings import Settings
from nearkin.stores.evidence import connect
from nearkin.stores.shards import shard_of
from stores.redis_process import RedisProcess

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


async def check(store: EvidenceStore) -> dict[str, int]:
    """Every counter is the number of events that its guard has passed."""
    guards = {}
    found = (await store.read(ANCHORS, ANCHORS, AT)).anchors
    for number, anchor in enumerate(ANCHORS):
        guard = (await store.read_guards(Source(SOURCE.topic_id, number)))[shard_of(anchor)]
        evidence = found[anchor]
        always = {Metric.EXPOSURES: guard, Metric.CO_VISITS: 2 * guard} if guard else {}
        assert evidence.visits == guard
        assert evidence.of("always") == always
        others = [candidate for candidate in evidence.candidates if candidate != "always"]
        assert sum(evidence.of(candidate)[Metric.EXPOSURES] for candidate in others) == guard
        guards[anchor] = guard
    assert await store.read_visits(AT) == sum(guards.values())
    return guards


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
async def test_a_killed_redis_comes_back_with_guards_that_tell_its_counters(tmp_path: Path, appendfsync: str) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    pause = random.Random(seed)
    with RedisProcess(tmp_path, "--appendfsync", appendfsync) as redis:
        store = connect(Settings(redis_url=redis.url), RULES)
        told: dict[str, int] = dict.fromkeys(ANCHORS, 0)
        stopped = asyncio.Event()
        publishers = [asyncio.create_task(publish(store, anchor, stopped, told)) for anchor in ANCHORS]
        for _ in range(5):
            before = dict(told)
            while any(told[anchor] <= before[anchor] for anchor in ANCHORS):
                await asyncio.sleep(0.01)
                assert not any(publisher.done() for publisher in publishers)
            await asyncio.sleep(pause.uniform(0, 0.5))
            redis.kill()
            at_least = dict(told)
            await asyncio.to_thread(redis.start)
            if appendfsync == "always":
                # With everysec it answers before it writes while its disk is busy, so a moment may be gone: the guard
                # says so, and the events come again.
                for number, anchor in enumerate(ANCHORS):
                    guards = await store.read_guards(Source(SOURCE.topic_id, number))
                    assert guards[shard_of(anchor)] >= at_least[anchor]
        stopped.set()
        await asyncio.gather(*publishers)
        guards = await check(store)
        assert all(guards[anchor] >= told[anchor] > 0 for anchor in ANCHORS)
        redis.kill()
        redis.start()
        assert await check(store) == guards
        await store.close()
