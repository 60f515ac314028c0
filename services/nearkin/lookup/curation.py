"""What somebody decided by hand, from a file that may change while look-ups go on.

The file is JSON Lines; each line is one decision:

    {"block": "item-9"}                          never shown
    {"block": "item-9", "beside": "item-1"}      the two are never shown beside each other
    {"pin": "item-2", "beside": "item-1"}        shown first beside item-1, several pins in the order of their lines

Look-ups never see a part of it: a file is read once it has stayed the same from one look at it to the next, its last
line must be whole, and a new one replaces what is in force in one step. A file that cannot be used leaves in force what
was; log and metrics say so until it is mended. Whoever wants no doubt at all writes beside it and renames.
"""

import asyncio
import logging
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from nearkin.contracts.limits import ID_PATTERN, MAX_ID
from nearkin.core.errors import Misconfigured
from nearkin.core.rules import Curation
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics

log = logging.getLogger(__name__)

#: How often the file is looked at, in seconds; it is in force after two looks.
EVERY_S = 2.0

#: A file beyond is no list that somebody made by hand, and would be held in memory more than once.
MOST_BYTES = 64 * 1024 * 1024

#: What changes with the file: who it is, how large, and when it was written.
_Stamp = tuple[int, int, int]

_REMEDY = 'write {"block": "ID"}, {"block": "ID", "beside": "ID"} or {"pin": "ID", "beside": "ID"} in each line'


class _Decision(msgspec.Struct, forbid_unknown_fields=True):
    """One line."""

    block: str | None = None
    pin: str | None = None
    beside: str | None = None


_DECODER = msgspec.json.Decoder(_Decision)


class CurationFile:
    """The decisions in force.

    Args:
        path: of the file; None for no decisions at all.
        metrics: tell what is in force, and whether the file says something else.

    Raises:
        Misconfigured: the file is not there, or is not as it must be.
    """

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        self._path, self._metrics = path, metrics
        self._seen: _Stamp | None = None  # at the last look
        self._tried: _Stamp | None = None  # what was read last, good or not
        self._used: _Stamp | None = None  # what is in force
        self._problem = ""
        self._current = Curation()
        if path is not None:
            self._used = self._seen = _stamp(path)
            self._take(read_curation(path))
        self._metrics.curation_stale.set(0)

    def current(self) -> Curation:
        """What is in force now."""
        return self._current

    async def follow(self) -> None:
        """Look at the file again and again, until cancelled."""
        while self._path is not None:
            await asyncio.sleep(EVERY_S)
            try:
                await asyncio.to_thread(self.look)
            except Exception as error:
                self._refuse(f"it fails in a way that is not foreseen: {describe(error)}")

    def look(self) -> None:
        """Look at the file, and use it where it is new and has stayed the same since the last look."""
        if self._path is None:
            return
        try:
            stamp = _stamp(self._path)
            settled, self._seen = stamp == self._seen, stamp
            if settled and stamp == self._used:
                self._agree()
            if not settled or stamp in (self._used, self._tried):
                return
            self._tried = stamp
            curation = read_curation(self._path)
            if _stamp(self._path) != stamp:
                self._tried = None  # it was written to meanwhile
                return
        except Misconfigured as error:
            self._refuse(str(error))
            return
        self._used = stamp
        self._take(curation)
        self._agree()
        log.info("the decisions of the new file are in force", extra=fields(file=str(self._path)))

    def _take(self, curation: Curation) -> None:
        self._current = curation
        counts = {
            "blocked_items": len(curation.blocked_items),
            "blocked_pairs": sum(map(len, curation.blocked_pairs.values())) // 2,
            "pins": sum(map(len, curation.pins.values())),
        }
        for kind, count in counts.items():
            self._metrics.curation_decisions.labels(kind=kind).set(count)

    def _agree(self) -> None:
        self._problem = ""
        self._metrics.curation_stale.set(0)

    def _refuse(self, problem: str) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        self._metrics.curation_stale.set(1)
        log.error(
            "the new file cannot be used; the decisions of the old one stay in force", extra=fields(problem=problem)
        )


def read_curation(path: Path) -> Curation:
    """The decisions that a file holds.

    Raises:
        Misconfigured: it cannot be read, or a line is not as it must be; names the line.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(text) > MOST_BYTES:
        raise _refused(str(path), f"has more than {MOST_BYTES} bytes", "hide items by their status instead")
    if text and not text.endswith(b"\n"):
        raise _refused(str(path), "does not end in a line feed, so its last line may not be whole", "end the last line")
    return parse_curation(text.split(b"\n"), str(path))


def parse_curation(lines: Iterable[bytes], name: str) -> Curation:
    """The decisions that lines hold; blank ones are passed over.

    Args:
        lines: of JSON.
        name: of the file, for messages.

    Raises:
        Misconfigured: a line is not as it must be.
    """
    items: set[str] = set()
    pairs: dict[str, set[str]] = {}
    pins: dict[str, dict[str, None]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            told = _DECODER.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _refused(place, "is no decision in JSON", _REMEDY) from error
        for one in (told.block, told.pin, told.beside):
            if one is not None and (len(one) > MAX_ID or not re.match(ID_PATTERN, one)):
                raise _refused(place, "names an id that no item can have", f"give 1 to {MAX_ID} characters")
        if told.beside is not None and told.beside in (told.block, told.pin):
            raise _refused(place, "pairs an item with itself", "name two items")
        match told:
            case _Decision(block=str(item), pin=None, beside=None):
                items.add(item)
            case _Decision(block=str(item), pin=None, beside=str(anchor)):
                pairs.setdefault(anchor, set()).add(item)
                pairs.setdefault(item, set()).add(anchor)
            case _Decision(block=None, pin=str(item), beside=str(anchor)):
                pins.setdefault(anchor, {})[item] = None
            case _:
                raise _refused(place, "is no decision", _REMEDY)
    return Curation(
        frozenset(items),
        {item: frozenset(others) for item, others in pairs.items()},
        {anchor: tuple(pinned) for anchor, pinned in pins.items()},
    )


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> Misconfigured:
    return _refused(str(path), error.strerror or "cannot be read", "name a file that can be read, or none")


def _refused(place: str, problem: str, remedy: str) -> Misconfigured:
    return Misconfigured(problem, field=place, remedy=remedy, reason="curation")
