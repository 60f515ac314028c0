"""Publishes items, feedback and visits: checked, acknowledged by every replica, never written twice by a retry.

Every call returns at once with a future that tells the outcome. Many events may wait for the broker at a time; when
`max_pending` do, the next call waits, so a fast producer cannot fill the memory.
"""

import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kafka import KafkaProducer
from kafka.errors import (
    AuthorizationError,
    IllegalStateError,
    KafkaConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
    UnsupportedVersionError,
)

from nearkin.contracts.events import encode_deleted, encode_offered, encode_upserted
from nearkin.contracts.feedback import encode_impressions, encode_interaction, encode_visit, require_timely
from nearkin.contracts.topics import FEEDBACK, ITEMS, ITEMS_BULK, VISITS, Topic
from nearkin.contracts.wire import refused
from nearkin.core.errors import InvalidEvent, Misconfigured, NearkinError, PermanentError, Unavailable
from nearkin.core.feedback import Action, Impressions, Interaction, Shown, Visit, VisitKind
from nearkin.core.item import Content, Offer
from nearkin.core.probe import PROBE_PREFIX
from nearkin.core.pseudonym import KEY_FORM, PseudonymKey
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity
from nearkin.ops.reach import require_broker
from nearkin.ops.settings import load_settings
from nearkin.ops.tracing import OFF, Traces

Member = TypeVar("Member")

#: The longest pause between two attempts to reach a broker that is away, in milliseconds.
RECONNECT_MAX_MS = 1_000


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


class Producer:
    """Publishes what items are, cost, and that they are gone; what was shown and done. Safe to share between threads.

    Versions decide which event wins whatever the order of arrival. They may be left out where one producer owns an
    item: then the event's time in milliseconds is its version. Either way all versions of an item count on one clock.

    Feedback names a user by a pseudonym, which is made here: `user` never leaves this process.

    Args:
        bootstrap: Kafka brokers, host:port separated by commas.
        connect_timeout_s: how long the broker may be out of reach at the start.
        delivery_timeout_s: after so long without an acknowledgement an event's future fails.
        max_pending: how many events may wait for the broker before a call waits.
        clock: gives the time in milliseconds: that of events without one, and by which feedback is late or early.
        may_probe: whether items may have ids of the monitor's probes; for the monitor alone, see `core.probe`.
        security: how the connection is protected: TLS, a user with a password, both or neither.
        pseudonym_key: makes pseudonyms of users: `<key id>:<64 hex digits>`; by default what `NEARKIN_PSEUDONYM_KEY`
            or its file says when the first user is named.
        traces: begins a trace with some events, which those who consume them go on with: `start_traces` of
            `nearkin.ops.tracing` by the settings, or `Spans` around the application's own TracerProvider.
        kafka_options: further options of kafka-python's KafkaProducer.

    Raises:
        Misconfigured: an argument is not as it must be; names it.
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
        pseudonym_key: str | None = None,
        may_probe: bool = False,
        security: KafkaSecurity = PLAINTEXT,
        traces: Traces = OFF,
        **kafka_options: Any,
    ) -> None:
        if not isinstance(bootstrap, str):
            raise _argument("bootstrap", f"it is of the type {type(bootstrap).__name__}", "give host:port as a text")
        _require_seconds("connect_timeout_s", connect_timeout_s)
        _require_seconds("delivery_timeout_s", delivery_timeout_s)
        if not isinstance(max_pending, int) or max_pending < 1:
            raise _argument("max_pending", f"{max_pending!r} is no number of events", "give a whole number from 1")
        _check_options(kafka_options)
        self._key = None if pseudonym_key is None else _parsed(pseudonym_key)
        require_broker(bootstrap, connect_timeout_s)
        self._bootstrap, self._clock, self._closed = bootstrap, clock, False
        self._hint = security.hint
        self._may_probe, self._traces = may_probe, traces
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
            # After an outage events would wait for up to half a minute longer than the broker is away.
            "reconnect_backoff_max_ms": RECONNECT_MAX_MS,
        }
        try:
            self._kafka = KafkaProducer(**(options | security.options() | kafka_options))
        except (KafkaConfigurationError, ValueError, TypeError, AssertionError, RuntimeError) as error:
            raise _argument("kafka_options", f"KafkaProducer refuses them: {error}", "correct or omit them") from error
        except KafkaError as error:
            raise self._explain(error) from error
        _ask_for_another_id(self._kafka)

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
            InvalidEvent: the event breaks the contract, or an argument has a wrong type; nothing was sent.
            PermanentError: this producer is closed.
        """
        event_id, at = self._stamp(event_id, occurred_at)
        if offer is not None and offer_version is None:
            offer_version = at
        key, value = encode_upserted(
            item_id,
            content,
            at if content_version is None else content_version,
            event_id=event_id,
            occurred_at=at,
            offer=offer,
            offer_version=offer_version,
        )
        return self.send(key, value, ITEMS_BULK if bulk else ITEMS)

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
        event_id, at = self._stamp(event_id, occurred_at)
        key, value = encode_offered(
            item_id,
            offer,
            at if offer_version is None else offer_version,
            event_id=event_id,
            occurred_at=at,
        )
        return self.send(key, value, ITEMS_BULK if bulk else ITEMS)

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
        event_id, at = self._stamp(event_id, occurred_at)
        key, value = encode_deleted(item_id, at if version is None else version, event_id=event_id, occurred_at=at)
        return self.send(key, value, ITEMS_BULK if bulk else ITEMS)

    def impressions(
        self,
        anchor: str,
        request_id: str,
        surface: str,
        positions: Iterable[Shown],
        *,
        market: str = "",
        user: str | None = None,
        pseudonym: str | None = None,
        event_id: str | None = None,
        occurred_at: int | None = None,
    ) -> "Future[Published]":
        """Say what was shown beside an item, once it is known which of it could be seen.

        Args:
            anchor: the item whose neighbours were shown.
            request_id: the look-up that gave them.
            surface: where they were shown, such as "product-page".
            positions: the items, each at its position from 1.
            market: in which market; empty where it is not known.
            user: who saw them, by your own id: a pseudonym is made of it, and nothing else is sent.
            pseudonym: who saw them, where you have the pseudonym already; instead of `user`.
            event_id: names the event, which counts once; a new UUID by default. Give it where it may be sent again.
            occurred_at: milliseconds since the epoch; now by default.

        Raises:
            InvalidEvent: the event breaks the contract, or an argument has a wrong type; nothing was sent.
            Misconfigured: `user` is given, and no key is set.
            PermanentError: this producer is closed.
        """
        event_id, at = self._stamp(event_id, occurred_at)
        event = Impressions(
            event_id=event_id,
            occurred_at=at,
            anchor=anchor,
            request_id=request_id,
            surface=surface,
            positions=_listed(positions, "positions"),
            market=market,
            user=self._pseudonym(user, pseudonym),
        )
        return self._send_timely(event, encode_impressions(event), FEEDBACK)

    def interaction(
        self,
        anchor: str,
        item_id: str,
        action: Action,
        *,
        value: float = 1.0,
        request_id: str | None = None,
        surface: str | None = None,
        position: int | None = None,
        propensity: float | None = None,
        user: str | None = None,
        pseudonym: str | None = None,
        event_id: str | None = None,
        occurred_at: int | None = None,
    ) -> "Future[Published]":
        """Say what somebody did with an item that was shown beside another; otherwise as `impressions`.

        Args:
            anchor: the item whose neighbours were shown.
            item_id: the neighbour.
            action: what was done.
            value: how much of it, such as the pieces of a purchase.
            request_id: the look-up that gave the slate, where it is known. Only with it and the position does an action
                count against what was shown.
            surface: where the slate was shown, as in its impressions: what a position brings there is learned from it.
            position: where the item stood in it, from 1, where it is known.
            propensity: with which probability the policy put it there, where it is known.
            user: who did it, by your own id.
            pseudonym: who did it, by a pseudonym.
            event_id: names the event.
            occurred_at: milliseconds since the epoch; now by default.
        """
        event_id, at = self._stamp(event_id, occurred_at)
        event = Interaction(
            event_id=event_id,
            occurred_at=at,
            anchor=anchor,
            item_id=item_id,
            action=action,
            value=value,
            request_id=request_id,
            position=position,
            user=self._pseudonym(user, pseudonym),
            surface=surface,
            propensity=propensity,
        )
        return self._send_timely(event, encode_interaction(event), FEEDBACK)

    def visit(
        self,
        visit_id: str,
        items: Iterable[str],
        kind: VisitKind = VisitKind.BASKET,
        *,
        user: str | None = None,
        pseudonym: str | None = None,
        event_id: str | None = None,
        occurred_at: int | None = None,
    ) -> "Future[Published]":
        """Say which items were bought or seen together, once the visit is over; otherwise as `impressions`.

        Args:
            visit_id: the basket or the session, by an id of its own that names no person.
            items: its items; one that is named twice counts once.
            kind: a basket or a session.
            user: whose it is, by your own id.
            pseudonym: whose it is, by a pseudonym.
            event_id: names the event.
            occurred_at: milliseconds since the epoch; now by default.
        """
        event_id, at = self._stamp(event_id, occurred_at)
        event = Visit(
            event_id=event_id,
            occurred_at=at,
            visit_id=visit_id,
            kind=kind,
            items=_listed(items, "items"),
            user=self._pseudonym(user, pseudonym),
        )
        return self._send_timely(event, encode_visit(event), VISITS)

    def _stamp(self, event_id: str | None, occurred_at: int | None) -> tuple[str, int]:
        """An event's id and time, where the caller leaves them out."""
        return event_id or str(uuid.uuid4()), self._clock() if occurred_at is None else occurred_at

    def _send_timely(
        self, event: Impressions | Interaction | Visit, record: tuple[bytes, bytes], topic: Topic
    ) -> "Future[Published]":
        require_timely(event, self._clock())
        return self.send(*record, topic)

    def _pseudonym(self, user: str | None, pseudonym: str | None) -> str | None:
        if user is None:
            return pseudonym
        if pseudonym is not None:
            remedy = "give the user, or the pseudonym that was made of one"
            raise InvalidEvent("it comes with a user", field="pseudonym", remedy=remedy, reason="wrong_type")
        if not isinstance(user, str):
            raise refused("wrong_type", "user", f"it is of the type {type(user).__name__}, and must be a text")
        if not user.strip():
            raise refused("empty", "user", "it is empty")
        if self._key is None:
            self._key = key_of_settings()
        try:
            return self._key.pseudonym(user)
        except UnicodeEncodeError:
            raise refused("surrogate", "user", "it holds a lone surrogate") from None

    def send(
        self,
        key: bytes,
        value: bytes,
        topic: Topic = ITEMS,
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> "Future[Published]":
        """Send a record that `nearkin.contracts` made or checked.

        Args:
            key: its key.
            value: its value.
            topic: where it goes.
            headers: what goes with it.
            partition: where it must lie; by its key where this is None.

        Raises:
            InvalidEvent: the key or the value is not bytes, or the key is of an item whose id is reserved.
            Misconfigured: the topic is missing, or the broker refuses this producer.
            PermanentError: this producer is closed.
            Unavailable: the broker does not answer.
        """
        for name, part in (("key", key), ("value", value)):
            if not isinstance(part, bytes):
                problem = f"it is of the type {type(part).__name__}, and must be bytes"
                raise InvalidEvent(problem, field=name, remedy="give what encodes events", reason="wrong_type")
        if key.startswith(_PROBES) and topic in (ITEMS, ITEMS_BULK) and not self._may_probe:
            raise refused("reserved_id", "id", f"ids that begin with {PROBE_PREFIX} are of the monitor's probes")
        outcome: Future[Published] = Future()
        self._free.acquire()
        traced = self._traces.publishing(topic.name)
        carried = [*headers, *traced.headers] if traced else list(headers)
        try:
            sent = self._kafka.send(topic.name, key=key, value=value, headers=carried, partition=partition)
        except BaseException as error:
            self._free.release()
            if traced:
                traced.failed(type(error).__name__)
            if isinstance(error, KafkaError):
                raise self._explain(error, topic.name) from error
            raise
        outcome.set_running_or_notify_cancel()  # from here on it cannot be called back

        def arrived(place: Any) -> None:
            self._free.release()
            if traced:
                traced.arrived(place.partition, place.offset)
            outcome.set_result(Published(place.topic, place.partition, place.offset))

        def failed(error: Exception) -> None:
            self._free.release()
            if traced:
                traced.failed(type(error).__name__)
            outcome.set_exception(self._explain(error, topic.name))

        sent.add_callback(arrived)
        sent.add_errback(failed)
        return outcome

    def partitions(self, topic: Topic) -> frozenset[int]:
        """The partitions of a topic.

        Raises:
            Misconfigured: the broker refuses this producer.
            Unavailable: the broker does not answer, or has no such topic.
        """
        try:
            return frozenset(self._kafka.partitions_for(topic.name))
        except KafkaError as error:
            raise self._explain(error, topic.name) from error

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
        self._closed = True
        try:
            self._kafka.flush(timeout_s)
        except KafkaTimeoutError:
            timeout_s = 0
        # KafkaProducer's close flushes again; where that takes too long, it raises and goes on sending.
        self._kafka.flush = lambda timeout=None: None
        self._kafka.close(timeout=timeout_s)

    def _explain(self, error: Exception, topic: str = "") -> NearkinError:
        """The error of the family: what this producer's next try could not change is permanent."""
        place = f"{self._bootstrap} for topic {topic}" if topic else self._bootstrap
        match error:
            case MessageSizeTooLargeError() | RecordListTooLargeError():
                return InvalidEvent("the event is too large", remedy="send a smaller event", reason="too_large")
            case UnknownTopicOrPartitionError():
                return Misconfigured(
                    "the topic is not there", field=topic, remedy="run `nearkin topics apply`", reason="topics"
                )
            case IllegalStateError() if self._closed:
                return PermanentError("the producer is closed", remedy="make a new one", reason="closed")
            case AuthorizationError() | SaslAuthenticationFailedError() | UnsupportedSaslMechanismError():
                return Misconfigured(
                    f"the broker refuses this producer ({type(error).__name__} at {place})",
                    field="kafka_options",
                    remedy="give options of a user that may write, and be idempotent",
                )
            case IllegalStateError() | KafkaConfigurationError() | UnsupportedVersionError():
                return _argument("kafka_options", f"{type(error).__name__} at {place}", "correct or omit them")
            case _:
                return Unavailable("broker", f"{type(error).__name__} at {place}{self._hint}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Whoever leaves because of an error wants to leave now.
        self.close(None if error is None else 0)


_PROBES = PROBE_PREFIX.encode()

#: Options of KafkaProducer that name files; it would search for a missing one until its time is over.
_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")


def _ask_for_another_id(kafka: KafkaProducer) -> None:
    """Have a producer ask for another id wherever it gives up its own.

    It does when events expire that it had sent: the broker may have them or not. kafka-python (3.0.12) asks for no
    other one then, and without an id nothing is ever sent again.
    """
    manager = kafka._transaction_manager  # noqa: SLF001  # there is no other way in
    give_up = manager.reset_producer_id

    def give_up_and_ask() -> None:
        give_up()
        manager._current_state = type(manager._current_state).UNINITIALIZED  # noqa: SLF001

    manager.reset_producer_id = give_up_and_ask


def _check_options(options: dict[str, Any]) -> None:
    """Refuse what KafkaProducer would refuse late, or call a broker out of reach."""
    for name, value in options.items():
        if name not in KafkaProducer.DEFAULT_CONFIG:
            raise _argument(name, "kafka-python's KafkaProducer has no such option", "correct its name")
        if name in _FILES and value is not None and not Path(value).is_file():
            raise _argument(name, f"there is no file {str(value)!r}", "give the path of a file")
    if options.get("acks", "all") not in ("all", -1):
        raise _argument("acks", "an event would be lost with a replica", "leave it out: it is 'all'")
    if options.get("transactional_id") is not None:
        raise _argument("transactional_id", "events are not sent in transactions", "leave it out")


def _listed(values: Iterable[Member], field: str) -> tuple[Member, ...]:
    """The members as a tuple; a text is one thing, not a list of letters."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise refused("wrong_type", field, f"it is of the type {type(values).__name__}, and must be a list")
    return tuple(values)


def _parsed(key: str) -> PseudonymKey:
    if not isinstance(key, str):
        raise _argument("pseudonym_key", f"it is of the type {type(key).__name__}", "give a text")
    try:
        return PseudonymKey.parse(key)
    except ValueError as error:
        raise _argument("pseudonym_key", str(error), "make the digits with `openssl rand -hex 32`") from None


def key_of_settings() -> PseudonymKey:
    """The key that the environment or the folder of secrets sets.

    Raises:
        Misconfigured: neither sets one, or it has not the form of a key.
    """
    key = load_settings().pseudonym_key
    if key is None:
        raise Misconfigured(
            "users are named, and no key makes pseudonyms of them",
            field="NEARKIN_PSEUDONYM_KEY",
            remedy=f"set it to {KEY_FORM}, the digits as `openssl rand -hex 32` prints them; or leave the user out",
            reason="setting",
        )
    return PseudonymKey.parse(key.get_secret_value())


def _require_seconds(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise _argument(name, f"{value!r} is no time", "give a number of seconds above 0")


def _argument(name: str, problem: str, remedy: str) -> Misconfigured:
    return Misconfigured(problem, field=name, remedy=remedy, reason="argument")
