"""Replays the visits of a log on the stream's own clock, and waits until every one of them counts in look-ups.

The worker that counts them must be told the same clock (`NEARKIN_CLOCK=stream`): by the wall's, a log of the past is
older than feedback may be, and each of its visits would become a dead letter.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from nearkin.client.producer import Producer, Published
from nearkin.contracts.feedback import StreamTime
from nearkin.contracts.topics import VISITS
from nearkin.core.errors import InvalidEvent, Misconfigured, Unavailable
from nearkin.core.evidence import Source
from nearkin.core.ports import EvidenceStore
from nearkin.learning.item_to_item import Visit
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity
from nearkin.ops.read_log import Logs
from nearkin.ops.settings import Settings
from nearkin.stores.evidence import connect, rules_of

#: What a stack runs with that a log is replayed to: the log's clock, and answers that wait for the evidence.
REPLAYING = {"NEARKIN_CLOCK": "stream", "NEARKIN_LOOKUP_EVIDENCE_BUDGET_MS": "5000"}

#: The pause between two questions how far the visits are counted, in seconds.
ASK_EVERY_S = 0.3

#: Look-ups read the stream's clock and the sum of all visits once a second, and forget the marginals that they have
#: read once that clock is ten seconds on, far less than a replay takes it: so what counts is seen this much later, in
#: seconds. Where the clock stands still, as when a log is replayed again, marginals are up to ten seconds older.
SEEN_AFTER_S = 2.0

#: How long the counting may stand still, in seconds.
PATIENCE_S = 120.0

#: Names the events of a replay: a visit that is replayed again has the same event id.
_NAMESPACE = uuid.UUID("0d6c9a3e-6f0e-4b4d-9a53-5a8e6c1f7f11")


class _Ends:
    """One more than the last offset of each partition that visits were sent to, and the first failure."""

    def __init__(self) -> None:
        self.of: dict[int, int] = {}
        self.failure: BaseException | None = None
        self._lock = threading.Lock()

    def take(self, outcome: "Future[Published]") -> None:
        """Learn where a visit is kept; called by the producer's thread."""
        with self._lock:
            if (error := outcome.exception()) is not None:
                self.failure = self.failure or error
                return
            at = outcome.result()
            self.of[at.partition] = max(self.of.get(at.partition, 0), at.offset + 1)


async def replay_visits(settings: Settings, visits: Sequence[Visit], sent: Callable[[int], None]) -> None:
    """Publish visits in their order, and return when look-ups know all of them.

    Args:
        settings: where broker and evidence are.
        visits: in time order.
        sent: told how many are on their way, now and then.

    Raises:
        InvalidEvent: a visit breaks the contract; names it.
        Misconfigured: the evidence has other settings than these, or the visits were refused.
        Unavailable: a part does not answer, or the counting stands still.
    """
    ends = await asyncio.to_thread(publish_visits, settings.kafka_bootstrap, visits, sent, settings.kafka_security)
    store = connect(settings, rules_of(settings))
    try:
        await store.check()
        await until_counted(settings.kafka_bootstrap, store, ends, security=settings.kafka_security)
        newest, last = await store.read_newest(), int(visits[-1].at.timestamp() * 1000)
        if newest < last:
            raise Misconfigured(
                "the feedback worker refused the visits, which are of the past",
                field="NEARKIN_CLOCK",
                remedy="set it to stream for the feedback worker and the look-up service",
                reason="clock",
            )
    finally:
        await store.close()
    await asyncio.sleep(SEEN_AFTER_S)


def publish_visits(
    bootstrap: str, visits: Sequence[Visit], sent: Callable[[int], None], security: KafkaSecurity = PLAINTEXT
) -> dict[int, int]:
    """Publish visits in their order, each at its own time.

    Args:
        bootstrap: the brokers.
        visits: in time order.
        sent: told how many are on their way, now and then.
        security: how connections to the brokers are protected.

    Returns:
        For each partition that has any of them, one more than the last one's offset.

    Raises:
        InvalidEvent: a visit breaks the contract; names it.
        Unavailable: the broker does not take them.
    """
    clock, ends = StreamTime(), _Ends()
    with Producer(bootstrap, security=security, clock=lambda: clock.now_ms) as producer:
        for number, visit in enumerate(visits, 1):
            at = int(visit.at.timestamp() * 1000)
            clock.see(at)
            event_id = str(uuid.uuid5(_NAMESPACE, visit.id))
            try:
                outcome = producer.visit(visit.id, visit.items, event_id=event_id, occurred_at=at)
            except InvalidEvent as error:
                problem = f"visit {visit.id!r}, {error.field}: {error.problem}"
                raise InvalidEvent(problem, remedy=error.remedy, reason=error.reason) from error
            outcome.add_done_callback(ends.take)
            if number % 500 == 0:
                sent(number)
        producer.flush()
        sent(len(visits))
    if ends.failure is not None:
        raise ends.failure
    return ends.of


async def until_counted(
    bootstrap: str,
    store: EvidenceStore,
    ends: dict[int, int],
    *,
    patience_s: float = PATIENCE_S,
    security: KafkaSecurity = PLAINTEXT,
) -> None:
    """Wait until every shard has applied, or passed over, all that was published.

    Args:
        bootstrap: the brokers.
        store: where visits are counted.
        ends: of each partition, as `publish_visits` tells them.
        patience_s: how long nothing may move.
        security: how connections to the brokers are protected.

    Raises:
        Unavailable: the counting stands still, or the broker or the store does not answer.
    """
    described = await Logs(bootstrap, security).describe((VISITS.name, partition) for partition in ends)
    sources = {Source(log.topic_id, partition): ends[partition] for (_, partition), log in described.items()}
    behind, moved_at = None, time.monotonic()
    while behind != 0:
        guards = await asyncio.gather(*(store.read_guards(source) for source in sources))
        left = sum(max(0, end - min(of)) for end, of in zip(sources.values(), guards, strict=True))
        if left != behind:
            behind, moved_at = left, time.monotonic()
        elif time.monotonic() - moved_at > patience_s:
            raise Unavailable("feedback worker", f"{left} visits are not counted, and none was for {patience_s:g} s")
        if behind:
            await asyncio.sleep(ASK_EVERY_S)
