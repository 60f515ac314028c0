"""What the embedded index costs: round trips, writes and memory, at 5,000 and 50,000 points.

`python -m benchmarks.index [--points 5000,50000] [--json FILE]` starts an owner process of its own in a temporary
folder and asks it over gRPC with the real adapter, one call after another, so a figure is a round trip's latency and
not a throughput. Vectors are random and of unit length, which is the hardest case for a graph; 8 lexical terms an item
are drawn by Zipf's law from 20,000. What is asked of the index's memory is told for the largest size.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from qdrant_client import grpc as wire

from benchmarks.programs import index_owner
from benchmarks.report import Bar, conclude
from nearkin.core.item import Content, Offer, Price, merge, offered, upserted
from nearkin.core.ports import IndexedItem, ItemCollection, ItemWrite, Search, Stored
from nearkin.core.sketch import sketch
from nearkin.core.vectors import SparseVector, VectorName, Vectors
from nearkin.ops.settings import load_settings
from nearkin.stores.qdrant import connect

DIMENSIONS = 384
BATCH = 256
CALLS = 400
LIMIT = 30

#: Hits of each search that are ranked, and how many anchors are asked for again and again meanwhile.
CANDIDATES, HOT = 100, 100

#: Memory for an item, at best so many times its vector's bytes.
MEMORY_GOAL = 2.2

#: A bulk request may take so long.
TIMEOUT_S = 300

WORDS = (
    "glass",
    "heart",
    "red",
    "retrospot",
    "vintage",
    "paper",
    "bag",
    "wooden",
    "set",
    "of",
    "small",
    "lunch",
    "box",
)


class Maker:
    """Makes items of about 40 words with random vectors, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.made = 0

    def vectors(self) -> Vectors:
        """A random direction and a few terms."""
        content = self._random.standard_normal(DIMENSIONS).astype(np.float32)
        terms = np.unique(np.minimum(self._random.zipf(1.3, 8), 20_000)).astype(np.uint32)
        weights = self._random.uniform(0.5, 2.0, len(terms)).astype(np.float32)
        return Vectors(content / np.linalg.norm(content), SparseVector(terms, weights))

    def insert(self) -> ItemWrite:
        """The first write of the next item."""
        number, self.made = self.made, self.made + 1
        words = self._random.choice(WORDS, 40).tolist()
        content = Content(
            title=" ".join(words[:6]),
            description=" ".join(words[6:]),
            language="en",
            categories=(("home", words[0], words[1]),),
            tags=tuple(words[:3]),
            attributes={"colour": words[2]},
        )
        state = upserted(f"item-{number}", content, number, Offer(Price(float(number % 50), "GBP")), number)
        vectors = self.vectors()
        now = 1_700_000_000_000
        return ItemWrite(IndexedItem(state, "0" * 32, now, now + number, sketch(vectors.content)), None, vectors)


async def latencies(process: psutil.Process, calls: int, call: Callable[[int], Awaitable[Any]]) -> dict[str, float]:
    """Percentiles of a call in milliseconds, and the processor time that each side spends on one.

    The processor times say what a busy machine hides.
    """
    await call(0)
    taken = []
    own, owners = time.process_time(), sum(process.cpu_times()[:2])
    for number in range(1, calls + 1):
        started = time.perf_counter()
        await call(number)
        taken.append((time.perf_counter() - started) * 1e3)
    own, owners = time.process_time() - own, sum(process.cpu_times()[:2]) - owners
    p50, p99 = np.percentile(taken, [50, 99])
    return {
        "calls": calls,
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "owner_cpu_ms": round(owners / calls * 1e3, 3),
        "client_cpu_ms": round(own / calls * 1e3, 3),
    }


async def reads_and_searches(
    process: psutil.Process, items: ItemCollection, points: int, exact: bool = False
) -> dict[str, Any]:
    ids = [f"item-{number * 7919 % points}" for number in range(points)]

    async def read(number: int) -> None:
        await items.read([ids[number]])

    async def search(number: int) -> None:
        anchor = ids[number]
        dense = Search(VectorName.CONTENT, anchor, LIMIT, exact=exact)
        await items.search([dense, Search(VectorName.LEXICAL, anchor, LIMIT)])

    async def search_dense(number: int) -> None:
        await items.search([Search(VectorName.CONTENT, ids[number], LIMIT, exact=exact)])

    async def search_for_ranking(number: int) -> None:
        anchor = ids[number % HOT]
        dense = Search(VectorName.CONTENT, anchor, CANDIDATES, exact=exact)
        await items.search([dense, Search(VectorName.LEXICAL, anchor, CANDIDATES)])

    async def search_among(number: int) -> None:
        await items.search([Search(VectorName.CONTENT, ids[number], CANDIDATES, among=named[number % len(named)])])

    async def read_facts(number: int) -> None:
        await items.read_facts(named[number % len(named)])

    named = [tuple(ids[start : start + CANDIDATES]) for start in range(0, 20 * CANDIDATES, CANDIDATES)]
    for number in range(HOT):  # as in a service that has been up for a while
        await search_for_ranking(number)
        await search_among(number)
    return {
        f"search by id, dense and lexical, {CANDIDATES} each": await latencies(process, CALLS, search_for_ranking),
        f"search among {CANDIDATES}": await latencies(process, CALLS, search_among),
        f"facts of {CANDIDATES}": await latencies(process, CALLS, read_facts),
        "read of 1": await latencies(process, CALLS, read),
        "search by id, dense": await latencies(process, CALLS, search_dense),
        "search by id, dense and lexical": await latencies(process, CALLS, search),
    }


async def writes(process: psutil.Process, items: ItemCollection, maker: Maker) -> dict[str, Any]:
    async def insert(_: int) -> None:
        assert not await items.write([maker.insert()])

    async def insert_many(number: int) -> None:
        assert not await items.write(batches[number])

    async def reoffer(number: int) -> None:
        held = (await items.read([f"item-{number}"]))[f"item-{number}"]
        version = max(held.state.offered_version, 10**9) + 1
        state = merge(held.state, offered(held.state.id, Offer(Price(1.0, "GBP")), version))
        change = ItemWrite(IndexedItem(state, held.fingerprint, held.indexed_at), held.state.versions, Stored.VECTORS)
        assert not await items.write([change])

    batches = [[maker.insert() for _ in range(BATCH)] for _ in range(11)]
    return {
        "write of 1 new": await latencies(process, CALLS // 2, insert),
        "read and write of 1 offer": await latencies(process, CALLS // 2, reoffer),
        f"write of {BATCH} new": await latencies(process, 10, insert_many),
    }


def memory(process: psutil.Process, points: int, empty: Any) -> dict[str, Any]:
    """Resident bytes of the owner: all, and what an item adds over the empty process, against its vector's bytes."""
    seen = process.memory_info()
    added = (seen.rss - empty.rss) / points
    return {
        "resident_mb": round(seen.rss / 1e6, 1),
        "of_it_shared_with_files_mb": round(seen.shared / 1e6, 1),
        "bytes_per_item": round(added),
        "of_them_not_of_files": round((seen.rss - seen.shared - empty.rss + empty.shared) / points),
        "times_vector_bytes": round(added / (4 * DIMENSIONS), 2),
    }


async def measure(points: int, folder: Path) -> dict[str, Any]:
    """Everything about an index of so many points."""
    result: dict[str, Any] = {"points": points}
    with index_owner(folder) as (process, url):
        index = connect(load_settings(qdrant_url=url, index_timeout_s=TIMEOUT_S))
        items = await index.prepare("benchmark", DIMENSIONS)
        empty = process.memory_info()
        maker = Maker(seed=points)
        taken = making = 0.0
        while maker.made < points:
            started = time.perf_counter()
            batch = [maker.insert() for _ in range(min(BATCH, points - maker.made))]
            made = time.perf_counter()
            await items.write(batch)
            making += made - started
            taken += time.perf_counter() - made
        result["bulk write, ms per item"] = round(taken / points * 1e3, 4)
        result["memory after the load"] = memory(process, points, empty)
        result["without a graph"] = await reads_and_searches(process, items, points)
        with grpc.insecure_channel(url.removeprefix("http://")) as channel:
            request = wire.UpdateCollection(
                collection_name=items.name, optimizers_config=wire.OptimizersConfigDiff(default_segment_number=0)
            )
            stub = wire.CollectionsStub(channel)  # type: ignore[no-untyped-call]
            started = time.perf_counter()
            stub.Update(request, timeout=600)
            result["optimise_s"] = round(time.perf_counter() - started, 2)
        result["memory after optimising"] = memory(process, points, empty)
        result["after optimising"] = await reads_and_searches(process, items, points)
        result["after optimising, exact"] = await reads_and_searches(process, items, points, exact=True)
        result["writes"] = await writes(process, items, maker)
        await index.close()
    started = time.perf_counter()
    with index_owner(folder) as (process, url):
        result["restart_s"] = round(time.perf_counter() - started, 2)
        index = connect(load_settings(qdrant_url=url, index_timeout_s=TIMEOUT_S))
        items = await index.prepare("benchmark", DIMENSIONS)
        await reads_and_searches(process, items, points)
        result["memory after a restart"] = memory(process, maker.made, empty)
        await index.close()
    return result


def show(result: dict[str, Any]) -> None:
    """The figures as a table."""
    print(f"\n{result['points']:,} points of {DIMENSIONS} dimensions, {LIMIT} hits a search")
    for name, value in result.items():
        if isinstance(value, dict) and any(isinstance(row, dict) for row in value.values()):
            for row, figures in value.items():
                print(
                    f"  {name + ': ' + row:<62} p50 {figures['p50_ms']:8.2f} ms   p99 {figures['p99_ms']:8.2f} ms   "
                    f"processor {figures['owner_cpu_ms']:.2f} + {figures['client_cpu_ms']:.2f} ms"
                )
        elif isinstance(value, dict):
            print(
                f"  {name:<62} {value['resident_mb']:8.1f} MB, {value['bytes_per_item']} bytes an item "
                f"({value['times_vector_bytes']} x its vector), {value['of_them_not_of_files']} not of files"
            )
        else:
            print(f"  {name:<62} {value}")


def bars_of(largest: dict[str, Any]) -> list[Bar]:
    """What is asked of this run."""
    times = largest["memory after optimising"]["times_vector_bytes"]
    what = f"{largest['points']:,} points, index memory an item over its vector's bytes"
    return [Bar(what=what, measured=times, goal=MEMORY_GOAL, unit="×")]


def main(arguments: list[str] | None = None) -> int:
    """Measure, show, and leave JSON where it is asked for."""
    parser = argparse.ArgumentParser("benchmarks.index", description=__doc__.partition("\n")[0])
    parser.add_argument("--points", default="5000,50000", help="sizes, separated by commas")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args(arguments)
    sizes: list[dict[str, Any]] = []
    for points in map(int, chosen.points.split(",")):
        with tempfile.TemporaryDirectory(prefix="nearkin-index-") as folder:
            result = asyncio.run(measure(points, Path(folder)))
        sizes.append(result)
        show(result)
    return conclude({"sizes": sizes}, bars_of(max(sizes, key=lambda one: one["points"])), chosen.json)


if __name__ == "__main__":
    sys.exit(main())
