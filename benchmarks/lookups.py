"""How long look-ups take: open loop at a rate, saturated, and by stage, against the embedded index.

    python -m benchmarks.lookups [--items 50000] [--rate 50] [--seconds 30] [--json FILE]

The items are the catalogue's and variants of them (`benchmarks.catalogue`), encoded by the default bundle and written
straight into the index; index owner and look-up service run alone. Nothing is asked of these figures: what is asked of
look-ups is asked beside new items, in benchmarks/freshness.py.
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

from benchmarks.catalogue import vary_catalogue
from benchmarks.load import offer, saturate, similar_to
from benchmarks.programs import index_owner, processor_seconds, read_metrics, running
from benchmarks.publishing import content_of, offer_of
from benchmarks.report import conclude
from nearkin.client.lookup import LookupClient
from nearkin.core.errors import NearkinError, Unavailable
from nearkin.core.filters import ItemFilter
from nearkin.core.item import upserted
from nearkin.core.ports import ContentEncoder, IndexedItem, ItemWrite
from nearkin.core.retrieval import Retrieval
from nearkin.core.vectors import Vectors
from nearkin.embedded.programs import free_port
from nearkin.encoders.bundle import load_encoder
from nearkin.ops.settings import load_settings
from nearkin.stores.qdrant import connect

BATCH = 500


def main() -> int:
    parser = argparse.ArgumentParser(description="How long look-ups take.")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=50.0, help="look-ups a second, open loop")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearkin-lookups-") as folder:
        figures = asyncio.run(measure(Path(folder), chosen.items, chosen.rate, chosen.seconds))
    return conclude(figures, (), chosen.json)


async def measure(folder: Path, items: int, rate: float, seconds: float) -> dict[str, Any]:
    with index_owner(folder) as (_, url):
        ids = await fill(url, load_encoder(None, 2), items)
    with index_owner(folder) as (owner, url), lookup_server(folder, url) as (server, address, metrics):
        async with LookupClient(address) as client:
            await until_answered(client, ids[0])
            figures: dict[str, Any] = {"items": items}
            cases: dict[str, dict[str, Any]] = {
                "by id, fused": {},
                "by id, dense": {"retrieval": Retrieval.DENSE},
                "by id, lexical": {"retrieval": Retrieval.LEXICAL},
                "by id, fused, one market": {"filter": ItemFilter(market="DE")},
            }
            await offer(similar_to(client, ids), rate, 3)
            for name, fields in cases.items():
                load = await offer(similar_to(client, ids, **fields), rate, seconds)
                print(f"{name:26} {load}")
                figures[name] = load.as_json()
            for callers in (1, 8):
                used = [processor_seconds(one) for one in (owner, server)]
                load = await saturate(similar_to(client, ids), callers, seconds / 3)
                spent = [
                    round(1000 * (processor_seconds(one) - was) / load.latency.count, 2)
                    for one, was in zip((owner, server), used, strict=True)
                ]
                print(
                    f"{f'saturated, {callers} callers':26} {load}  "
                    f"CPU ms a look-up: index {spent[0]}, look-up {spent[1]}"
                )
                figures[f"saturated, {callers}"] = {
                    **load.as_json(),
                    "cpu_ms": dict(zip(("index", "lookup"), spent, strict=True)),
                }
            figures["stages"] = stages(metrics)
            print("mean ms by stage:", figures["stages"])
            figures["resident_mb"] = {
                name: round(one.memory_info().rss / 1e6, 1) for name, one in (("index", owner), ("lookup", server))
            }
            print("resident MB:", figures["resident_mb"])
    return figures


@contextmanager
def lookup_server(folder: Path, index_url: str) -> Iterator[tuple[psutil.Process, str, str]]:
    """The look-up service on an index, its address and that of its metrics."""
    address, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    os.environ |= {
        "NEARKIN_QDRANT_URL": index_url,
        "NEARKIN_LOOKUP_LISTEN": address,
        "NEARKIN_METRICS_LISTEN": metrics,
    }
    with running(["nearkin.lookup"], folder, address) as process:
        yield process, address, metrics


async def fill(url: str, encoder: ContentEncoder, count: int) -> list[str]:
    """Write so many items; returns their ids."""
    index = connect(load_settings(qdrant_url=url, index_timeout_s=60))
    collection = await index.prepare(encoder.bundle, encoder.dimensions)
    ids: list[str] = []
    items = vary_catalogue(count)
    for begin in range(0, count, BATCH):
        batch = items[begin : begin + BATCH]
        outcomes = encoder.encode([content_of(one) for one in batch])
        writes = [
            ItemWrite(
                IndexedItem(upserted(one.id, content_of(one), 1, offer_of(one), 1), "timing", int(time.time() * 1000)),
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
