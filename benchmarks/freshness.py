"""The figure that Nearkin exists for: from publishing an item to a search that returns it, with look-ups beside.

    python -m benchmarks.freshness [--items 50000] [--new 5000] [--rate 50] [--lookups 50] [--json FILE]

Starts the embedded stack, loads the items through the bulk lane (and tells what the pipeline adds to the encoder's own
time), has the graph built as `nearkin up` does at its start, then publishes new items on the live lane with exponential
gaps while look-ups by id arrive in an open loop. An item counts as visible when a search by its own content returned
it (`nearkin.cli.prove_searchable`). Publisher, prover and load generator share the machine with the stack, and their
work is part of what is measured.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil
from prometheus_client.parser import text_string_to_metric_families
from qdrant_client import grpc as wire

from benchmarks.catalogue import vary_catalogue
from benchmarks.load import Latencies, offer, similar_to
from benchmarks.report import describe_machine, print_table
from nearkin.cli.prove_searchable import POLL_S, Proofs
from nearkin.cli.read_freshness import ages_between, read_counts
from nearkin.client.lookup import ItemStatus, LookupClient
from nearkin.client.producer import ItemProducer
from nearkin.core.item import Content, Offer, Price
from nearkin.embedded.catalogue.online_retail import CatalogueItem
from nearkin.embedded.stack import Stack, run_stack
from nearkin.encoders.bundle import load_encoder

#: The bytes of an item's dense vector: what the index's memory is compared with.
VECTOR_BYTES = 384 * 4

#: The encoder alone is timed on so many items, as many at once as the bulk lane takes.
SAMPLE, ENCODED_AT_ONCE = 4096, 256

#: Items are left so long to be proved after the last was published.
PATIENCE_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description="From publishing to visible, with look-ups beside.")
    parser.add_argument("--items", type=int, default=50_000, help="items that the index holds before")
    parser.add_argument("--new", type=int, default=5_000, help="items that are published")
    parser.add_argument("--rate", type=float, default=50.0, help="new items a second")
    parser.add_argument("--lookups", type=float, default=50.0, help="look-ups a second beside; 0 for none")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"machine": describe_machine(), "asked": {**vars(chosen), "json": None}}

    async def work(stack: Stack) -> None:
        await measure(stack, chosen.items, chosen.new, chosen.rate, chosen.lookups, figures)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run_stack(Path(folder) / "data", work, report=lambda name, what: print(f"{name}: {what}")))
    show(figures)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(figures, indent=1))


async def measure(
    stack: Stack, items: int, new: int, rate: float, lookups_rate: float, figures: dict[str, Any]
) -> None:
    """Load, publish, look up, and fill in the figures."""
    everything = vary_catalogue(items + new)
    # Old and new items are drawn from the same mixture.
    random.Random(0).shuffle(everything)
    old, fresh = everything[:items], everything[items:]
    at_start = memory()
    with ItemProducer(stack.endpoints.kafka) as producer:
        async with LookupClient(stack.endpoints.lookup) as lookups:
            figures["bulk_load"] = await load(stack, producer, lookups, old)
            await asyncio.to_thread(build_graph, stack.endpoints.qdrant)
            figures["memory_mb"] = memory()  # before the encoder below is loaded into this process
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
            before = await asyncio.to_thread(read_counts, live)
            used, began = processor(), time.perf_counter()
            proofs, stop = Proofs(), asyncio.Event()
            following = asyncio.create_task(proofs.follow(lookups))
            async with LookupClient(stack.endpoints.lookup) as others:
                call = similar_to(others, [one.id for one in old])
                load_ = asyncio.create_task(offer(call, lookups_rate or 1e-9, 3600, stop=stop))
                await publish(producer, fresh, rate, proofs)
                deadline = time.perf_counter() + PATIENCE_S
                while proofs.waiting and time.perf_counter() < deadline and not following.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                stop.set()
                if lookups_rate:
                    figures["lookups"] = (await load_).as_json()
                load_.cancel()
            took = time.perf_counter() - began
            figures["cores_used"] = {name: round((now - used[name]) / took, 3) for name, now in processor().items()}
            if following.done():
                following.result()
            following.cancel()
            stages = ages_between(before, await asyncio.to_thread(read_counts, live))
            figures["stages"] = {one.stage: {"count": one.count, "p50": one.p50, "p95": one.p95} for one in stages}
            figures["published_to_visible"] = {
                "latency": vars_of(Latencies.of(list(proofs.seconds.values()))),
                "not_proved": len(proofs.waiting),
                "poll_s": POLL_S,
                "poll_gaps": vars_of(Latencies.of(proofs.poll_gaps)),
                "searches": proofs.searches,
            }
            figures["memory_after_mb"] = memory()


async def load(
    stack: Stack, producer: ItemProducer, lookups: LookupClient, items: Sequence[CatalogueItem]
) -> dict[str, float]:
    """Load items through the bulk lane; what the pipeline adds to the encoder's own time is the rest of the clock."""
    began = time.perf_counter()

    def send() -> None:
        for one in items:
            upsert(producer, one, bulk=True)
        producer.flush()

    sending = asyncio.create_task(asyncio.to_thread(send))
    waiting = [one.id for one in items]
    while waiting:
        records = await lookups.items(waiting[:1000])
        seen = {one.id for one in records if one.status is ItemStatus.VISIBLE}
        waiting = [one for one in waiting[:1000] if one not in seen] + waiting[1000:]
        if len(seen) < 1000:
            await asyncio.sleep(0.1)
    took = time.perf_counter() - began
    await sending
    encoding = await asyncio.to_thread(encode_seconds, stack.endpoints.metrics["indexer-bulk"])
    return {
        "items": len(items),
        "seconds": round(took, 2),
        "encode_seconds": round(encoding, 2),
        "added_ms_per_item": round(1000 * (took - encoding) / len(items), 3),
    }


async def publish(producer: ItemProducer, items: Sequence[CatalogueItem], rate: float, proofs: Proofs) -> None:
    """Publish items with exponential gaps; a time counts from the moment that was meant."""
    gaps = random.Random(1)
    meant = time.perf_counter()
    for one in items:
        meant += gaps.expovariate(rate)
        await asyncio.sleep(max(0.0, meant - time.perf_counter()))
        proofs.expect(one.id, content(one), meant)
        upsert(producer, one, bulk=False)


def content(one: CatalogueItem) -> Content:
    return Content(title=one.title, language="en")


def upsert(producer: ItemProducer, one: CatalogueItem, *, bulk: bool) -> None:
    offer_ = Offer(price=Price(one.price, one.currency), markets=one.markets)
    producer.upsert(one.id, content(one), offer=offer_, bulk=bulk)


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
    contents = [content(one) for one in items[:SAMPLE]]
    encoder.encode(contents[:ENCODED_AT_ONCE])
    began = time.perf_counter()
    for start in range(0, len(contents), ENCODED_AT_ONCE):
        encoder.encode(contents[start : start + ENCODED_AT_ONCE])
    return (time.perf_counter() - began) / len(contents)


def encode_seconds(address: str) -> float:
    """What an indexer's encoder took so far, by its own metrics."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "nearkin_encode_seconds_sum"
        )


def memory() -> dict[str, float]:
    """Resident megabytes of each program of the stack."""
    return {name: round(one.memory_info().rss / 1e6, 1) for name, one in programs().items()}


def processor() -> dict[str, float]:
    """Processor seconds that each program has used so far, this one as `benchmark`."""
    times = {name: one.cpu_times() for name, one in (programs() | {"benchmark": psutil.Process()}).items()}
    return {name: one.user + one.system for name, one in times.items()}


def programs() -> dict[str, psutil.Process]:
    """The programs of the stack by name."""
    names = {
        "nearkin.embedded.index_owner": "index",
        "nearkin.lookup": "lookup",
        "nearkin.indexer": "indexer",
        "tansu": "broker",
        "redis-server": "redis",
    }
    found: dict[str, psutil.Process] = {}
    for process in psutil.Process().children(recursive=True):
        command = " ".join(process.cmdline())
        name = next((short for part, short in names.items() if part in command), "")
        if name == "indexer":
            name = f"indexer-{process.environ().get('NEARKIN_INDEXER_LANE', '')}"
        if name and (name not in found or process.memory_info().rss > found[name].memory_info().rss):
            found[name] = process
    return found


def vars_of(latencies: Latencies) -> dict[str, Any]:
    return {"count": latencies.count, **latencies.percentiles, "max": latencies.max}


def show(figures: dict[str, Any]) -> None:
    bulk = figures["bulk_load"]
    print(
        f"\nbulk load: {bulk['items']} items in {bulk['seconds']} s, of which the encoder {bulk['encode_seconds']} s: "
        f"the pipeline adds {bulk['added_ms_per_item']} ms an item; beside the encoder alone "
        f"({bulk['encode_alone_ms_per_item']} ms an item, nothing running beside) it adds "
        f"{bulk['added_to_alone_ms_per_item']} ms (asked: at most 0.6)"
    )
    print("resident MB:", figures["memory_mb"], "after the new items:", figures.get("memory_after_mb"))
    print(
        f"the index grew by {figures['index_bytes_per_item']} bytes an item, "
        f"{figures['index_bytes_over_vector']} times its vector's"
    )
    if "published_to_visible" not in figures:
        return
    rows = [
        ("published to visible", figures["published_to_visible"]["latency"]),
        ("gaps between polls", figures["published_to_visible"]["poll_gaps"]),
    ]
    if "lookups" in figures:
        latency = figures["lookups"]["latency"]
        rows.append(("look-ups beside", {"count": latency["count"], **latency["percentiles"], "max": latency["max"]}))
        print("failed look-ups:", figures["lookups"]["failures"])
    columns = ("count", "p50", "p90", "p95", "p99", "max")
    print_table("milliseconds", ("what", *columns), [(name, *(one.get(c, "") for c in columns)) for name, one in rows])
    wanted = [("published to visible", 80, 250), ("look-ups beside", 15, 50)]
    for name, p50, p99 in wanted:
        one = dict(rows).get(name, {})
        if one.get("count"):
            met = one["p50"] <= p50 and one["p99"] <= p99
            print(f"{name}: asked p50 <= {p50} ms, p99 <= {p99} ms: {'met' if met else 'MISSED'}")
    print("cores used meanwhile:", figures["cores_used"], "in all", round(sum(figures["cores_used"].values()), 2))
    print("not proved:", figures["published_to_visible"]["not_proved"])
    stages = [
        (name, one["count"], round(1000 * one["p50"], 1), round(1000 * one["p95"], 1))
        for name, one in figures["stages"].items()
    ]
    print_table("by stage, from the indexer's histograms, in milliseconds", ("stage", "count", "p50", "p95"), stages)


if __name__ == "__main__":
    main()
