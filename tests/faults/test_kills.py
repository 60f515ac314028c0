"""Processes that die at random moments under load: every item is there exactly once, at its newest versions."""

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from kafka import TopicPartition

from faults.item_stream import Event, absorbed, event_of, make_stream, reference, require_exactly
from faults.running_parts import Parts, Streams, look_inside
from nearkin.client.lookup import LookupClient
from nearkin.contracts.topics import ITEMS, ITEMS_BULK
from nearkin.core.errors import TemporaryError
from nearkin.core.item import Content
from nearkin.core.ports import ContentEncoder, ItemCollection
from nearkin.embedded.stack import Stack, run_stack
from nearkin.embedded.supervisor import Patience, Supervisor
from waiting import HUNG_S, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

#: Deaths are what these tests are about: the supervisor must not give up over them.
PATIENCE = Patience(first_pause_s=0.1, longest_pause_s=0.5, deaths=100)

#: Where look-ups start from in these tests.
ANCHOR = Content(title="WHITE HANGING HEART T-LIGHT HOLDER")


async def test_a_supervised_stack_survives_kills_of_every_part_that_keeps_something(
    tmp_path: Path, encoder: ContentEncoder, seed: int
) -> None:
    stream = make_stream(seed, items=800)
    draw = random.Random(seed)
    victims = ["indexer-live", "index"] * 3 + ["lookup", "indexer-bulk"] * 2
    draw.shuffle(victims)
    print(f"victims: {victims}")

    async def work(stack: Stack) -> None:
        streams = Streams(stack.endpoints.kafka)
        answers = asyncio.create_task(_look_up_until_cancelled(stack.endpoints.lookup))
        try:
            share = len(stream) // len(victims) + 1
            for at, victim in enumerate(victims):
                for start in range(at * share, min((at + 1) * share, len(stream)), 40):
                    events = stream[start : min(start + 40, (at + 1) * share)]
                    await asyncio.to_thread(streams.publish, events, draw.choice([ITEMS, ITEMS, ITEMS_BULK]))
                # A start takes seconds: some deaths meet a process that starts, most meet one that works.
                await asyncio.sleep(draw.uniform(0, 6))
                await _kill(stack.supervisor, victim)
            await asyncio.to_thread(streams.until_drained)
            assert not answers.done(), answers.exception()
        finally:
            answers.cancel()
            await asyncio.wait({answers})
            await asyncio.to_thread(streams.close)
        await look_inside(stack.endpoints.qdrant, lambda items: require_exactly(items, reference(stream), encoder))
        await _require_answer(stack.endpoints.lookup)

    await run_stack(
        tmp_path / "stack",
        work,
        report=lambda name, what: print(f"{name}: {what}"),
        patience=PATIENCE,
        # The monitor's probes would be acknowledged beyond the stream's end, and held beside its items.
        environment={"NEARKIN_PROBE_EVERY_S": "0"},
    )


@pytest.mark.apache_kafka
def test_when_one_of_two_indexers_is_killed_the_other_takes_its_partitions_over(
    parts: Parts, encoder: ContentEncoder, seed: int
) -> None:
    stream = make_stream(seed, items=300)
    other = parts.indexer("live", "indexer-live-2")
    parts.start(parts.broker, parts.index)
    parts.start(parts.live, other)
    half = len(stream) // 2
    for start in range(0, half, 50):
        parts.streams.publish(stream[start : start + 50])
    until(lambda: all(part.counted("events_total") for part in (parts.live, other)), "both indexers serve")
    parts.streams.publish(stream[half:])
    other.kill()
    parts.streams.until_drained("live")
    parts.look_inside(lambda items: require_exactly(items, reference(stream), encoder))
    assert parts.live.runs


def test_nothing_is_acknowledged_that_the_index_does_not_hold(parts: Parts, encoder: ContentEncoder, seed: int) -> None:
    stream = make_stream(seed, items=400)
    draw = random.Random(seed)
    parts.start(parts.broker, parts.index)
    parts.start(parts.live)
    deaths = [(parts.live, parts.index), (parts.index, parts.live)] * 2
    draw.shuffle(deaths)
    share = len(stream) // len(deaths) + 1
    for start, (first, second) in zip(range(0, len(stream), share), deaths, strict=True):
        middle = start + share // 2
        parts.streams.publish(stream[start:middle])
        time.sleep(draw.uniform(0, 1))
        first.kill()
        parts.streams.publish(stream[middle : start + share])
        # Offsets are committed once a second: long enough for one too many.
        time.sleep(draw.uniform(0.5, 2.5))
        second.kill()
        acknowledged = _acknowledged(parts.streams)
        parts.start(parts.index)
        if acknowledged:
            missing = parts.look_inside(lambda items, events=acknowledged: _missing(items, events))  # type: ignore[misc]
            assert not missing, f"acknowledged and not held: {missing[:3]}"
        print(f"{first.name} died: {len(acknowledged)} events were acknowledged, and all of them are held")
        parts.start(parts.live)
    parts.streams.until_drained("live")
    parts.look_inside(lambda items: require_exactly(items, reference(stream), encoder))


def _acknowledged(streams: Streams) -> list[Event]:
    """What the live indexers will not be given again."""
    committed = streams.committed("live")
    return [
        event_of(record.key, record.value)
        for record in streams.records(ITEMS)
        if record.offset < committed[TopicPartition(record.topic, record.partition)]
    ]


async def _missing(items: ItemCollection, events: list[Event]) -> list[Event]:
    ids = list({event.state.id for event in events})
    held = await items.read(ids)
    return [event for event in events if event.state.id not in held or not absorbed(held[event.state.id].state, event)]


async def _kill(supervisor: Supervisor, name: str) -> None:
    """SIGKILL a program of the stack, as soon as there is one to kill."""
    deadline = time.monotonic() + HUNG_S
    while (pid := supervisor.pid(name)) is None:  # nothing announces a start
        assert time.monotonic() < deadline, f"{name} was not started again"
        await asyncio.sleep(0.05)
    print(f"killing {name}")
    os.kill(pid, signal.SIGKILL)


async def _look_up_until_cancelled(address: str) -> None:
    """Look-ups beside the load; those that meet a dead process fail as they must, and no other way."""
    async with LookupClient(address) as lookups:
        while True:
            with contextlib.suppress(TemporaryError):
                await lookups.similar(content=ANCHOR, timeout_s=2)
            await asyncio.sleep(0.05)


async def _require_answer(address: str) -> None:
    """Look-ups find something again: on a busy machine an index that just came back is too slow for one or two."""
    deadline = time.monotonic() + HUNG_S
    async with LookupClient(address) as lookups:
        while True:
            with contextlib.suppress(TemporaryError):
                if (await lookups.similar(content=ANCHOR)).neighbours:
                    return
            assert time.monotonic() < deadline, "look-ups find nothing for ever"
            await asyncio.sleep(0.2)
