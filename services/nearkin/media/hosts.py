"""Each host of media gets its turns: so many requests at a time, and a rest when it fails, which grows while it does.

A host that says how long it wants to rest gets that, within bounds. After a rest a single request tries it again; the
others are refused at once, so nothing waits for a host that is down.
"""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nearkin.core.errors import MediaUnavailable, NearkinError

#: Failures in a row until a host rests; one slow picture among good ones is no reason.
PATIENCE = 3
FIRST_REST_S = 1.0
LONGEST_REST_S = 300.0

#: Hosts remembered: under a wildcard anybody may make up names.
MOST_HOSTS = 4096

#: What a failure is called when it is the host's, and not that of one object on it.
HOSTS_FAULT = frozenset({"name", "unreachable", "tls", "timeout", "idle", "too_slow", "truncated", "protocol", "busy"})


@dataclass(slots=True)
class Rest:
    """When a host may be asked again; times are a clock's seconds.

    Attributes:
        failures: in a row, each of a request that began after the one before had failed.
        until: the end of the rest.
        failed_at: when it failed last.
    """

    failures: int = 0
    until: float = 0.0
    failed_at: float = float("-inf")

    def left(self, now: float) -> float:
        """Seconds of rest that are left."""
        return max(0.0, self.until - now)

    def failed(self, began: float, now: float, asked_for_s: float, share: float) -> None:
        """Count a failure.

        Args:
            began: when the request began: of several that were under way together, one counts.
            now: the time.
            asked_for_s: the rest that the host asked for; 0 where it did not.
            share: from 0 to 1, drawn at random, so that many processes do not come back at once.
        """
        if began > self.failed_at:
            self.failures += 1
        self.failed_at = now
        rest = 0.0
        if self.failures >= PATIENCE:
            doubled = FIRST_REST_S * 2.0 ** min(self.failures - PATIENCE, 30)
            rest = min(doubled, LONGEST_REST_S) * (1 - share / 2)
        if asked_for_s > 0:
            rest = max(rest, min(max(asked_for_s, FIRST_REST_S), LONGEST_REST_S))
        self.until = max(self.until, now + rest)

    def succeeded(self) -> None:
        """Count a success: the host is well."""
        self.failures, self.until = 0, 0.0


@dataclass(slots=True)
class _Host:
    turns: asyncio.Semaphore
    rest: Rest = field(default_factory=Rest)
    users: int = 0
    trying: bool = False


class Hosts:
    """The turns of all hosts.

    Args:
        at_once: requests at a time in all.
        at_once_per_host: requests at a time to one host.
        clock: the time in seconds.
        draw: a number from 0 to 1, at random.
    """

    def __init__(
        self,
        at_once: int,
        at_once_per_host: int,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._per_host, self._clock, self._draw = at_once_per_host, clock, draw
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def __len__(self) -> int:
        """Hosts that are remembered."""
        return len(self._hosts)

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """One request to a host; what it raises says whether the host is well.

        Raises:
            MediaUnavailable: the host rests.
        """
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(asyncio.Semaphore(self._per_host))
        self._hosts.move_to_end(name)
        host.users += 1
        try:
            self._require_awake(name, host)
            # A host's own turn first: what waits for a slow host must not hold a turn of the others.
            async with host.turns, self._turns:
                self._require_awake(name, host)
                async with self._judged(host):
                    yield
        finally:
            host.users -= 1
            self._forget()

    @asynccontextmanager
    async def _judged(self, host: _Host) -> AsyncIterator[None]:
        trial = host.trying = host.rest.failures >= PATIENCE
        began = self._clock()
        try:
            yield
        except MediaUnavailable as error:
            if error.reason in HOSTS_FAULT:
                host.rest.failed(began, self._clock(), error.retry_after_s, self._draw())
            else:
                host.rest.succeeded()
            raise
        except NearkinError:
            host.rest.succeeded()
            raise
        else:
            host.rest.succeeded()
        finally:
            if trial:
                host.trying = False

    def _require_awake(self, name: str, host: _Host) -> None:
        left = host.rest.left(self._clock())
        if left or host.trying:
            raise MediaUnavailable(
                f"{name} failed {host.rest.failures} times in a row and is left alone for a while",
                remedy="it is tried again by itself; look at the host where this lasts",
                reason="resting",
                retry_after_s=left or FIRST_REST_S,
            )

    def _forget(self) -> None:
        if len(self._hosts) <= MOST_HOSTS:
            return
        now = self._clock()
        idle = [name for name, host in self._hosts.items() if not host.users]
        # Those that rest are remembered longest; a flood of names must not wipe out what is known of a few.
        idle.sort(key=lambda name: self._hosts[name].rest.left(now) > 0)
        for name in idle[: len(self._hosts) - MOST_HOSTS * 7 // 8]:  # many at once, as each look costs a sort
            del self._hosts[name]
