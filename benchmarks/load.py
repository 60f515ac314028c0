"""An open-loop load of look-ups: callers arrive at random (Poisson) and do not wait for each other.

A latency counts from the moment at which the call was meant to start, so a stalled server, or a generator that could
not keep up, shows as latency and hides nothing (no coordinated omission). The tail of a small sample says little:
every percentile stands beside its sample size.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field

from nearkin.client.lookup import LookupClient
from nearkin.core.errors import NearkinError

#: So long a new look-up service is asked before its latencies count, in seconds: it remembers the facts of some 50,000
#: items by then. What it takes until then is told beside them.
WARM_UP_S = 40.0

#: What percentiles are told, of the calls that were answered.
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds of a sample.

    Attributes:
        count: how many calls were answered.
        percentiles: nearest-rank, by name such as "p99"; empty where nothing was answered.
        max: the longest.
    """

    count: int
    percentiles: dict[str, float]
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latencies":
        """Summarise a sample given in seconds."""
        ordered = sorted(seconds)
        if not ordered:
            return cls(0, {}, 0.0)
        ranked = {f"p{p}": ordered[min(len(ordered) - 1, -(-len(ordered) * p // 100) - 1)] for p in PERCENTILES}
        return cls(
            len(ordered), {name: round(1000 * one, 3) for name, one in ranked.items()}, round(1000 * ordered[-1], 3)
        )

    def as_json(self) -> dict[str, float]:
        """Count, percentiles and longest by name, for a results file and for a row of a table."""
        return {"count": self.count, **self.percentiles, "max": self.max}

    def __str__(self) -> str:
        told = "  ".join(f"{name} {one:.1f}" for name, one in self.percentiles.items())
        return f"{told}  max {self.max:.1f} ms  (n = {self.count})"


@dataclass(frozen=True, slots=True)
class Load:
    """What a load did.

    Attributes:
        offered_per_s: calls a second that were meant.
        seconds: from the first intended start to the last answer.
        latency: of the answered calls, from their intended start.
        lateness: how late the generator itself started calls; part of the latencies.
        failures: calls that were not answered, by the kind of error.
    """

    offered_per_s: float
    seconds: float
    latency: Latencies
    lateness: Latencies
    failures: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """For a results file."""
        return asdict(self)

    def __str__(self) -> str:
        failed = f"  failed: {self.failures}" if self.failures else ""
        return f"{self.offered_per_s:g}/s for {self.seconds:.0f} s  {self.latency}{failed}"


async def offer(
    call: Callable[[int], Awaitable[object]],
    per_s: float,
    seconds: float,
    *,
    seed: int = 0,
    stop: asyncio.Event | None = None,
) -> Load:
    """Offer calls at a rate for a time, or until told to stop, and wait for the answers to all.

    Args:
        call: makes the n-th call; it is answered when this returns, and failed when it raises.
        per_s: calls a second on average; the gaps between them are exponential.
        seconds: for how long calls start.
        seed: of the gaps.
        stop: ends the load before its time.
    """
    gaps = random.Random(seed)
    latencies: list[float] = []
    lateness: list[float] = []
    failures: Counter[str] = Counter()
    running: set[asyncio.Task[None]] = set()

    async def one(number: int, meant: float) -> None:
        lateness.append(time.perf_counter() - meant)
        try:
            await call(number)
        except NearkinError as error:
            failures[type(error).__name__] += 1
        else:
            latencies.append(time.perf_counter() - meant)

    began = meant = time.perf_counter()
    number = 0
    while (meant := meant + gaps.expovariate(per_s)) - began < seconds and not (stop and stop.is_set()):
        await asyncio.sleep(max(0.0, meant - time.perf_counter()))
        task = asyncio.create_task(one(number, meant))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
    while running:
        await asyncio.wait(running)
    took = time.perf_counter() - began
    return Load(per_s, took, Latencies.of(latencies), Latencies.of(lateness), dict(failures))


async def saturate(call: Callable[[int], Awaitable[object]], callers: int, seconds: float) -> Load:
    """Keep a number of callers busy, each calling again as soon as it has its answer: what is the most per second?"""
    latencies: list[float] = []
    failures: Counter[str] = Counter()
    began = time.perf_counter()

    async def caller(number: int) -> None:
        while (started := time.perf_counter()) - began < seconds:
            try:
                await call(number)
            except NearkinError as error:
                failures[type(error).__name__] += 1
            else:
                latencies.append(time.perf_counter() - started)
            number += callers

    await asyncio.gather(*(caller(number) for number in range(callers)))
    took = time.perf_counter() - began
    return Load(round(len(latencies) / took, 1), took, Latencies.of(latencies), Latencies.of([]), dict(failures))


def similar_to(
    client: LookupClient, ids: Sequence[str], *, seed: int = 0, **fields: object
) -> Callable[[int], Awaitable[object]]:
    """A call that looks up items at random.

    Args:
        client: of the service under load.
        ids: anchors to draw from.
        seed: of the draw.
        fields: more arguments of `LookupClient.similar`.
    """
    draw = random.Random(seed)

    async def call(number: int) -> object:
        return await client.similar(item_id=draw.choice(ids), **fields)  # type: ignore[arg-type]  # by the caller

    return call
