"""Reads a stretch of a partition beside the consumer that serves, and tells which log it is.

The id of a topic tells a topic that was made again from the one before, whose offsets meant something else. aiokafka
does not ask for it, kafka-python does.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError as AioKafkaError
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.ops.ask_broker import ask_broker
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity
from nearkin.ops.record import Place, Record, record_of

#: How long the broker may take to answer, and how long a stretch that it says it has may bring nothing, in seconds.
ASK_S, STUCK_S = 10.0, 15.0

#: A broker that has no ids for its topics names all of them so.
_NO_ID = "00000000-0000-0000-0000-000000000000"


class NothingThere(Unavailable):
    """A stretch of a log brings nothing for `STUCK_S`: the broker does not keep up, or the log ends before."""


@dataclass(frozen=True, slots=True)
class Log:
    """One partition as the broker has it now.

    Attributes:
        topic_id: of its topic; another one when the topic is made again.
        begin: the first offset that is still kept.
        end: one more than the last one's; some brokers name an older end, none a later one.
    """

    topic_id: str
    begin: int
    end: int


class Logs:
    """The partitions of a broker.

    Args:
        bootstrap: the brokers.
        security: how connections to them are protected.
    """

    def __init__(self, bootstrap: str, security: KafkaSecurity = PLAINTEXT) -> None:
        self._bootstrap, self._security = bootstrap, security

    async def describe(self, places: Iterable[Place]) -> dict[Place, Log]:
        """What the broker says of some partitions; one whose topic is not there is left out.

        Raises:
            Unavailable: it does not answer.
            Misconfigured: it has no ids for its topics.
        """
        wanted = sorted(places)
        ids = await self.ids(sorted({topic for topic, _ in wanted}))
        partitions = [TopicPartition(*place) for place in wanted if place[0] in ids]
        if not partitions:
            return {}
        async with ask_broker(self._bootstrap, ASK_S, self._security) as asker:
            ends = await asker.end_offsets(partitions)
            begins = await asker.beginning_offsets(partitions)
        return {
            (at.topic, at.partition): Log(ids[at.topic], int(begins[at]), int(ends[at]))
            for at in partitions
            if at in begins and at in ends
        }

    async def ids(self, topics: Sequence[str]) -> dict[str, str]:
        """The ids of those topics that are there; errors as `describe`."""
        return await asyncio.to_thread(self._topic_ids, list(topics))

    async def read(self, place: Place, start: int, end: int) -> AsyncIterator[list[Record]]:
        """The records from one offset up to another, in pieces; what is not kept any more is left out.

        Raises:
            NothingThere: it gives nothing at some offset before the end.
            Unavailable: the broker does not give them.
        """
        if start >= end:
            return
        at = TopicPartition(*place)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            request_timeout_ms=int(ASK_S * 1000),
            fetch_max_wait_ms=20,
            max_poll_records=1000,
            **self._security.options(),
        )
        try:
            async with asyncio.timeout(ASK_S):
                await consumer.start()
            consumer.assign([at])
            consumer.seek(at, start)
            heard_at = time.monotonic()
            while start < end:
                for fetched in (await consumer.getmany(at, timeout_ms=200)).values():
                    yield [record_of(message) for message in fetched if start <= message.offset < end]
                async with asyncio.timeout(ASK_S):
                    reached = await consumer.position(at)
                if reached > start:
                    start, heard_at = reached, time.monotonic()
                elif time.monotonic() - heard_at > STUCK_S:
                    raise NothingThere("broker", f"{place[0]}[{place[1]}] gives nothing at offset {start}")
        except (AioKafkaError, OSError, TimeoutError) as error:
            raise Unavailable("broker", f"{self._bootstrap} does not answer{self._security.hint}") from error
        finally:
            with contextlib.suppress(asyncio.CancelledError, AioKafkaError, OSError):
                await consumer.stop()

    def _topic_ids(self, topics: list[str]) -> dict[str, str]:
        timeout_ms = int(ASK_S * 1000)
        try:
            admin = KafkaAdminClient(
                bootstrap_servers=self._bootstrap,
                bootstrap_timeout_ms=timeout_ms,
                request_timeout_ms=timeout_ms,
                **self._security.options(),
            )
            try:
                described = admin.describe_topics(topics)
            finally:
                admin.close()
        except (KafkaError, OSError) as error:
            raise Unavailable("broker", f"{self._bootstrap} does not answer{self._security.hint}") from error
        ids = {topic["name"]: str(topic["topic_id"]) for topic in described if not topic["error_code"]}
        if _NO_ID in ids.values():
            raise Misconfigured(
                "the broker has no ids for its topics",
                field="NEARKIN_KAFKA_BOOTSTRAP",
                remedy="give a Kafka of version 3.1 or newer, in KRaft mode or with inter.broker.protocol.version 2.8 "
                "or newer",
                reason="topic_ids",
            )
        return ids
