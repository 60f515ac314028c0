"""Lets few calls work at a time; the others wait for their turn, first come first served, and not for long.

A process answers so many look-ups a second, however many it works on at once: with more of them each takes longer,
until all miss their deadlines and the work is for nothing. So a burst waits here, which costs nothing, and a load that
does not pass is refused: at once where so many wait that no turn would come in time, as long as turns take of late, and
after `PATIENCE_S` where one was expected. What waited counts against the caller's deadline.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nearkin.core.errors import Overloaded

#: How long a call waits for its turn at most, in seconds: longer than a burst, shorter than a person notices.
PATIENCE_S = 0.25

#: How much the newest turn counts for in what turns take of late.
NEWEST = 0.1


class Turns:
    """Turns of so many calls at a time.

    Args:
        at_once: how many work at a time.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._free = asyncio.Semaphore(at_once)
        self._waiting, self._turn_s = 0, 0.0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[float]:
        """Work once there is a turn; how long that took, in seconds.

        Raises:
            Overloaded: none came in time, or none would.
        """
        began = time.perf_counter()
        if self._waiting * self._turn_s > PATIENCE_S * self._at_once:
            raise self._refusal(f"{self._waiting} others wait for a turn")
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._free.acquire()
        except TimeoutError as error:
            raise self._refusal(f"no turn came within {1000 * PATIENCE_S:.0f} ms") from error
        finally:
            self._waiting -= 1
        given = time.perf_counter()
        try:
            yield given - began
        finally:
            self._turn_s += NEWEST * (time.perf_counter() - given - self._turn_s)
            self._free.release()

    def _refusal(self, why: str) -> Overloaded:
        return Overloaded(
            f"the server works on {self._at_once} calls, and {why}; try again later, add servers, or raise "
            "NEARKIN_LOOKUP_AT_ONCE where their processors are idle"
        )
