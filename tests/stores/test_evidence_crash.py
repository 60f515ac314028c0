"""Redis is killed while batches come in, again and again: guards and counters never part."""

import asyncio
import random
from pathlib import Path

import pytest

from nearkin.ops.settings import Settings
from nearkin.stores.evidence import connect
from stores.counted_offsets import ANCHORS, RULES, check, publish, read_guards
from stores.redis_process import RedisProcess


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
                guards = await read_guards(store)
                assert all(guards[anchor] >= at_least[anchor] for anchor in ANCHORS)
        stopped.set()
        await asyncio.gather(*publishers)
        guards = await check(store)
        assert all(guards[anchor] >= told[anchor] > 0 for anchor in ANCHORS)
        redis.kill()
        redis.start()
        assert await check(store) == guards
        await store.close()
