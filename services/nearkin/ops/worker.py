"""What every Faust worker shares: a batch is acknowledged after its effect, and never before.

Faust brings consumer groups, rebalancing, fetching and the timer of commits. What it fetches goes into an inbox as it
comes, many records at a time, past its streams, which cost 100 us a record; one task of ours takes batches from there,
hands them to `handle`, sends what was rejected to the dead-letter topic, and only then acknowledges them, in order.
No second batch is applied beside it, so a commit never passes an event that is not applied.
A temporary failure is tried again in place; an unknown one a few times, and then the batch is halved until the event
that causes it stands alone. `docs/decisions/0005-delivery.md` says what of Faust is used, and why.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from aiokafka.errors import KafkaError
from faust.types import TP

from nearkin.contracts.topics import Topic
from nearkin.core.errors import Misconfigured, TemporaryError, Unavailable
from nearkin.ops.ask_broker import ask_broker
from nearkin.ops.dead_letters import DeadLetters
from nearkin.ops.failures import Stopped, engine_of, patiently, unforeseen
from nearkin.ops.faust_app import App, Consumer, Notes, make_app, places_of
from nearkin.ops.health import Health
from nearkin.ops.inbox import Inbox, Letter
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.process import EXIT_FAILED, EXIT_MISCONFIGURED
from nearkin.ops.record import Place, Record, Rejected, record_of
from nearkin.ops.settings import Settings
from nearkin.ops.tracing import OFF, Traces
from nearkin.ops.watchdog import Progress, Watchdog

log = logging.getLogger(__name__)

#: Tries of a batch that fails with an unknown exception, before it is halved.
UNKNOWN_TRIES = 3

#: How long a stopping worker may take to finish its batch, commit and leave.
STOP_GRACE_S = 25.0

#: The watchdog looks again within so many seconds, however long the broker takes to answer.
WATCHDOG_S = 60.0

#: How often a ledger is called, and how long it may take to say where to begin, in seconds.
TICK_S, BEGIN_S = 1.0, 10.0

Handle = Callable[[Sequence[Record]], Awaitable[Sequence[Rejected]]]


class Ledger(Protocol):
    """Who keeps an account of its own of how far each partition is applied, which moves together with the effect.

    It is the truth about progress, whatever the group has committed: the worker reads from where it says. It is never
    called while a batch is being handled, but for `begin`.
    """

    async def begin(self, places: frozenset[Place]) -> Mapping[Place, int]:
        """Say from which offset each of the partitions is to be read, which the worker holds from now on.

        What it leaves out, or has no time for, is read from where the group has committed.
        """

    async def tick(self) -> Mapping[Place, int]:
        """Do what is due about once a second, whether or not events come.

        Returns:
            Partitions that are to be read on from another offset than the next, and from which.

        Raises:
            TemporaryError: it is called again later.
            Stopped: the process stops, and it has more to do.
        """


class Worker:
    """One consumer group member that serves some topics until it is told to stop.

    Args:
        settings: where the broker is, and how patient to be.
        group: the consumer group.
        topics: what to serve.
        handle: applies a batch and returns what it had to reject. It must be safe to call again with the same records.
        metrics: what is counted.
        health: learns when the worker waits.
        batch: most events in one batch.
        within_s: how long the first event of a batch waits for company, in seconds.
        fetch_wait_ms: how long the broker may hold a fetch back while it has nothing; Faust would say 1500.
        stopping: when it is set, the batch in flight is finished, acknowledged and committed, and the group left.
        ledger: where the effects keep their own account of progress.
        notes: what is written beside the group's commits; nothing where it is None.
        letters: where rejected events go; to the topics' dead letters as they are where it is None.
        progress: what the watchdog looks at; a handler whose batch takes long says there what is done of it.
        traces: where is told that an event which belongs to a trace was refused.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        group: str,
        topics: Sequence[Topic],
        handle: Handle,
        metrics: Metrics,
        health: Health,
        batch: int,
        within_s: float,
        fetch_wait_ms: int,
        stopping: asyncio.Event,
        ledger: Ledger | None = None,
        notes: Notes | None = None,
        letters: DeadLetters | None = None,
        progress: Progress | None = None,
        traces: Traces = OFF,
    ) -> None:
        self._settings, self._group, self._topics, self._handle = settings, group, topics, handle
        self._metrics, self._health, self._batch = metrics, health, batch
        self._within_s, self._fetch_wait_ms = within_s, fetch_wait_ms
        self._ledger, self._ticked_at, self._ticks_failed = ledger, 0.0, 0
        self._elsewhere: dict[Place, int] = {}
        self._notes = notes
        # What was fetched before the consumer was sent elsewhere is not acknowledged: at which count that was.
        self._seeks, self._sought = 0, dict[Place, int]()
        self._letters = letters or DeadLetters(
            settings.kafka_bootstrap, topics, metrics, security=settings.kafka_security, traces=traces
        )
        self._inbox = Inbox(batch)
        self._stopping = stopping
        self._progress = progress or Progress()
        self._poisoned = 0
        self._places: frozenset[Place] = frozenset()
        self._delivered: dict[Place, tuple[int | None, int]] = {}
        self._done: dict[Place, int] = {}
        self._app: App | None = None

    async def run(self) -> int:
        """Serve until told to stop.

        Returns:
            The exit status of the process: 0 after a graceful stop.
        """
        try:
            await patiently(
                self._require_topics, settings=self._settings, stopping=self._stopping, failed=self._broker_failed
            )
        except Stopped:
            return 0
        self._health.ready("broker")
        log.info("the broker answers and has the topics", extra=fields(topics=[topic.name for topic in self._topics]))
        return await self._serve()

    async def _serve(self) -> int:
        app = self._app = self._build()
        watchdog = Watchdog(
            self._settings.kafka_bootstrap,
            self._settings.stall_timeout_s,
            self._progress,
            self._assigned,
            self._metrics,
            self._broker_heard,
            security=self._settings.kafka_security,
        )
        started = asyncio.create_task(app.start())
        working = asyncio.create_task(self._work())
        crashed = asyncio.create_task(app.until_crashed())
        told = asyncio.create_task(self._stopping.wait())
        watchdog.start()
        status = 0
        try:
            waits: set[asyncio.Future[Any]] = {working, crashed, told, _failure(started)}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                status = self._report(app, started, working)
        finally:
            self._stopping.set()
            self._health.waits("worker", "stopping")
            if not await self._finish(app, working, started):
                status = EXIT_FAILED
            watchdog.stop()
            for task in (crashed, told, started, working):
                task.cancel()
        log.info("stopped", extra=fields(status=status))
        return status

    def _report(self, app: App, started: "asyncio.Task[None]", working: "asyncio.Task[None]") -> int:
        """Say why the worker cannot go on; its exit status."""
        for task in (working, started):
            error = task.exception() if task.done() and not task.cancelled() else None
            if isinstance(error, Misconfigured):
                log.critical("misconfigured", extra=fields(problem=str(error)))
                return EXIT_MISCONFIGURED
            if error is not None:
                log.critical("the worker failed and ends itself", extra=fields(error=describe(error)))
                return EXIT_FAILED
        reason = app.crash_reason
        log.critical(
            "the consumer crashed and the worker ends itself",
            extra=fields(error=describe(reason) if reason else "unknown"),
        )
        return EXIT_FAILED

    async def _finish(self, app: App, working: "asyncio.Task[None]", started: "asyncio.Task[None]") -> bool:
        """Let the batch in flight end, commit, leave the group. Whether all that worked in time."""
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await asyncio.wait({working})
                await app.stop()
                await asyncio.wait({started})
                await self._letters.close()
        except TimeoutError:
            log.error("did not stop in time; unacknowledged events will be delivered again")
            return False
        return True

    async def _require_topics(self) -> None:
        """Check that the broker answers and has the topics.

        Raises:
            Unavailable: it does not.
        """
        async with ask_broker(self._settings.kafka_bootstrap, 15, self._settings.kafka_security) as asker:
            present = await asker.topics()
        wanted = [*(topic.name for topic in self._topics), *self._letters.topics]
        missing = [name for name in wanted if name not in present]
        if missing:
            raise Unavailable("broker", f"it has no topic {', '.join(missing)}; `nearkin topics apply` makes them")

    def _broker_failed(self, error: TemporaryError) -> None:
        self._failed(error)
        self._health.waits("broker", str(error))

    def _broker_heard(self, problem: Unavailable | None) -> None:
        """Say whether the broker answers, and that the watchdog looks; called from its thread."""
        self._health.beat("watchdog", within_s=max(WATCHDOG_S, self._settings.stall_timeout_s))
        if problem is None:
            self._health.ready("broker")
            return
        self._metrics.retries.labels(engine=engine_of(problem)).inc()
        self._health.waits("broker", str(problem))
        log.warning("the broker is away, asking again", extra=fields(engine=engine_of(problem), problem=str(problem)))

    def _failed(self, error: TemporaryError) -> None:
        self._progress.retried_at = time.monotonic()
        self._metrics.retries.labels(engine=engine_of(error)).inc()

    def _build(self) -> App:
        app = make_app(self._settings, self._group, self._topics, batch=self._batch, fetch_wait_ms=self._fetch_wait_ms)
        app.begin = self._begin if self._ledger is not None else None
        app.deliver, app.acknowledged = self._deliver, self._acknowledged
        app.notes, app.seeks = self._notes, lambda: self._seeks
        app.on_partitions_assigned.connect(self._on_assigned)  # type: ignore[arg-type]  # it may be narrower
        app.on_partitions_revoked.connect(self._on_revoked)  # type: ignore[arg-type]
        return app

    async def _deliver(self, generation: int, seeks: int, place: Place, fetched: Sequence[Any]) -> None:
        """Take what was fetched of a partition; held back while the inbox is full."""
        self._look_for_gap(generation, place, fetched)
        await self._inbox.put(generation, [record_of(record) for record in fetched], seeks)

    def _look_for_gap(self, generation: int, place: Place, fetched: Sequence[Any]) -> None:
        """An offset that never came is taken for one that never was, and committed past: that must be told."""
        known, at = self._delivered.get(place, (None, 0))
        after = at if known == generation else fetched[0].offset - 1
        self._delivered[place] = generation, fetched[-1].offset
        if fetched[-1].offset - after == len(fetched):
            return
        for record in fetched:
            if record.offset > after + 1:
                self._metrics.skipped_offsets.labels(topic=place[0]).inc(record.offset - after - 1)
                log.error(
                    "offsets were skipped",
                    extra=fields(topic=place[0], partition=place[1], after=after, next=record.offset),
                )
            after = record.offset

    async def _on_revoked(self, _app: object, revoked: Iterable[TP], **_: object) -> None:
        """Let go of what waits: whoever holds the partitions next reads it again from what was acknowledged."""
        self._inbox.clear()

    async def _on_assigned(self, _app: object, assigned: Iterable[TP], **_: object) -> None:
        self._places = places_of(assigned)
        self._done.clear()
        self._elsewhere.clear()  # the ledger is asked where to begin
        # The group may count generations anew: what is in flight is told by the seeks that it was before.
        self._seeks += 1
        self._sought = dict.fromkeys(self._places, self._seeks)
        self._metrics.rebalances.inc()
        self._health.ready("group")
        log.info(
            "partitions assigned",
            extra=fields(
                group=self._group, partitions=[f"{topic}[{partition}]" for topic, partition in sorted(self._places)]
            ),
        )

    async def _begin(self, places: frozenset[Place]) -> Mapping[Place, int]:
        """Ask the ledger where to begin. It is tried once: a group must not wait for an engine that is away.

        What the ledger could not say now, it finds out with the first events that it is handed. What lies before is
        done: whoever applied it may have had no time to commit it, and the group would lag behind it for nothing.
        """
        told = await self._ask_ledger(places)
        positions = self._progress.positions
        for place, offset in told.items():
            positions[place] = max(positions.get(place, 0), offset)
            if offset:
                self._done.setdefault(place, offset)
        return told

    async def _ask_ledger(self, places: frozenset[Place]) -> Mapping[Place, int]:
        try:
            async with asyncio.timeout(BEGIN_S):
                return await self._ledger.begin(places) if self._ledger is not None else {}
        except (TemporaryError, TimeoutError, Stopped) as error:
            log.warning("cannot say where to begin, so as committed", extra=fields(problem=describe(error)))
        except Exception as error:  # it would crash Faust, whose consumer would then stand still
            log.error("failed to say where to begin, so as committed", extra=fields(error=describe(error)))
        return {}

    def _assigned(self) -> frozenset[Place]:
        """The partitions held now; called from the watchdog's thread. Takes up committed positions on the way."""
        app = self._app
        if app is None or app.rebalancing or not self._places:
            return frozenset()
        # Faust tells nowhere else what it found committed. `app.consumer` exists once partitions are assigned; asked
        # for earlier, it would be made here, on the wrong thread's loop.
        committed = cast("Consumer", app.consumer)._committed_offset  # noqa: SLF001
        positions = self._progress.positions
        for place in self._places:
            positions[place] = max(positions.get(place, 0), committed.get(TP(*place)) or 0)
        return self._places

    async def _work(self) -> None:
        """Take, apply, reject, acknowledge: one batch at a time, until told to stop.

        The dead letters of a batch go out while the next is applied, where one waits: good events do not wait for them.
        """
        settling: asyncio.Task[None] | None = None
        try:
            while not self._stopping.is_set():
                if settling is not None and not len(self._inbox):
                    await settling
                    settling = None
                letters = await self._take()
                if self._ledger is not None and time.monotonic() - self._ticked_at >= TICK_S:
                    await self._tick(self._ledger)
                if not letters:
                    continue
                began = self._progress.begin()
                self._metrics.batch_events.observe(len(letters))
                try:
                    rejected = await self._apply([letter.record for letter in letters], UNKNOWN_TRIES)
                    self._metrics.handle_seconds.observe(time.monotonic() - began)
                    if settling is not None:
                        await settling
                        settling = None
                    if rejected:
                        settling = asyncio.create_task(self._settle(letters, rejected))
                    else:
                        self._acknowledge(letters)
                finally:
                    self._progress.end()
        except Stopped:
            pass
        except BaseException:
            if settling is not None:
                settling.cancel()  # it may try for ever, and what failed must be told
            raise
        if settling is not None:
            with contextlib.suppress(Stopped):
                await settling

    async def _settle(self, letters: Sequence[Letter], rejected: Sequence[Rejected]) -> None:
        """Send what was rejected of a batch to the dead letters, then acknowledge the batch."""
        await self._bury(rejected)
        self._acknowledge(letters)

    async def _tick(self, ledger: Ledger) -> None:
        """Let the ledger do what is due; what it fails in is due again.

        Raises:
            Exception: it failed in a way nobody foresaw, several times in a row.
        """
        self._ticked_at = self._progress.begin()
        try:
            told = await ledger.tick()
            self._elsewhere.update(told)
            for place, offset in told.items():  # what was done there is none of what is to be read now
                if offset:
                    self._done[place] = offset
                else:
                    self._done.pop(place, None)
            await self._seek_elsewhere()
        except Stopped:
            return
        except TemporaryError as error:
            self._engine_failed(error)
            log.warning("temporary failure", extra=fields(engine=engine_of(error), problem=str(error)))
        except Misconfigured:
            raise
        except Exception as error:
            self._ticks_failed += 1
            log.error(
                "what is due about once a second failed unexpectedly",
                extra=fields(error=describe(error), attempt=self._ticks_failed),
            )
            if self._ticks_failed >= UNKNOWN_TRIES:
                raise
        else:
            self._ticks_failed = 0
            self._health.ready("engine")
        finally:
            self._progress.end()

    async def _seek_elsewhere(self) -> None:
        """Read on where the ledger said; where the consumer cannot now, as in a rebalance, at the next tick."""
        for place in self._elsewhere.keys() - self._places:
            del self._elsewhere[place]
        if not self._elsewhere or self._app is None:
            return
        self._seeks += 1
        sought = dict(self._elsewhere)
        try:
            await self._app.consumer.seek_wait({TP(*place): offset for place, offset in sought.items()})
        except (KafkaError, TimeoutError) as error:
            log.warning("cannot read on from elsewhere yet", extra=fields(error=describe(error)))
        else:
            self._seeks += 1
            for place in sought:
                self._sought[place] = self._seeks
                self._elsewhere.pop(place, None)

    async def _take(self) -> list[Letter]:
        """The next batch: full, or `within_s` after its first event; empty when told to stop, or when a tick is due."""
        coming = asyncio.ensure_future(self._inbox.wait(1))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait(
            {coming, stopping}, return_when=asyncio.FIRST_COMPLETED, timeout=TICK_S if self._ledger else None
        )
        stopping.cancel()
        coming.cancel()
        if self._stopping.is_set() or not len(self._inbox):
            return []
        if len(self._inbox) < self._batch:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._within_s):
                    await self._inbox.wait(self._batch)
        return self._inbox.take(self._batch)

    async def _apply(self, records: Sequence[Record], tries: int) -> list[Rejected]:
        """Hand a batch to `handle`, however it fails; what it rejected.

        Raises:
            Stopped: told to stop while an engine was away.
        """
        for attempt in range(1, tries + 1):
            try:
                rejected = await patiently(
                    lambda: self._handle(records),
                    settings=self._settings,
                    stopping=self._stopping,
                    failed=self._engine_failed,
                )
            except (Stopped, Misconfigured):
                raise
            except Exception as error:  # whatever it is must not leave unseen, nor take the whole stream with it
                log.error(
                    "a batch failed unexpectedly",
                    extra=fields(
                        error=describe(error),
                        events=len(records),
                        attempt=attempt,
                        topic=records[0].topic,
                        partition=records[0].partition,
                        offset=records[0].offset,
                    ),
                )
                failure = error
                await asyncio.sleep(self._settings.retry_initial_ms / 1000 if attempt < tries else 0)
            else:
                self._poisoned = 0
                self._health.ready("engine")
                return list(rejected)
        if len(records) == 1:
            return [self._poison(records[0], failure)]
        half = len(records) // 2
        return [*await self._apply(records[:half], 1), *await self._apply(records[half:], 1)]

    def _poison(self, record: Record, failure: Exception) -> Rejected:
        """The one event of a batch that fails: rejected, unless so many do that the fault cannot be theirs."""
        self._poisoned += 1
        return unforeseen(record, failure, self._poisoned)

    def _engine_failed(self, error: TemporaryError) -> None:
        self._failed(error)
        self._health.waits("engine", str(error))

    async def _bury(self, rejected: Sequence[Rejected]) -> None:
        """Send dead letters, and return once the broker has them all. They may come twice, never not at all."""
        await patiently(
            lambda: self._letters.send(rejected),
            settings=self._settings,
            stopping=self._stopping,
            failed=self._broker_failed,
        )
        self._health.ready("broker")

    def _acknowledge(self, letters: Sequence[Letter]) -> None:
        """Mark a batch as done, except what was fetched before a rebalance or a seek: that is delivered again."""
        generation = self._app.consumer_generation_id if self._app else None
        positions = self._progress.positions
        for letter in letters:
            place = letter.record.topic, letter.record.partition
            since = letter.seeks >= self._sought.get(place, 0)
            if letter.generation == generation and since and place not in self._elsewhere:
                positions[place] = self._done[place] = letter.record.offset + 1

    def _acknowledged(self) -> Mapping[Place, int]:
        """Of each partition, one more than the last offset that this worker applied while it held it."""
        return {place: offset for place, offset in self._done.items() if place in self._places}


def _failure(task: "asyncio.Task[None]") -> "asyncio.Future[None]":
    """Ends when a task fails, and not when it succeeds."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def look(done: "asyncio.Task[None]") -> None:
        if not failed.done() and (done.cancelled() or done.exception() is not None):
            failed.set_result(None)

    task.add_done_callback(look)
    return failed
