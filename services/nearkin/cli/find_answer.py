"""Finds a logged answer in lookups.v1: reads what was logged since a time, up to what is there when it begins.

The topic's keys are anchors, so only where the anchor is known does one partition do; else all of them are read. All is
read though an answer is found, as a caller may give one request id to several look-ups.
"""

import json
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2

from nearkin.contracts.lookups import decode_answered
from nearkin.contracts.topics import LOOKUPS
from nearkin.core.answer import LoggedAnswer
from nearkin.core.errors import InvalidEvent, Misconfigured, Unavailable
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity
from nearkin.ops.reach import require_broker

#: So many other answers with the request id are named; of those beyond them it is only told how many there are.
MOST_OTHERS = 1_000

#: A broker that gives nothing of what it has for so long does not answer any more, in seconds.
_PATIENCE_S = 15.0

#: Where a record lies among all: its time, partition and offset.
_Place = tuple[int, int, int]


class Other(NamedTuple):
    """What tells an answer from others with the same request id.

    Attributes:
        anchor: the item that was looked up; None where it was a content.
        surface: where it is shown; empty where the caller did not say.
        ranking: what decided its order.
        at_ms: when it was answered, in milliseconds since the epoch.
    """

    anchor: str | None
    surface: str
    ranking: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Search:
    """What a search came to.

    Attributes:
        answer: the first answer that was logged of the request; None where there is none.
        partition: where it lies.
        offset: its place there.
        read: how many records were looked at.
        others: the answers to other look-ups with the same request id, in the order in which they were logged;
            `MOST_OTHERS` of them at most.
        unnamed: how many more there are; where they are so many, one that was logged twice counts as two.
    """

    answer: LoggedAnswer | None
    partition: int = 0
    offset: int = 0
    read: int = 0
    others: tuple[Other, ...] = ()
    unnamed: int = 0


def find_answer(
    bootstrap: str,
    request_id: str,
    since_ms: int,
    *,
    anchor: str | None = None,
    timeout_s: float = 3.0,
    security: KafkaSecurity = PLAINTEXT,
) -> Search:
    """Look for the answer to a request.

    Args:
        bootstrap: the brokers.
        request_id: of the look-up.
        since_ms: answers that were given earlier are not looked at, in milliseconds since the epoch.
        anchor: the item that was looked up, where it is known.
        timeout_s: how long the broker may take to accept a connection.
        security: how the connection is protected.

    Raises:
        Unavailable: the broker does not answer.
        Misconfigured: the topic is not there.
    """
    require_broker(bootstrap, timeout_s)
    try:
        # Checksums in Python take ten times as long as all the rest, and TCP has sums of its own.
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            check_crcs=False,
            fetch_max_wait_ms=50,
            **security.options(),
        )
        try:
            return _scan(consumer, _partitions(consumer, anchor), request_id, since_ms, anchor)
        finally:
            consumer.close()
    except KafkaError as error:
        raise Unavailable("broker", f"{type(error).__name__} at {bootstrap}{security.hint}") from error


def _partitions(consumer: Any, anchor: str | None) -> list[TopicPartition]:
    if LOOKUPS.name not in consumer.topics():
        raise Misconfigured(
            "the broker has no such topic", field=LOOKUPS.name, remedy="run `nearkin topics apply`", reason="topics"
        )
    there = sorted(consumer.partitions_for_topic(LOOKUPS.name) or ())
    if anchor is not None:
        there = [there[(murmur2(anchor.encode(errors="surrogateescape")) & 0x7FFF_FFFF) % len(there)]]
    return [TopicPartition(LOOKUPS.name, number) for number in there]


def _scan(
    consumer: Any, partitions: list[TopicPartition], request_id: str, since_ms: int, anchor: str | None
) -> Search:
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    for partition, start in consumer.offsets_for_times(dict.fromkeys(partitions, since_ms)).items():
        # A broker that has nothing so new says nothing, or names no time.
        is_there = start is not None and start.timestamp >= 0
        consumer.seek(partition, start.offset if is_there else ends[partition])
    # The contract's ids hold nothing that JSON's encoders write differently, so most records need not be decoded.
    needle = json.dumps(request_id, ensure_ascii=False).encode(errors="surrogateescape")
    read, heard = 0, time.monotonic()
    found = _Found()
    while any(consumer.position(one) < ends[one] for one in partitions):
        for records in consumer.poll(timeout_ms=500, max_records=5_000).values():
            heard = time.monotonic()
            for record in records:
                if record.timestamp < since_ms:  # a broker may go by the time of arrival
                    continue
                read += 1
                if record.value is not None and needle in record.value:
                    answer = _read(record)
                    if answer and answer.request_id == request_id and anchor in (None, answer.anchor):
                        found.add(_event_id(record), (record.timestamp, record.partition, record.offset), answer)
        if time.monotonic() - heard > _PATIENCE_S:
            raise Unavailable("broker", f"it gives nothing more of {LOOKUPS.name}")
    if found.first is None:
        return Search(None, read=read)
    (_, partition, offset), event_id, answer = found.first
    others = found.others_than(event_id)
    return Search(answer, partition, offset, read, others, found.number() - 1 - len(others))


@dataclass(slots=True)
class _Found:
    """The answers that were found so far: the first of them, and little of a bounded number of others.

    Attributes:
        first: the place of the one that was logged first, its event's id, and all of it.
        told: by their events' ids, as a look-up that is sent again may be logged again, under the same one.
        untold: how many were found beyond those.
    """

    first: tuple[_Place, str, LoggedAnswer] | None = None
    told: dict[str, tuple[_Place, Other]] = field(default_factory=dict)
    untold: int = 0

    def add(self, event_id: str, place: _Place, answer: LoggedAnswer) -> None:
        """Take note of one."""
        if self.first is None or place < self.first[0]:
            self.first = place, event_id, answer
        if event_id in self.told or len(self.told) <= MOST_OTHERS:  # the first is among them, mostly
            known = self.told.get(event_id)
            if known is None or place < known[0]:
                self.told[event_id] = place, Other(answer.anchor, answer.surface, answer.ranking, answer.at_ms)
        else:
            self.untold += 1

    def number(self) -> int:
        """How many there are."""
        return len(self.told) + self.untold

    def others_than(self, event_id: str) -> tuple[Other, ...]:
        """Those of other events, in the order in which they were logged."""
        known = sorted((place, other) for name, (place, other) in self.told.items() if name != event_id)
        return tuple(other for _, other in known[:MOST_OTHERS])


def _event_id(record: Any) -> str:
    """The name of an answer's event, as it is logged: what else tells two contents apart is not."""
    return str(json.loads(record.value)["event_id"])


def _read(record: Any) -> LoggedAnswer | None:
    try:
        return decode_answered(record.key, record.value)
    except InvalidEvent:
        return None
