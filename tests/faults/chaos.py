"""One harness for everything that dies, hangs or moves under load: what was acknowledged, what holds, how long it took.

Events come all the time while a test makes things fail. Feedback is as hard as `feedback_stream.py` makes it, items as
`item_stream.py`. In the end the broker must hold every event that it acknowledged; the index must be the pure core's
merge of the items' log, and the counters what `feedback/reference.py` recounts of the others.

NEARKIN_CHAOS_ROUNDS says how many rounds a fault has (a test knows its sample; `make chaos`: 100). Where
NEARKIN_CHAOS_RESULTS names a folder, each test of faults leaves a JSON file there: what was tried, its seed, and what
came of it; a test of this harness tells its rounds too, how many events were acknowledged, how much differs, and how
long it took until a fresh item was found and feedback counted.
"""

import asyncio
import json
import os
import random
import re
import statistics
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import redis
from kafka import KafkaAdminClient

from faults.feedback_stream import FeedbackStream, publish
from faults.item_stream import Event, ItemStream, event_of, reference, require_exactly, upsert
from faults.running_parts import FEEDBACK_WINDOW, HALF_LIFE_DAYS, PARTITIONS, Part, Parts, places_of
from feedback.reference import Recount, find_differences, find_strange_keys, recount
from nearkin.client.lookup import ItemStatus, LookupClient
from nearkin.contracts.topics import FEEDBACK, ITEMS, VISITS, Topic
from nearkin.core.errors import NearkinError, TemporaryError
from nearkin.core.evidence import DAY_MS, EvidenceRules, Source
from nearkin.core.item import ItemState, merge
from nearkin.core.ports import ContentEncoder, EvidenceStore
from nearkin.ops.read_log import Logs
from nearkin.ops.record import record_of
from nearkin.ops.settings import Settings
from nearkin.ops.topics import check_topics
from nearkin.stores.evidence import connect
from nearkin.stores.qdrant import connect as connect_index
from waiting import HUNG_S, until

HALF_LIFE_MS = HALF_LIFE_DAYS * DAY_MS

#: The load: so many events of feedback and of items at once, and so long between, in seconds.
EVENTS, ITEM_EVENTS, PAUSE_S = 20, 4, 0.1

TOPICS = (FEEDBACK, VISITS)


def rounds(sample: int) -> int:
    """How many rounds a fault has: those that the command asks for, else the sample."""
    return int(os.environ.get("NEARKIN_CHAOS_ROUNDS") or sample)


class Chaos:
    """A load that goes on while things fail, and what must hold of it.

    Args:
        parts: what runs.
        seed: of the stream and of the faults.
        encoder: that of the indexers, where items are part of the load.

    Attributes:
        draw: chooses the faults.
        told: what happened, for a file.
        feedback: the feedback and visits of the load.
        items: the items of the load; None where there are none.
    """

    def __init__(self, parts: Parts, seed: int, encoder: ContentEncoder | None = None) -> None:
        self.parts, self.draw = parts, random.Random(seed)
        self.told: dict[str, Any] = {"seed": seed, "rounds": 0, "faults": [], "differences": None}
        self.feedback = FeedbackLoad(parts, seed)
        self.items = ItemLoad(parts, seed, encoder) if encoder else None
        self._began, self._recovered_s = time.monotonic(), list[float]()

    def note(self, fault: str) -> None:
        """Tell what happens now."""
        at_s = round(time.monotonic() - self._began, 2)
        self.told["faults"].append({"at_s": at_s, "fault": fault})
        print(f"{at_s:7.2f} s: {fault}")

    def begin(self, fault: str) -> float:
        """Tell of a round's fault, which happens now; when that is, for `require_recovery`."""
        self.told["rounds"] += 1
        self.note(fault)
        return time.monotonic()

    @contextmanager
    def load(self) -> Iterator[None]:
        """Events come all the time."""
        stopped, failures = threading.Event(), []

        def send() -> None:
            try:
                while not stopped.wait(PAUSE_S):
                    self.feedback.send(EVENTS)
                    if self.items:
                        self.items.send(ITEM_EVENTS)
            except BaseException as error:  # told below
                failures.append(error)

        sending = threading.Thread(target=send, name="load")
        sending.start()
        try:
            yield
        finally:
            stopped.set()
            sending.join(2 * HUNG_S)
        assert not failures, f"the load ended: {failures[0]!r}"

    def sleep(self, longest_s: float) -> None:
        time.sleep(self.draw.uniform(0, longest_s))

    def require_recovery(self, since: float, *parts: Part) -> None:
        """Wait until the service is whole again, by itself; how long that took from a moment on is told.

        It is whole once parts say that they are ready, an item that is published now is found by a look-up, and
        feedback that is sent now is counted.
        """
        assert self.items is not None
        item_id = self.items.send_new()
        self.feedback.send(1)
        until(lambda: all(part.is_ready for part in parts), "they are ready again")
        self.items.until_found(item_id)
        self.feedback.until_counted()
        took = time.monotonic() - since
        self._recovered_s.append(took)
        self.note(f"whole again after {took:.1f} s")

    def require_exact(self) -> None:
        """Wait until everything is applied, and compare it with the log."""
        self.told["acknowledged"] = self.parts.streams.require_kept(*TOPICS, ITEMS)
        self.told |= self.feedback.require_exact()
        if self.items:
            self.told |= self.items.require_exact()
        if took := self._recovered_s:
            told = {"min": min(took), "median": statistics.median(took), "max": max(took)}
            self.told["recovered_s"] = {name: round(value, 2) for name, value in told.items()}
        self.told["differences"] = 0  # each would have been told as an error
        print({name: value for name, value in self.told.items() if name != "faults"})


class FeedbackLoad:
    """Feedback and visits that are sent while things fail, and what the evidence must hold of them.

    Args:
        parts: what runs.
        seed: of the stream.
    """

    def __init__(self, parts: Parts, seed: int) -> None:
        self._parts = parts
        self._stream = FeedbackStream(f"stream {seed}")
        self._at_ms = time.time_ns() // 1_000_000
        self._gone: list[Recount] = []

    def send(self, events: int) -> None:
        publish(self._parts.streams, self._stream.make(events, time.time_ns() // 1_000_000))

    def until_counted(self) -> None:
        """Wait until every guard stands at the end of its log, as it is now."""
        asyncio.run(self._until_counted())

    def delete(self, topic: Topic) -> None:
        """Delete a topic; what it held and was counted stays counted."""
        self.until_counted()
        self._gone.append(self._recount(topic))
        delete_topic(self._parts, topic)

    def require_exact(self) -> dict[str, int]:
        """Wait until everything is counted, and compare it with the log; what is to be told of it."""
        self.until_counted()
        total = _sum([*self._gone, *map(self._recount, TOPICS)])
        differences = asyncio.run(self._differences(total))
        assert not differences, "\n".join([f"{len(differences)} sums differ:", *differences[:10]])
        assert self._dead_letters() == total.refused
        pairs = sum(map(len, total.pairs.values()))
        return {
            "pairs": pairs,
            "refused": len(total.refused),
            "repeated": total.repeated,
            "clamped": total.clamped,
        }

    async def _until_counted(self) -> None:
        ends = {at: self._parts.streams.end(at) for topic in TOPICS for at in places_of(topic)}
        logs = await Logs(self._parts.bootstrap).describe([(at.topic, at.partition) for at in ends])
        deadline = time.monotonic() + HUNG_S
        async with self._store() as store:
            for place, published in ends.items():
                log = logs[place.topic, place.partition]
                end = max(log.end, published)
                while (guard := await _guard(store, Source(log.topic_id, place.partition))) < end:
                    assert time.monotonic() < deadline, f"waited in vain at offset {guard} of {end} in {place}"
                    await asyncio.sleep(0.1)

    async def _differences(self, total: Recount) -> list[str]:
        async with self._store() as store:
            found = await find_differences(total, store, self._at_ms)
        if not self._parts.redis_url.startswith("redis://"):
            return found  # a cluster's keys lie apart
        with redis.Redis.from_url(self._parts.redis_url) as connection:
            strange = find_strange_keys(total, connection.scan_iter("nk:*"))
        return found + [f"nothing was counted for {key!r}" for key in strange]

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[EvidenceStore]:
        store = connect(Settings(redis_url=self._parts.redis_url), EvidenceRules(HALF_LIFE_MS))
        yield store
        await store.close()

    def _recount(self, topic: Topic) -> Recount:
        records = map(record_of, self._parts.streams.records(topic))
        return recount(records, self._at_ms, half_life_ms=HALF_LIFE_MS, window=FEEDBACK_WINDOW)

    def _dead_letters(self) -> set[tuple[str, int, int]]:
        """Of which records there are dead letters."""
        found = set()
        for topic in TOPICS:
            for letter in self._parts.streams.records(topic.dead_letters):
                said = {name.removeprefix("nearkin-origin-"): value for name, value in letter.headers}
                found.add((said["topic"].decode(), int(said["partition"]), int(said["offset"])))
        return found


class ItemLoad:
    """Items that are published while things fail, and what the index must hold of them.

    Args:
        parts: what runs.
        seed: of the stream.
        encoder: that of the indexers.
    """

    def __init__(self, parts: Parts, seed: int, encoder: ContentEncoder) -> None:
        self._parts, self._encoder = parts, encoder
        self._stream = ItemStream(f"items {seed}")
        self._new = 0
        self._gone: list[Event] = []

    def send(self, events: int) -> None:
        self._parts.streams.publish(self._stream.make(events))

    def send_new(self) -> str:
        """Publish an item that was never there; its id."""
        self._new += 1
        event = upsert(f"new-{self._new}", f"a lamp of form {self._new}")
        self._parts.streams.publish([event])
        return event.state.id

    def until_found(self, item_id: str) -> None:
        """Wait until look-ups know an item."""
        asyncio.run(self._until_found(item_id))

    @contextmanager
    def never_older(self) -> Iterator[None]:
        """Look at every item all the time: what the index holds of it must hold all that it held a moment ago."""
        stopped, older = threading.Event(), list[str]()
        looking = threading.Thread(target=lambda: asyncio.run(self._watch(stopped, older)), name="look")
        looking.start()
        try:
            yield
        finally:
            stopped.set()
            looking.join(HUNG_S)
        assert not older, "\n".join([f"{len(older)} items went back to an older state:", *older[:5]])

    async def _watch(self, stopped: threading.Event, older: list[str]) -> None:
        index = connect_index(Settings(qdrant_url=self._parts.qdrant_url))
        items, before = await index.serving(), dict[str, ItemState]()
        while not stopped.is_set():
            now = {item_id: item.state for item_id, item in (await items.read(self._stream.ids)).items()}
            older += [
                f"{one}: {before[one]}, then {now.get(one)}" for one in before if not _holds(now.get(one), before[one])
            ]
            before = now
            await asyncio.sleep(0.1)
        await index.close()

    def delete(self) -> None:
        """Delete the topic; what it held and was applied stays in the index."""
        self._parts.streams.until_drained_as_it_is("live")
        self._gone += self._log()
        delete_topic(self._parts, ITEMS)

    def require_exact(self) -> dict[str, int]:
        """Wait until everything is applied, and compare the index with the log; what is to be told of it."""
        self._parts.streams.until_drained("live")
        expected = reference([*self._gone, *self._log()])
        self._parts.look_inside(lambda items: require_exactly(items, expected, self._encoder))
        assert not self._parts.streams.records(ITEMS.dead_letters)
        return {"items": len(expected)}

    async def _until_found(self, item_id: str) -> None:
        deadline = time.monotonic() + HUNG_S
        async with LookupClient(self._parts.lookup_address) as lookups:
            while True:
                try:
                    (record,) = await lookups.items([item_id], timeout_s=2)
                    if record.status is ItemStatus.VISIBLE:
                        return
                except NearkinError as error:
                    print(f"no look-up: {error}")
                assert time.monotonic() < deadline, f"{item_id} was not found"
                await asyncio.sleep(0.1)

    def _log(self) -> list[Event]:
        return [event_of(record.key, record.value) for record in self._parts.streams.records(ITEMS)]


async def _guard(store: EvidenceStore, source: Source) -> int:
    """How far everything of a partition is counted; -1 where the store is away now."""
    try:
        return min(await store.read_guards(source))
    except TemporaryError as error:
        print(f"no evidence: {error}")
        return -1


def _holds(state: ItemState | None, former: ItemState) -> bool:
    return state is not None and merge(state, former) == state


def delete_topic(parts: Parts, topic: Topic) -> None:
    """Delete a topic, and return when it is gone."""
    parts.streams.close()
    admin = KafkaAdminClient(bootstrap_servers=parts.bootstrap)
    admin.delete_topics([topic.name])
    admin.close()
    until(
        lambda: topic.name in check_topics(parts.bootstrap, PARTITIONS, parts.replication).missing, "the topic is gone"
    )
    parts.streams.forget(topic)


def run_chaos(
    parts: Parts, seed: int, test: str, encoder: ContentEncoder | None = None, *further: Part
) -> Iterator[Chaos]:
    """Start broker and Redis, and other parts; what happened is written down at the end, where a folder is named."""
    parts.start(*parts.brokers, parts.redis)
    parts.start(*further)
    made = Chaos(parts, seed, encoder)
    yield made
    tell(test, made.told)


def tell(test: str, told: dict[str, Any]) -> None:
    """Add to the file of a test, where a folder of results is named; begin it anew where nothing is told."""
    if folder := os.environ.get("NEARKIN_CHAOS_RESULTS"):
        file = Path(folder) / f"{re.sub('[^a-z0-9]+', '-', test.lower()).strip('-')}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(file.read_text()) if told and file.exists() else {}
        file.write_text(json.dumps({**before, "fault": test, **told}, indent=1) + "\n")


def _sum(recounts: list[Recount]) -> Recount:
    total = Recount()
    for each in recounts:
        for anchor, pairs in each.pairs.items():
            for candidate, counts in pairs.items():
                for name, count in counts.items():
                    total.pairs[anchor][candidate][name] += count
        for item, count in each.visits.items():
            total.visits[item] += count
        total.all_visits += each.all_visits
        total.refused |= each.refused
        total.repeated += each.repeated
        total.clamped += each.clamped
    return total
