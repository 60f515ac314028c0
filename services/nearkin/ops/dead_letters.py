"""Sends dead letters, and returns once the broker has them: they may come twice, never not at all."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from nearkin.contracts.topics import Topic
from nearkin.core.errors import Unavailable
from nearkin.ops.failures import dead_letter
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.record import Rejected

log = logging.getLogger(__name__)

Redact = Callable[[bytes | None], bytes | None]


class DeadLetters:
    """The dead-letter topics of some topics.

    Args:
        bootstrap: the brokers.
        topics: those whose events may be refused.
        metrics: what is counted.
        redact: for a topic whose events may name people, what may be kept of a value.
    """

    def __init__(
        self, bootstrap: str, topics: Iterable[Topic], metrics: Metrics, redact: Mapping[Topic, Redact] | None = None
    ) -> None:
        self._bootstrap, self._metrics = bootstrap, metrics
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
            now_ms = time.time_ns() // 1_000_000
            for each in rejected:
                name = each.record.topic
                letter = dead_letter(each, self._topics[name], now_ms, self._redact.get(name))
                # A batch of one, because `send` refuses a record with neither key nor value.
                batch = producer.create_batch()
                batch.append(key=letter.key, value=letter.value, timestamp=None, headers=list(letter.headers))
                partitions = await producer.partitions_for(letter.topic)
                partition = each.record.partition if each.record.partition in partitions else min(partitions)
                await (await producer.send_batch(batch, letter.topic, partition=partition))
        except (KafkaError, OSError) as error:
            raise Unavailable("broker", f"dead letters are not taken: {describe(error)}") from error

    async def close(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", request_timeout_ms=15_000)
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
        log.warning(
            "dead letter",
            extra=fields(
                reason=each.error.reason,
                field=each.error.field,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            ),
        )
