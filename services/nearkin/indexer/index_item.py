"""Bring a batch of item events into the index: newest wins, and nothing is done twice that need not be.

Decode, merge by item, read what the index holds, merge with it, encode the contents that are new to the index, write
compare-and-set, and read again whatever somebody else wrote first. Nothing is kept between batches, so a batch may be
applied again, by this process or by another, and nothing changes.

An upsert whose content cannot be encoded is rejected as if it had never been sent. It cannot hide an older one that can
be, whether the two come in one batch or in two, because it is taken out of the merge and the rest is merged again.
Only an upsert that would have a say is encoded: an older one, or one that a deletion ended, changes nothing anyway.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nearkin.contracts.events import ItemEvent, decode_item_event
from nearkin.core.errors import InvalidEvent, NearkinError, NothingToEncode, TemporaryError
from nearkin.core.item import Content, ItemState, Versions, merge
from nearkin.core.ports import ContentEncoder, IndexedItem, ItemCollection, ItemWrite, Search, Stored
from nearkin.core.sketch import sketch
from nearkin.core.vectors import VectorName, Vectors
from nearkin.ops.logs import fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.record import Record, Rejected
from nearkin.ops.tracing import OFF, Traces

log = logging.getLogger(__name__)

#: Rounds of read, merge and write before a contended batch waits like after any other temporary failure.
ROUNDS = 5

#: Writes under way together.
WRITES_AT_A_TIME = 2

#: A sampled item is looked for among so many nearest: items of equal content are equally near to it.
VISIBLE_AMONG = 32

#: How long a sampled item is looked for, and the first pause between two looks, which doubles, in seconds.
VISIBLE_TIMEOUT_S, VISIBLE_POLL_S = 10.0, 0.002

Clock = Callable[[], float]

#: A hit of this cosine is as near to the sampled item as the item itself.
SAME = 0.9999


class IndexItems:
    """Applies batches of records of the item topics to one collection.

    Args:
        items: the collection.
        encoder: of the same bundle.
        metrics: what is counted.
        write_batch: most items in one write; small ones let another lane's writes in between.
        sample_every_s: at most one item in so many seconds is searched for until it is found, but for traced ones.
        traces: where the way of events that belong to a trace is told.
        now: the time in seconds since the epoch.
    """

    def __init__(
        self,
        items: ItemCollection,
        encoder: ContentEncoder,
        metrics: Metrics,
        *,
        write_batch: int = 256,
        sample_every_s: float = 0.25,
        traces: Traces = OFF,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._items, self._encoder, self._metrics = items, encoder, metrics
        self._write_batch, self._sample_every_s, self._now = write_batch, sample_every_s, now
        self._traces = traces
        self._sampled_at = -math.inf
        self._sample: asyncio.Task[None] | None = None

    async def __call__(self, records: Sequence[Record]) -> list[Rejected]:
        """Apply a batch.

        Returns:
            The records that cannot be served; everything else is in the index, and a search finds it.

        Raises:
            TemporaryError: not all of it was applied; apply the batch again.
        """
        clock = _steady(self._now)
        consumed_at = clock()
        rejected: list[Rejected] = []
        groups = _group(records, rejected)
        times = _Times(clock, consumed_at, clock(), consumed_at, consumed_at)
        vectors: dict[str, Vectors | NothingToEncode] = {}
        written: list[_Item] = []
        waiting = groups
        for round_ in range(ROUNDS):
            if not waiting:
                break
            if round_:
                await asyncio.sleep(random.uniform(0, 0.005 * round_))  # noqa: S311  # spreads two writers, hides nothing
            began = time.perf_counter()
            held = await self._items.read(list(waiting))
            self._metrics.index_read_seconds.observe(time.perf_counter() - began)
            times.read_at = clock()
            for item in waiting.values():
                item.held = held.get(item.id)
            await self._resolve(waiting.values(), vectors, rejected)
            times.encoded_at = clock()
            lost = await self._write([item for item in waiting.values() if item.changed], vectors)
            written += [item for item in waiting.values() if item.id not in lost]
            waiting = {id_: waiting[id_] for id_ in lost}
            self._metrics.write_conflicts.inc(len(lost))
        if waiting:
            raise TemporaryError(f"{len(waiting)} items were changed by somebody else before each of {ROUNDS} writes")
        self._count(written, times, vectors)
        return rejected

    async def close(self) -> None:
        """Stop looking for the sampled item."""
        if self._sample is not None:
            self._sample.cancel()
            await asyncio.gather(self._sample, return_exceptions=True)

    async def _resolve(
        self, items: Iterable["_Item"], vectors: dict[str, Vectors | NothingToEncode], rejected: list[Rejected]
    ) -> None:
        """Merge each item, encoding what has a say, until all that has a say could be encoded."""
        pending = list(items)
        while pending:
            for item in pending:
                item.merge(self._encoder.fingerprint)
            wanted = {
                print_: content
                for item in pending
                for print_, content in item.contents.items()
                if print_ not in vectors and not item.holds(print_)
            }
            if wanted:
                vectors.update(zip(wanted, await self._encode(list(wanted.values())), strict=True))
            again = []
            for item in pending:
                refused = {p: e for p in item.contents if isinstance(e := vectors.get(p), NothingToEncode)}
                if refused:
                    rejected += item.reject(refused)
                    again.append(item)
            pending = again

    async def _encode(self, contents: list[Content]) -> list[Vectors | NothingToEncode]:
        began = time.perf_counter()
        encoded = await asyncio.to_thread(self._encoder.encode, contents)
        self._metrics.encode_seconds.observe(time.perf_counter() - began)
        self._metrics.encoded_items.observe(len(contents))
        return encoded

    async def _write(self, items: list["_Item"], vectors: dict[str, Vectors | NothingToEncode]) -> frozenset[str]:
        """Write what changed, in small batches; the ids that somebody else changed first.

        Two batches are under way at a time: one is made ready while the index applies the other. Their items differ,
        so their order does not matter.
        """
        free = asyncio.Semaphore(WRITES_AT_A_TIME)

        async def write(some: list[_Item]) -> frozenset[str]:
            async with free:
                indexed_at = int(self._now() * 1000)
                writes = [item.write(vectors, indexed_at) for item in some]
                began = time.perf_counter()
                lost = await self._items.write(writes)
                self._metrics.upsert_seconds.observe(time.perf_counter() - began)
                return lost

        starts = range(0, len(items), self._write_batch)
        batches = (items[start : start + self._write_batch] for start in starts)
        lost: frozenset[str] = frozenset()
        for outcome in await asyncio.gather(*map(write, batches), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            lost |= outcome
        return lost

    def _count(
        self,
        items: list["_Item"],
        times: "_Times",
        vectors: dict[str, Vectors | NothingToEncode],
    ) -> None:
        """Count and tell outcomes and ages of a batch that is applied, and sample one item for its visibility."""
        upserted_at = times.clock()
        told, traced = log.isEnabledFor(logging.DEBUG), self._traces.on
        age = self._metrics.age
        outcomes: dict[tuple[str, str], int] = {}
        sample: tuple[ItemEvent, Vectors, Any] | None = None
        for item in items:
            for event, record in item.events:
                applied = item.applied(event)
                outcome = (record.topic, "applied" if applied else "superseded")
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                if told:
                    log.debug("event %s", outcome[1], extra=fields(**_place(event, record)))
                trace = self._trace(event, record, times, upserted_at) if traced else None
                if applied:
                    stamped_at = record.timestamp_ms / 1000
                    age("occurred_to_broker", (record.timestamp_ms - event.occurred_at) / 1000)
                    age("broker_to_consumed", times.consumed_at - stamped_at)
                    age("consumed_to_encoded", times.encoded_at - times.consumed_at)
                    age("encoded_to_upserted", upserted_at - times.encoded_at)
                    encoded = vectors.get(item.fingerprint)
                    if isinstance(encoded, Vectors) and item.state.is_visible and (trace or not (sample and sample[2])):
                        sample = (event, encoded, trace)
        for (topic, word), count in outcomes.items():
            self._metrics.events.labels(topic=topic, outcome=word).inc(count)
        idle = self._sample is None or self._sample.done()
        due = time.monotonic() - self._sampled_at >= self._sample_every_s
        if sample is not None and idle and (due or sample[2]):
            self._sampled_at = time.monotonic()
            self._sample = asyncio.create_task(self._see(*sample, times.clock, upserted_at))

    def _trace(self, event: ItemEvent, record: Record, times: "_Times", upserted_at: float) -> Any:
        """Tell the way of an event that belongs to a trace; what `visible` belongs to, None for any other event."""
        parent = self._traces.parent_of(record)
        if parent is None:
            return None
        span = self._traces.processed(record, parent, times.consumed_at, upserted_at, event_id=event.event_id)
        began_at = times.consumed_at
        for name, ended_at in (
            ("decode", times.decoded_at),
            ("read", times.read_at),
            ("encode", times.encoded_at),
            ("upsert", upserted_at),
        ):
            self._traces.step(name, span, began_at, ended_at)
            began_at = ended_at
        return span

    async def _see(self, event: ItemEvent, vectors: Vectors, trace: Any, clock: Clock, upserted_at: float) -> None:
        """Search for a written item by its own vector until a search returns it, and record how old its event was."""
        search = Search(VectorName.CONTENT, vectors.content, VISIBLE_AMONG)
        deadline = upserted_at + VISIBLE_TIMEOUT_S
        pause = VISIBLE_POLL_S
        try:
            while clock() < deadline:
                (hits,) = await self._items.search([search])
                if any(hit.id == event.item_id for hit in hits):
                    seen_at = clock()
                    self._metrics.age("upserted_to_visible", seen_at - upserted_at)
                    self._metrics.age("occurred_to_visible", seen_at - event.occurred_at / 1000)
                    if trace is not None:
                        self._traces.step("visible", trace, upserted_at, seen_at)
                    return
                if len(hits) == VISIBLE_AMONG and hits[-1].score >= SAME:
                    return  # so many items of equal content prove nothing either way
                await asyncio.sleep(pause)
                pause *= 2
        except NearkinError:
            pass  # the writes meet the same trouble, and say so
        self._metrics.visible_unproved.inc()


def _steady(now: Callable[[], float]) -> Clock:
    """The time from now on, of a clock that nobody sets: jumps of the wall clock are no part of what a batch takes."""
    began_at, began = now(), time.monotonic()
    return lambda: began_at + time.monotonic() - began


@dataclass(slots=True)
class _Times:
    """When a batch's steps ended, the last round of each; seconds since the epoch, of one steady clock."""

    clock: Clock
    consumed_at: float
    decoded_at: float
    read_at: float
    encoded_at: float


@dataclass(slots=True)
class _Item:
    """One item of a batch: its events in order of arrival, what the index holds, and what they come to together.

    Attributes:
        contents: by fingerprint, the contents of the batch that have a say in `state`: its content, and that of an
            upsert that brought its offer.
        fingerprint: of the content that `state` shows; empty where it shows none.
        first_seen: when the oldest event occurred of what is held and what came, in milliseconds since the epoch.
    """

    id: str
    events: list[tuple[ItemEvent, Record]] = field(default_factory=list)
    held: IndexedItem | None = None
    state: ItemState = field(init=False)
    contents: dict[str, Content] = field(default_factory=dict)
    fingerprint: str = ""
    first_seen: int = 0
    prints: dict[int, str] = field(default_factory=dict)

    @property
    def expected(self) -> Versions | None:
        """The versions that the index holds."""
        return self.held.state.versions if self.held else None

    @property
    def changed(self) -> bool:
        """Whether the index must be written: by state, because two values may come with one version.

        An event that is late changes nothing but, where it is the oldest, when the item was first seen.
        """
        if not self.events:
            return False
        return self.held is None or self.state != self.held.state or self.first_seen != self.held.first_seen

    def holds(self, fingerprint: str) -> bool:
        """Whether the index holds the vectors of a content already, and their sketch, which older versions left out."""
        return self.held is not None and self.held.fingerprint == fingerprint and bool(self.held.sketch)

    def merge(self, fingerprint: Callable[[Content], str]) -> None:
        """Set `state`, `contents`, `fingerprint` and `first_seen` from what is held and the events."""
        self.contents = {}
        self.fingerprint = ""
        states = [event.state for event, _ in self.events]
        if not states:
            return
        known = self.held.state if self.held else None
        since = [event.occurred_at for event, _ in self.events]
        if self.held is not None and self.held.first_seen:
            since.append(self.held.first_seen)
        self.first_seen = min(since)
        state = known or states[0]
        for each in states if known else states[1:]:
            state = merge(state, each)
        self.state = state
        if state.content is not None:
            if known is not None and state.content is known.content:
                self.fingerprint = self.held.fingerprint if self.held else ""
            else:
                self.fingerprint = self._print(state.content, fingerprint)
                self.contents[self.fingerprint] = state.content
        for each in states:
            brought = each.carried is not None and (each.carried is state.carried or each.carried is state.offered)
            if brought and each.content is not None and each.content is not state.content:
                self.contents[self._print(each.content, fingerprint)] = each.content

    def reject(self, refused: dict[str, NothingToEncode]) -> list[Rejected]:
        """Take out the upserts whose content cannot be encoded."""
        out = []
        kept = []
        for event, record in self.events:
            content = event.state.content
            error = refused.get(self.prints.get(id(content), "")) if content is not None else None
            if error is None:
                kept.append((event, record))
            else:
                out.append(Rejected(record, error))
        self.events = kept
        return out

    def write(self, vectors: dict[str, Vectors | NothingToEncode], indexed_at: int) -> ItemWrite:
        """The compare-and-set that brings the index to `state`."""
        new: Vectors | Stored | None = None
        signs = b""
        if self.state.content is not None:
            encoded = vectors.get(self.fingerprint)
            if isinstance(encoded, Vectors) and not self.holds(self.fingerprint):
                new, signs = encoded, sketch(encoded.content)
            else:
                new, signs = Stored.VECTORS, self.held.sketch if self.held else b""
        item = IndexedItem(self.state, self.fingerprint, indexed_at, self.first_seen, signs)
        return ItemWrite(item, self.expected, new)

    def applied(self, event: ItemEvent) -> bool:
        """Whether an event had a say: one of its versions is the item's now, and was not before."""
        now, before = self.state.versions, self.expected or Versions()
        own = event.state.versions
        return (
            own.content == now.content > before.content
            or own.offer == now.offer > before.offer
            or own.deleted == now.deleted > before.deleted
        )

    def _print(self, content: Content, fingerprint: Callable[[Content], str]) -> str:
        print_ = self.prints.get(id(content))
        if print_ is None:
            print_ = self.prints[id(content)] = fingerprint(content)
        return print_


def _group(records: Sequence[Record], rejected: list[Rejected]) -> dict[str, _Item]:
    """Decode a batch and gather each item's events in their order; what cannot be decoded is rejected."""
    items: dict[str, _Item] = {}
    for record in records:
        try:
            event = decode_item_event(record.key, record.value)
        except InvalidEvent as error:
            rejected.append(Rejected(record, error))
            continue
        item = items.get(event.item_id)
        if item is None:
            item = items[event.item_id] = _Item(event.item_id)
        item.events.append((event, record))
    return items


def _place(event: ItemEvent, record: Record) -> dict[str, object]:
    """What a line of the log says of an event: which it is, and where it lies."""
    return {
        "event_id": event.event_id,
        "item_id": event.item_id,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
    }
