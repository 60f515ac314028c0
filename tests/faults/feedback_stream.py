"""Streams of feedback and visits with everything that makes counting hard, in a random order.

Some events come twice, nearly at once or long after; some ids come again with another content. Times are of many days,
some too old and some in the future, and the clocks of some producers are wrong. One user does the same again and again.
Some baskets are so large that only a part of their pairs is counted, and some records are no events at all. Anchors
stay below their caps: beyond those, what is kept depends on the order.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from faults.running_parts import Streams
from nearkin.contracts.feedback import encode_impressions, encode_interaction, encode_visit
from nearkin.contracts.limits import MAX_AHEAD_MS, MAX_LATENESS_MS
from nearkin.contracts.topics import FEEDBACK, VISITS, Topic
from nearkin.core.feedback import Action, Impressions, Interaction, Shown, Visit, VisitKind

_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000

#: Fewer than the pairs that are kept of an anchor: no cap decides what is counted.
ITEMS = [f"item-{number}" for number in range(200)]
ANCHORS = ITEMS[:60]

#: More than the partners that an item of one visit is counted with.
LARGE_BASKET = 130

USERS = [f"test:{number:032x}" for number in range(40)]


@dataclass(frozen=True, slots=True)
class Sent:
    """A record for the broker, with the time that its producer believes it to be."""

    topic: Topic
    key: bytes
    value: bytes
    timestamp_ms: int


def make_feedback(draw: random.Random, events: int, now_ms: int) -> list[Sent]:
    """A stream of about so many records.

    Args:
        draw: makes every choice, so the same seed and time give the same stream.
        events: how many records before repeats.
        now_ms: the time of those whose clocks are right.
    """
    name = f"{draw.randrange(16**8):08x}"  # ids of two streams differ
    made: list[Impressions | Interaction | Visit] = []
    for number in range(events):
        event_id, at = f"{name}-{number}", now_ms - int(draw.expovariate(1 / (5 * _DAY_MS)) % (28 * _DAY_MS))
        made.append(_event(draw, event_id, at))
    hammered = replace(_action(draw, name, now_ms), user=USERS[0])
    made += [replace(hammered, event_id=f"{name}-hammered-{number}") for number in range(1 + events // 20)]
    for event in draw.sample(made, len(made) // 50):
        other = _event(draw, event.event_id, event.occurred_at)
        if type(other) is type(event):
            made.append(other)
    sent = [_sent(event, _clock(draw, now_ms)) for event in made]
    for off, share in ((-MAX_LATENESS_MS - _HOUR_MS, 0.01), (MAX_AHEAD_MS + _MINUTE_MS, 0.01), (_MINUTE_MS, 0.02)):
        sent += [_sent(_event(draw, f"{name}-{off}-{n}", now_ms + off), now_ms) for n in range(int(share * events))]
    sent += [Sent(FEEDBACK, b"item-0", b"no event", now_ms) for _ in range(events // 100)]
    draw.shuffle(sent)
    for repeated in draw.sample(sent, len(sent) // 10):
        sent.insert(min(sent.index(repeated) + draw.choice((1, 3, 40, 600)), len(sent)), repeated)
    return sent


def publish(streams: Streams, records: Sequence[Sent]) -> None:
    """Send records, and return when the broker has them all."""
    waiting = [
        streams.producer.send(each.topic.name, key=each.key, value=each.value, timestamp_ms=each.timestamp_ms)
        for each in records
    ]
    streams.producer.flush(60)
    for each in waiting:
        streams.note(each.get(timeout=60))


def _clock(draw: random.Random, now_ms: int) -> int:
    """What a producer believes the time to be: some are half an hour ahead, some have stood still for days."""
    return now_ms + draw.choices((0, 30 * _MINUTE_MS, -3 * _DAY_MS), (90, 5, 5))[0]


def _event(draw: random.Random, event_id: str, at: int) -> Impressions | Interaction | Visit:
    make = draw.choices((_slate, _action, _visit), (5, 4, 2))[0]
    return make(draw, event_id, at)


def _slate(draw: random.Random, event_id: str, at: int) -> Impressions:
    anchor = draw.choice(ANCHORS)
    shown = draw.sample([item for item in ITEMS if item != anchor], draw.randint(1, 10))
    places = tuple(Shown(item, position, visible=draw.random() < 0.8) for position, item in enumerate(shown, 1))
    surface = draw.choice(("product-page", "cart"))
    return Impressions(event_id, at, anchor, f"request-{event_id}", surface, places, user=_user(draw))


def _action(draw: random.Random, event_id: str, at: int) -> Interaction:
    anchor = draw.choice(ANCHORS)
    item = draw.choice([item for item in ITEMS if item != anchor])
    shown = draw.random() < 0.8
    return Interaction(
        event_id,
        at,
        anchor,
        item,
        draw.choice(list(Action)),
        request_id=f"request-{event_id}" if shown else None,
        position=draw.randint(1, 20) if shown else None,
        user=_user(draw),
    )


def _visit(draw: random.Random, event_id: str, at: int) -> Visit:
    size = LARGE_BASKET if draw.random() < 0.01 else draw.randint(1, 6)
    return Visit(event_id, at, f"visit-{event_id}", VisitKind.BASKET, tuple(draw.sample(ITEMS, size)), _user(draw))


def _user(draw: random.Random) -> str | None:
    return draw.choice(USERS) if draw.random() < 0.7 else None


def _sent(event: Impressions | Interaction | Visit, timestamp_ms: int) -> Sent:
    if isinstance(event, Visit):
        return Sent(VISITS, *encode_visit(event), timestamp_ms)
    encode = encode_impressions if isinstance(event, Impressions) else encode_interaction
    return Sent(FEEDBACK, *encode(event), timestamp_ms)  # type: ignore[operator]  # each has its encoder
