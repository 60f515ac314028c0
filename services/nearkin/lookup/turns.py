"""Lets few calls work at a time; the others wait for their turn, first come first served, and not for long.

A process answers so many look-ups a second, however many it works on at once: with more of them each takes longer,
until all miss their deadlines and the work is for nothing. So a burst waits here, which costs nothing, and a load that
does not pass is refused within `PATIENCE_S`. What waited counts against the caller's deadline.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nearkin.core.errors import Overloaded

#: How long a call waits for its turn at most, in seconds: longer than a burst, shorter than a person notices.
PATIENCE_S = 0.25


class Turns:
    """Turns of so many calls at a time.

    Args:
        at_once: how many work at a time.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._free = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[float]:
        """Work once there is a turn; how long that took, in seconds.

        Raises:
            Overloaded: none came in time.
        """
        began = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._free.acquire()
        except TimeoutError as error:
            raise Overloaded(
                f"the server works on {self._at_once} calls, and no turn came within {1000 * PATIENCE_S:.0f} ms; try "
                "again later, add servers, or raise NEARKIN_LOOKUP_AT_ONCE where their processors are idle"
            ) from error
        try:
            yield time.perf_counter() - began
        finally:
            self._free.release()
