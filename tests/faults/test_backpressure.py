"""A producer is faster than a worker: what waits grows and is told, the worker's memory does not, and it catches up."""

import statistics
import time
from collections.abc import Callable
from itertools import combinations, count

import psutil
import pytest

from faults.item_stream import upsert
from faults.running_parts import Part, Parts
from nearkin.contracts.feedback import encode_visit
from nearkin.contracts.topics import ITEMS, VISITS, Topic
from nearkin.core.feedback import Visit, VisitKind
from nearkin.embedded.catalogue.online_retail import load_catalogue
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

#: Each second so many times what was worked off in it is published, and a few more.
FASTER, MORE = 1.5, 20

#: What memory may grow by, in megabytes a minute. Generous: in a minute on a busy machine caches fill; the command
#: `python -m benchmarks.backpressure` looks for ten, and judges strictly.
FLAT_MB_A_MINUTE = 60.0

#: Of the samples, this share is warm-up: models, allocators and caches fill, and every item comes into the index once.
WARM_UP = 0.5

Send = Callable[[int], None]


def overrun(part: Part, send: Send, seconds: float) -> tuple[int, float]:
    """Publish more than a worker works off; how much, and the slope of its memory in megabytes a minute."""
    process = psutil.Process(part.process.pid)
    began, done, published = time.monotonic(), 0.0, 0
    waited: list[float] = []
    resident: list[tuple[float, float]] = []
    while time.monotonic() - began < seconds:
        now = part.counted("events_total")
        number = int(FASTER * (now - done)) + MORE
        send(number)
        done, published = now, published + number
        waited.append(part.counted("waiting_events"))
        resident.append((time.monotonic() - began, process.memory_info().rss / 1e6))
        time.sleep(1)
    third = len(waited) // 3
    assert statistics.median(waited[-third:]) > statistics.median(waited[:third]), "what waits does not grow"
    grows = 60 * slope(resident[int(WARM_UP * len(resident)) :])
    print(f"{published} published, {done:.0f} worked off meanwhile, {max(waited):.0f} told to wait: {grows:.1f} MB/min")
    return published, grows


def slope(samples: list[tuple[float, float]]) -> float:
    """Of samples over time, by Theil and Sen: the median of the slopes between all pairs."""
    return statistics.median((y - b) / (x - a) for (a, b), (x, y) in combinations(samples, 2))


def sender(parts: Parts, topic: Topic, make: Callable[[int], tuple[bytes, bytes]]) -> Send:
    numbers = count()

    def send(number: int) -> None:
        sent = []
        for _ in range(number):
            key, value = make(next(numbers))
            sent.append((parts.streams.producer.send(topic.name, value, key=key), key, value))
        for outcome, *what in sent:
            parts.streams.note(outcome.get(60), *what)

    return send


def test_an_indexer_that_is_overrun_keeps_its_memory_tells_what_waits_and_catches_up(parts: Parts) -> None:
    products = load_catalogue()[:300]

    def change(number: int) -> tuple[bytes, bytes]:
        one = products[number % len(products)]
        event = upsert(one.id, f"{one.title} {number}", number + 1)
        return event.key, event.value

    parts.start(parts.broker, parts.index)
    parts.start(parts.live)
    _, grows = overrun(parts.live, sender(parts, ITEMS, change), seconds=60)
    assert grows < FLAT_MB_A_MINUTE
    parts.streams.until_drained("live")
    until(lambda: parts.live.counted("waiting_events") == 0, "nothing is told to wait")
    assert parts.live.is_ready


def test_a_feedback_worker_that_is_overrun_keeps_its_memory_and_catches_up(parts: Parts) -> None:
    now_ms = int(time.time() * 1000)

    def basket(number: int) -> tuple[bytes, bytes]:
        items = tuple(f"item-{(number * 7 + step * 11) % 400}" for step in range(60))
        return encode_visit(Visit(f"event-{number}", now_ms, f"basket-{number}", VisitKind.BASKET, items))

    parts.start(parts.broker, parts.redis)
    parts.start(parts.feedback)
    published, grows = overrun(parts.feedback, sender(parts, VISITS, basket), seconds=40)
    assert grows < FLAT_MB_A_MINUTE
    until(lambda: parts.feedback.counted("events_total") >= published, "every visit is counted")
    assert parts.feedback.counted("events_total", outcome="applied") == published
