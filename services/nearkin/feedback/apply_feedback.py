"""Bring batches of feedback and visits into the evidence, each event once in effect, whatever happens.

What the events of a partition add is summed up for each shard of the store, and applied together with the shard's
guard, which says up to which offset that shard has counted: compare-and-set, so a batch that comes again changes
nothing, and two workers that hold one partition for a moment do not count it twice. The guards are the truth about
progress: reading begins at the smallest one, whatever the group has committed, and what lies between it and what comes
is read from the log. What the log holds and the store does not, however that came about, is consumed again.

A refused event's dead letter is with the broker before any guard passes it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from nearkin.core.counting import Counting
from nearkin.core.errors import TemporaryError, Unavailable
from nearkin.core.evidence import Effect, Outcome, ShardBatch, Source
from nearkin.core.ports import EvidenceStore
from nearkin.feedback.partition import Partition, Rules, Waiting, is_unexposed, told_of
from nearkin.ops.dead_letters import DeadLetters
from nearkin.ops.failures import Stopped
from nearkin.ops.logs import fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.read_log import Log, Logs, NothingThere
from nearkin.ops.record import Place, Record, Rejected
from nearkin.ops.tracing import OFF, Traces

log = logging.getLogger(__name__)

#: Tries of one batch that the store's guards contradict, before it waits like after any other temporary failure.
ROUNDS = 5

#: How often the broker is asked which logs the partitions are, in seconds.
DESCRIBE_EVERY_S = 5.0

#: So many partitions are served at a time: each has a connection to the store then, of which a client has a hundred at
#: most, and one to the broker where it reads again.
AT_ONCE = 32

#: Most events of a batch whose ages are recorded.
AGES = 32


class PartitionLeft(Exception):
    """The partition is not this worker's any more: whoever has it now goes on from the guards."""


class ApplyFeedback:
    """Applies batches of records of the feedback topics to one store; it is the worker's ledger too.

    Args:
        store: what is remembered.
        logs: the partitions, to read what comes before or between.
        letters: where refused events go.
        rules: what counts.
        counting: how what counts is counted.
        metrics: what is counted of the work itself.
        advance: called whenever something was read or applied: a long way back is no standstill, nor are large baskets.
        stopping: when it is set, what is under way ends after its next part, and the guards say how far it came.
        traces: where the way of events that belong to a trace is told.
        now: the time in seconds since the epoch.
    """

    def __init__(
        self,
        store: EvidenceStore,
        logs: Logs,
        letters: DeadLetters,
        rules: Rules,
        counting: Counting,
        metrics: Metrics,
        *,
        advance: Callable[[], None] = lambda: None,
        stopping: asyncio.Event | None = None,
        traces: Traces = OFF,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._logs, self._letters, self._rules = store, logs, letters, rules
        self.counting = counting
        self._metrics, self._advance, self._traces, self._now = metrics, advance, traces, now
        self._stopping = stopping or asyncio.Event()
        self._assigned: frozenset[Place] = frozenset()
        self._partitions: dict[Place, Partition] = {}
        self._described_at = 0.0
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._elsewhere: dict[Place, int] = {}
        # Of the batch in hand, which may come several times: when it came first, and where each partition was then.
        self._consumed_at: float | None = None
        self._began_at: dict[Place, int] = {}

    async def __call__(self, records: Sequence[Record]) -> list[Rejected]:
        """Apply a batch.

        Returns:
            Nothing: what was refused is with the dead letters already.

        Raises:
            TemporaryError: not all of it was applied; apply the batch again.
            Stopped: not all of it was applied, and the process stops.
        """
        consumed_at = self._consumed_at = self._consumed_at or self._now()
        by_place: dict[Place, list[Record]] = {}
        for record in records:
            by_place.setdefault((record.topic, record.partition), []).append(record)
        # At once, so that one is read and summed up while the store applies another.
        outcomes = await asyncio.gather(
            # What another worker holds by now is its to count.
            *(self._serve(place, some, consumed_at) for place, some in by_place.items() if place in self._assigned),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        for place, began_at in self._began_at.items():
            if again := sum(record.offset < began_at for record in by_place.get(place, ())):
                self._metrics.events.labels(topic=place[0], outcome="superseded").inc(again)
        self._consumed_at = None
        self._began_at.clear()
        return []

    async def begin(self, places: frozenset[Place]) -> dict[Place, int]:
        """Where each partition is to be read from: the smallest of its guards."""
        self._assigned = places
        self._metrics.guard_lag.clear()  # of partitions that are another worker's now; a tick sets the others again
        for place in [*self._partitions.keys() - places]:
            del self._partitions[place]
        logs = await self._logs.describe(places)
        for place in sorted(places & logs.keys()):
            held = self._partitions.get(place)
            source = Source(logs[place].topic_id, place[1])
            if held is None or held.source != source or held.guards != await self._store.read_guards(source):
                with contextlib.suppress(PartitionLeft):
                    self._partitions[place] = await self._open(place, logs[place])
        return {place: partition.position for place, partition in self._partitions.items()}

    async def tick(self) -> dict[Place, int]:
        """Move the guards of shards that nothing happened to, and look whether store and logs are what they were.

        Returns:
            Where to go on in a topic that was made again.

        Raises:
            TemporaryError: of some partition not all of it is done; the others' is.
            Stopped: the process stops.
        """
        logs: Mapping[Place, Log] = {}
        if self._assigned - self._partitions.keys() or time.monotonic() - self._described_at >= DESCRIBE_EVERY_S:
            logs = await self._logs.describe(self._assigned)
            self._described_at = time.monotonic()
        # At once: where the store does not answer, each waits for that until its call times out.
        outcomes = await asyncio.gather(
            *(self._tend_or_leave(place, logs.get(place)) for place in sorted(self._assigned)), return_exceptions=True
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, TemporaryError)):
            raise failure
        elsewhere, self._elsewhere = self._elsewhere, {}
        return elsewhere

    async def _tend_or_leave(self, place: Place, found: Log | None) -> None:
        try:
            async with self._turns:
                await self._tend(place, found)
        except PartitionLeft:
            self._partitions.pop(place, None)

    async def _tend(self, place: Place, found: Log | None) -> None:
        """Do for one partition what a tick is for; its log is known now and then."""
        partition = self._partitions.get(place)
        if partition is None:
            if found is not None:
                await self._continue(await self._open(place, found), found.end)
            return
        if found is not None and found.topic_id != partition.source.topic_id:
            log.warning(
                "a topic was made again: its events are counted from the first",
                extra=fields(topic=place[0], partition=place[1], topic_id=found.topic_id),
            )
            fresh = await self._open(place, found)
            self._elsewhere[place] = fresh.position
            await self._continue(fresh, found.end)
            self._elsewhere[place] = fresh.position
            return
        # What a failure left undone on a way back: no batch comes again for it.
        await self._apply(partition, self._now())
        if partition.passed > partition.position:
            await self._catch_up_with_passed(partition)
        if batches := partition.idle_batches():
            outcomes = await self._send(batches)
            if partition.settle([*zip(batches, outcomes, strict=True)]) is None:
                await self._go_back(partition)
        else:
            guards = await self._store.read_guards(partition.source)
            if any(guard < known for guard, known in zip(guards, partition.guards, strict=True)):
                await self._go_back(partition)
        if partition.sampled:
            held = (await self._store.read([partition.sampled], (), 0)).anchors[partition.sampled]
            self._metrics.evidence_pairs.observe(len(held.candidates))
        if found is not None and place in self._assigned:
            lag = max(0, found.end - min(partition.guards))
            self._metrics.guard_lag.labels(topic=place[0], partition=str(place[1])).set(lag)

    def holds(self, place: Place) -> bool:
        """Whether this worker serves a partition now."""
        return place in self._assigned

    async def _serve(self, place: Place, records: Sequence[Record], consumed_at: float) -> None:
        """Apply a batch's records of one partition."""
        try:
            async with self._turns:
                await self._apply(await self._take(place, records), consumed_at)
        except PartitionLeft:
            self._partitions.pop(place, None)
        except (TemporaryError, Stopped):
            raise
        except Exception:
            # What is known of the partition may be half changed.
            self._partitions.pop(place, None)
            raise

    async def _take(self, place: Place, records: Sequence[Record]) -> Partition:
        """Take what is new of a partition's records, and what of the log lies between."""
        partition = self._partitions.get(place)
        if partition is None:
            partition = self._partitions[place] = await self._open(place, await self._describe(place))
        self._began_at.setdefault(place, partition.position)
        for record in records:
            if record.offset < partition.position:
                partition.passed = max(partition.passed, record.offset + 1)
                continue
            if record.offset > partition.position:
                await self._catch_up(partition, record.offset)
            partition.take(record)
        return partition

    async def _describe(self, place: Place) -> Log:
        found = (await self._logs.describe([place])).get(place)
        if found is None:
            raise Unavailable("broker", f"it has no partition {place[1]} of {place[0]}")
        return found

    async def _open(self, place: Place, found: Log, counted: int = 0) -> Partition:
        """Begin with a partition: where the store's guards say, knowing of what comes before what decides about it.

        Args:
            place: which.
            found: its log.
            counted: up to where the store is known to have counted, whatever it says now.
        """
        source = Source(found.topic_id, place[1])
        guards = await self._store.read_guards(source)
        first = min(guards)
        if first < found.begin:
            guards = await self._leave_expired(place, source, guards, found.begin, counted)
        position = max(first, found.begin)
        partition = Partition(place, source, guards, position, self._rules, lambda: int(self._now() * 1000))
        try:
            async for records in self._logs.read(place, max(found.begin, position - self._rules.reach), position):
                for record in records:
                    partition.see(record)
                await asyncio.sleep(0)
                self._advance()
                self._require_mine(place)
        except NothingThere:
            missing = await self._missing(place, position)
            if not missing:
                raise
            self._metrics.guards_ahead.labels(topic=place[0]).inc(missing)
            log.error(
                "the store has counted more of a log than the log holds: what comes up to there is taken for counted",
                extra=fields(topic=place[0], partition=place[1], guard=position, missing=missing),
            )
        log.info(
            "a partition is continued",
            extra=fields(topic=place[0], partition=place[1], offset=position, topic_id=found.topic_id),
        )
        return partition

    async def _missing(self, place: Place, until: int) -> int:
        """By how many offsets a log is shorter, that nothing came of before one; the broker has to answer now.

        An end that is named is not enough by itself, since some brokers name an older one.
        """
        self._advance()
        return max(0, until - (await self._describe(place)).end)

    async def _leave_expired(
        self, place: Place, source: Source, guards: Sequence[int], begin: int, counted: int
    ) -> list[int]:
        """Pass what the log does not hold any more: nobody can count it. A store that is new has missed nothing."""
        if counted or any(guards):
            lost = begin - min(guards)
            self._metrics.feedback_expired.labels(topic=place[0]).inc(lost)
            log.error(
                "events expired that the store has not counted, or has lost: their topic keeps them too short for that",
                extra=fields(topic=place[0], partition=place[1], after=min(guards), next=begin, lost=lost),
            )
        batches = [ShardBatch(source, shard, guard, begin, 0) for shard, guard in enumerate(guards) if guard < begin]
        await self._send(batches)
        return await self._store.read_guards(source)

    async def _go_back(self, partition: Partition) -> None:
        """Consume again what the store has lost, as far as the log still holds it."""
        place, reached = partition.place, partition.position
        found = await self._describe(place)
        fresh = await self._open(place, found, counted=reached)
        self._metrics.evidence_regressions.inc()
        log.error(
            "the store came back without what it had counted: what the log holds of that is counted again",
            extra=fields(topic=place[0], partition=place[1], begin=fresh.position, up_to=reached),
        )
        await self._continue(fresh, reached)

    async def _continue(self, fresh: Partition, until: int) -> None:
        """Serve a partition that was opened anew, beginning with what is known to be in its log."""
        self._require_mine(fresh.place)
        fresh.passed = until
        self._partitions[fresh.place] = fresh
        await self._catch_up_with_passed(fresh)

    async def _catch_up_with_passed(self, partition: Partition) -> None:
        """Read again what was there before, unless the log ends earlier by now."""
        try:
            await self._catch_up(partition, partition.passed)
        except NothingThere:
            if not await self._missing(partition.place, partition.passed):
                raise
            partition.passed = partition.position

    async def _catch_up(self, partition: Partition, until: int) -> None:
        """Read the log up to an offset, and apply it."""
        async for records in self._logs.read(partition.place, partition.position, until):
            for record in records:
                partition.take(record)
            await self._apply(partition, self._now())
            self._require_mine(partition.place)
        partition.position = max(partition.position, until)

    def _require_mine(self, place: Place) -> None:
        """Go on only while it is for this worker to do.

        Raises:
            Stopped: the process stops.
            PartitionLeft: the partition was taken away.
        """
        if self._stopping.is_set():
            raise Stopped
        if place not in self._assigned:
            raise PartitionLeft

    async def _apply(self, partition: Partition, consumed_at: float) -> None:
        """Apply what waits of a partition, after the dead letters of what was refused."""
        rounds = 0
        while partition.waiting or partition.refused:
            batches = partition.batches(self.counting)
            await self._letters.send(partition.refused)
            partition.refused = []
            outcomes = await self._send(batches)
            self._advance()
            applied = partition.settle([*zip(batches, outcomes, strict=True)])
            if applied is None:
                await self._go_back(partition)
                return
            self._count(partition, applied, consumed_at)
            if partition.waiting:
                self._require_mine(partition.place)
            rounds = 0 if applied else rounds + 1
            if rounds >= ROUNDS:
                raise TemporaryError(f"guards were moved by somebody else before each of {ROUNDS} tries")
        self._count(partition, [], consumed_at)

    async def _send(self, batches: Sequence[ShardBatch]) -> list[Outcome]:
        """Apply batches in one round trip, and count what became of them."""
        if not batches:
            return []
        began = time.perf_counter()
        outcomes = await self._store.apply(batches)
        self._metrics.evidence_apply_seconds.observe(time.perf_counter() - began)
        for effect in Effect:
            if number := sum(outcome.effect is effect for outcome in outcomes):
                self._metrics.evidence_batches.labels(outcome=effect.value).inc(number)
        return outcomes

    def _count(self, partition: Partition, applied: Sequence[Waiting], consumed_at: float) -> None:
        """Count what was applied, repeated and clamped, and the ages of a part of it."""
        topic, metrics = partition.place[0], self._metrics
        for verdict, number in partition.outcomes.items():
            metrics.events.labels(topic=topic, outcome=verdict.value).inc(number)
        partition.outcomes.clear()
        if not applied:
            return
        metrics.events.labels(topic=topic, outcome="applied").inc(len(applied))
        metrics.unexposed.inc(sum(is_unexposed(each.event) for each in applied))
        applied_at = self._now()
        self._tell(applied, consumed_at, applied_at)
        for each in applied[:: 1 + len(applied) // AGES]:
            occurred_at, stamped_at = each.event.occurred_at / 1000, each.record.timestamp_ms / 1000
            metrics.evidence_age("occurred_to_broker", stamped_at - occurred_at)
            metrics.evidence_age("broker_to_consumed", consumed_at - stamped_at)
            metrics.evidence_age("consumed_to_applied", applied_at - consumed_at)
            metrics.evidence_age("occurred_to_applied", applied_at - occurred_at)

    def _tell(self, applied: Sequence[Waiting], consumed_at: float, applied_at: float) -> None:
        """Say of each event that it was applied, where the log is that detailed; tell the way of the traced ones."""
        told, traced = log.isEnabledFor(logging.DEBUG), self._traces.on
        if not (told or traced):
            return
        for record, event in applied:
            if told:
                log.debug("event applied", extra=fields(**told_of(record, event)))
            if traced and (parent := self._traces.parent_of(record)) is not None:
                span = self._traces.processed(record, parent, consumed_at, applied_at, event_id=event.event_id)
                self._traces.step("apply", span, consumed_at, applied_at)
