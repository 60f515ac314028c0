"""Events with odd things in them, and a word that must reach no log: for tests of what reads events."""

import random
from typing import Any

#: Stands for what must not reach a log.
SECRET = "s3cret"

ODD: list[Any] = [
    *(None, True, 0, -1, 2**53, 10**400, 5.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "\x00", "*", "a=b"),
    *("\ud800", "\udc00x", SECRET, SECRET * 9_999, [], {}, [[]], [None], {"": {}}, {SECRET: SECRET}, [SECRET] * 300),
]


def mutated(value: Any, draw: random.Random) -> Any:
    """A copy of a JSON value with one odd thing somewhere."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        name = draw.choice(list(value))
        change = draw.random()
        if change < 0.1:
            return {other: part for other, part in value.items() if other != name}
        if change < 0.2:
            return value | {draw.choice([SECRET, "kind", "user", "", "x" * 300]): draw.choice(ODD)}
        return value | {name: mutated(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        return [*value[:place], mutated(value[place], draw), *value[place + 1 :]]
    return draw.choice(ODD)


def garbled(value: bytes, draw: random.Random) -> bytes:
    """The bytes with a few of them changed, cut or doubled."""
    spoiled = bytearray(value)
    for _ in range(draw.randint(1, 4)):
        start, end = sorted(draw.choices(range(len(spoiled) + 1), k=2))
        change = draw.randrange(4)
        if change == 0 and spoiled:
            spoiled[draw.randrange(len(spoiled))] = draw.randrange(256)
        elif change == 1:
            del spoiled[start : min(end, start + 8)]
        elif change == 2:
            spoiled[start:start] = spoiled[start:end][:64]
        else:
            spoiled[start:start] = draw.choice(
                [b"\xed\xa0\x80", b"\\ud800", b"[" * 2_000, b'"', b"NaN", b"\x00", b"1e999"]
            )
    return bytes(spoiled)
