"""Publishes item events: checked before they are sent, acknowledged by every replica, never written twice by a retry.

Every call returns at once with a future that tells the outcome. Many events may wait for the broker at a time; when
`max_pending` do, the next call waits, so a fast producer cannot fill the memory.
"""

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from kafka import KafkaProducer
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    UnknownTopicOrPartitionError,
)

from nearkin.contracts.events import encode_deleted, encode_offered, encode_upserted
from nearkin.contracts.topics import ITEMS, ITEMS_BULK
from nearkin.core.errors import InvalidEvent, Misconfigured, NearkinError, Unavailable
from nearkin.core.item import Content, Offer
from nearkin.ops.reach import require_broker


@dataclass(frozen=True, slots=True)
class Published:
    """Where the broker keeps an event.

    Attributes:
        topic: the topic.
        partition: its partition.
        offset: its place in the partition; -1 where a retry learnt only that the broker has it already.
    """

    topic: str
    partition: int
    offset: int


def now_ms() -> int:
    """This machine's time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class ItemProducer:
    """Publishes what items are, what they cost, and that they are gone. Safe to share between threads.

    Versions decide which event wins whatever the order of arrival. They may be left out where one producer owns an
    item: then the event's time in milliseconds is its version. Either way all versions of an item count on one clock.

    Args:
        bootstrap: Kafka brokers, host:port separated by commas.
        connect_timeout_s: how long the broker may be out of reach at the start.
        delivery_timeout_s: after so long without an acknowledgement an event's future fails.
        max_pending: how many events may wait for the broker before a call waits.
        clock: gives the time in milliseconds.
        kafka_options: further options of kafka-python's KafkaProducer, such as those of TLS and SASL.

    Raises:
        Unavailable: no broker answers.
    """

    def __init__(
        self,
        bootstrap: str = "127.0.0.1:9092",
        *,
        connect_timeout_s: float = 10.0,
        delivery_timeout_s: float = 120.0,
        max_pending: int = 10_000,
        clock: Callable[[], int] = now_ms,
        **kafka_options: Any,
    ) -> None:
        require_broker(bootstrap, connect_timeout_s)
        self._bootstrap, self._clock = bootstrap, clock
        self._free = threading.BoundedSemaphore(max_pending)
        delivery_ms = int(delivery_timeout_s * 1000)
        options = {
            "bootstrap_servers": bootstrap,
            "bootstrap_timeout_ms": int(connect_timeout_s * 1000),
            "acks": "all",
            "enable_idempotence": True,
            # A topic that the broker makes by itself would not have the contract's settings.
            "allow_auto_create_topics": False,
            "delivery_timeout_ms": delivery_ms,
            "request_timeout_ms": min(30_000, max(1, delivery_ms - 1)),
            "max_block_ms": int(connect_timeout_s * 1000),
            "max_request_size": ITEMS.max_message_bytes,
        }
        try:
            self._kafka = KafkaProducer(**(options | kafka_options))
        except KafkaError as error:
            raise Unavailable("broker", f"{type(error).__name__} at {bootstrap}") from error

    def upsert(
        self,
        item_id: str,
        content: Content,
        content_version: int | None = None,
        *,
        offer: Offer | None = None,
        offer_version: int | None = None,
        event_id: str | None = None,
        occurred_at: int | None = None,
        bulk: bool = False,
    ) -> "Future[Published]":
        """Say what an item is; with `offer`, also what it costs.

        Args:
            item_id: the item.
            content: the whole content; it replaces what was said before.
            content_version: a number below 2**53 that grows with every change; the event's time by default.
            offer: price, availability and markets.
            offer_version: the offer's own version; the event's time by default.
            event_id: names the event; a new UUID by default. Give it where the same event may be sent again.
            occurred_at: milliseconds since the epoch; now by default.
            bulk: send it on the lane for first loads and backfills, which never delays new items.

        Raises:
            InvalidEvent: the event breaks the contract; nothing was sent.
        """
        at = self._clock() if occurred_at is None else occurred_at
        if offer is not None and offer_version is None:
            offer_version = at
        key, value = encode_upserted(
            item_id,
            content,
            at if content_version is None else content_version,
            event_id=event_id or str(uuid.uuid4()),
            occurred_at=at,
            offer=offer,
            offer_version=offer_version,
        )
        return self.send(key, value, bulk=bulk)

    def offer(
        self,
        item_id: str,
        offer: Offer,
        offer_version: int | None = None,
        *,
        event_id: str | None = None,
        occurred_at: int | None = None,
        bulk: bool = False,
    ) -> "Future[Published]":
        """Say what an item costs and where it is sold; arguments and errors as `upsert`."""
        at = self._clock() if occurred_at is None else occurred_at
        key, value = encode_offered(
            item_id,
            offer,
            at if offer_version is None else offer_version,
            event_id=event_id or str(uuid.uuid4()),
            occurred_at=at,
        )
        return self.send(key, value, bulk=bulk)

    def delete(
        self,
        item_id: str,
        version: int | None = None,
        *,
        event_id: str | None = None,
        occurred_at: int | None = None,
        bulk: bool = False,
    ) -> "Future[Published]":
        """Say that an item is gone, as far as versions up to `version` say; arguments and errors as `upsert`."""
        at = self._clock() if occurred_at is None else occurred_at
        key, value = encode_deleted(
            item_id, at if version is None else version, event_id=event_id or str(uuid.uuid4()), occurred_at=at
        )
        return self.send(key, value, bulk=bulk)

    def send(self, key: bytes, value: bytes, *, bulk: bool = False) -> "Future[Published]":
        """Send a record that `nearkin.contracts.events` made or checked.

        Raises:
            Misconfigured: the topic is missing.
            Unavailable: the broker does not answer.
        """
        topic = ITEMS_BULK.name if bulk else ITEMS.name
        outcome: Future[Published] = Future()
        self._free.acquire()
        try:
            sent = self._kafka.send(topic, key=key, value=value)
        except KafkaError as error:
            self._free.release()
            raise self._explain(error, topic) from error
        except BaseException:
            self._free.release()
            raise
        outcome.set_running_or_notify_cancel()  # from here on it cannot be called back

        def arrived(place: Any) -> None:
            self._free.release()
            outcome.set_result(Published(place.topic, place.partition, place.offset))

        def failed(error: Exception) -> None:
            self._free.release()
            outcome.set_exception(self._explain(error, topic))

        sent.add_callback(arrived)
        sent.add_errback(failed)
        return outcome

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every event sent so far has its outcome.

        Raises:
            Unavailable: the time passed first.
        """
        try:
            self._kafka.flush(timeout_s)
        except KafkaTimeoutError as error:
            raise Unavailable("broker", f"events still wait for {self._bootstrap} after {timeout_s:g} s") from error

    def close(self, timeout_s: float | None = None) -> None:
        """Wait for what was sent, then disconnect; after `timeout_s` what still waits fails."""
        self._kafka.close(timeout=timeout_s)

    def _explain(self, error: Exception, topic: str) -> NearkinError:
        if isinstance(error, MessageSizeTooLargeError):
            return InvalidEvent("the event is too large", remedy="send a smaller event", reason="too_large")
        if isinstance(error, UnknownTopicOrPartitionError):
            return Misconfigured(
                "the topic is not there", field=topic, remedy="run `nearkin topics apply`", reason="topics"
            )
        return Unavailable("broker", f"{type(error).__name__} at {self._bootstrap} for topic {topic}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Whoever leaves because of an error wants to leave now.
        self.close(None if error is None else 0)
