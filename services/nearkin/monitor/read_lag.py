"""How far each lane is behind, by what the broker says: it knows even while whoever serves the lane is stuck or dead.

A partition's waiting events are those from the offset that its consumer group has committed up to its end; the oldest
of them is the record at that offset, whose time is read from the log itself. Feedback counts by guards in Redis, not by
what its group has committed, but the worker commits what it has counted, so that a broker can be asked.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
)

from nearkin.contracts.topics import FEEDBACK, GROUPS, ITEMS, ITEMS_BULK, SOURCES, VISITS
from nearkin.core.errors import NearkinError, Unavailable
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity
from nearkin.ops.logs import describe
from nearkin.ops.record import Place, Record, record_of

log = logging.getLogger(__name__)

#: The lanes, as metrics call them, by topic.
LANES = {ITEMS.name: "live", ITEMS_BULK.name: "bulk", FEEDBACK.name: "feedback", VISITS.name: "visits"}

#: How long one question may take, and how long the broker may take to give a record that it says it has, in seconds.
ASK_S, FETCH_S = 5.0, 2.0

#: So often the broker is asked which partitions there are, in seconds; so many oldest records are read at a time.
TOPICS_EVERY_S, HEADS = 5.0, 64

#: How long a fetch that looks for the end of a partition may find nothing, in milliseconds.
LOOK_MS = 200


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in one partition.

    Attributes:
        place: the topic and the partition.
        group: who serves it.
        position: the offset that is applied next.
        count: how many events wait from there on.
    """

    place: Place
    group: str
    position: int
    count: int

    @property
    def lane(self) -> str:
        """The lane's name."""
        return LANES[self.place[0]]


def waiting_from(begin: int, end: int, committed: int) -> tuple[int, int]:
    """Where a group goes on in a partition, and how much waits there.

    Args:
        begin: the first offset that is still kept.
        end: one more than the last one's.
        committed: what the group has committed; negative where it has not.

    Returns:
        The offset, and the number of events: what retention has taken nobody waits for.
    """
    position = max(begin, committed) if committed <= end else begin
    return position, end - position


class BrokerSide:
    """Asks a broker again and again, over two connections that are opened anew when they break.

    Args:
        bootstrap: the brokers.
        security: how they are spoken to.
        clock: monotonic seconds.
    """

    def __init__(
        self, bootstrap: str, security: KafkaSecurity = PLAINTEXT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bootstrap, self._security, self._clock = bootstrap, security, clock
        self._admin: AIOKafkaAdminClient | None = None
        self._reader: AIOKafkaConsumer | None = None
        self._partitions: dict[str, list[TopicPartition]] = {}
        self._listed_at = -math.inf
        self._committed: dict[str, dict[TopicPartition, int]] = {}
        self._looked: dict[TopicPartition, tuple[int, int, int]] = {}

    async def read_lag(self) -> list[Waiting]:
        """What waits in each partition of the topics that are there.

        Raises:
            Unavailable: the broker does not answer.
        """
        async with self._connected() as (admin, reader):
            partitions = await self._there(admin)
            committed: dict[TopicPartition, int] = {}
            for group in dict.fromkeys(GROUPS.values()):
                wanted = [at for topic in SOURCES if GROUPS[topic] == group for at in partitions.get(topic.name, ())]
                if wanted:
                    committed |= await self._committed_by(admin, group, wanted)
            # Asked for after the commits, so that no commit is taken for one beyond the end.
            begins, ends = await self._bounds([at for topic in SOURCES for at in partitions.get(topic.name, ())])
            ends = {**ends, **await self._look_beyond(reader, committed, ends)}
        groups = {topic.name: group for topic, group in GROUPS.items()}
        waiting = []
        for at, end in sorted(ends.items()):
            if at not in committed:
                continue  # nobody can say yet
            position, count = waiting_from(begins.get(at, 0), end, committed[at])
            waiting.append(Waiting((at.topic, at.partition), groups[at.topic], position, count))
        return waiting

    async def bounds(self, topics: Iterable[str]) -> dict[Place, tuple[int, int]]:
        """The first offset that is kept of each partition of some topics, and one more than the last one's.

        Raises:
            Unavailable: the broker does not answer.
        """
        async with self._connected() as (admin, _):
            partitions = await self._there(admin)
            begins, ends = await self._bounds([at for topic in topics for at in partitions.get(topic, ())])
        return {(at.topic, at.partition): (begins[at], end) for at, end in ends.items() if at in begins}

    async def read_some(self, place: Place, start: int, most: int = 500) -> Sequence[Record]:
        """Some records from an offset on; none where the broker gives none in time.

        Raises:
            Unavailable: the broker does not answer.
        """
        at = TopicPartition(*place)
        async with self._connected() as (_, reader):
            reader.assign([at])
            try:
                reader.seek(at, start)
                found = await reader.getmany(at, timeout_ms=int(FETCH_S * 1000), max_records=most)
                return [record_of(each) for each in found.get(at, ()) if each.offset >= start]
            finally:
                reader.unsubscribe()

    async def close(self) -> None:
        """Disconnect."""
        reader, self._reader = self._reader, None
        admin, self._admin = self._admin, None
        self._listed_at = -math.inf
        for closing in (reader and reader.stop(), admin and admin.close()):
            if closing is not None:
                # What is closed because it broke may break while it is closed, or hang.
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(ASK_S):
                        await closing

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
        """Both connections; whatever goes wrong with them ends them, and the next question opens others."""
        try:
            if self._admin is None:
                options = self._security.options()
                self._admin = AIOKafkaAdminClient(
                    bootstrap_servers=self._bootstrap, request_timeout_ms=int(ASK_S * 1000), **options
                )
                await self._admin.start()
            if self._reader is None:
                self._reader = AIOKafkaConsumer(
                    bootstrap_servers=self._bootstrap,
                    enable_auto_commit=False,
                    auto_offset_reset="earliest",
                    request_timeout_ms=int(ASK_S * 1000),
                    fetch_max_wait_ms=100,
                    max_partition_fetch_bytes=64 * 1024,
                    **self._security.options(),
                )
                await self._reader.start()
            yield self._admin, self._reader
        except NearkinError:
            raise
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise Unavailable("broker", f"{self._bootstrap} does not answer ({type(error).__name__})") from error
        except Exception as error:  # the client fails in its own ways where a broker answers what it does not expect
            await self.close()
            raise Unavailable("broker", f"{self._bootstrap} cannot be asked: {describe(error)}") from error

    async def _there(self, admin: AIOKafkaAdminClient) -> dict[str, list[TopicPartition]]:
        """The partitions of the topics that are there. They are listed, not named: some brokers make what is named."""
        if self._clock() - self._listed_at >= TOPICS_EVERY_S:
            names = {name for topic in SOURCES for name in (topic.name, topic.dead_letters.name)}
            there = sorted(names.intersection(await admin.list_topics()))
            described = await admin.describe_topics(there) if there else []
            self._partitions = {
                topic["topic"]: sorted(TopicPartition(topic["topic"], one["partition"]) for one in topic["partitions"])
                for topic in described
                if not topic["error_code"]
            }
            self._listed_at = self._clock()
        return self._partitions

    async def _bounds(
        self, partitions: list[TopicPartition]
    ) -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
        if not partitions or self._reader is None:
            return {}, {}
        return await self._reader.beginning_offsets(partitions), await self._reader.end_offsets(partitions)

    async def _committed_by(
        self, admin: AIOKafkaAdminClient, group: str, wanted: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """What a group has committed; what it had, while its coordinator is made or moves, as brokers answer then."""
        try:
            said = await admin.list_consumer_group_offsets(group, partitions=wanted)
            self._committed[group] = {at: said[at].offset for at in wanted if at in said}
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError):
            pass
        return self._committed.get(group, {})

    async def _look_beyond(
        self, reader: AIOKafkaConsumer, committed: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """The ends of partitions whose commit is beyond the end that the broker named.

        Some brokers name the beginning of the last batch; what comes with a fetch is right. Where that is below the
        commit too, the topic was made again, and its group reads it from the beginning.
        """
        beyond = {at: (done, ends[at]) for at, done in committed.items() if at in ends and done > ends[at]}
        new = [at for at, seen in beyond.items() if self._looked.get(at, ())[:2] != seen]
        if new:
            reader.assign(new)
            try:
                for at in new:
                    reader.seek(at, beyond[at][0])
                await reader.getmany(*new, timeout_ms=LOOK_MS, max_records=1)
                for at in new:
                    found = reader.highwater(at)
                    if found is not None:
                        self._looked[at] = (*beyond[at], found)
            finally:
                reader.unsubscribe()
        # Of one that no fetch has told of yet, nothing is known but that all was applied that was there.
        return {at: self._looked[at][2] if at in self._looked else done for at, (done, _) in beyond.items()}


@dataclass(slots=True)
class _Head:
    """The oldest event that waits in a partition: where it is, since when it is seen there, and when it was stamped."""

    position: int
    end: int
    since: float
    stamped_s: float | None = None


@dataclass(slots=True)
class Oldest:
    """How old the oldest waiting event of each lane is.

    What is known stays known while the broker is away: its events wait on, and grow older. An event is at least as old
    as the time for which it was seen to wait, whatever the clock of whoever stamped it says.

    Attributes:
        clock: monotonic seconds.
        now: seconds since the epoch.
    """

    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    _heads: dict[Place, _Head] = field(default_factory=dict)

    def see(self, waiting: Sequence[Waiting]) -> list[tuple[Place, int]]:
        """Take what waits now.

        Returns:
            Places and offsets of the records whose time is not known yet.
        """
        heads: dict[Place, _Head] = {}
        for one in waiting:
            if not one.count:
                continue
            head, end = self._heads.get(one.place), one.position + one.count
            # A log that is shorter than it was is another one.
            if head is None or head.position != one.position or end < head.end:
                head = _Head(one.position, end, self.clock())
            head.end = end
            heads[one.place] = head
        self._heads = heads  # at once: another thread may be asking for ages
        unknown = [(place, head.position) for place, head in heads.items() if head.stamped_s is None]
        return sorted(unknown, key=lambda one: heads[one[0]].since)[:HEADS]

    def stamp(self, place: Place, position: int, timestamp_ms: int) -> None:
        """Take the time of a record; nothing is known of one that has none."""
        head = self._heads.get(place)
        if head is not None and head.position == position and timestamp_ms > 0:
            head.stamped_s = timestamp_ms / 1000

    def ages(self) -> dict[str, float]:
        """For each lane the age of its oldest waiting event, in seconds; 0 where none waits. From any thread."""
        ages = dict.fromkeys(LANES.values(), 0.0)
        for (topic, _), head in self._heads.items():
            stamped = 0.0 if head.stamped_s is None else self.now() - head.stamped_s
            ages[LANES[topic]] = max(ages[LANES[topic]], stamped, self.clock() - head.since)
        return ages


async def read_heads(broker: BrokerSide, oldest: Oldest, unknown: Iterable[tuple[Place, int]]) -> None:
    """Read the times of the oldest waiting records that are not known yet.

    Raises:
        Unavailable: the broker does not answer.
    """
    for place, position in unknown:
        for record in (await broker.read_some(place, position, most=1))[:1]:
            oldest.stamp(place, position, record.timestamp_ms)
