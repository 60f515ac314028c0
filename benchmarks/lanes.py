"""Whether a first load delays new items: from publishing to visible, with and without a backlog on the bulk lane.

    python -m benchmarks.lanes [--backlog 20000] [--new 300] [--rate 20] [--rounds 2] [--json FILE]

Starts the embedded stack and publishes new items on the live lane with exponential gaps, in turns: with nothing else to
do, and while a backlog waits on the bulk lane. The turns without it stand before and after each turn with it, because
the index grows meanwhile. An item counts as visible when a search by its own content returned it. The goal: the median
with the backlog is at most twice that without.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.catalogue import vary_catalogue
from benchmarks.freshness import PATIENCE_S, publish, upsert, vars_of
from benchmarks.load import Latencies
from benchmarks.report import describe_machine, print_table
from nearkin.cli.prove_searchable import Proofs
from nearkin.client.lookup import ItemStatus, LookupClient
from nearkin.client.producer import ItemProducer
from nearkin.embedded.catalogue.online_retail import CatalogueItem
from nearkin.embedded.stack import Stack, run_stack

#: The median with a backlog is at most so many times that without.
GOAL = 2.0

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
    figures: dict[str, Any] = {"machine": describe_machine(), "asked": {**vars(chosen), "json": None}, "turns": []}

    async def work(stack: Stack) -> None:
        await measure(stack, chosen.backlog, chosen.new, chosen.rate, chosen.rounds, figures)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run_stack(Path(folder) / "data", work, report=lambda name, what: print(f"{name}: {what}")))
    show(figures)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(figures, indent=1))
    return 0


async def measure(stack: Stack, backlog: int, new: int, rate: float, rounds: int, figures: dict[str, Any]) -> None:
    """Turns without and with a backlog, and their medians."""
    sent = int(backlog * SURPLUS)
    supply = iter(vary_catalogue(rounds * sent + (2 * rounds + 1) * new))
    alone: list[float] = []
    beside: list[float] = []
    with ItemProducer(stack.endpoints.kafka) as producer:
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
                        "latency": vars_of(Latencies.of(seconds)),
                        "not_proved": len(proofs.waiting),
                    }
                )

            await turn("alone", alone, lambda: 0)
            for _ in range(rounds):
                old = [next(supply) for _ in range(sent)]
                before = events_of(stack)
                await asyncio.to_thread(send, producer, old)
                await turn("beside a backlog", beside, lambda before=before: before + sent - events_of(stack))  # type: ignore[misc]
                await until_indexed(lookups, old)
                await turn("alone", alone, lambda: 0)
    figures["alone"], figures["beside"] = vars_of(Latencies.of(alone)), vars_of(Latencies.of(beside))
    figures["ratio_of_medians"] = round(median(beside) / median(alone), 2)


async def prove(producer: ItemProducer, lookups: LookupClient, items: Sequence[CatalogueItem], rate: float) -> Proofs:
    """Publish new items, and wait until each is proved visible."""
    proofs = Proofs()
    following = asyncio.create_task(proofs.follow(lookups))
    await publish(producer, items, rate, proofs)
    deadline = time.perf_counter() + PATIENCE_S
    while proofs.waiting and time.perf_counter() < deadline and not following.done():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    if following.done():
        following.result()
    following.cancel()
    return proofs


def send(producer: ItemProducer, items: Sequence[CatalogueItem]) -> None:
    for one in items:
        upsert(producer, one, bulk=True)
    producer.flush()


async def until_indexed(lookups: LookupClient, items: Sequence[CatalogueItem]) -> None:
    waiting = [one.id for one in items]
    while waiting:
        records = await lookups.items(waiting[:1000])
        if all(one.status is ItemStatus.VISIBLE for one in records):
            waiting = waiting[1000:]
        else:
            await asyncio.sleep(0.5)


def events_of(stack: Stack) -> int:
    """How many events the bulk indexer has done with."""
    with urllib.request.urlopen(f"http://{stack.endpoints.metrics['indexer-bulk']}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return int(sum(sample.value for sample in samples if sample.name == "nearkin_events_total"))


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
    verdict = "met" if figures["ratio_of_medians"] <= GOAL else "MISSED"
    print(
        f"median with a backlog over median without: {figures['ratio_of_medians']} (goal: at most {GOAL:g}, {verdict})"
    )


if __name__ == "__main__":
    sys.exit(main())
