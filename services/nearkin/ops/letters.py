"""What lies in a dead-letter topic: letters, and markers behind them that say which are settled.

Kafka deletes no single record. A letter that was sent again, or that nobody wants any more, is settled by a marker: a
record in the same partition that names the letter's offset and says what became of it. Both are gone after the same
time, and a topic that is made again has neither. Whoever shows or counts letters leaves out what is settled.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import nearkin
from nearkin.contracts.limits import MAX_OCCURRED_AT
from nearkin.ops.failures import HEADER_PREFIX
from nearkin.ops.record import Record

#: An offset has so many digits at most.
_DIGITS = 19


class Settled(StrEnum):
    """What became of a letter."""

    REPLAYED = "replayed"
    DROPPED = "dropped"


class LetterId(NamedTuple):
    """Where a letter lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """Why an event was refused, without the event.

    Attributes:
        id: where the letter lies.
        key: the event's key, None where it has none.
        reason: the stable word of what is wrong.
        field: what was wrong in the event; empty where it was the whole.
        problem: what was wrong.
        remedy: what the producer can do.
        at_ms: when it was refused, in milliseconds since the epoch.
        origin: the topic, partition and offset that the event came from, for a person.
        origin_partition: the partition; None where the letter does not say.
        bytes: the size of the value that lies here.
        whole_bytes: the size that it had, where the letter was cut; else None.
    """

    id: LetterId
    key: bytes | None
    reason: str
    field: str
    problem: str
    remedy: str
    at_ms: int
    origin: str
    origin_partition: int | None
    bytes: int
    whole_bytes: int | None


@dataclass(frozen=True, slots=True)
class Marker:
    """That a letter is settled.

    Attributes:
        letter: where the letter lies.
        settled: what became of it.
        because: why it was dropped, or where it was sent.
        at_ms: when, in milliseconds since the epoch.
    """

    letter: LetterId
    settled: Settled
    because: str
    at_ms: int


def read_letter(record: Record) -> Letter | Marker | None:
    """What a record of a dead-letter topic is; None for a marker that nobody can follow."""
    said = {
        name.removeprefix(HEADER_PREFIX): value.decode(errors="replace")
        for name, value in record.headers
        if name.startswith(HEADER_PREFIX)
    }
    if "settled" in said:
        return _marker(record, said)
    return Letter(
        id=LetterId(record.topic, record.partition, record.offset),
        key=record.key,
        reason=said.get("reason") or "unknown",
        field=said.get("field", ""),
        problem=said.get("problem", ""),
        remedy=said.get("remedy", ""),
        at_ms=_time(said.get("failed-at", ""), record.timestamp_ms),
        origin="{}[{}] offset {}".format(*(said.get(f"origin-{one}", "") for one in ("topic", "partition", "offset"))),
        origin_partition=_number(said.get("origin-partition", "")),
        bytes=len(record.value or b""),
        whole_bytes=_number(said.get("whole-bytes", "")),
    )


def marker_headers(letter: LetterId, settled: Settled, because: str, now_ms: int) -> list[tuple[str, bytes]]:
    """The headers of the marker of a letter; it goes into the letter's own partition, under its key, without a value.

    Args:
        letter: where the letter lies.
        settled: what became of it.
        because: why it was dropped, or where it was sent.
        now_ms: when.
    """
    said = {
        "settled": str(settled),
        "settled-offset": str(letter.offset),
        "settled-because": because,
        "settled-at": str(now_ms),
        "version": nearkin.__version__,
    }
    return [(HEADER_PREFIX + name, word.encode(errors="backslashreplace")) for name, word in said.items()]


class OpenLetters:
    """The letters that are not settled, of records that are taken in the order of each partition.

    Args:
        wanted: which letters are kept.

    Attributes:
        settled: how many of those that were wanted are settled.
    """

    def __init__(self, wanted: Callable[[Letter], bool] = lambda letter: True) -> None:
        self._wanted = wanted
        self._open: dict[LetterId, Letter] = {}
        self.settled = 0

    def take(self, record: Record) -> None:
        """Take the next record of a dead-letter topic."""
        read = read_letter(record)
        if isinstance(read, Marker):
            self.settled += self._open.pop(read.letter, None) is not None
        elif read is not None and self._wanted(read):
            self._open[read.id] = read

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Letter]:
        return iter(self._open.values())


def _marker(record: Record, said: dict[str, str]) -> Marker | None:
    offset = _number(said.get("settled-offset", ""))
    if said["settled"] not in list(Settled) or offset is None:
        return None
    return Marker(
        LetterId(record.topic, record.partition, offset),
        Settled(said["settled"]),
        said.get("settled-because", ""),
        _time(said.get("settled-at", ""), record.timestamp_ms),
    )


def _time(text: str, otherwise: int) -> int:
    at_ms = _number(text)
    # A record's own time may be anything, too.
    return at_ms if at_ms is not None and at_ms <= MAX_OCCURRED_AT else min(max(otherwise, 0), MAX_OCCURRED_AT)


def _number(text: str) -> int | None:
    """The number that a header says; whoever may write to the topic may have written anything, at any length."""
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None
