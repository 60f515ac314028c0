"""A producer faster than the encoder: the lag grows and is told, the memory of services does not, then they catch up.

    python -m benchmarks.backpressure [--minutes 10] [--faster 1.5] [--lane bulk] [--json FILE]

Starts the embedded stack and publishes half as much again each second as was indexed in it: changes of 2,000 items,
each to a new text that must be encoded. What is judged is the slope of each program's resident memory after a warm-up,
by Theil and Sen (the median of all slopes between two samples), so that neither a step at the beginning nor one garbage
collection decides. The embedded broker keeps its topics in memory
and is left out; the embedded index is told by the bytes that an indexed change costs. What waits must be told by the
indexer itself (nearkin_waiting_events). Then the producer stops, and all that it published must be in the index.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.programs import find_programs, run_embedded, sum_metric
from benchmarks.report import Bar, conclude, print_table
from nearkin.client.lookup import LookupClient
from nearkin.client.producer import Producer
from nearkin.core.item import Content
from nearkin.embedded.catalogue.online_retail import load_catalogue
from nearkin.embedded.stack import Stack

#: So many items change again and again: the index stays as large as it is.
ITEMS = 2_000

#: So many are published each second beside: something must come first.
FIRST = 50

#: Which programs must stay flat. The embedded broker keeps what it is told, and the embedded index what was replaced
#: until it is started again; a Qdrant server clears up by itself.
JUDGED = ("indexer-live", "indexer-bulk", "lookup", "feedback")

#: Megabytes a minute: what must be reached, and the goal. A leak of one event in memory would be ten times the first.
FLAT_MB_A_MINUTE = (5.0, 1.0)

#: This share of the time is warm-up: models, allocators and caches fill.
WARM_UP = 0.3

#: How long what waits may take to be indexed once nobody publishes, by the time that was published.
CATCH_UP = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description="A producer faster than the encoder.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--faster", type=float, default=1.5, help="so many times what is indexed is published")
    parser.add_argument("--lane", choices=["live", "bulk"], default="bulk")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"asked": {**vars(chosen), "json": None}}

    async def work(stack: Stack) -> None:
        figures.update(await measure(stack, 60 * chosen.minutes, chosen.faster, chosen.lane))

    run_embedded(work)
    show(figures)
    return conclude(figures, bars_of(figures), chosen.json)


@dataclass(slots=True)
class Samples:
    """What was seen over time.

    Attributes:
        at_s: when, from the beginning.
        resident_mb: of each program.
        waiting: events that the indexer says wait for it.
        indexed: events that it has worked off.
    """

    at_s: list[float] = field(default_factory=list)
    resident_mb: dict[str, list[float]] = field(default_factory=dict)
    waiting: list[float] = field(default_factory=list)
    indexed: list[float] = field(default_factory=list)


async def measure(stack: Stack, seconds: float, faster: float, lane: str) -> dict[str, Any]:
    """Publish for so long, wait until all is indexed, and say what it took."""
    metrics = stack.endpoints.metrics[f"indexer-{lane}"]
    programs = {name: one for name, one in find_programs().items() if name in {*JUDGED, "index"}}
    samples, stop = Samples(), asyncio.Event()
    began = time.perf_counter()

    async def watch() -> None:
        while not stop.is_set():
            waiting = await asyncio.to_thread(sum_metric, metrics, "nearkin_waiting_events")
            samples.at_s.append(time.perf_counter() - began)
            samples.waiting.append(waiting)
            samples.indexed.append(await asyncio.to_thread(sum_metric, metrics, "nearkin_events_total"))
            for name, one in programs.items():
                samples.resident_mb.setdefault(name, []).append(one.memory_info().rss / 1e6)
            await asyncio.sleep(max(0.5, seconds / 300))

    watching = asyncio.create_task(watch())
    with Producer(stack.endpoints.kafka) as producer:
        versions = await asyncio.to_thread(publish, producer, metrics, seconds, faster, bulk=lane == "bulk")
    published_s = time.perf_counter() - began
    stop.set()
    await watching
    waited = await asyncio.to_thread(sum_metric, metrics, "nearkin_waiting_events")
    async with LookupClient(stack.endpoints.lookup) as lookups:
        caught_up_s = await until_indexed(lookups, versions, CATCH_UP * seconds + 60)
    return {
        "published": sum(versions.values()),
        "published_s": round(published_s, 1),
        "most_waiting": max(samples.waiting),
        "waiting_at_the_end": waited,
        "caught_up_s": None if caught_up_s is None else round(caught_up_s, 1),
        "slopes_mb_a_minute": slopes(samples),
        "index_bytes_a_change": round(bytes_a_change(samples)),
        "resident_mb": {
            name: {"first": round(some[0], 1), "last": round(some[-1], 1), "most": round(max(some), 1)}
            for name, some in samples.resident_mb.items()
        },
        "samples": {"at_s": samples.at_s, "waiting": samples.waiting, "resident_mb": samples.resident_mb},
    }


def publish(producer: Producer, metrics: str, seconds: float, faster: float, *, bulk: bool) -> dict[str, int]:
    """Change items one after the other, more than are indexed; each one's newest version, which counts its changes."""
    items = load_catalogue()[:ITEMS]
    versions: dict[str, int] = {}
    began, number, done = time.monotonic(), 0, 0.0
    while time.monotonic() - began < seconds:
        now = sum_metric(metrics, "nearkin_events_total")
        some, done = int(faster * (now - done)) + FIRST, now
        for one in (items[(number + step) % len(items)] for step in range(some)):
            version = versions[one.id] = versions.get(one.id, 0) + 1
            producer.upsert(one.id, Content(title=f"{one.title} {version}", language="en"), version, bulk=bulk)
        number += some
        time.sleep(1)
    producer.flush()
    return versions


async def until_indexed(lookups: LookupClient, versions: dict[str, int], patience_s: float) -> float | None:
    """Seconds until every item has its newest version; None where that does not come."""
    began, waiting = time.perf_counter(), list(versions)
    while waiting and time.perf_counter() - began < patience_s:
        records = await lookups.items(waiting[:1000], timeout_s=30)
        late = [one.id for one in records if one.content_version != versions[one.id]]
        waiting = late + waiting[1000:]
        if late:
            await asyncio.sleep(0.5)
    return None if waiting else time.perf_counter() - began


def slopes(samples: Samples) -> dict[str, float]:
    """Megabytes a minute of each program after the warm-up, by Theil and Sen."""
    at = np.array(samples.at_s)
    after = at >= WARM_UP * at[-1]
    return {
        name: round(60 * theil_sen(at[after], np.array(some)[after]), 3) for name, some in samples.resident_mb.items()
    }


def bytes_a_change(samples: Samples) -> float:
    """What the embedded index grows by for each change, after the warm-up."""
    after = np.array(samples.at_s) >= WARM_UP * samples.at_s[-1]
    return 1e6 * theil_sen(np.array(samples.indexed)[after], np.array(samples.resident_mb["index"])[after])


def theil_sen(at: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray) -> float:
    """The median of the slopes between all pairs of samples."""
    x, y = np.asarray(at, float), np.asarray(values, float)
    first, second = np.triu_indices(len(x), k=1)
    apart = x[second] != x[first]
    first, second = first[apart], second[apart]
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def bars_of(figures: dict[str, Any]) -> list[Bar]:
    """What is asked of this run."""
    must, goal = FLAT_MB_A_MINUTE
    lane = figures["asked"]["lane"]
    bars = [
        Bar(what=f"memory of {name}, by its slope", measured=slope, must=must, goal=goal, unit="MB/min")
        for name, slope in figures["slopes_mb_a_minute"].items()
        if name in JUDGED
    ]
    bars.append(
        Bar(what="memory of the embedded index by a change", measured=figures["index_bytes_a_change"], unit="bytes")
    )
    # The embedded broker tells an older end: what it has of the last batch is not in it.
    bars.append(
        Bar(
            what=f"events that the indexer of the {lane} lane says wait, by those that were published",
            measured=round(figures["most_waiting"] / figures["published"], 3),
            must=0.05,
            at_least=True,
            note="less would mean that the producer was not faster than the encoder: give a higher --faster",
        )
    )
    bars.append(
        Bar(
            what="time to catch up, by the time that was published",
            measured=None if figures["caught_up_s"] is None else figures["caught_up_s"] / figures["published_s"],
            must=CATCH_UP,
        )
    )
    return bars


def show(figures: dict[str, Any]) -> None:
    print(
        f"\n{figures['published']} events in {figures['published_s']} s; {figures['most_waiting']:.0f} waited at most; "
        f"all were indexed {figures['caught_up_s']} s later"
    )
    rows = [
        (name, one["first"], one["last"], one["most"], figures["slopes_mb_a_minute"][name])
        for name, one in figures["resident_mb"].items()
    ]
    print_table("resident megabytes", ("program", "first", "last", "most", "slope a minute"), rows)


if __name__ == "__main__":
    sys.exit(main())
