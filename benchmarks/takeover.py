"""How fresh items stay when one of two indexers dies: from publishing to a search that returns them, at worst.

    python -m benchmarks.takeover [--rounds 5] [--rate 50] [--json FILE]

Starts the stack on an Apache Kafka (Java 17 and Maven; its jars are those of the tests), and beside its indexer of the
live lane a second one. In each round items are published with exponential gaps, and the second indexer is killed by
SIGKILL in the middle. Nobody starts it again before the round is over: the other one has to take its partitions. An
item's time runs from the moment at which it was meant to be published until a search by its own content returned it.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.apache_kafka import run_on_kafka
from benchmarks.catalogue import vary_catalogue
from benchmarks.load import Latencies
from benchmarks.programs import sum_metric
from benchmarks.publishing import prove
from benchmarks.report import Bar, conclude, print_table
from nearkin.client.lookup import ItemStatus, LookupClient
from nearkin.client.producer import Producer
from nearkin.embedded.catalogue.online_retail import CatalogueItem
from nearkin.embedded.programs import LOOPBACK, free_port, leashed
from nearkin.embedded.stack import Stack

#: What is asked of the worst item, in seconds.
MUST_S = 10.0

#: How long a round's load lasts, and between which of its moments the indexer dies, in seconds.
LOAD_S, DIES_S = 25.0, (6.0, 10.0)

#: How long a program may take to be ready, or to get partitions.
PATIENCE_S = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(description="The worst freshness while one of two indexers is taken over.")
    parser.add_argument("--rounds", type=int, default=5, help="how often an indexer dies")
    parser.add_argument("--rate", type=float, default=50.0, help="new items a second")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"asked": {**vars(chosen), "json": None}, "rounds": []}

    async def work(stack: Stack) -> None:
        await measure(stack, chosen.rounds, chosen.rate, figures)

    run_on_kafka(work)
    show(figures)
    return conclude(figures, bars_of(figures), chosen.json)


async def measure(stack: Stack, rounds: int, rate: float, figures: dict[str, Any]) -> None:
    """Let an indexer die again and again, and note how fresh items were."""
    supply = iter(vary_catalogue(int(rounds * rate * LOAD_S)))
    draw = random.Random(0)
    with Producer(stack.endpoints.kafka) as producer:
        async with LookupClient(stack.endpoints.lookup) as lookups:
            for _ in range(rounds):
                items = [next(supply) for _ in range(int(rate * LOAD_S))]
                figures["rounds"].append(await _round(stack, producer, lookups, items, rate, draw.uniform(*DIES_S)))
                print(figures["rounds"][-1])


async def _round(
    stack: Stack, producer: Producer, lookups: LookupClient, items: list[CatalogueItem], rate: float, dies_s: float
) -> dict[str, Any]:
    survivor, second = stack.endpoints.metrics["indexer-live"], f"{LOOPBACK}:{free_port()}"
    before = sum_metric(survivor, "nearkin_rebalances_total")
    process = _second_indexer(stack, second)
    try:
        # Both have their share once the survivor was told of another assignment, and the second one of its first.
        await _until(lambda: sum_metric(survivor, "nearkin_rebalances_total") > before)
        await _until(lambda: sum_metric(second, "nearkin_rebalances_total") > 0)
        both = sum_metric(survivor, "nearkin_rebalances_total")
        proving = asyncio.create_task(prove(producer, lookups, items, rate))
        await asyncio.sleep(dies_s)
        served = sum_metric(second, "nearkin_events_total")
        process.kill()
        died = time.perf_counter()
        await _until(lambda: sum_metric(survivor, "nearkin_rebalances_total") > both)
        assigned_s = time.perf_counter() - died
        proofs = await proving
    finally:
        process.kill()
        process.wait()
    left = await lookups.items(list(proofs.waiting)) if proofs.waiting else []
    latency = Latencies.of(list(proofs.seconds.values()))
    return {
        "died_after_s": round(dies_s, 2),
        "served_by_the_dead": served,
        "assigned_to_the_other_s": round(assigned_s, 2),
        "worst_s": round(latency.max / 1000, 2),
        "latency": latency.as_json(),
        # One that is there, and was not among the ten nearest to its content, has ten others with nearly its words.
        "not_there": sum(one.status is not ItemStatus.VISIBLE for one in left),
        "not_nearest": [one.title for one in left if one.status is ItemStatus.VISIBLE],
    }


def _second_indexer(stack: Stack, listen: str) -> subprocess.Popen[bytes]:
    settings = {
        "NEARKIN_KAFKA_BOOTSTRAP": stack.endpoints.kafka,
        "NEARKIN_QDRANT_URL": stack.endpoints.qdrant,
        "NEARKIN_METRICS_LISTEN": listen,
        "NEARKIN_INDEXER_LANE": "live",
    }
    with (stack.data / "second.log").open("ab") as log:
        return subprocess.Popen(
            leashed([sys.executable, "-m", "nearkin.indexer"]), env=os.environ | settings, stdout=log, stderr=log
        )


async def _until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if await asyncio.to_thread(holds):
                return
        except OSError as error:  # it does not listen yet
            problem = error
        else:
            problem = TimeoutError("nothing changed")
        if time.monotonic() > deadline:
            raise problem
        await asyncio.sleep(0.05)


def bars_of(figures: dict[str, Any]) -> list[Bar]:
    """What is asked of this run."""
    rounds = figures["rounds"]
    return [
        Bar(
            what="worst freshness while an indexer is taken over",
            measured=max((one["worst_s"] for one in rounds), default=None),
            must=MUST_S,
            unit="s",
            note=f"the worst item of {len(rounds)} rounds, {sum(one['latency']['count'] for one in rounds):.0f} items",
        ),
        Bar(what="items that are not there in the end", measured=sum(one["not_there"] for one in rounds), must=0),
    ]


def show(figures: dict[str, Any]) -> None:
    columns = ("died_after_s", "assigned_to_the_other_s", "worst_s", "not_there")
    rows = [[one[column] for column in columns] for one in figures["rounds"]]
    print_table("one of two indexers dies, in seconds", columns, rows)


if __name__ == "__main__":
    sys.exit(main())
