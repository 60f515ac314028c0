"""How long look-ups take and what they cost: open loop at a rate, saturated, by stage, against the embedded engines.

    python -m benchmarks.lookups [--items 50000] [--rate 50] [--seconds 30] [--json FILE]

The items are the catalogue's and variants of them (`benchmarks.catalogue`), encoded by the default bundle and written
straight into the index; each has its remembered pairs (`benchmarks.behaviour`), 2 million in all. Index owner, Redis
and look-up service run alone. Anchors follow Zipf's law. A look-up ranks what its two searches find, 100 each, and
what evidence names.

What a look-up costs is the processor time of all three programs while callers keep them busy: so many a second one
core could answer. The caller's own time is not in it. Latencies beside a stream are those of benchmarks/reranked.py.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.behaviour import Behaviour, remember_all
from benchmarks.catalogue import vary_catalogue
from benchmarks.evidence import redis_server
from benchmarks.load import offer, saturate, similar_to
from benchmarks.programs import index_owner, processor_seconds, read_metrics, running
from benchmarks.publishing import content_of, offer_of
from benchmarks.report import Bar, conclude
from nearkin.client.lookup import LookupClient
from nearkin.core.errors import NearkinError, Unavailable
from nearkin.core.evidence import EvidenceRules
from nearkin.core.filters import ItemFilter
from nearkin.core.item import upserted
from nearkin.core.ports import ContentEncoder, IndexedItem, ItemWrite
from nearkin.core.retrieval import Ranking, Retrieval
from nearkin.core.sketch import sketch
from nearkin.core.vectors import Vectors
from nearkin.embedded.programs import LOOPBACK, free_port
from nearkin.encoders.bundle import load_encoder
from nearkin.ops.settings import load_settings
from nearkin.stores import evidence
from nearkin.stores.qdrant import connect

BATCH = 500

#: The items are known for so long: none of them is new.
SEEN_BEFORE_MS = 90 * 86_400_000

#: Anchors are drawn beforehand, so that the caller's draw is no part of a latency.
DRAWN = 20_000

#: Look-ups that one core could answer a second: what must be reached, and the goal on servers.
MUST_A_CORE, GOAL_A_CORE = 150, 1_000


def main() -> int:
    parser = argparse.ArgumentParser(description="How long look-ups take.")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=50.0, help="look-ups a second, open loop")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearkin-lookups-") as folder:
        figures = asyncio.run(measure(Path(folder), chosen.items, chosen.rate, chosen.seconds))
    bars = [
        Bar(
            what=f"look-ups a second and core, saturated by {callers} callers",
            measured=figures[f"saturated, {callers}"]["a_second_and_core"],
            must=MUST_A_CORE,
            goal=GOAL_A_CORE,
            at_least=True,
        )
        for callers in (8,)
    ]
    return conclude(figures, bars, chosen.json)


async def measure(folder: Path, items: int, rate: float, seconds: float) -> dict[str, Any]:
    with index_owner(folder) as (_, url):
        ids = await fill(url, load_encoder(None, 2), items)
    with (
        index_owner(folder) as (owner, url),
        redis_server(folder) as (redis, port),
        lookup_server(folder, url, f"redis://{LOOPBACK}:{port}/0") as (server, address, metrics),
    ):
        store = evidence.connect(load_settings(redis_url=f"redis://{LOOPBACK}:{port}/0"), EvidenceRules())
        pairs = await remember_all(store, ids, int(time.time() * 1000))
        await store.close()
        behaviour = Behaviour(ids)
        anchors = [behaviour.anchor() for _ in range(DRAWN)]
        async with LookupClient(address) as client:
            await until_answered(client, ids[0])
            figures: dict[str, Any] = {"items": items, "pairs": pairs}
            cases: dict[str, dict[str, Any]] = {
                "by id, ranked": {},
                "by id, ranked and explained": {"explain": True},
                "by id, content alone": {"ranking": Ranking.CONTENT},
                "by id, dense": {"retrieval": Retrieval.DENSE},
                "by id, lexical": {"retrieval": Retrieval.LEXICAL},
                "by id, ranked, one market": {"filter": ItemFilter(market="DE")},
            }
            await offer(similar_to(client, anchors), rate, 3)
            programs = {"index": owner, "lookup": server, "redis": redis}
            for name, fields in cases.items():
                load = await offer(similar_to(client, anchors, **fields), rate, seconds)
                print(f"{name:28} {load}")
                figures[name] = load.as_json()
            for callers in (1, 8):
                used = {name: processor_seconds(one) for name, one in programs.items()}
                load = await saturate(similar_to(client, anchors), callers, seconds / 3)
                spent = {
                    name: round(1000 * (processor_seconds(one) - used[name]) / load.latency.count, 2)
                    for name, one in programs.items()
                }
                a_core = round(1000 / sum(spent.values()), 1)
                print(f"{f'saturated, {callers} callers':28} {load}  {a_core}/s and core; CPU ms a look-up: {spent}")
                figures[f"saturated, {callers}"] = {**load.as_json(), "cpu_ms": spent, "a_second_and_core": a_core}
            figures["stages"] = stages(metrics)
            print("mean ms by stage:", figures["stages"])
            figures["resident_mb"] = {name: round(one.memory_info().rss / 1e6, 1) for name, one in programs.items()}
            print("resident MB:", figures["resident_mb"])
    return figures


@contextmanager
def lookup_server(folder: Path, index_url: str, redis_url: str) -> Iterator[tuple[psutil.Process, str, str]]:
    """The look-up service on an index and a Redis, its address and that of its metrics."""
    address, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    os.environ |= {
        "NEARKIN_QDRANT_URL": index_url,
        "NEARKIN_REDIS_URL": redis_url,
        "NEARKIN_LOOKUP_LOG_RATE": "0",  # there is no broker
        "NEARKIN_LOOKUP_LISTEN": address,
        "NEARKIN_METRICS_LISTEN": metrics,
    }
    with running(["nearkin.lookup"], folder, address) as process:
        yield process, address, metrics


async def fill(url: str, encoder: ContentEncoder, count: int) -> list[str]:
    """Write so many items; returns their ids."""
    index = connect(load_settings(qdrant_url=url, index_timeout_s=60))
    collection = await index.prepare(encoder.bundle, encoder.dimensions)
    now_ms = int(time.time() * 1000)
    ids: list[str] = []
    items = vary_catalogue(count)
    for begin in range(0, count, BATCH):
        batch = items[begin : begin + BATCH]
        outcomes = encoder.encode([content_of(one) for one in batch])
        writes = [
            ItemWrite(
                IndexedItem(
                    upserted(one.id, content_of(one), 1, offer_of(one), 1),
                    "timing",
                    now_ms,
                    now_ms - SEEN_BEFORE_MS,
                    sketch(vectors.content),
                ),
                None,
                vectors,
            )
            for one, vectors in zip(batch, outcomes, strict=True)
            if isinstance(vectors, Vectors)
        ]
        await collection.write(writes)
        ids += [write.item.state.id for write in writes]
    await index.close()
    return ids


async def until_answered(client: LookupClient, item_id: str) -> None:
    for _ in range(600):
        try:
            await client.similar(item_id=item_id)
        except NearkinError:
            await asyncio.sleep(0.1)
        else:
            return
    raise Unavailable("look-up service", "it did not answer within a minute")


def stages(metrics: str) -> dict[str, float]:
    """Mean milliseconds of each stage, from the server's own histograms."""
    samples = {
        (sample.name.rpartition("_")[2], sample.labels["stage"]): sample.value
        for sample in read_metrics(metrics)
        if sample.name in {"nearkin_lookup_seconds_sum", "nearkin_lookup_seconds_count"}
    }
    return {
        stage: round(1000 * samples["sum", stage] / count, 3)
        for (kind, stage), count in samples.items()
        if kind == "count" and count
    }


if __name__ == "__main__":
    sys.exit(main())
