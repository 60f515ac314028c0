"""Finds what was refused of one item, in every partition: which one a key goes to depends on the producer's client.

Only the newest records are read, bounded in number and in time, so that it ends on a topic of any size.
"""

import time
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from nearkin.contracts.topics import ITEMS, ITEMS_BULK
from nearkin.core.errors import Unavailable
from nearkin.ops.reach import require_broker

#: How many of the newest records are read, shared by the partitions, and for how long.
RECORDS, SECONDS = 20_000, 5.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event was refused.

    Attributes:
        reason: the stable word of the dead letter.
        field: what was wrong in the event; empty where it was the whole.
        problem: what was wrong.
        remedy: what the producer can do.
        at_ms: when, in milliseconds since the epoch.
        origin: the topic, partition and offset that the event came from.
    """

    reason: str
    field: str
    problem: str
    remedy: str
    at_ms: int
    origin: str


def find_refusals(bootstrap: str, item_id: str, timeout_s: float = 3.0) -> list[Refusal]:
    """The refusals of an item's events, oldest first.

    Raises:
        Unavailable: the broker does not answer.
    """
    require_broker(bootstrap, timeout_s)
    key = item_id.encode(errors="surrogateescape")
    try:
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, allow_auto_create_topics=False)
        try:
            there = consumer.topics()
            partitions = [
                TopicPartition(lane.dead_letters.name, partition)
                for lane in (ITEMS, ITEMS_BULK)
                if lane.dead_letters.name in there
                for partition in consumer.partitions_for_topic(lane.dead_letters.name) or ()
            ]
            records = _newest(consumer, partitions, key) if partitions else []
        finally:
            consumer.close()
    except KafkaError as error:
        raise Unavailable("broker", f"{type(error).__name__} at {bootstrap}") from error
    return sorted(map(_refusal, records), key=lambda one: one.at_ms)


def _newest(consumer: Any, partitions: list[TopicPartition], key: bytes) -> list[Any]:
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    first = consumer.beginning_offsets(partitions)
    for partition in partitions:
        consumer.seek(partition, max(first[partition], ends[partition] - RECORDS // len(partitions)))
    found = []
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and any(consumer.position(one) < ends[one] for one in partitions):
        for batch in consumer.poll(timeout_ms=200).values():
            found += [record for record in batch if record.key == key]
    return found


def _refusal(record: Any) -> Refusal:
    said: dict[str, str] = {
        name: value.decode(errors="replace") for name, value in record.headers if name.startswith("nearkin-")
    }

    def header(name: str) -> str:
        return said.get(f"nearkin-{name}", "")

    failed_at = header("failed-at")
    return Refusal(
        reason=header("reason") or "unknown",
        field=header("field"),
        problem=header("problem"),
        remedy=header("remedy"),
        at_ms=int(failed_at) if failed_at.isdecimal() else record.timestamp,
        origin=f"{header('origin-topic')}[{header('origin-partition')}] offset {header('origin-offset')}",
    )
