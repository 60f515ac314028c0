"""Streams of feedback and visits with everything that makes counting hard, in a random order.

Some events come twice, nearly at once or long after; some ids come again with another content. Times are of many days,
some too old and some in the future, and the clocks of some producers are wrong. One user does the same again and again.
Some baskets are so large that only a part of their pairs is counted, and some records are no events at all. Anchors
stay below their caps: beyond those, what is kept depends on the order.
"""

import random
from collections import deque
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


class FeedbackStream:
    """Makes records without end.

    Args:
        seed: the same seed and times give the same stream.
    """

    def __init__(self, seed: int | str) -> None:
        self._draw = random.Random(seed)
        self._name, self._number = f"{self._draw.randrange(16**8):08x}", 0  # ids of two streams differ
        # What may come again: nearly at once, or after more offsets of a partition than a test's worker remembers.
        self._before: deque[Sent] = deque(maxlen=2000)
        self._hammered = replace(_action(self._draw, "", 0), user=USERS[0])

    def make(self, events: int, now_ms: int) -> list[Sent]:
        """The next records, about so many.

        Args:
            events: how many, before repeats.
            now_ms: the time of those whose clocks are right.
        """
        made = [self._record(now_ms) for _ in range(events)]
        self._draw.shuffle(made)
        self._before += made
        for _ in range(self._some(events, 0.1)):
            # The nearer, the more often: some stand in the same batch.
            back = min(int(self._draw.expovariate(1 / 200)) + 1, len(self._before))
            made.insert(self._draw.randint(0, len(made)), self._before[-back])
        return made

    def _some(self, of: int, share: float) -> int:
        """A number whose mean is a share."""
        return sum(self._draw.random() < share for _ in range(of))

    def _record(self, now_ms: int) -> Sent:
        draw = self._draw
        self._number += 1
        event_id = f"{self._name}-{self._number}"
        if draw.random() < 0.02:
            event_id = f"{self._name}-{draw.randint(1, self._number)}"  # and another content
        chance = draw.random()
        if chance < 0.01:
            return Sent(FEEDBACK, b"item-0", b"no event", now_ms)
        if chance < 0.02:
            return _sent(_event(draw, event_id, now_ms - MAX_LATENESS_MS - _HOUR_MS), now_ms)
        if chance < 0.03:
            return _sent(_event(draw, event_id, now_ms + MAX_AHEAD_MS + _MINUTE_MS), now_ms)
        if chance < 0.05:
            return _sent(_event(draw, event_id, now_ms + _MINUTE_MS), now_ms)
        if chance < 0.1:
            return _sent(replace(self._hammered, event_id=event_id, occurred_at=now_ms), now_ms)
        at = now_ms - int(draw.expovariate(1 / (5 * _DAY_MS)) % (28 * _DAY_MS))
        return _sent(_event(draw, event_id, at), _clock(draw, now_ms))


def publish(streams: Streams, records: Sequence[Sent]) -> None:
    """Send records, and return when the broker has them all."""
    waiting = [
        streams.producer.send(each.topic.name, key=each.key, value=each.value, timestamp_ms=each.timestamp_ms)
        for each in records
    ]
    streams.producer.flush(150)
    for each, sent in zip(waiting, records, strict=True):
        streams.note(each.get(timeout=150), sent.key, sent.value)


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
