"""Finds what was refused under one key: an item's id, an anchor's of feedback, a visit's.

Every dead-letter topic is read, in every partition: which one a key goes to depends on the producer's client. Only the
newest records are read, bounded in number and in time, so that it ends on topics of any size.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from rich.console import Console

from nearkin.contracts.topics import SOURCES
from nearkin.core.errors import Unavailable
from nearkin.ops.reach import require_broker

#: How many of the newest records are read, shared by the partitions, and for how long.
RECORDS, SECONDS = 40_000, 5.0


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


def find_refusals(bootstrap: str, key: str, timeout_s: float = 3.0) -> list[Refusal]:
    """What was refused under a key, oldest first.

    Raises:
        Unavailable: the broker does not answer.
    """
    require_broker(bootstrap, timeout_s)
    try:
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, allow_auto_create_topics=False)
        try:
            there = consumer.topics()
            partitions = [
                TopicPartition(topic.dead_letters.name, partition)
                for topic in SOURCES
                if topic.dead_letters.name in there
                for partition in consumer.partitions_for_topic(topic.dead_letters.name) or ()
            ]
            records = _newest(consumer, partitions, key.encode(errors="surrogateescape")) if partitions else []
        finally:
            consumer.close()
    except KafkaError as error:
        raise Unavailable("broker", f"{type(error).__name__} at {bootstrap}") from error
    return sorted(map(_refusal, records), key=lambda one: one.at_ms)


def refusals_as_json(refusals: Sequence[Refusal]) -> list[dict[str, str]]:
    """Refusals as commands print them with --json."""
    return [
        {
            "reason": one.reason,
            "field": one.field,
            "problem": one.problem,
            "remedy": one.remedy,
            "at": _time(one.at_ms),
            "origin": one.origin,
        }
        for one in refusals
    ]


def show_refusals(console: Console, refusals: Sequence[Refusal]) -> None:
    """Print refusals, a line for each."""
    for one in refusals:
        where = f"{one.field}: " if one.field else ""
        remedy = f"; {one.remedy}" if one.remedy else ""
        console.print(
            f"refused at {_time(one.at_ms)} ({one.reason}): {where}{one.problem}{remedy} — from {one.origin}",
            style="yellow", markup=False, highlight=False,
        )  # fmt: skip


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


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
