"""The monitor as a process: whatever it watches dies or hangs, it lives, says so, and sees it come back."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from faults.running_parts import Part, Parts
from nearkin.client.lookup import ItemRecord, ItemStatus, LookupClient
from nearkin.client.producer import Producer
from nearkin.core.item import Content
from nearkin.monitor.probe import IDS
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with Parts(tmp_path_factory.mktemp("watched") / "parts") as parts:
        parts.start(parts.broker, parts.index, parts.redis)
        parts.start(parts.live, parts.bulk, parts.feedback, parts.lookup)
        parts.start(parts.monitor)
        yield parts


@pytest.fixture(autouse=True)
def well(parts: Parts) -> None:
    until(lambda: is_well(parts), "all is well before")


def is_well(parts: Parts) -> bool:
    """All answers, and nothing waits for longer than between two commits."""
    return all(is_up(parts, name) for name in NAMES) and max(age(parts, lane) for lane in ("live", "visits")) < 2.5


NAMES = ("broker", "index", "redis", "lookup", "indexer-live", "indexer-bulk", "feedback")


def is_up(parts: Parts, name: str) -> bool:
    return parts.monitor.counted("monitor_part_up", part=name) == 1.0


def age(parts: Parts, lane: str) -> float:
    return parts.monitor.counted("monitor_oldest_age_seconds", lane=lane)


def proved(parts: Parts) -> float:
    return parts.monitor.counted("monitor_probes_total", outcome="proved")


def grows(parts: Parts, lane: str) -> None:
    until(lambda: age(parts, lane) > 3.0, f"something waits in the lane {lane}, and grows older")
    before, at = age(parts, lane), time.monotonic()
    until(lambda: age(parts, lane) > before + 1.0, "it grows on")
    assert age(parts, lane) - before <= time.monotonic() - at + 2.0


def lines(parts: Parts, name: str) -> list[str]:
    told = [line for line in parts.monitor.told() if line.get("part") == name]
    return [line["message"] for line in told]


def dies(parts: Parts, part: Part, name: str, lane: str) -> None:
    """Kill a part: it is down and its lane grows old; start it: it is up, nothing waits, probes are proved again."""
    before = len(lines(parts, name))
    part.kill()
    until(lambda: not is_up(parts, name), f"{name} is down")
    grows(parts, lane)
    assert parts.monitor.is_ready
    parts.start(part)
    until(lambda: is_well(parts), f"{name} is back")
    probes = proved(parts)
    until(lambda: proved(parts) > probes, "probes are proved again")
    assert lines(parts, name)[before:] == ["a part is down", "a part is back"]


def test_probes_are_proved_and_what_they_leave_is_no_item(parts: Parts):
    until(lambda: proved(parts) > 2, "probes are proved")
    monitor = parts.monitor
    assert monitor.counted("monitor_probe_seconds_count", step="visible") >= 2
    assert monitor.counted("monitor_probe_seconds_count", step="gone") >= 2
    assert time.time() - monitor.counted("monitor_last_probe_timestamp_seconds") < 60
    until(lambda: "monitor_index_points" in monitor.ask("/metrics")[1].decode(), "points are counted")
    assert monitor.counted("monitor_index_points") == 0
    assert parts.lookup.counted("lookups_total") == 0
    assert monitor.counted("monitor_dead_letters") == 0


def test_the_index_dies(parts: Parts):
    dies(parts, parts.index, "index", "live")


def test_the_indexer_dies(parts: Parts):
    dies(parts, parts.live, "indexer-live", "live")


def test_the_indexer_hangs(parts: Parts):
    parts.live.pause()
    grows(parts, "live")
    until(lambda: not is_up(parts, "indexer-live"), "it is taken for dead")
    parts.live.resume()
    until(lambda: is_well(parts), "it goes on")


def test_look_ups_die(parts: Parts):
    failed = parts.monitor.counted("monitor_probes_total", outcome="failed")
    parts.lookup.kill()
    until(lambda: not is_up(parts, "lookup"), "look-ups are down")
    until(lambda: parts.monitor.counted("monitor_probes_total", outcome="failed") > failed, "a probe fails")
    before = proved(parts)
    parts.start(parts.lookup)
    until(lambda: is_up(parts, "lookup") and proved(parts) > before, "they are back, and probes are proved")


def test_redis_dies(parts: Parts):
    parts.redis.kill()
    until(lambda: not is_up(parts, "redis"), "Redis is down")
    with Producer(parts.bootstrap) as producer:
        producer.visit("basket", ["mug", "bowl"]).result(timeout=60)
    until(lambda: age(parts, "visits") > 3.0, "a visit waits, and grows older")
    parts.start(parts.redis)
    until(lambda: is_well(parts) and age(parts, "visits") == 0.0, "it is counted")


def test_what_a_killed_monitor_left_behind_is_deleted_by_the_next(parts: Parts):
    parts.monitor.kill()
    with Producer(parts.bootstrap, may_probe=True) as producer:
        for item_id in IDS[-2:]:
            producer.upsert(item_id, Content(title="a probe that was left behind")).result(timeout=60)
    until(lambda: [one.status for one in held(parts)[-2:]] == [ItemStatus.HIDDEN] * 2, "they are there")
    parts.start(parts.monitor)
    until(lambda: [one.status for one in held(parts)[-2:]] == [ItemStatus.DELETED] * 2, "they are deleted")


def held(parts: Parts) -> list[ItemRecord]:
    async def ask() -> list[ItemRecord]:
        async with LookupClient(parts.lookup_address) as lookups:
            return list(await lookups.items(IDS))

    return asyncio.run(ask())


def test_the_broker_dies_with_something_waiting(parts: Parts):
    parts.live.kill()
    until(lambda: age(parts, "live") > 1.0, "a probe waits")
    parts.broker.kill()
    until(lambda: not is_up(parts, "broker"), "the broker is down")
    grows(parts, "live")
    # The embedded broker keeps nothing: what served it starts with it, as `nearkin up` does it.
    parts.feedback.kill()
    parts.bulk.kill()
    parts.streams.close()
    parts.start(parts.broker)
    until(lambda: is_up(parts, "broker"), "the broker is back")
    parts.start(parts.live, parts.bulk, parts.feedback)
    before = proved(parts)
    until(lambda: is_well(parts) and proved(parts) > before, "probes are proved again")
    assert parts.monitor.stop() == 0
