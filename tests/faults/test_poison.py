"""Bad events among good ones: each becomes a dead letter that says why, and the next event is served."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaProducer

from faults.item_stream import OCCURRED_AT, Event, make_stream, reference, require_exactly, upsert
from faults.running_parts import Parts
from nearkin.contracts.limits import MAX_DESCRIPTION, MAX_EVENT_BYTES, MAX_ID, MAX_TITLE
from nearkin.contracts.topics import ITEMS
from nearkin.core.ports import ContentEncoder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Bad events at once.
FLOOD = 10_000

#: Stands in every bad event, and must stand in no log.
MARK = "Zanzibar-4711-confidential"


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that cannot be served, and the reason that its dead letter must give."""

    what: str
    reason: str
    key: bytes | None
    value: bytes | None


def _event(**changes: object) -> dict[str, object]:
    event: dict[str, object] = {
        "kind": "upserted",
        "event_id": "event-4712",  # which log lines name, so that they are found by it
        "occurred_at": OCCURRED_AT,
        "id": f"item-{MARK}",
        "content_version": 1,
        "content": {"title": f"a mug {MARK}"},
    }
    return event | changes


def _poison(what: str, reason: str, **changes: object) -> Poison:
    event = _event(**changes)
    return Poison(what, reason, str(event["id"]).encode(), json.dumps(event).encode())


def _raw(what: str, reason: str, value: bytes | None, key: bytes | None = f"item-{MARK}".encode()) -> Poison:
    return Poison(what, reason, key, value)


_GOOD = json.dumps(_event()).encode()

POISONS = [
    _raw("not JSON", "not_json", f"<item>{MARK}</item>".encode()),
    _raw("cut off", "not_json", _GOOD[:-5]),
    _raw("not UTF-8", "not_utf8", _GOOD.replace(b"a mug", b"\xff\xfe")),
    _poison("a wrong type", "wrong_type", content={"title": {"text": MARK}}),
    _poison("an unknown kind", "unknown_kind", kind=f"renamed-{MARK}"),
    _poison("an empty id", "empty", id=""),
    _poison("an over-long id", "too_long", id=(MARK * MAX_ID)[: MAX_ID + 1]),
    _poison("a title over the limit", "too_long", content={"title": (MARK * MAX_TITLE)[: MAX_TITLE + 1]}),
    _poison("a text over the limit", "too_long", content={"description": (MARK * 1000)[: MAX_DESCRIPTION + 1]}),
    _raw("an event over the limit", "too_large", _GOOD.replace(b"a mug", MARK.encode() * (MAX_EVENT_BYTES // 20))),
    _raw("NaN", "not_finite", _GOOD.replace(b'"content_version": 1', b'"content_version": NaN')),
    _raw("an escaped lone surrogate", "surrogate", _GOOD.replace(b"a mug", rb"a \ud800 mug")),
    _raw("an encoded lone surrogate", "surrogate", _GOOD.replace(b"a mug", b"a \xed\xa0\x80 mug")),
    _raw("a depth bomb", "too_deep", b'{"kind": "upserted", "' + MARK.encode() + b'": ' + b"[" * 100_000),
    _raw("a depth bomb in a field that is not known", "too_deep", _GOOD[:-1] + b', "x": ' + b"[" * 60_000),
    _poison("a version of 2**53", "out_of_range", content_version=2**53),
    _poison("a version beyond 64 bits", "out_of_range", content_version=2**70),
    _raw("a wrong key", "bad_key", _GOOD, f"other-{MARK}".encode()),
    _raw("a key that is not UTF-8", "bad_key", _GOOD, b"\xff\xfe" + MARK.encode()),
    _raw("no key", "bad_key", _GOOD, None),
    _raw("a value of null", "null_value", None),
    _raw("neither key nor value", "null_value", None, None),
    _poison("no text at all", "nothing_to_encode", content={"title": " "}),
]


@pytest.mark.apache_kafka
def test_every_kind_of_bad_event_becomes_a_dead_letter_and_the_next_event_is_served(
    parts: Parts, encoder: ContentEncoder
) -> None:
    good = [upsert(f"good-{at}", f"mug of shape {at}", version=at) for at in range(len(POISONS))]
    parts.start(parts.broker, parts.index)
    parts.start(parts.live)
    asyncio.run(_send_among(parts, POISONS, good))
    parts.streams.until_drained("live")

    letters = {(letter.key, letter.value): letter for letter in parts.streams.records(ITEMS.dead_letters)}
    for record in parts.streams.records(ITEMS):
        letter = letters.get((record.key, record.value))
        found = [poison for poison in POISONS if (poison.key, poison.value) == (record.key, record.value)]
        assert bool(letter) == bool(found), f"offset {record.offset}"
        if letter and found:
            said = dict(letter.headers)
            assert said["nearkin-reason"].decode() == found[0].reason, found[0].what
            assert said["nearkin-origin-topic"] == ITEMS.name.encode()
            assert int(said["nearkin-origin-partition"]) == record.partition
            assert int(said["nearkin-origin-offset"]) == record.offset
            assert int(said["nearkin-origin-timestamp"]) == record.timestamp
            assert said["nearkin-remedy"]
            assert said["source"] == b"the test"
            assert MARK.encode() not in b"".join(value for _, value in letter.headers)
    assert len(letters) == len(POISONS)
    assert parts.live.counted("dead_letters_total") == len(POISONS)

    parts.look_inside(lambda items: require_exactly(items, reference(good), encoder))
    assert parts.live.is_ready
    for log in parts.logs.iterdir():
        assert MARK not in log.read_text(errors="replace"), f"{log.name} tells what an event holds"


def test_a_flood_of_bad_events_becomes_as_many_dead_letters_and_every_good_one_among_them_is_served(
    parts: Parts, encoder: ContentEncoder, seed: int
) -> None:
    """One bad beside each good one, then ten thousand; `benchmarks/poison.py` says how fresh the good ones are."""
    stream, draw = make_stream(seed, items=150), random.Random(seed)
    half = len(stream) // 2
    parts.start(parts.broker, parts.index)
    parts.start(parts.live)
    sendable = [poison for poison in POISONS if poison.key is not None and len(poison.value or b"") < 10_000]
    sent: Counter[tuple[bytes | None, bytes | None]] = Counter()

    def send(bad: int, good: list[Event]) -> None:
        chosen = draw.choices(sendable, k=bad)
        records = [(event.key, event.value) for event in good] + [(poison.key, poison.value) for poison in chosen]
        draw.shuffle(records)
        waiting = [parts.streams.producer.send(ITEMS.name, key=key, value=value) for key, value in records]
        for each in waiting:
            parts.streams.note(each.get(timeout=60))
        sent.update((poison.key, poison.value) for poison in chosen)

    send(half, stream[:half])
    send(FLOOD, stream[half:])
    parts.streams.until_drained("live")
    letters = Counter((letter.key, letter.value) for letter in parts.streams.records(ITEMS.dead_letters))
    assert letters == sent
    assert parts.live.counted("dead_letters_total") == sent.total()
    parts.look_inside(lambda items: require_exactly(items, reference(stream), encoder))
    assert parts.live.is_ready


async def _send_among(parts: Parts, poisons: list[Poison], good: list[Event]) -> None:
    """Send bad events, each followed by a good one, all to one partition and each in a record batch of its own."""
    producer = AIOKafkaProducer(bootstrap_servers=parts.bootstrap, acks="all")
    await producer.start()
    try:
        for at, poison in enumerate(poisons):
            follower = good[at % len(good)]
            for key, value in ((poison.key, poison.value), (follower.key, follower.value)):
                # Not `send`, which refuses a record with neither key nor value.
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None, headers=[("source", b"the test")])
                placed = await (await producer.send_batch(batch, ITEMS.name, partition=1))
                parts.streams.note(placed)
    finally:
        await producer.stop()
