"""Whether bad events delay good ones: from publishing to visible, with and without a flood that becomes dead letters.

    python -m benchmarks.poison [--new 300] [--rate 20] [--rounds 2] [--flood 10000] [--kafka] [--json FILE]

Starts the embedded stack, with --kafka on an Apache Kafka, and publishes good items on the live lane with exponential
gaps, in turns: alone; with a bad event beside each good one; and while a flood of bad ones comes in steady pace. The
turns alone stand before and after each other turn, because the index grows meanwhile, and the embedded broker answers
the later the more batches it holds. Bad events are of many kinds, and go to all partitions. An item counts as visible
when a search by its own content returned it.
Asked: median and 99th percentile beside bad events are at most twice those alone, every item becomes visible, and every
bad event is a dead letter.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from kafka import KafkaProducer

from benchmarks.apache_kafka import run_on_kafka
from benchmarks.catalogue import vary_catalogue
from benchmarks.load import Latencies
from benchmarks.programs import read_metrics, run_embedded
from benchmarks.publishing import PATIENCE_S, prove
from benchmarks.report import Bar, conclude, print_table
from nearkin.cli.read_freshness import ages_between, read_counts
from nearkin.client.lookup import LookupClient
from nearkin.client.producer import Producer
from nearkin.contracts.topics import ITEMS
from nearkin.embedded.stack import Stack

#: Median and 99th percentile beside bad events are at most so many times those alone.
MUST = 2.0

#: What is done to an event so that it is refused, each for another reason.
_SPOILED: Sequence[dict[str, object]] = (
    {"content": {"title": 7}},
    {"content_version": -1},
    {"kind": "renamed"},
    {"id": ""},
    {"occurred_at": 1_760_000_000},
    {"content": {"description": "x" * 20_001}},
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Whether bad events delay good ones.")
    parser.add_argument("--new", type=int, default=300, help="good items in each turn")
    parser.add_argument("--rate", type=float, default=20.0, help="good items a second")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each kind")
    parser.add_argument("--flood", type=int, default=10_000, help="bad events of a flood")
    parser.add_argument("--kafka", action="store_true", help="on an Apache Kafka in place of the embedded broker")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args(arguments)
    figures: dict[str, Any] = {"asked": {**vars(chosen), "json": None}, "turns": []}

    async def work(stack: Stack) -> None:
        await measure(stack, chosen.new, chosen.rate, chosen.rounds, chosen.flood, figures)

    (run_on_kafka if chosen.kafka else run_embedded)(work)
    show(figures)
    return conclude(figures, bars_of(figures), chosen.json)


async def measure(stack: Stack, new: int, rate: float, rounds: int, flood: int, figures: dict[str, Any]) -> None:
    """Turns alone and beside bad events, and how they compare."""
    kinds = {"alone": 0.0, "one in two bad": rate, f"{flood} bad": flood * rate / new}
    supply = iter(vary_catalogue((1 + rounds * 2 * (len(kinds) - 1)) * new))
    pooled: dict[str, list[float]] = {kind: [] for kind in kinds}
    flooding, live = Flood(stack.endpoints.kafka), stack.endpoints.metrics["indexer-live"]
    with Producer(stack.endpoints.kafka) as producer:
        async with LookupClient(stack.endpoints.lookup) as lookups:

            async def turn(kind: str) -> None:
                before, stages = dead_letters_of(stack), read_counts(live)
                with flooding.at(kinds[kind]):
                    proofs = await prove(producer, lookups, [next(supply) for _ in range(new)], rate)
                seconds = list(proofs.seconds.values())
                pooled[kind] += seconds
                bad = flooding.sent
                deadline = time.perf_counter() + PATIENCE_S
                while (letters := dead_letters_of(stack) - before) < bad and time.perf_counter() < deadline:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
                told = {"kind": kind, "bad": bad, "dead_letters": letters, "not_proved": len(proofs.waiting)}
                ages = {one.stage: round(1000 * one.p50, 1) for one in ages_between(stages, read_counts(live))}
                figures["turns"].append({**told, "latency": Latencies.of(seconds).as_json(), "stages_p50_ms": ages})

            await turn("alone")
            for _ in range(rounds):
                for kind in list(kinds)[1:]:
                    await turn(kind)
                    await turn("alone")
    figures["pooled"] = {kind: Latencies.of(seconds).as_json() for kind, seconds in pooled.items()}
    alone, figures["ratios"] = figures["pooled"]["alone"], {}
    for kind in list(kinds)[1:]:
        beside = figures["pooled"][kind]
        figures["ratios"][kind] = {
            "medians": round(median(pooled[kind]) / median(pooled["alone"]), 2),
            "99th percentiles": round(beside["p99"] / alone["p99"], 2),
        }


class Flood:
    """Bad events at a steady pace, from a thread.

    Args:
        bootstrap: the broker.

    Attributes:
        sent: how many of the last flood were.
    """

    def __init__(self, bootstrap: str) -> None:
        self._producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=20)
        self._numbers = count()
        self._over = threading.Event()
        self.sent = 0

    @contextmanager
    def at(self, rate: float) -> Iterator[None]:
        """So many a second."""
        self._over.clear()
        self.sent = 0
        sending = threading.Thread(target=self._send, args=(rate,), name="flood")
        sending.start()
        try:
            yield
        finally:
            self._over.set()
            sending.join()
            self._producer.flush()

    def _send(self, rate: float) -> None:
        began = time.perf_counter()
        while rate and not self._over.wait(0.01):
            for _ in range(int((time.perf_counter() - began) * rate) - self.sent):
                number = next(self._numbers)
                event = {
                    "kind": "upserted",
                    "event_id": f"bad-{number}",
                    "occurred_at": time.time_ns() // 1_000_000,
                    "id": f"bad-{number}",
                    "content_version": 1,
                    "content": {"title": "a mug"},
                    **_SPOILED[number % len(_SPOILED)],
                }
                self._producer.send(ITEMS.name, key=f"bad-{number}".encode(), value=json.dumps(event).encode())
                self.sent += 1


def dead_letters_of(stack: Stack) -> int:
    """How many dead letters the live indexer has sent."""
    samples = read_metrics(stack.endpoints.metrics["indexer-live"])
    return int(sum(one.value for one in samples if one.name == "nearkin_dead_letters_total"))


def bars_of(figures: dict[str, Any]) -> list[Bar]:
    """What is asked of this run."""
    bars = [
        Bar(what=f"ratio of {what}, {kind}", measured=ratio, must=MUST, unit="×")
        for kind, ratios in figures["ratios"].items()
        for what, ratio in ratios.items()
    ]
    lost = sum(turn["not_proved"] for turn in figures["turns"])
    differ = sum(abs(turn["bad"] - turn["dead_letters"]) for turn in figures["turns"])
    return [
        *bars,
        Bar(what=f"good items not visible within {PATIENCE_S:g} s", measured=lost, must=0),
        Bar(what="bad events less dead letters", measured=differ, must=0),
    ]


def show(figures: dict[str, Any]) -> None:
    columns = ("count", "p50", "p90", "p95", "p99", "max")
    rows = [(kind, *(one.get(column, "") for column in columns)) for kind, one in figures["pooled"].items()]
    print_table("published to visible, in milliseconds", ("turns", *columns), rows)
    for turn in figures["turns"]:
        print(f"{turn['kind']}: median of each stage of the live indexer, in ms: {turn['stages_p50_ms']}")


if __name__ == "__main__":
    sys.exit(main())
