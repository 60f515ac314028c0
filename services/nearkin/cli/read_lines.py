"""Reads JSON Lines from files and standard input, plain or compressed with gzip, bzip2 or xz, in bounded memory."""

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from nearkin.contracts.limits import MAX_EVENT_BYTES
from nearkin.core.errors import InvalidEvent

_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank.

    Attributes:
        place: the file's name and the line's number, as `items.jsonl:7`.
        value: the line; cut where it is longer than any event.
        read_bytes: how far the file is read, compressed bytes.
    """

    place: str
    value: bytes
    read_bytes: int


def read_lines(name: str) -> Iterator[Line]:
    """The lines of a file; of standard input where the name is `-`.

    Raises:
        InvalidEvent: the file cannot be read, or its compression is damaged.
    """
    number = 0
    try:
        with _opened(name) as file:
            raw = io.BufferedReader(file)
            start = raw.peek(6)
            opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
            stream = opener(raw) if opener else raw
            for number, value in enumerate(_bounded(stream), 1):
                if value.strip():
                    yield Line(f"{name}:{number}", value, file.tell() if file.seekable() else 0)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        what = getattr(error, "strerror", None) or f"its compression is damaged ({type(error).__name__})"
        place = f"{name}:{number + 1}" if number else name
        raise InvalidEvent(what, field=place, remedy="give a file that can be read to its end") from error


def _opened(name: str) -> io.FileIO:
    if name == "-":
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    return io.FileIO(name)


def _bounded(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of which at most so much is kept as shows that they are too long."""
    while line := stream.readline(MAX_EVENT_BYTES + 2):
        rest = line
        while not rest.endswith(b"\n") and len(rest) == MAX_EVENT_BYTES + 2:
            rest = stream.readline(MAX_EVENT_BYTES + 2)
        yield line
