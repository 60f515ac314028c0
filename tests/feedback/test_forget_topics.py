"""Topics that are gone are forgotten by the ids that the broker tells; where it tells too little, none is."""

import time

from feedback.feedback_stage import EVIDENCE
from feedback.made_logs import MadeLogs
from nearkin.contracts.topics import FEEDBACK, VISITS
from nearkin.core.evidence import ShardBatch, Source
from nearkin.feedback.forget_topics import FORGET_EVERY_S, LEAST_LOOKS, STILL_MS, forget_topics
from nearkin.ops.read_log import Log
from nearkin.stores.memory_evidence import MemoryEvidence

NOW = int(time.time() * 1000)
SOURCES = [Source(name, 0) for name in ("feedback", "visits", "gone")]


async def counted():
    store = MemoryEvidence(EVIDENCE)
    await store.apply([ShardBatch(source, 0, 0, 5, 0) for source in SOURCES])
    return store


async def guards(store):
    return [max(await store.read_guards(source)) for source in SOURCES]


async def test_guards_of_a_topic_that_is_gone_go_after_twice_what_a_topic_keeps():
    store, logs = await counted(), MadeLogs()
    logs.logs = {(FEEDBACK.name, 0): Log("feedback", 0, 5), (VISITS.name, 0): Log("visits", 0, 5)}

    for look in range(LEAST_LOOKS):
        assert not await forget_topics(store, logs, NOW + look)
    assert not await forget_topics(store, logs, NOW + STILL_MS - 1)
    assert await forget_topics(store, logs, NOW + STILL_MS) == {SOURCES[2]}

    assert await guards(store) == [5, 5, 0]
    assert STILL_MS == 2 * FEEDBACK.retention_ms == 2 * VISITS.retention_ms


async def test_a_clock_that_jumps_ahead_forgets_nothing_before_it_was_looked_at_for_longer_than_a_topic_keeps():
    store, logs = await counted(), MadeLogs()
    logs.logs = {(FEEDBACK.name, 0): Log("feedback", 0, 5), (VISITS.name, 0): Log("visits", 0, 5)}

    assert not await forget_topics(store, logs, NOW)
    for look in range(1, LEAST_LOOKS - 1):
        assert not await forget_topics(store, logs, NOW + 2 * STILL_MS + look)
    assert await forget_topics(store, logs, NOW + 2 * STILL_MS) == {SOURCES[2]}

    assert FEEDBACK.retention_ms < LEAST_LOOKS * FORGET_EVERY_S * 1000 < STILL_MS


async def test_where_the_broker_does_not_tell_a_topic_none_is_gone():
    store, logs = await counted(), MadeLogs()
    logs.logs = {(FEEDBACK.name, 0): Log("feedback", 0, 5)}

    for now_ms in (NOW, *[NOW + STILL_MS] * LEAST_LOOKS, NOW + 2 * STILL_MS):
        assert not await forget_topics(store, logs, now_ms)

    assert await guards(store) == [5, 5, 5]
