"""One Kafka record as a worker hands it on, and what became of one that cannot be served. Knows no Kafka client."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from nearkin.core.errors import PermanentError

#: A topic and one of its partitions.
Place = tuple[str, int]


class Record(NamedTuple):
    """A record as it lies on the broker: bytes, and where they came from.

    Attributes:
        topic: the topic it was read from.
        partition: its partition.
        offset: its place there.
        timestamp_ms: the broker's or the producer's time of it, as the topic is set.
        key: its key, None where it has none.
        value: its value, None where it has none.
        headers: its headers, in order; a name may occur twice.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that cannot be served, and why: it becomes a dead letter.

    Attributes:
        record: the record, untouched.
        error: what is wrong with it.
    """

    record: Record
    error: PermanentError


def record_of(fetched: Any) -> Record:
    """A record as aiokafka gives it."""
    return Record(
        fetched.topic,
        fetched.partition,
        fetched.offset,
        fetched.timestamp if fetched.timestamp is not None else 0,
        fetched.key,
        fetched.value,
        tuple(fetched.headers or ()),
    )
