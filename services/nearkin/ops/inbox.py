"""What was fetched and not yet taken: filled many records at a time, and full after so many."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from nearkin.ops.record import Record


class Letter(NamedTuple):
    """A record, the generation of the group in which it came, and how often its consumer had been sent elsewhere."""

    generation: int
    record: Record
    seeks: int = 0


class Inbox:
    """A queue between the one who fetches and the one who takes batches.

    Args:
        full: so many records hold back the next that come; what comes at once is not divided.
    """

    def __init__(self, full: int) -> None:
        self._full = full
        self._letters: deque[Letter] = deque()
        self._came, self._room = asyncio.Event(), asyncio.Event()

    def __len__(self) -> int:
        return len(self._letters)

    async def put(self, generation: int, records: Sequence[Record], seeks: int = 0) -> None:
        """Add records, once there is room."""
        while len(self._letters) >= self._full:
            self._room.clear()
            await self._room.wait()
        self._letters.extend(Letter(generation, record, seeks) for record in records)
        self._came.set()

    async def wait(self, number: int) -> None:
        """Return when so many are there, at most as many as fill it."""
        while len(self._letters) < number:
            self._came.clear()
            await self._came.wait()

    def take(self, most: int) -> list[Letter]:
        """Take the first ones out."""
        taken = [self._letters.popleft() for _ in range(min(most, len(self._letters)))]
        self._room.set()
        return taken

    def clear(self) -> None:
        """Throw away what is there."""
        self._letters.clear()
        self._room.set()
