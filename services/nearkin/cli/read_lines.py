"""Reads JSON Lines from files and standard input, plain or compressed with gzip, bzip2 or xz, in bounded memory."""

import bz2
import codecs
import errno
import gzip
import io
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nearkin.contracts.limits import MAX_EVENT_BYTES
from nearkin.core.errors import Misconfigured

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


def require_readable(name: str) -> None:
    """Refuse a file that could not be read; reads nothing of it.

    Raises:
        Misconfigured: says why.
    """
    try:
        if name == "-":
            return
        if reads_once(name):
            if not os.access(name, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        else:
            _opened(name).close()
    except OSError as error:
        raise _unreadable(name, error) from error


def reads_once(name: str) -> bool:
    """Whether what is read of it is gone: a pipe, a terminal, standard input."""
    if name == "-":
        return True
    try:
        mode = Path(name).stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def read_lines(name: str) -> Iterator[Line]:
    """The lines of a file; of standard input where the name is `-`. A byte order mark at its start is left out.

    Raises:
        Misconfigured: the file cannot be read, or its compression is damaged.
    """
    number = 0
    try:
        with _opened(name) as file:
            raw = io.BufferedReader(file)
            start = raw.peek(6)
            opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
            stream = opener(raw) if opener else raw
            for number, value in enumerate(_bounded(stream), 1):
                if number == 1:
                    value = value.removeprefix(codecs.BOM_UTF8)
                if value.strip():
                    yield Line(f"{name}:{number}", value, file.tell() if file.seekable() else 0)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise _unreadable(f"{name}:{number + 1}" if number else name, error) from error


def _unreadable(place: str, error: Exception) -> Misconfigured:
    what = getattr(error, "strerror", None) or f"its compression is damaged ({type(error).__name__})"
    return Misconfigured(what, field=place, remedy="give a file that can be read to its end", reason="file")


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
