"""Finds the dead letters that are not settled, and reads one or some of them whole.

Every dead-letter topic is read, in every partition: which one a key goes to depends on the producer's client. Only the
newest records are read, bounded in number, so that it ends on topics of any size; how many are older is told.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from nearkin.contracts.topics import ITEMS, SOURCES
from nearkin.core.errors import Unavailable
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity
from nearkin.ops.letters import Letter, LetterId, Marker, OpenLetters, read_letter
from nearkin.ops.reach import require_broker
from nearkin.ops.record import Record, record_of

#: How many of the newest records are read at most.
RECORDS = 100_000

#: How long a broker may give nothing of what it says it has, in seconds.
PATIENCE_S = 15.0

#: Of each dead-letter topic, by its name, the topic whose events it takes.
SOURCE_OF = {topic.dead_letters.name: topic for topic in SOURCES}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are asked for; what is empty or None excludes nothing.

    Attributes:
        topics: the names of dead-letter topics.
        reasons: the stable words of what is wrong.
        keys: the events' keys.
        fields: what is wrong in the event, or a part before a dot of it.
        since_ms: refused at this time or later, in milliseconds since the epoch.
        until_ms: refused before this time.
        ids: where they lie.
    """

    topics: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    keys: frozenset[bytes] = frozenset()
    fields: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    ids: frozenset[LetterId] = frozenset()

    def __call__(self, letter: Letter) -> bool:
        """Whether a letter is among them."""
        return (
            (not self.topics or letter.id.topic in self.topics)
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.keys or letter.key in self.keys)
            and (
                not self.fields or any(letter.field == one or letter.field.startswith(f"{one}.") for one in self.fields)
            )
            and (self.since_ms is None or letter.at_ms >= self.since_ms)
            and (self.until_ms is None or letter.at_ms < self.until_ms)
            and (not self.ids or letter.id in self.ids)
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        letters: those that are not settled, oldest first.
        settled: how many that were asked for are settled.
        unread: how many older records were not looked at.
    """

    letters: list[Letter] = field(default_factory=list)
    settled: int = 0
    unread: int = 0


def find_letters(
    bootstrap: str,
    wanted: Wanted,
    *,
    records: int = RECORDS,
    seconds: float | None = None,
    timeout_s: float = 3.0,
    security: KafkaSecurity = PLAINTEXT,
) -> Found:
    """The letters that are asked for and not settled.

    Args:
        bootstrap: the brokers.
        wanted: which letters.
        records: how many of the newest records are read at most, of all partitions together.
        seconds: for how long at most; until all is read where it is None.
        timeout_s: how long the broker may take to accept a connection.
        security: how the connection is protected.

    Raises:
        Unavailable: the broker does not answer.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    with _connected(bootstrap, timeout_s, security) as consumer:
        partitions = _partitions(consumer, wanted.topics or SOURCE_OF.keys())
        if wanted.ids:
            lie = {(one.topic, one.partition) for one in wanted.ids}
            partitions = [one for one in partitions if (one.topic, one.partition) in lie]
        if not partitions:
            return Found()
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        kept = {partition: ends[partition] - begins[partition] for partition in partitions}
        most = _share(kept, records)
        starts = {partition: ends[partition] - min(kept[partition], most) for partition in partitions}
        found = OpenLetters(wanted)
        for record in _read(consumer, starts, ends, deadline):
            found.take(record)
    letters = sorted(found, key=lambda letter: (letter.at_ms, letter.id))
    return Found(letters, found.settled, sum(starts[one] - begins[one] for one in partitions))


def find_letter(
    bootstrap: str, place: LetterId, *, timeout_s: float = 3.0, security: KafkaSecurity = PLAINTEXT
) -> tuple[Record, Marker | None] | None:
    """The record of one letter, and the marker that settles it; None where no letter lies there.

    Raises:
        Unavailable: the broker does not answer.
    """
    with _connected(bootstrap, timeout_s, security) as consumer:
        partition = TopicPartition(place.topic, place.partition)
        if partition not in _partitions(consumer, [place.topic]):
            return None
        begins, ends = consumer.beginning_offsets([partition]), consumer.end_offsets([partition])
        if not begins[partition] <= place.offset or not ends[partition]:
            return None
        letter: Record | None = None
        for record in _read(consumer, {partition: min(place.offset, ends[partition] - 1)}, ends, None):
            if record.offset < place.offset:
                continue
            read = read_letter(record)
            if isinstance(read, Letter) and read.id == place:
                letter = record
            elif isinstance(read, Marker) and read.letter == place and letter is not None:
                return letter, read
            if letter is None:
                return None
    return None if letter is None else (letter, None)


def read_whole(
    bootstrap: str, letters: Iterable[Letter], *, timeout_s: float = 3.0, security: KafkaSecurity = PLAINTEXT
) -> Iterator[tuple[Letter, Record]]:
    """Letters with their records, in the order of each partition; a letter that is not kept any more is left out.

    Raises:
        Unavailable: the broker does not answer.
    """
    of_partition: dict[TopicPartition, dict[int, Letter]] = {}
    for letter in letters:
        of_partition.setdefault(TopicPartition(letter.id.topic, letter.id.partition), {})[letter.id.offset] = letter
    if not of_partition:
        return
    with _connected(bootstrap, timeout_s, security) as consumer:
        starts = {partition: min(some) for partition, some in of_partition.items()}
        ends = {partition: max(some) + 1 for partition, some in of_partition.items()}
        for record in _read(consumer, starts, ends, None, to_the_last=False):
            chosen = of_partition[TopicPartition(record.topic, record.partition)].get(record.offset)
            if chosen is not None:
                yield chosen, record


@contextlib.contextmanager
def _connected(bootstrap: str, timeout_s: float, security: KafkaSecurity) -> Iterator[Any]:
    require_broker(bootstrap, timeout_s)
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            auto_offset_reset="earliest",
            **security.options(),
            fetch_max_wait_ms=50,
            # A letter is twice as large as an event at most.
            max_partition_fetch_bytes=2 * ITEMS.dead_letters.max_message_bytes,
        )
        try:
            yield consumer
        finally:
            consumer.close()
    except KafkaError as error:
        raise Unavailable("broker", f"{type(error).__name__} at {bootstrap}{security.hint}") from error


def _partitions(consumer: Any, topics: Iterable[str]) -> list[TopicPartition]:
    there = consumer.topics()
    return [
        TopicPartition(topic, partition)
        for topic in topics
        if topic in there
        for partition in sorted(consumer.partitions_for_topic(topic) or ())
    ]


def _share(kept: Mapping[TopicPartition, int], records: int) -> int:
    """How many records each partition may give, so that all together are no more than are to be read.

    What small ones leave goes to the large ones: a flood lies in few partitions.
    """
    share, left = 0, records
    for number, size in enumerate(sorted(kept.values())):
        share = max(share, left // (len(kept) - number))
        if size > share:
            return share
        left -= size
    return records


def _read(
    consumer: Any,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    deadline: float | None,
    *,
    to_the_last: bool = True,
) -> Iterator[Record]:
    """The records of some partitions from one offset up to another, each partition's in order.

    Up to the last record that is there, where so it is asked: a broker may name the last batch's beginning as the
    end (Tansu does), and tells the true end with what is fetched.
    """
    ends, seen = dict(ends), set[TopicPartition]()
    consumer.assign(list(starts))
    for partition, start in starts.items():
        consumer.seek(partition, start)
    # Kept here: to ask the consumer for one position costs as much as it has partitions.
    left = {partition for partition, start in starts.items() if start < ends[partition]}
    heard = time.monotonic()
    while left:
        if deadline is not None and time.monotonic() >= deadline:
            return
        polled = consumer.poll(timeout_ms=200)
        for partition, batch in polled.items():
            if to_the_last and partition not in seen:  # of the first alone: what comes meanwhile is not waited for
                seen.add(partition)
                ends[partition] = max(ends[partition], consumer.highwater(partition) or 0)
            for record in batch:
                yield record_of(record)
            if batch[-1].offset + 1 < ends[partition]:
                left.add(partition)
            else:
                left.discard(partition)
        if polled:
            heard = time.monotonic()  # only now: whoever takes the records may have taken their time
            continue
        left = {partition for partition in left if consumer.position(partition) < ends[partition]}  # past a gap
        if left and time.monotonic() - heard > PATIENCE_S:
            raise Unavailable("broker", "it gives nothing more of the dead letters that it says it has")
