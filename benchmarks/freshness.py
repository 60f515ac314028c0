"""The figure that Nearkin exists for: from publishing an item to a search that returns it, with look-ups beside.

    python -m benchmarks.freshness [--items 50000] [--new 5000] [--rate 50] [--lookups 50] [--json FILE]

Starts the embedded stack, loads the items through the bulk lane (and tells what the pipeline adds to the encoder's own
time), has the graph built as `nearkin up` does at its start, then publishes new items on the live lane with exponential
gaps while look-ups by id arrive in an open loop. An item counts as visible when a search by its own content returned
it (`nearkin.client.prove_searchable`). Publisher, prover and load generator share the machine with the stack, and their
work is part of what is measured.

What the pipeline adds is read in two ways, and both are held to what is asked; `AS_IT_RAN` and `ALONE` say what each
means. Percentiles are of what was proved or answered, so that all of it was is asked too.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from qdrant_client import grpc as wire

from benchmarks.catalogue import vary_catalogue
from benchmarks.load import WARM_UP_S, Latencies, offer, similar_to
from benchmarks.programs import read_memory, read_processor, run_embedded, sum_metric
from benchmarks.publishing import PATIENCE_S, content_of, prove, send_in_bulk, until_visible
from benchmarks.report import Bar, conclude, percentile_bars, print_table
from nearkin.cli.read_freshness import ages_between, read_counts
from nearkin.client.lookup import LookupClient
from nearkin.client.producer import Producer
from nearkin.client.prove_searchable import POLL_S
from nearkin.core.retrieval import Ranking
from nearkin.embedded.catalogue.online_retail import CatalogueItem
from nearkin.embedded.stack import Stack
from nearkin.encoders.bundle import load_encoder

#: The bytes of an item's dense vector: what the index's memory is compared with.
VECTOR_BYTES = 384 * 4

#: The encoder alone is timed on so many items, as many at once as the bulk lane takes.
SAMPLE, ENCODED_AT_ONCE = 4096, 256

#: What is asked, in milliseconds: what must be reached, and the goal.
FRESH = ({"p50": 80, "p99": 250}, {"p50": 40, "p99": 100})
LOOKED_UP = ({"p50": 15, "p99": 50}, {"p50": 7, "p99": 20})
ADDED = (0.6, 0.2)

#: The index's memory for an item is at best so many times its vector's bytes.
MEMORY_GOAL = 2.2

AS_IT_RAN = (
    "the load's time less the encoder's own clock in the indexer, which also counts what the encoder waited for a core "
    "that the other programs used: what the load takes beyond its encoding"
)
ALONE = (
    "the load's time less that of the encoder with both cores to itself: what the whole pipeline costs, what it takes "
    "from the encoder included"
)


def main() -> int:
    parser = argparse.ArgumentParser(description="From publishing to visible, with look-ups beside.")
    parser.add_argument("--items", type=int, default=50_000, help="items that the index holds before")
    parser.add_argument("--new", type=int, default=5_000, help="items that are published")
    parser.add_argument("--rate", type=float, default=50.0, help="new items a second")
    parser.add_argument("--lookups", type=float, default=50.0, help="look-ups a second beside; 0 for none")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"asked": {**vars(chosen), "json": None}}

    async def work(stack: Stack) -> None:
        await measure(stack, chosen.items, chosen.new, chosen.rate, chosen.lookups, figures)

    run_embedded(work)
    show(figures)
    return conclude(figures, bars_of(figures), chosen.json)


async def measure(
    stack: Stack, items: int, new: int, rate: float, lookups_rate: float, figures: dict[str, Any]
) -> None:
    """Load, publish, look up, and fill in the figures."""
    everything = vary_catalogue(items + new)
    # Old and new items are drawn from the same mixture.
    random.Random(0).shuffle(everything)
    old, fresh = everything[:items], everything[items:]
    at_start = read_memory()
    with Producer(stack.endpoints.kafka) as producer:
        async with LookupClient(stack.endpoints.lookup) as lookups:
            figures["bulk_load"] = await load(stack, producer, lookups, old)
            await asyncio.to_thread(build_graph, stack.endpoints.qdrant)
            figures["memory_mb"] = read_memory()  # before the encoder below is loaded into this process
            alone = await asyncio.to_thread(encode_alone, old)
            figures["bulk_load"]["encode_alone_ms_per_item"] = round(1000 * alone, 3)
            figures["bulk_load"]["added_to_alone_ms_per_item"] = round(
                1000 * (figures["bulk_load"]["seconds"] / items - alone), 3
            )
            grown = (figures["memory_mb"]["index"] - at_start["index"]) * 1e6
            figures["index_bytes_per_item"] = round(grown / items)
            figures["index_bytes_over_vector"] = round(grown / items / VECTOR_BYTES, 2)
            if not fresh:
                return
            live = stack.endpoints.metrics["indexer-live"]
            stop = asyncio.Event()
            async with LookupClient(stack.endpoints.lookup) as others:
                # By content alone; benchmarks/reranked.py has ranked ones beside all that streams in.
                call = similar_to(others, [one.id for one in old], ranking=Ranking.CONTENT)
                if lookups_rate:
                    figures["lookups_at_first"] = (await offer(call, lookups_rate, WARM_UP_S)).as_json()
                before = await asyncio.to_thread(read_counts, live)
                used, began = read_processor(), time.perf_counter()
                load_ = asyncio.create_task(offer(call, lookups_rate or 1e-9, 3600, stop=stop))
                proofs = await prove(producer, lookups, fresh, rate)
                stop.set()
                if lookups_rate:
                    figures["lookups"] = (await load_).as_json()
                load_.cancel()
            took = time.perf_counter() - began
            figures["cores_used"] = {
                name: round((now - used[name]) / took, 3) for name, now in read_processor().items()
            }
            stages = ages_between(before, await asyncio.to_thread(read_counts, live))
            figures["stages"] = {one.stage: {"count": one.count, "p50": one.p50, "p95": one.p95} for one in stages}
            figures["published_to_visible"] = {
                "latency": Latencies.of(list(proofs.seconds.values())).as_json(),
                "not_proved": len(proofs.waiting),
                "poll_s": POLL_S,
                "poll_gaps": Latencies.of(proofs.poll_gaps).as_json(),
                "searches": proofs.searches,
            }
            figures["memory_after_mb"] = read_memory()


async def load(
    stack: Stack, producer: Producer, lookups: LookupClient, items: Sequence[CatalogueItem]
) -> dict[str, float]:
    """Load items through the bulk lane; what the pipeline adds to the encoder's own time is the rest of the clock."""
    began = time.perf_counter()
    sending = asyncio.create_task(asyncio.to_thread(send_in_bulk, producer, items))
    await until_visible(lookups, [one.id for one in items])
    took = time.perf_counter() - began
    await sending
    encoding = await asyncio.to_thread(
        sum_metric, stack.endpoints.metrics["indexer-bulk"], "nearkin_encode_seconds_sum"
    )
    return {
        "items": len(items),
        "seconds": round(took, 2),
        "encode_seconds": round(encoding, 2),
        "added_ms_per_item": round(1000 * (took - encoding) / len(items), 3),
    }


def build_graph(url: str) -> None:
    """Have the embedded index build its graph now, as it does when it starts."""
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        stub = wire.CollectionsStub(channel)  # type: ignore[no-untyped-call]
        for one in stub.List(wire.ListCollectionsRequest()).collections:
            request = wire.UpdateCollection(collection_name=one.name, optimizers_config=wire.OptimizersConfigDiff())
            stub.Update(request, timeout=600)


def encode_alone(items: Sequence[CatalogueItem]) -> float:
    """Seconds an item that the encoder takes by itself, with both cores and nothing beside, on a sample."""
    encoder = load_encoder(None, 2)
    contents = [content_of(one) for one in items[:SAMPLE]]
    encoder.encode(contents[:ENCODED_AT_ONCE])
    began = time.perf_counter()
    for start in range(0, len(contents), ENCODED_AT_ONCE):
        encoder.encode(contents[start : start + ENCODED_AT_ONCE])
    return (time.perf_counter() - began) / len(contents)


def bars_of(figures: dict[str, Any]) -> list[Bar]:
    """What is asked of this run."""
    bars = []
    if "published_to_visible" in figures:
        fresh = figures["published_to_visible"]
        bars += percentile_bars("published to visible", fresh["latency"], *FRESH)
        bars.append(Bar(what=f"new items not visible within {PATIENCE_S:g} s", measured=fresh["not_proved"], must=0))
    if "lookups" in figures:
        beside = figures["lookups"]
        bars += percentile_bars("look-ups beside", beside["latency"]["percentiles"], *LOOKED_UP)
        bars.append(Bar(what="look-ups that failed", measured=sum(beside["failures"].values()), must=0))
    bulk, (must, goal) = figures["bulk_load"], ADDED
    for what, added, note in (
        ("added to the encoder as it ran, an item", bulk["added_ms_per_item"], AS_IT_RAN),
        ("added to the encoder alone, an item", bulk["added_to_alone_ms_per_item"], ALONE),
    ):
        bars.append(Bar(what=what, measured=added, must=must, goal=goal, unit="ms", note=note))
    times = figures["index_bytes_over_vector"]
    bars.append(Bar(what="index memory an item over its vector's bytes", measured=times, goal=MEMORY_GOAL, unit="×"))
    return bars


def show(figures: dict[str, Any]) -> None:
    bulk = figures["bulk_load"]
    print(
        f"\nbulk load: {bulk['items']} items in {bulk['seconds']} s, of which the encoder {bulk['encode_seconds']} s; "
        f"the encoder alone, nothing running beside, takes {bulk['encode_alone_ms_per_item']} ms an item"
    )
    print("resident MB:", figures["memory_mb"], "after the new items:", figures.get("memory_after_mb"))
    print(f"the index grew by {figures['index_bytes_per_item']} bytes an item; a vector has {VECTOR_BYTES}")
    if "published_to_visible" not in figures:
        return
    rows = [
        ("published to visible", figures["published_to_visible"]["latency"]),
        ("gaps between polls", figures["published_to_visible"]["poll_gaps"]),
    ]
    for name, key in (("look-ups at first, alone", "lookups_at_first"), ("look-ups beside", "lookups")):
        if key in figures:
            latency = figures[key]["latency"]
            rows.append((name, {"count": latency["count"], **latency["percentiles"], "max": latency["max"]}))
    if "lookups" in figures:
        print("failed look-ups:", figures["lookups"]["failures"])
    columns = ("count", "p50", "p90", "p95", "p99", "max")
    print_table("milliseconds", ("what", *columns), [(name, *(one.get(c, "") for c in columns)) for name, one in rows])
    print("cores used meanwhile:", figures["cores_used"], "in all", round(sum(figures["cores_used"].values()), 2))
    stages = [
        (name, one["count"], round(1000 * one["p50"], 1), round(1000 * one["p95"], 1))
        for name, one in figures["stages"].items()
    ]
    print_table("by stage, from the indexer's histograms, in milliseconds", ("stage", "count", "p50", "p95"), stages)


if __name__ == "__main__":
    sys.exit(main())
