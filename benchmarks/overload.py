"""What becomes of look-ups when more come than can be answered: the good ones a second, and how long the others wait.

    python -m benchmarks.overload [--items 20000] [--seconds 20] [--deadline 1.0] [--json FILE]

Index owner, Redis and look-up service run as in benchmarks/lookups.py. First callers that wait for each other find the
peak; then an open loop (Poisson) offers half of it, all of it, twice and four times as much, each call with a deadline.
A good look-up is answered within its deadline. What is beyond the bound must be refused soon, and cost so little that
the good ones stay near the peak. The generator shares the machine with the programs: its own lateness is told, and what
it takes from them is part of what is measured.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.behaviour import Behaviour, remember_all
from benchmarks.evidence import redis_server
from benchmarks.load import Latencies, offer, saturate
from benchmarks.lookups import DRAWN, fill, lookup_server, until_answered
from benchmarks.programs import index_owner, processor_seconds, sum_metric
from benchmarks.report import Bar, conclude, print_table
from nearkin.client.lookup import LookupClient, SimilarItems
from nearkin.core.errors import NearkinError
from nearkin.core.evidence import EvidenceRules
from nearkin.embedded.programs import LOOPBACK
from nearkin.encoders.bundle import load_encoder
from nearkin.ops.settings import load_settings
from nearkin.stores import evidence

#: Callers that find the peak, and for how long, in seconds.
CALLERS, PEAK_S = 16, 10.0

#: So many times the peak are offered.
LOADS = (0.5, 1.0, 2.0, 4.0)

#: What must be reached at the largest load, and the goal: good look-ups by the peak, and what the refused ones wait, in
#: milliseconds at the 99th percentile.
GOOD, REFUSED_P99_MS = (0.6, 0.8), (250.0, 50.0)


def main() -> int:
    parser = argparse.ArgumentParser(description="Look-ups beyond what can be answered.")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--deadline", type=float, default=1.0, help="of each call, in seconds")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearkin-overload-") as folder:
        figures = asyncio.run(measure(Path(folder), chosen.items, chosen.seconds, chosen.deadline))
    show(figures)
    return conclude(figures, bars_of(figures), chosen.json)


async def measure(folder: Path, items: int, seconds: float, deadline_s: float) -> dict[str, Any]:
    with index_owner(folder) as (_, url):
        ids = await fill(url, load_encoder(None, 2), items)
    with (
        index_owner(folder) as (owner, url),
        redis_server(folder) as (redis, port),
        lookup_server(folder, url, f"redis://{LOOPBACK}:{port}/0") as (server, address, metrics),
    ):
        store = evidence.connect(load_settings(redis_url=f"redis://{LOOPBACK}:{port}/0"), EvidenceRules())
        await remember_all(store, ids, int(time.time() * 1000))
        await store.close()
        behaviour = Behaviour(ids)
        anchors = [behaviour.anchor() for _ in range(DRAWN)]
        programs = {"index": owner, "lookup": server, "redis": redis}
        async with LookupClient(address) as client:
            await until_answered(client, ids[0])
            tally = Tally(client, anchors, deadline_s)
            await saturate(tally, CALLERS, PEAK_S)  # it remembers facts from then on
            tally.forget()
            peak = (await saturate(tally, CALLERS, PEAK_S)).offered_per_s
            figures: dict[str, Any] = {"items": items, "deadline_s": deadline_s, "peak_a_second": peak, "loads": {}}
            for times in LOADS:
                tally.forget()
                used = {name: processor_seconds(one) for name, one in programs.items()}
                load = await offer(tally, times * peak, seconds)
                figures["loads"][f"{times:g}"] = {
                    "offered_a_second": round(times * peak, 1),
                    "good_a_second": round(tally.outcomes["OK"] / load.seconds, 1),
                    "outcomes": dict(tally.outcomes),
                    "degraded": dict(tally.degraded),
                    "milliseconds": {kind: Latencies.of(took).as_json() for kind, took in tally.took.items()},
                    "generator_late": load.lateness.as_json(),
                    "cores": {
                        name: round((processor_seconds(one) - used[name]) / load.seconds, 2)
                        for name, one in programs.items()
                    },
                }
                await asyncio.sleep(2)
            # What it answers once the load is over.
            tally.forget()
            after = await offer(tally, 0.5 * peak, 5)
            figures["afterwards"] = {"outcomes": dict(tally.outcomes), "latency": after.latency.as_json()}
            figures["counted_by_status"] = sum_metric(metrics, "nearkin_lookups_total")
    return figures


class Tally:
    """A call that looks up one of some items, and what became of its calls.

    Args:
        client: of the service under load.
        anchors: what is looked up, one after the other.
        deadline_s: of each call.

    Attributes:
        outcomes: how many by kind; "OK" are the good ones.
        degraded: of the good ones, how many had to do without what.
        took: how long they took from the moment the call was made, in seconds, by kind.
    """

    def __init__(self, client: LookupClient, anchors: list[str], deadline_s: float) -> None:
        self._anchors, self._deadline_s = anchors, deadline_s
        self._look_up: Callable[..., Awaitable[SimilarItems]] = client.similar
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.outcomes: Counter[str] = Counter()
        self.degraded: Counter[str] = Counter()
        self.took: dict[str, list[float]] = defaultdict(list)

    async def __call__(self, number: int) -> None:
        """Make the n-th call."""
        began, kind = time.perf_counter(), "OK"
        try:
            answer = await self._look_up(item_id=self._anchors[number % len(self._anchors)], timeout_s=self._deadline_s)
            self.degraded.update(answer.degraded)
        except NearkinError as error:
            kind = type(error).__name__
            raise
        finally:
            self.outcomes[kind] += 1
            self.took[kind].append(time.perf_counter() - began)


def bars_of(figures: dict[str, Any]) -> list[Bar]:
    """What is asked of this run."""
    most = f"{max(LOADS):g}"
    load = figures["loads"][most]
    good = load["good_a_second"] / figures["peak_a_second"]
    refused = load["milliseconds"].get("Overloaded", {})
    admitted = load["milliseconds"].get("OK", {})
    return [
        Bar(
            what=f"good look-ups at {most} times the peak, by the peak",
            measured=round(good, 3),
            must=GOOD[0],
            goal=GOOD[1],
            at_least=True,
        ),
        Bar(
            what=f"answered ones at {most} times the peak, p99",
            measured=admitted.get("p99"),
            must=1000 * figures["deadline_s"],
            unit="ms",
        ),
        Bar(
            what=f"refused ones at {most} times the peak, p99",
            measured=refused.get("p99"),
            must=REFUSED_P99_MS[0],
            goal=REFUSED_P99_MS[1],
            unit="ms",
        ),
    ]


def show(figures: dict[str, Any]) -> None:
    print(f"\npeak: {figures['peak_a_second']}/s by {CALLERS} callers; deadline {figures['deadline_s']} s")
    rows = []
    for times, load in figures["loads"].items():
        for kind, took in load["milliseconds"].items():
            rows.append(
                (
                    times,
                    load["offered_a_second"],
                    load["good_a_second"],
                    kind,
                    *(took.get(c, "") for c in ("count", "p50", "p95", "p99", "max")),
                )
            )
    print_table(
        "milliseconds, by what became of a call",
        ("times the peak", "offered/s", "good/s", "outcome", "count", "p50", "p95", "p99", "max"),
        rows,
    )
    for times, load in figures["loads"].items():
        print(times, "cores:", load["cores"], "generator late:", load["generator_late"], "without:", load["degraded"])
    print("afterwards:", figures["afterwards"])


if __name__ == "__main__":
    sys.exit(main())
