"""Whether a first load delays new items: from publishing to visible, with and without a backlog on the bulk lane.

    python -m benchmarks.lanes [--backlog 20000] [--new 300] [--rate 20] [--rounds 2] [--json FILE]

Starts the embedded stack and publishes new items on the live lane with exponential gaps, in turns: with nothing else to
do, and while a backlog waits on the bulk lane. The turns without it stand before and after each turn with it, because
the index grows meanwhile. An item counts as visible when a search by its own content returned it.
Asked: median and 99th percentile with the backlog are at most twice those without, and every item becomes visible.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.catalogue import vary_catalogue
from benchmarks.load import Latencies
from benchmarks.programs import run_embedded, sum_metric
from benchmarks.publishing import PATIENCE_S, prove, send_in_bulk, until_visible
from benchmarks.report import Bar, conclude, print_table
from nearkin.client.lookup import LookupClient
from nearkin.client.producer import Producer
from nearkin.embedded.stack import Stack

#: Median and 99th percentile with a backlog are at most so many times those without.
MUST = 2.0

#: So many times the backlog is sent: some of it is indexed while the rest is being sent.
SURPLUS = 1.2


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Whether a backlog on the bulk lane delays new items.")
    parser.add_argument("--backlog", type=int, default=20_000, help="items that wait on the bulk lane")
    parser.add_argument("--new", type=int, default=300, help="new items in each turn")
    parser.add_argument("--rate", type=float, default=20.0, help="new items a second")
    parser.add_argument("--rounds", type=int, default=2, help="turns with the backlog")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args(arguments)
    figures: dict[str, Any] = {"asked": {**vars(chosen), "json": None}, "turns": []}

    async def work(stack: Stack) -> None:
        await measure(stack, chosen.backlog, chosen.new, chosen.rate, chosen.rounds, figures)

    run_embedded(work)
    show(figures)
    return conclude(figures, bars_of(figures), chosen.json)


async def measure(stack: Stack, backlog: int, new: int, rate: float, rounds: int, figures: dict[str, Any]) -> None:
    """Turns without and with a backlog, and how the two compare."""
    sent = int(backlog * SURPLUS)
    supply = iter(vary_catalogue(rounds * sent + (2 * rounds + 1) * new))
    alone: list[float] = []
    beside: list[float] = []
    with Producer(stack.endpoints.kafka) as producer:
        async with LookupClient(stack.endpoints.lookup) as lookups:

            async def turn(kind: str, pooled: list[float], waits: Callable[[], int]) -> None:
                at_start = waits()
                proofs = await prove(producer, lookups, [next(supply) for _ in range(new)], rate)
                seconds = list(proofs.seconds.values())
                pooled += seconds
                figures["turns"].append(
                    {
                        "kind": kind,
                        "waiting_at_start": at_start,
                        "waiting_at_end": waits(),
                        "latency": Latencies.of(seconds).as_json(),
                        "not_proved": len(proofs.waiting),
                    }
                )

            await turn("alone", alone, lambda: 0)
            for _ in range(rounds):
                old = [next(supply) for _ in range(sent)]
                before = events_of(stack)
                await asyncio.to_thread(send_in_bulk, producer, old)
                await turn("beside a backlog", beside, lambda before=before: before + sent - events_of(stack))  # type: ignore[misc]
                await until_visible(lookups, [one.id for one in old])
                await turn("alone", alone, lambda: 0)
    figures["alone"], figures["beside"] = Latencies.of(alone).as_json(), Latencies.of(beside).as_json()
    if alone and beside:
        figures["ratio_of_medians"] = round(median(beside) / median(alone), 2)
        figures["ratio_of_p99s"] = round(figures["beside"]["p99"] / figures["alone"]["p99"], 2)


def events_of(stack: Stack) -> int:
    """How many events the bulk indexer has done with."""
    return int(sum_metric(stack.endpoints.metrics["indexer-bulk"], "nearkin_events_total"))


def bars_of(figures: dict[str, Any]) -> list[Bar]:
    """What is asked of this run."""
    ratios = (("medians", "ratio_of_medians"), ("99th percentiles", "ratio_of_p99s"))
    return [
        *(
            Bar(what=f"with a backlog over without, {what}", measured=figures.get(name), must=MUST, unit="×")
            for what, name in ratios
        ),
        Bar(
            what=f"new items not visible within {PATIENCE_S:g} s",
            measured=sum(one["not_proved"] for one in figures["turns"]),
            must=0,
        ),
    ]


def show(figures: dict[str, Any]) -> None:
    columns = ("count", "p50", "p90", "p95", "p99", "max")
    rows = [
        (one["kind"], f"{one['waiting_at_start']} to {one['waiting_at_end']}", one["latency"], one["not_proved"])
        for one in figures["turns"]
    ]
    print_table(
        "published to visible, in milliseconds",
        ("turn", "waiting in bulk", *columns, "not proved"),
        [(kind, waiting, *(latency.get(c, "") for c in columns), lost) for kind, waiting, latency, lost in rows],
    )


if __name__ == "__main__":
    sys.exit(main())
