"""What is done about a failure: a temporary one is tried again in place, a permanent one becomes a dead letter.

A dead letter is the source's own bytes on `<topic>.dlq`, with headers that say what was wrong, where and when. Retrying
never ends by itself: the events wait where they are until the engine is back or the process is told to stop.

A topic limits record batches as they are compressed, so an event may come out larger than its dead-letter topic takes.
What can never be sent would hold up all that lies behind it: such a letter is cut and says so, and its origin says
where the whole lies.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import nearkin
from nearkin.contracts.topics import Topic
from nearkin.core.errors import InvalidEvent, PermanentError, TemporaryError, Unavailable
from nearkin.ops.logs import describe, fields
from nearkin.ops.record import Record, Rejected
from nearkin.ops.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Every header of a dead letter starts so; what the source brought under such a name is not carried over.
HEADER_PREFIX = "nearkin-"

#: What a letter's own headers and a record batch's frame may take of its topic's limit.
FRAME_BYTES = 16 * 1024

#: What a cut letter keeps of its key: more than any item's id has.
KEY_BYTES = 4 * 1024

#: Stands in the remedy of feedback whose event_id the worker took note of: under it, it would be taken for a repeat.
NEW_EVENT_ID = "under a new event_id"

#: So many events in a row that fail as nobody foresaw are no accident of the events.
POISON_LIMIT = 3


class Stopped(Exception):
    """A retry was given up because the process stops: nothing was acknowledged."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record to send to a dead-letter topic; its key and value are the source's own bytes, None stays None.

    Of a topic whose events may name people, what must not be kept of a value is redacted, and the source's headers are
    left out. Where key and value are more than the topic takes, they are cut, and the headers are left out too.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def dead_letter(
    rejected: Rejected, topic: Topic, now_ms: int, redact: Callable[[bytes | None], bytes | None] | None = None
) -> DeadLetter:
    """The dead letter of a rejected record.

    Args:
        rejected: the record and what is wrong with it.
        topic: the dead-letter topic.
        now_ms: the time of the rejection.
        redact: what may be kept of the value; all of it where it is None.
    """
    record, error = rejected.record, rejected.error
    said = {
        "reason": error.reason,
        "field": error.field,
        "problem": error.problem,
        "remedy": error.remedy,
        "origin-topic": record.topic,
        "origin-partition": str(record.partition),
        "origin-offset": str(record.offset),
        "origin-timestamp": str(record.timestamp_ms),
        "failed-at": str(now_ms),
        "version": nearkin.__version__,
    }
    key, value = record.key, redact(record.value) if redact else record.value
    # Where a value may name people, so may headers, and nobody knows where in them.
    carried = () if redact else record.headers
    kept = [(name, held) for name, held in carried if not name.startswith(HEADER_PREFIX)]
    room = topic.max_message_bytes - FRAME_BYTES
    if _size(key) + _size(value) + sum(len(name.encode()) + _size(held) for name, held in kept) > room:
        said["whole-bytes"] = str(_size(value))
        kept = []
        key = key[:KEY_BYTES] if key is not None else None
        value = value[: room - _size(key)] if value is not None else None
    added = [(HEADER_PREFIX + name, word.encode(errors="backslashreplace")) for name, word in said.items()]
    return DeadLetter(topic.name, key, value, (*kept, *added))


def unforeseen(record: Record, failure: Exception, in_a_row: int) -> Rejected:
    """The rejection of an event that fails in a way nobody foresaw.

    Args:
        record: the event's.
        failure: how it fails.
        in_a_row: how many have, this one included.

    Raises:
        Exception: the failure itself, where so many fail that the fault cannot be theirs.
    """
    if in_a_row > POISON_LIMIT:
        raise failure
    if isinstance(failure, PermanentError):
        return Rejected(record, failure)
    return Rejected(
        record,
        InvalidEvent(
            f"it fails in a way nobody foresaw: {describe(failure)}",
            remedy=f"report it with this dead letter; send it again once it is mended, feedback {NEW_EVENT_ID}",
            reason="internal",
        ),
    )


def _size(value: bytes | None) -> int:
    return 0 if value is None else len(value)


def pauses(settings: Settings, draw: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds to wait before each next try: doubling up to the longest, each cut by up to half at random."""
    pause = settings.retry_initial_ms / 1000
    longest = settings.retry_max_ms / 1000
    while True:
        yield min(pause, longest) * (1 - draw() / 2)
        pause = min(pause * 2, longest)


async def patiently(
    attempt: Callable[[], Awaitable[T]],
    *,
    settings: Settings,
    stopping: asyncio.Event,
    failed: Callable[[TemporaryError], None],
) -> T:
    """Try until it succeeds, waiting ever longer between temporary failures.

    Args:
        attempt: what to try.
        settings: the pauses.
        stopping: ends the trying when set.
        failed: told of every temporary failure.

    Raises:
        Stopped: told to stop before it succeeded.
    """
    waits = pauses(settings)
    began = time.monotonic()
    while True:
        try:
            return await attempt()
        except TemporaryError as error:
            pause = next(waits)
            failed(error)
            log.warning(
                "temporary failure, trying again in place",
                extra=fields(
                    engine=engine_of(error),
                    problem=str(error),
                    failing_for_s=round(time.monotonic() - began, 1),
                    next_try_s=round(pause, 2),
                ),
            )
        try:
            async with asyncio.timeout(pause):
                await stopping.wait()
        except TimeoutError:
            continue
        raise Stopped


def engine_of(error: TemporaryError) -> str:
    """The engine that failed, for a label."""
    return error.engine if isinstance(error, Unavailable) else "other"
