"""Log what was answered to `lookups.v1`, without any answer waiting for it.

`offer` puts an answer into a bounded buffer and returns; one task takes portions out of it, encodes and sends them.
While the broker is away the buffer fills, what it has no room for is dropped and counted, and when the broker is back
what waits is sent: nothing here fails a look-up or needs a restart. Every answer that was offered is counted once, as
logged or with the reason why it is not.

What is not acknowledged is sent again, so an answer may be in the topic twice, under one `event_id`.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from nearkin.contracts.limits import MAX_EVENT_BYTES
from nearkin.contracts.lookups import encode_answered
from nearkin.contracts.topics import LOOKUPS
from nearkin.core.answer import LoggedAnswer, is_sampled
from nearkin.core.errors import TemporaryError, Unavailable
from nearkin.ops.failures import Stopped, engine_of, patiently
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import Settings

log = logging.getLogger(__name__)

#: A look-up that is sent again is known among so many that were taken last: at 1,000 a second those of half a minute,
#: which is longer than any deadline.
REMEMBERED: Final = 32_768

#: Answers go out together when the first of them has waited so long, in seconds.
GATHER_S: Final = 0.05

#: Answers sent at once, at most. The loop serves look-ups between any two of them: encoding one of ten items takes
#: 0.1 ms, and one of 200 items 1 ms.
PORTION: Final = 256

#: How long one request to the broker may take before it counts as failed, in milliseconds.
_REQUEST_TIMEOUT_MS = 10_000

#: How long a connection to a broker that does not answer may take to close, in seconds.
_CLOSE_S = 1.0


def make_request_id() -> str:
    """The id of a look-up whose caller gave none."""
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class _Record:
    """An answer on its way: encoded, and when it was offered, of `time.perf_counter`."""

    answer: LoggedAnswer
    offered_at: float
    key: bytes | None
    value: bytes


class AnswerLog:
    """Takes answers from one event loop and logs them.

    Args:
        settings: the broker, the share that is logged, the size of the buffer, and the pauses between tries.
        metrics: where each answer is counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._offered: deque[tuple[LoggedAnswer, float]] = deque()
        self._sending: list[_Record] = []
        self._waiting_items = 0
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._something, self._stopping = asyncio.Event(), asyncio.Event()
        self._producer: AIOKafkaProducer | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Send from now on; does not wait for the broker."""
        self._task = asyncio.create_task(self._run(), name="log answers")

    def offer(self, answer: LoggedAnswer) -> None:
        """Take an answer to be logged, or count why it is not; never waits and never raises.

        Args:
            answer: what was answered; its log rate is set here.
        """
        rate = 1.0 if answer.is_explored else self._settings.lookup_log_rate
        if not answer.is_explored and not is_sampled(answer.request_id, rate):
            return self._count_unlogged("not_sampled")
        event_id = answer.event_id
        if event_id in self._seen:
            return self._count_unlogged("repeated")
        if self._stopping.is_set():
            return self._count_unlogged("unsent")
        room = _items(answer)
        if self._waiting_items + room > self._settings.lookup_log_buffer:
            return self._count_unlogged("buffer_full")
        self._seen[event_id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        self._offered.append((replace(answer, log_rate=rate), time.perf_counter()))
        self._hold(room)
        self._something.set()
        return None

    async def drain(self, grace_s: float) -> None:
        """Send what waits, for at most so many seconds, and take nothing more; count what could not be sent."""
        self._stopping.set()
        self._something.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=grace_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        unsent = [record.answer for record in self._sending] + [answer for answer, _ in self._offered]
        self._sending, self._offered = [], deque()
        for answer in unsent:
            self._drop(answer, "unsent")
        if unsent:
            log.warning("the server stops before these answers were logged", extra=fields(answers=len(unsent)))
        await self._disconnect()

    async def _run(self) -> None:
        try:
            while not self._stopping.is_set() or self._offered:
                await self._something.wait()
                self._something.clear()
                await self._gather()
                while self._offered:
                    await self._send_portion()
        except Stopped:
            return

    async def _gather(self) -> None:
        """Let more answers come, unless the server stops."""
        try:
            async with asyncio.timeout(GATHER_S):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _send_portion(self) -> None:
        while self._offered and len(self._sending) < PORTION:
            answer, offered_at = self._offered.popleft()
            try:
                self._sending.append(_Record(answer, offered_at, *encode_answered(answer)))
            except Exception as error:  # whatever is wrong with one answer, the next is logged
                log.error("an answer cannot be logged", extra=fields(problem=describe(error)))
                self._drop(answer, "unwritable")
            await asyncio.sleep(0)
        await patiently(self._send, settings=self._settings, stopping=self._stopping, failed=self._count_retry)

    async def _send(self) -> None:
        """Send what is under way; what is acknowledged, or can never be, is under way no longer.

        Raises:
            Unavailable: something is left to be sent again.
        """
        acknowledged: list[asyncio.Future[Any]] = []
        problem: BaseException | None
        try:
            producer = await self._connected()
            for one in self._sending:
                sent = await producer.send(LOOKUPS.name, one.value, one.key, timestamp_ms=one.answer.at_ms)
                acknowledged.append(sent)
                await asyncio.sleep(0)
            problem = self._settle(await asyncio.gather(*acknowledged, return_exceptions=True))
        except Exception as error:  # whatever is wrong with one producer, the next may send
            for each in acknowledged:
                each.cancel()
            problem = error
        if problem is not None:
            await self._disconnect()
            raise Unavailable("broker", f"answers are not logged: {describe(problem)}") from problem

    def _settle(self, outcomes: Sequence[object]) -> BaseException | None:
        """Count what became of each record; gives what keeps one from being logged."""
        left, problem, now = [], None, time.perf_counter()
        for record, outcome in zip(self._sending, outcomes, strict=True):
            if isinstance(outcome, MessageSizeTooLargeError):
                log.error("an answer cannot be logged", extra=fields(reason="too_large", bytes=len(record.value)))
                self._drop(record.answer, "unwritable")
            elif isinstance(outcome, BaseException):
                left.append(record)
                problem = outcome
            else:
                self._metrics.lookups_logged.inc()
                self._metrics.lookup_log_seconds.observe(now - record.offered_at)
                self._hold(-_items(record.answer))
        self._sending = left
        return problem

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            self._producer = AIOKafkaProducer(
                bootstrap_servers=self._settings.kafka_bootstrap,
                acks="all",
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
                max_batch_size=2 * MAX_EVENT_BYTES,
                **self._settings.kafka_security.options(),
            )
            await self._producer.start()
        return self._producer

    async def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await producer.stop()
            except (KafkaError, OSError, TimeoutError):
                await producer.client.close()

    def _hold(self, items: int) -> None:
        self._waiting_items += items
        self._metrics.lookup_log_waiting.set(self._waiting_items)

    def _drop(self, answer: LoggedAnswer, reason: str) -> None:
        self._hold(-_items(answer))
        self._count_unlogged(reason)

    def _count_unlogged(self, reason: str) -> None:
        self._metrics.lookups_unlogged.labels(reason=reason).inc()

    def _count_retry(self, error: TemporaryError) -> None:
        self._metrics.retries.labels(engine=engine_of(error)).inc()


def _items(answer: LoggedAnswer) -> int:
    """What an answer takes of the buffer; one without neighbours takes a place too."""
    return max(1, len(answer.positions))
