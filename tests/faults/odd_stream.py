"""Odd events without end: made of the contract's own examples, so that most get far before they are refused.

A fifth is whole but for its versions, so that states merge; of the others something in the event, in its text or in its
bytes is odd: of another type, huge, nested, doubled, cut, spliced with another event. Unlike Hypothesis, which looks
for the smallest event that fails, this makes tens of thousands a second.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odd_events import garbled, mutated

EXAMPLES = Path(__file__).parents[2] / "schemas" / "events" / "examples"

#: The field whose value is a record's key, by topic.
KEYS = {"items": "id", "feedback": "anchor", "visits": "visit_id"}

#: Texts of every length, script and trouble.
_TEXTS = (
    *(
        "",
        " ",
        "\ufeff",
        "\u0000",
        "é",
        "e\u0301",
        "漢字",
        "\U0001f9f6",
        "\u202eabc",
        "\u2028",
        "a\nb",
        "İ",
        "ﬀ",
        "\\",
        '"',
    ),
    *("x" * 256, "x" * 257, "x" * 1_000, "x" * 1_001, "\U0001f9f6" * 20_001, " " * 100_000, "a=b", "*", "null", "NaN"),
)

#: Numbers as they may stand in a text, some of which no program can hold.
_NUMBERS = (
    *("0", "-0", "-1", "9007199254740991", "9007199254740992", "18446744073709551616", "1e400", "-1e400", "1e-400"),
    *("1.5", "1.0", "NaN", "Infinity", "01", "+1", "1.", ".5", "0x10", "9" * 400, "1" + "0" * 5_000, "true", "null"),
)

#: In an event, stands for a number that is put in as text.
_HOLE = "@number@"


@dataclass(frozen=True, slots=True)
class OddEvent:
    """A record, most probably a bad one."""

    topic: str
    key: bytes | None
    value: bytes | None


def odd_events(draw: random.Random) -> Iterator[OddEvent]:
    """Records of the topics of items, feedback and visits."""
    events = {topic: _examples(topic) for topic in KEYS}
    topics = list(KEYS)
    while True:
        (topic,) = draw.choices(topics, (5, 3, 2))
        event = draw.choice(events[topic])
        yield _odd(topic, event, draw.choice(events[topic]), draw)


def _examples(topic: str) -> list[dict[str, Any]]:
    """The valid examples of a topic, and the readable ones of those that break the contract."""
    found = []
    for path in sorted((EXAMPLES / topic).glob("*/*.json")):
        try:
            told = json.loads(path.read_text())
        except ValueError:
            continue
        event = told if path.parent.name == "valid" else told.get("event")
        if isinstance(event, dict):
            found += [event] * (5 if path.parent.name == "valid" else 1)
    return found


def _odd(topic: str, event: dict[str, Any], other: dict[str, Any], draw: random.Random) -> OddEvent:
    event = _versioned(event, draw)
    key = event.get(KEYS[topic])
    kind = draw.random()
    if kind < 0.5:
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            event = _changed(event, other, draw)
    text = json.dumps(event, ensure_ascii=draw.random() < 0.5)
    first, *rest = text.split(f'"{_HOLE}"')
    text = "".join([first, *(draw.choice(_NUMBERS) + part for part in rest)])
    if 0.5 <= kind < 0.6:
        text = _doubled(text, json.dumps(other), draw)
    value = text.encode(errors="surrogatepass")
    if kind >= 0.8:
        value = garbled(value, draw)
    return OddEvent(topic, _key(key, draw), None if draw.random() < 0.001 else value)


def _versioned(event: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The event of one of a few items, at one of a few versions, if it has any."""
    event = dict(event)
    for name in ("content_version", "offer_version", "version"):
        if isinstance(event.get(name), int):
            event[name] = draw.randrange(50)
    if isinstance(event.get("id"), str):
        event["id"] = f"item-{draw.randrange(200)}"
    return event


def _changed(event: dict[str, Any], other: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The event with something odd in it."""
    change = draw.randrange(6)
    if change < 2:
        odd = mutated(event, draw)
        return odd if isinstance(odd, dict) else {"kind": event.get("kind"), "content": odd}
    if change == 5:
        return event | dict(draw.sample(list(other.items()), draw.randint(1, len(other))))
    copied = json.loads(json.dumps(event))
    holder, name = _place(copied, draw)
    held = holder.get(name) if isinstance(holder, dict) else holder[name]
    if change == 2:
        holder[name] = draw.choice(_TEXTS)
    elif change == 3:
        holder[name] = _HOLE
    elif draw.random() < 0.5:
        holder[name] = [held] * draw.choice((0, 2, 300 if len(str(held)) < 100 else 3))
    else:
        for _ in range(draw.choice((1, 2, 200))):
            held = [held] if draw.random() < 0.5 else {"": held}
        holder[name] = held
    return copied if isinstance(copied, dict) else event


def _place(value: Any, draw: random.Random) -> tuple[Any, Any]:
    """A place in a JSON object that holds another value, in whatever depth."""
    name = draw.choice(list(value) if isinstance(value, dict) else range(len(value))) if value else "kind"
    held = value.get(name) if isinstance(value, dict) else value[name]
    if isinstance(held, dict | list) and held and draw.random() < 0.8:
        return _place(held, draw)
    return value, name


def _doubled(text: str, other: str, draw: random.Random) -> str:
    """One object with the names of two: which of the two values counts is for the contract to say."""
    first, second = (text, other) if draw.random() < 0.5 else (other, text)
    return f"{first[:-1]}, {second[1:]}"


def _key(key: object, draw: random.Random) -> bytes | None:
    if draw.random() < 0.01:
        return draw.choice((None, b"", b"\xff\xfe", b"another", b"x" * 10_000))
    return str(key).encode(errors="surrogatepass")
