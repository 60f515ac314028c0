"""Sends refused events again, each checked by the contract first; what is still wrong stays where it is and says why.

An event goes to the partition that it came from, with its own key and headers, and under its own `event_id`: there the
worker knows what it counted already. Only where the worker took note of a refused event's id, as the letter's remedy
then says, it gets another one, which follows from the first: however often such a letter is sent, it counts once too.

A letter is settled after the broker has its event. Whoever is killed between the two sends it again the next time, and
that does no harm: an item's versions and an event's id decide.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from nearkin.cli.find_letters import SOURCE_OF
from nearkin.cli.settle_letters import settle
from nearkin.client.producer import Producer, now_ms
from nearkin.contracts.events import decode_item_event
from nearkin.contracts.feedback import REDACTED, decode_feedback, decode_visit, require_timely
from nearkin.contracts.topics import FEEDBACK, ITEMS, ITEMS_BULK, Topic
from nearkin.core.errors import InvalidEvent
from nearkin.core.feedback import Impressions, Interaction, Visit
from nearkin.ops.failures import HEADER_PREFIX, NEW_EVENT_ID
from nearkin.ops.letters import Letter, Settled
from nearkin.ops.record import Record

#: So many are sent, and then marked, at a time: what a kill between the two sends twice at most.
CHUNK = 500

#: Names are made under it, of the ids of events that need another one.
_NAMESPACE = uuid.UUID("6e0b9f0c-2f4e-5f2d-9a55-9a3f6f0c7d11")


@dataclass(frozen=True, slots=True)
class Stays:
    """A letter that is not sent, and why.

    Attributes:
        letter: which one.
        error: what is wrong with it still.
    """

    letter: Letter
    error: InvalidEvent


@dataclass(slots=True)
class Replayed:
    """What became of letters.

    Attributes:
        sent: how many events the broker has again, or would have.
        stays: what is still wrong.
    """

    sent: int = 0
    stays: list[Stays] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Again:
    """An event as it is sent again."""

    topic: Topic
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def check_letter(letter: Letter, record: Record, clock: Literal["wall", "stream"], at_ms: int) -> Again:
    """The event of a letter, checked by the same contract as every event.

    Args:
        letter: what is known of it.
        record: the letter as it lies.
        clock: by which feedback is late on the stack that takes it.
        at_ms: now, which becomes the record's time.

    Raises:
        InvalidEvent: it is still wrong, or not all of it is there.
    """
    source = SOURCE_OF[letter.id.topic]
    if letter.whole_bytes is not None:
        raise InvalidEvent(
            f"it was cut from {letter.whole_bytes} bytes to {letter.bytes}",
            remedy=f"the whole lies at {letter.origin} as long as that topic keeps it: read it there, or publish it "
            "again from where it came",
            reason="cut",
        )
    value = record.value
    _check(source, record.key, value, clock, at_ms)
    # What passed has both.
    key, value = record.key or b"", value or b""
    if source not in (ITEMS, ITEMS_BULK) and NEW_EVENT_ID in letter.remedy:
        value = _renamed(value)
    kept = tuple((name, held) for name, held in record.headers if not name.startswith(HEADER_PREFIX))
    return Again(source, key, value, kept)


def replay_letters(
    producer: Producer,
    letters: Iterable[tuple[Letter, Record]],
    *,
    clock: Literal["wall", "stream"],
    rate: float | None = None,
    dry_run: bool = False,
) -> Iterator[Replayed]:
    """Send letters again; tells what became of them after each `CHUNK`.

    Args:
        producer: of the brokers where they lie.
        letters: with their records.
        clock: as `check_letter`.
        rate: events a second at most.
        dry_run: check, and send nothing.

    Raises:
        Unavailable: the broker does not answer; what it has is settled, but for the last `CHUNK` at most.
    """
    partitions: dict[Topic, frozenset[int]] = {}
    began, sent = time.monotonic(), 0
    coming = iter(letters)
    size = CHUNK if rate is None else min(CHUNK, max(1, int(rate)))
    while chunk := list(islice(coming, size)):
        done = Replayed()
        good: list[tuple[Letter, Again]] = []
        for letter, record in chunk:
            try:
                good.append((letter, check_letter(letter, record, clock, now_ms())))
            except InvalidEvent as error:
                done.stays.append(Stays(letter, error))
        if not dry_run:
            outcomes = []
            for letter, again in good:
                if rate and (early := began + sent / rate - time.monotonic()) > 0:
                    time.sleep(early)
                sent += 1
                there = partitions.get(again.topic) or producer.partitions(again.topic)
                partitions[again.topic] = there
                its_own = letter.origin_partition if letter.origin_partition in there else None
                outcome = producer.send(again.key, again.value, again.topic, headers=again.headers, partition=its_own)
                outcomes.append((letter, outcome))
            places = [(letter, outcome.result()) for letter, outcome in outcomes]
            settle(
                producer,
                ((letter, f"{at.topic}[{at.partition}] offset {at.offset}") for letter, at in places),
                Settled.REPLAYED,
            )
        done.sent = len(good)
        yield done


def _check(source: Topic, key: bytes | None, value: bytes | None, clock: Literal["wall", "stream"], at_ms: int) -> None:
    if source in (ITEMS, ITEMS_BULK):
        decode_item_event(key, value)
        return
    if value == b"":
        raise InvalidEvent(
            "nothing was kept of it, as it could not be read and might have named somebody",
            remedy="publish it again from where it came",
            reason="not_kept",
        )
    try:
        event: Impressions | Interaction | Visit = (
            decode_feedback(key, value) if source is FEEDBACK else decode_visit(key, value)
        )
    except InvalidEvent as error:
        if error.field == "user" and value is not None and json.dumps(REDACTED).encode() in value:
            raise InvalidEvent(
                "whom it named was no pseudonym and is not kept",
                remedy="publish it again from where it came, with a pseudonym or without the field",
                field="user",
                reason=error.reason,
            ) from error
        raise
    # The record gets a time of now. By the stream's own time the worker decides, beside the other events.
    replays_a_log = clock == "stream" and event.occurred_at < at_ms
    require_timely(event, event.occurred_at if replays_a_log else at_ms)


def _renamed(value: bytes) -> bytes:
    """The same event under an id that follows from its own."""
    event = json.loads(value)
    event["event_id"] = str(uuid.uuid5(_NAMESPACE, event["event_id"]))
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
