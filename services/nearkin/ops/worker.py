"""What every Faust worker shares: a batch is acknowledged after its effect, and never before.

Faust brings consumer groups, rebalancing, fetching and the timer of commits. What it fetches goes into an inbox as it
comes, many records at a time, past its streams, which cost 100 us a record; one task of ours takes batches from there,
hands them to `handle`, sends what was rejected to the dead-letter topic, and only then acknowledges them, in order.
There is no second batch in flight, so a commit never passes an event that is not applied.
A temporary failure is tried again in place; an unknown one a few times, and then the batch is halved until the event
that causes it stands alone. `docs/decisions/0005-delivery.md` says what of Faust is used, and why.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import faust
import mode
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest
from faust.auth import Credentials, SASLCredentials, SSLCredentials
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, StreamT
from yarl import URL

from nearkin.contracts.topics import Topic
from nearkin.core.errors import Misconfigured, TemporaryError, Unavailable
from nearkin.ops.ask_broker import ask_broker
from nearkin.ops.dead_letters import DeadLetters
from nearkin.ops.failures import Stopped, engine_of, patiently, unforeseen
from nearkin.ops.health import Health
from nearkin.ops.inbox import Inbox, Letter
from nearkin.ops.kafka_security import KafkaSecurity
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.process import EXIT_FAILED, EXIT_MISCONFIGURED
from nearkin.ops.read_on import ReadOn
from nearkin.ops.record import Place, Record, Rejected, record_of
from nearkin.ops.settings import Settings
from nearkin.ops.tracing import OFF, Traces
from nearkin.ops.watchdog import Progress, Watchdog

log = logging.getLogger(__name__)

#: The smallest session timeout that Kafka admits by default: how long a killed worker's partitions stay unserved.
SESSION_TIMEOUT_S = 6.0

#: Tries of a batch that fails with an unknown exception, before it is halved.
UNKNOWN_TRIES = 3

#: How long a stopping worker may take to finish its batch, commit and leave.
STOP_GRACE_S = 25.0

#: The watchdog looks again within so many seconds, however long the broker takes to answer.
WATCHDOG_S = 60.0

#: How often the broker is asked which partitions the topics have.
METADATA_MAX_AGE_MS = 5_000

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


class Notes(Protocol):
    """Who has a word written beside each commit, and is given it by whoever serves the partition next."""

    def take(self, notes: Mapping[Place, str]) -> None:
        """Take what is written beside the commits of the partitions that the worker holds from now on."""

    def note(self, place: Place) -> str:
        """What is written beside a commit of a partition from now on."""


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
        # What was fetched before the consumer was sent elsewhere is not acknowledged: from where, and at which count.
        self._seeks, self._sought = 0, dict[Place, tuple[int, int]]()
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
        self._app: _App | None = None

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

    def _report(self, app: "_App", started: "asyncio.Task[None]", working: "asyncio.Task[None]") -> int:
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

    async def _finish(self, app: "_App", working: "asyncio.Task[None]", started: "asyncio.Task[None]") -> bool:
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

    def _build(self) -> "_App":
        app = _App(
            self._group,
            broker=[URL(f"kafka://{address.strip()}") for address in self._settings.kafka_bootstrap.split(",")],
            broker_credentials=_credentials(self._settings.kafka_security),
            key_serializer="raw",
            value_serializer="raw",
            consumer_auto_offset_reset="earliest",
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=SESSION_TIMEOUT_S / 4,
            broker_rebalance_timeout=SESSION_TIMEOUT_S,
            broker_request_timeout=15.0,
            # The watchdog says when a worker hangs. A worker that waits for an engine must keep its partitions.
            broker_max_poll_interval=24 * 3600.0,
            broker_commit_interval=1.0,
            # So long a topic that is made again, or has more partitions, goes unnoticed; Faust would say five minutes.
            consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
            broker_max_poll_records=max(512, self._batch),
            # A batch that waits for an engine must not hold a rebalance up: it goes on, and acknowledges nothing.
            stream_wait_empty=False,
            TableManager=_Tables,
            table_standby_replicas=0,
            topic_allow_declare=False,
            topic_disable_leader=True,
            reply_create_topic=False,
            web_enabled=False,
            agent_supervisor=mode.CrashingSupervisor,
        )
        app.fetch_wait_ms = self._fetch_wait_ms
        app.begin = self._begin if self._ledger is not None else None
        app.deliver, app.acknowledged = self._deliver, self._acknowledged
        app.notes, app.seeks = self._notes, lambda: self._seeks
        app.transport = _Transport(app.conf.broker_consumer, app)
        app.on_partitions_assigned.connect(self._on_assigned)  # type: ignore[arg-type]  # it may be narrower
        app.on_partitions_revoked.connect(self._on_revoked)  # type: ignore[arg-type]
        topic = app.topic(
            *(topic.name for topic in self._topics),
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
        )
        # An agent is how Faust learns what to subscribe to; nothing ever reaches it.
        app.agent(topic, name=f"{self._group}-agent", concurrency=1)(_idle)
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
        self._places = _places(assigned)
        self._done.clear()
        self._elsewhere.clear()  # the ledger is asked where to begin
        self._sought.clear()
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
        committed = cast("_Consumer", app.consumer)._committed_offset  # noqa: SLF001
        positions = self._progress.positions
        for place in self._places:
            positions[place] = max(positions.get(place, 0), committed.get(TP(*place)) or 0)
        return self._places

    async def _work(self) -> None:
        """Take, apply, reject, acknowledge: one batch at a time, until told to stop."""
        while not self._stopping.is_set():
            letters = await self._take()
            if self._ledger is not None and time.monotonic() - self._ticked_at >= TICK_S:
                await self._tick(self._ledger)
            if not letters:
                continue
            began = self._progress.begin()
            self._metrics.batch_events.observe(len(letters))
            try:
                rejected = await self._apply([letter.record for letter in letters], UNKNOWN_TRIES)
                if rejected:
                    await self._bury(rejected)
            except Stopped:
                return
            finally:
                self._progress.end()
            self._acknowledge(letters)
            self._metrics.handle_seconds.observe(time.monotonic() - began)

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
            for place, offset in sought.items():
                self._sought[place] = offset, self._seeks
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
            _, sought = self._sought.get(place, (0, 0))
            if letter.generation == generation and letter.seeks >= sought and place not in self._elsewhere:
                positions[place] = self._done[place] = letter.record.offset + 1

    def _acknowledged(self) -> Mapping[Place, int]:
        """Of each partition, one more than the last offset that this worker applied while it held it."""
        return {place: offset for place, offset in self._done.items() if place in self._places}


def _credentials(security: KafkaSecurity) -> Credentials | None:
    """The same as Faust takes it, which hands it to aiokafka."""
    context = security.tls.context() if security.tls else None
    if security.username:
        return SASLCredentials(
            username=security.username,
            password=security.password,
            ssl_context=context,
            mechanism=security.mechanism,
        )
    return None if context is None else SSLCredentials(context)


def _places(partitions: Iterable[TP]) -> frozenset[Place]:
    return frozenset((at.topic, at.partition) for at in partitions)


async def _idle(stream: StreamT[Any]) -> None:
    async for _ in stream:
        pass


def _failure(task: "asyncio.Task[None]") -> "asyncio.Future[None]":
    """Ends when a task fails, and not when it succeeds."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def look(done: "asyncio.Task[None]") -> None:
        if not failed.done() and (done.cancelled() or done.exception() is not None):
            failed.set_result(None)

    task.add_done_callback(look)
    return failed


class _App(faust.App):
    """A Faust app that keeps nothing on disk and says when it crashed."""

    mundane_level = "debug"
    fetch_wait_ms: int
    begin: Callable[[frozenset[Place]], Awaitable[Mapping[Place, int]]] | None
    deliver: Callable[[int, int, Place, Sequence[Any]], Awaitable[None]]
    acknowledged: Callable[[], Mapping[Place, int]]
    notes: Notes | None
    seeks: Callable[[], int]

    async def on_first_start(self) -> None:
        """Faust makes folders for tables here; there are none."""

    async def until_crashed(self) -> None:
        """Return when any service of the app has crashed."""
        while not self.crashed:  # noqa: ASYNC110  # an event of mode belongs to a loop that may be another thread's
            await asyncio.sleep(0.1)


class _Tables(TableManager):
    """Faust's tables. There are none, so what waits for them goes on at once; Faust gives them a second to appear."""

    mundane_level = "debug"

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class _Offset(int):
    """An offset on its way to a commit, and what is written beside it: Faust hands on the number alone."""

    note: str = ""


def _note_of(offset: int | None) -> str:
    return offset.note if isinstance(offset, _Offset) else ""


class _Thread(driver.AIOKafkaConsumerThread):
    """The consumer's thread, whose fetches wait as long as the app says."""

    mundane_level = "debug"

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        wait_ms = cast("_App", self.app).fetch_wait_ms
        consumer._fetch_max_wait_ms = wait_ms  # noqa: SLF001  # Faust has no setting for it
        commit = consumer.commit

        async def commit_with_notes(offsets: Mapping[TP, OffsetAndMetadata]) -> None:
            await commit({at: OffsetAndMetadata(each.offset, _note_of(each.offset)) for at, each in offsets.items()})

        consumer.commit = commit_with_notes  # Faust writes nothing there
        return consumer

    async def committed_notes(self) -> Mapping[Place, str]:
        """What is written beside the group's commits of the partitions that are assigned."""
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001  # aiokafka gives the offsets alone
        found = await self.call_thread(coordinator.fetch_committed_offsets, list(self.assignment()))
        return {(at.topic, at.partition): each.metadata or "" for at, each in found.items()}

    async def on_thread_stop(self) -> None:
        """Leave the group, also in generation 0: Tansu counts from there, and aiokafka takes it for no generation."""
        coordinator = self._consumer._coordinator if self._consumer is not None else None  # noqa: SLF001
        if coordinator is not None and coordinator.generation == 0:
            with contextlib.suppress(KafkaError):
                await coordinator._send_req(LeaveGroupRequest(self.app.conf.id, coordinator.member_id))  # noqa: SLF001
        await super().on_thread_stop()


class _Consumer(driver.Consumer):
    """Faust's consumer, without its streams and their bookkeeping of what was acknowledged."""

    mundane_level = "debug"
    #: How often it had been sent elsewhere when the last fetch was asked for.
    _fetched_at: int = 0
    #: What the group had committed when it was asked last.
    _committed_by_group: Mapping[TP, int | None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_on = ReadOn()

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Hand on what is fetched, a partition's records at once; Faust's own way is one task a record or more."""
        app = cast("_App", self.app)
        try:
            while not (self.should_stop or fetcher.should_stop):
                await asyncio.sleep(0)
                if self.flow_active:
                    await self._ask_again()
                records, _ = await self._wait_next_records(timeout=1.0)
                if self.should_stop:
                    return
                generation, seeks = app.consumer_generation_id, self._fetched_at
                for at, fetched in (records or {}).items():
                    place = at.topic, at.partition
                    if not self.flow_active:
                        self._read_on.drop([place])
                    elif fetched and self._read_on.take(place, fetched[0].offset, fetched[-1].offset):
                        delivering = app.deliver(generation, seeks, place, fetched)
                        waited = await self.wait_first(delivering, self.suspend_flow.wait())
                        if delivering not in waited.done:
                            self._read_on.give_back(place, fetched[0].offset, fetched[-1].offset)
        except self.consumer_stopped_errors:
            if not app.should_stop:
                raise

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's
        self._fetched_at = cast("_App", self.app).seeks()
        return await super()._getmany(active_partitions, timeout)

    async def _ask_again(self) -> None:
        """Go back to what was fetched and thrown away."""
        positions = self._read_on.to_ask_again(_places(self.assignment()))
        if not positions:
            return
        log.debug("what was thrown away is fetched again", extra=fields(positions=str(positions)))
        try:
            await super().seek_wait({TP(*place): offset for place, offset in positions.items()})
        except Exception as error:  # it is tried again before anything else is taken
            log.warning("cannot fetch again yet what was thrown away", extra=fields(error=describe(error)))
        else:
            self._read_on.asked_again(positions)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Read on elsewhere."""
        await super().seek_wait(partitions)
        self._read_on.sent({(at.topic, at.partition): offset for at, offset in partitions.items()})

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Faust calls it before each assignment, whatever was held until then."""
        self._read_on.forget()
        await super().on_partitions_revoked(revoked)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (TP(*place) for place in cast("_App", self.app).acknowledged())

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        app = cast("_App", self.app)
        done = app.acknowledged()
        offsets: dict[TP, int] = {}
        for at in tps:
            place = at.topic, at.partition
            if place in done:
                offset = _Offset(done[place])
                offset.note = app.notes.note(place) if app.notes else ""
                if self._should_commit(at, offset):
                    offsets[at] = offset
        return offsets

    def _should_commit(self, tp: TP, offset: int) -> bool:
        """Faust commits only what is further than before; in a topic that was made again everything is less far."""
        committed = self._committed_offset[tp]
        return offset != committed or _note_of(offset) != _note_of(committed)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """The watchdog does it; Faust would look at its streams."""

    async def perform_seek(self) -> None:
        """Faust takes where it begins for what the group has committed, and would not commit that any more."""
        await super().perform_seek()
        self._committed_offset.update({place: offset or None for place, offset in self._committed_by_group.items()})

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Continue where the ledger says; Faust calls this after the assignment is told, and whenever it lost track."""
        begin, notes = cast("_App", self.app).begin, cast("_App", self.app).notes
        # Notes first: an old one beside a new commit has too much read, a new one beside an old commit too little.
        written = await cast("_Thread", self._thread).committed_notes() if notes is not None else {}
        self._committed_by_group = committed = await super().seek_to_committed()
        assigned = self.assignment()
        if not assigned:
            return committed
        places = _places(assigned)
        if notes is not None:
            notes.take({place: written.get(place, "") for place in places})
        told = await begin(places) if begin is not None else {}
        # Where the group has committed nothing aiokafka stays where it is: what was fetched from there in a rebalance,
        # and thrown away, would never come again. Where the log begins later, it takes its beginning.
        positions = {
            TP(*place): told.get(place, 0) for place in places if place in told or not committed.get(TP(*place))
        }
        self._read_on.sent({place: offset for place in places if (offset := committed.get(TP(*place)))})
        if positions:
            await self.seek_wait(positions)
        return {**committed, **positions}


class _Transport(driver.Transport):
    Consumer = _Consumer
