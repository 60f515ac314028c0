"""Sends dead letters, and returns once the broker has them: they may come twice, never not at all.

Those of one partition go out in order, many at a time, and the partitions beside each other: good events wait for them.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from nearkin.contracts.topics import Topic
from nearkin.core.errors import Unavailable
from nearkin.ops.failures import dead_letter
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.record import Place, Rejected
from nearkin.ops.tracing import OFF, Traces

log = logging.getLogger(__name__)

#: A batch of letters of one partition is about so large at most: well below what the topics take, as is a letter alone.
BATCH_BYTES = 256 * 1024

#: An event's name for itself, where it has one that looks like a name: of what was refused, nothing else is told.
EVENT_ID = re.compile(rb'"event_id"\s*:\s*"([A-Za-z0-9._:-]{1,64})"')

#: It is looked for in so many bytes: it stands among the first fields.
EVENT_ID_WITHIN = 4096

Redact = Callable[[bytes | None], bytes | None]


class DeadLetters:
    """The dead-letter topics of some topics.

    Args:
        bootstrap: the brokers.
        topics: those whose events may be refused.
        metrics: what is counted.
        redact: for a topic whose events may name people, what may be kept of a value.
        security: how connections to them are protected.
        traces: where is told that an event which belongs to a trace was refused.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Iterable[Topic],
        metrics: Metrics,
        redact: Mapping[Topic, Redact] | None = None,
        security: KafkaSecurity = PLAINTEXT,
        traces: Traces = OFF,
    ) -> None:
        self._bootstrap, self._metrics, self._security, self._traces = bootstrap, metrics, security, traces
        self._topics = {topic.name: topic.dead_letters for topic in topics}
        self._redact = {topic.name: clean for topic, clean in (redact or {}).items()}
        self._producer: AIOKafkaProducer | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def topics(self) -> list[str]:
        """The names of the dead-letter topics."""
        return [topic.name for topic in self._topics.values()]

    async def send(self, rejected: Sequence[Rejected]) -> None:
        """Send the dead letters of some records, and return when the broker has them all.

        Raises:
            Unavailable: it does not take them; some may be there already.
        """
        if not rejected:
            return
        async with self._one_at_a_time:
            await self._send(rejected)
        for each in rejected:
            self._count(each)

    async def _send(self, rejected: Sequence[Rejected]) -> None:
        try:
            producer = await self._connected()
            partitions = {
                name: await producer.partitions_for(self._topics[name].name)
                for name in {each.record.topic for each in rejected}
            }
            by_partition: dict[Place, list[Rejected]] = {}
            for each in rejected:
                name, partition = each.record.topic, each.record.partition
                place = name, partition if partition in partitions[name] else min(partitions[name])
                by_partition.setdefault(place, []).append(each)
            # All of them end before a failure is told: what is sent again must not meet what is still on its way.
            outcomes = await asyncio.gather(
                *(self._send_to(producer, place, some) for place, some in by_partition.items()), return_exceptions=True
            )
            for outcome in outcomes:
                if outcome is not None:
                    raise outcome
        except (KafkaError, OSError) as error:
            raise Unavailable("broker", f"dead letters are not taken: {describe(error)}") from error

    async def _send_to(self, producer: AIOKafkaProducer, place: Place, rejected: Sequence[Rejected]) -> None:
        """Send the letters of one partition in as few batches as hold them, and return when the broker has them."""
        name, partition = place
        topic, now_ms = self._topics[name], time.time_ns() // 1_000_000
        batch = producer.create_batch()
        for each in rejected:
            letter = dead_letter(each, topic, now_ms, self._redact.get(name))
            # Batches of our own, because `send` refuses a record with neither key nor value. An empty one takes any
            # letter, however large; a full one takes none.
            parts = {"key": letter.key, "value": letter.value, "timestamp": None, "headers": list(letter.headers)}
            if batch.append(**parts) is None:
                await (await producer.send_batch(batch, topic.name, partition=partition))
                batch = producer.create_batch()
                batch.append(**parts)
        await (await producer.send_batch(batch, topic.name, partition=partition))

    async def close(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                acks="all",
                request_timeout_ms=15_000,
                max_batch_size=BATCH_BYTES,
                **self._security.options(),
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    def _count(self, each: Rejected) -> None:
        record = each.record
        self._metrics.dead_letters.labels(topic=record.topic, reason=each.error.reason).inc()
        self._metrics.events.labels(topic=record.topic, outcome="dead_lettered").inc()
        name = EVENT_ID.search(record.value[:EVENT_ID_WITHIN]) if record.value else None
        event_id = name[1].decode() if name else ""
        log.warning(
            "dead letter",
            extra=fields(
                reason=each.error.reason,
                field=each.error.field,
                event_id=event_id,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            ),
        )
        if self._traces.on and (parent := self._traces.parent_of(record)) is not None:
            now = time.time()
            self._traces.processed(record, parent, now, now, event_id=event_id, refused=each.error.reason)
