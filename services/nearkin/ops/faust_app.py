"""Faust, as far as a worker uses it: membership of a group, assignments, fetching, the timer of commits.

What is fetched goes to the worker many records at a time, past Faust's streams and their bookkeeping; what is committed
is what the worker says it has applied, with a note beside it. `docs/decisions/0005-delivery.md` says what Faust does by
itself that would lose or repeat events, and what is done about each.
"""

import asyncio
import contextlib
import logging
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
from nearkin.ops.kafka_security import KafkaSecurity
from nearkin.ops.logs import describe, fields
from nearkin.ops.read_on import ReadOn
from nearkin.ops.record import Place
from nearkin.ops.settings import Settings

log = logging.getLogger(__name__)

#: The smallest session timeout that Kafka admits by default: how long a killed worker's partitions stay unserved.
SESSION_TIMEOUT_S = 6.0

#: How often the broker is asked which partitions the topics have.
METADATA_MAX_AGE_MS = 5_000


class Notes(Protocol):
    """Who has a word written beside each commit, and is given it by whoever serves the partition next."""

    def take(self, notes: Mapping[Place, str]) -> None:
        """Take what is written beside the commits of the partitions that the worker holds from now on."""

    def note(self, place: Place) -> str:
        """What is written beside a commit of a partition from now on."""


class App(faust.App):
    """A Faust app that keeps nothing on disk and says when it crashed.

    Attributes:
        fetch_wait_ms: how long the broker may hold a fetch back while it has nothing.
        begin: says from where partitions are to be read, where that is not what the group has committed.
        deliver: takes what was fetched: in which generation, after how many seeks, of which partition.
        acknowledged: says of each partition one more than the last offset that may be committed.
        notes: what is written beside commits.
        seeks: how often the worker has sent the consumer elsewhere.
    """

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


def make_app(settings: Settings, group: str, topics: Sequence[Topic], *, batch: int, fetch_wait_ms: int) -> App:
    """A member of a group that is to serve topics; what it calls is set before it starts."""
    app = App(
        group,
        broker=[URL(f"kafka://{address.strip()}") for address in settings.kafka_bootstrap.split(",")],
        broker_credentials=_credentials(settings.kafka_security),
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
        broker_max_poll_records=max(512, batch),
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
    app.fetch_wait_ms = fetch_wait_ms
    app.transport = _Transport(app.conf.broker_consumer, app)
    topic = app.topic(
        *(topic.name for topic in topics),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
    )
    # An agent is how Faust learns what to subscribe to; nothing ever reaches it.
    app.agent(topic, name=f"{group}-agent", concurrency=1)(_idle)
    return app


def places_of(partitions: Iterable[TP]) -> frozenset[Place]:
    """Partitions as Faust names them, in our words."""
    return frozenset((at.topic, at.partition) for at in partitions)


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


async def _idle(stream: StreamT[Any]) -> None:
    async for _ in stream:
        pass


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
        wait_ms = cast("App", self.app).fetch_wait_ms
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


class Consumer(driver.Consumer):
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
        app = cast("App", self.app)
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
        self._fetched_at = cast("App", self.app).seeks()
        return await super()._getmany(active_partitions, timeout)

    async def _ask_again(self) -> None:
        """Go back to what was fetched and thrown away."""
        positions = self._read_on.to_ask_again(places_of(self.assignment()))
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
        """Faust calls it before each assignment, whatever was held until then, and stops only who held something."""
        self._read_on.forget()
        self.stop_flow()
        await super().on_partitions_revoked(revoked)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (TP(*place) for place in cast("App", self.app).acknowledged())

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        app = cast("App", self.app)
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
        """Continue where the ledger says; Faust calls this after the assignment is told."""
        begin, notes = cast("App", self.app).begin, cast("App", self.app).notes
        # Notes first: an old one beside a new commit has too much read, a new one beside an old commit too little.
        written = await cast("_Thread", self._thread).committed_notes() if notes is not None else {}
        self._committed_by_group = committed = await super().seek_to_committed()
        assigned = self.assignment()
        if not assigned:
            return committed
        places = places_of(assigned)
        if notes is not None:
            notes.take({place: written.get(place, "") for place in places})
        told = await begin(places) if begin is not None else {}
        # Where the group has committed nothing aiokafka stays where it is: what was fetched from there in a rebalance,
        # and thrown away, would never come again. Where the log begins later, it takes its beginning.
        positions = {
            TP(*place): told.get(place, 0) for place in places if place in told or not committed.get(TP(*place))
        }
        self._read_on.sent({place: committed[TP(*place)] for place in places if TP(*place) not in positions})
        if positions:
            await self.seek_wait(positions)
        return {**committed, **positions}


class _Transport(driver.Transport):
    Consumer = Consumer
