"""How long look-ups take: open loop at a rate, saturated, and by stage, against the embedded index.

`python -m benchmarks.lookups --items 50000 --rate 50 --seconds 30 --json FILE`

The items: the catalogue's products, encoded by the default bundle; beyond their number each is repeated with its
vector turned by noise to a cosine of about 0.9, and its own words. That is right for timing (lists are as long,
postings as deep as in a real index of one shop's short titles), and not for quality.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load import offer, saturate, similar_to
from benchmarks.report import describe_machine
from nearkin.client.lookup import LookupClient
from nearkin.core import item
from nearkin.core.errors import NearkinError, Unavailable
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content, Offer, Price
from nearkin.core.ports import ContentEncoder, IndexedItem, ItemWrite
from nearkin.core.retrieval import Retrieval
from nearkin.core.similarity import Vectors
from nearkin.embedded.catalogue.online_retail import CURRENCY, load_catalogue
from nearkin.embedded.programs import accepts, free_port, start, wait_until
from nearkin.encoders.bundle import load_encoder
from nearkin.ops.settings import load_settings
from nearkin.stores.qdrant import connect

BATCH = 500


def main() -> None:
    parser = argparse.ArgumentParser(description="How long look-ups take.")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=50.0, help="look-ups a second, open loop")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder), chosen.items, chosen.rate, chosen.seconds))
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(figures, indent=1))


async def measure(folder: Path, items: int, rate: float, seconds: float) -> dict[str, Any]:
    index_port, lookup_port, metrics_port = free_port(), free_port(), free_port()
    encoder = load_encoder(None, 2)
    with index_owner(folder, index_port):
        ids = await fill(f"http://127.0.0.1:{index_port}", encoder, items)
    with (
        index_owner(folder, index_port) as owner,
        lookup_server(folder, index_port, lookup_port, metrics_port) as server,
    ):
        async with LookupClient(f"127.0.0.1:{lookup_port}") as client:
            await until_answered(client, ids[0])
            figures: dict[str, Any] = {
                "machine": describe_machine(),
                "items": items,
            }
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
                used = [cpu(one) for one in (owner, server)]
                load = await saturate(similar_to(client, ids), callers, seconds / 3)
                spent = [
                    round(1000 * (cpu(one) - was) / load.latency.count, 2)
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
            figures["stages"] = stages(metrics_port)
            print("mean ms by stage:", figures["stages"])
            figures["resident_mb"] = {
                name: round(one.memory_info().rss / 1e6, 1) for name, one in (("index", owner), ("lookup", server))
            }
            print("resident MB:", figures["resident_mb"])
    return figures


@contextmanager
def index_owner(folder: Path, port: int) -> Iterator[psutil.Process]:
    """The owner of the embedded index; at its start it builds the graph."""
    command = [
        "python",
        "-m",
        "nearkin.embedded.index_owner",
        "--data",
        str(folder / "index"),
        "--listen",
        f"127.0.0.1:{port}",
    ]
    with running(command, folder, f"127.0.0.1:{port}") as process:
        yield process


@contextmanager
def lookup_server(folder: Path, index_port: int, port: int, metrics_port: int) -> Iterator[psutil.Process]:
    os.environ |= {
        "NEARKIN_QDRANT_URL": f"http://127.0.0.1:{index_port}",
        "NEARKIN_LOOKUP_LISTEN": f"127.0.0.1:{port}",
        "NEARKIN_METRICS_LISTEN": f"127.0.0.1:{metrics_port}",
    }
    with running(["python", "-m", "nearkin.lookup"], folder, f"127.0.0.1:{port}") as process:
        yield process


@contextmanager
def running(command: list[str], folder: Path, address: str) -> Iterator[psutil.Process]:
    with (folder / "log").open("ab") as log:
        process = start(command, log)
        try:
            wait_until(lambda: accepts(address), " ".join(command[1:3]), process, 120)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


async def fill(url: str, encoder: ContentEncoder, items: int) -> list[str]:
    """Write so many items; returns the ids of the catalogue's own products."""
    products = load_catalogue()
    contents = [Content(title=one.title) for one in products]
    vectors = [one for one in encoder.encode(contents) if isinstance(one, Vectors)]
    noise = np.random.default_rng(0)
    index = connect(load_settings(qdrant_url=url, index_timeout_s=60))
    collection = await index.prepare(encoder.bundle, encoder.dimensions)
    for begin in range(0, items, BATCH):
        writes = []
        for number in range(begin, min(items, begin + BATCH)):
            turn, place = divmod(number, len(products))
            product, vector = products[place], vectors[place]
            if turn:
                turned = vector.content + noise.standard_normal(len(vector.content)).astype(np.float32) * 0.025
                vector = replace(vector, content=(turned / np.linalg.norm(turned)).astype(np.float32))
            offer_ = Offer(Price(product.price, CURRENCY), markets=product.markets)
            state = item.upserted(f"{product.id}-{turn}" if turn else product.id, contents[place], 1, offer_, 1)
            writes.append(ItemWrite(IndexedItem(state, "timing", int(time.time() * 1000)), None, vector))
        await collection.write(writes)
    await index.close()
    return [one.id for one in products[:items]]


async def until_answered(client: LookupClient, item_id: str) -> None:
    for _ in range(600):
        try:
            await client.similar(item_id=item_id)
        except NearkinError:
            await asyncio.sleep(0.1)
        else:
            return
    raise Unavailable("look-up service", "it did not answer within a minute")


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def stages(metrics_port: int) -> dict[str, float]:
    """Mean milliseconds of each stage, from the server's own histograms."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = {
        (sample.name.rpartition("_")[2], sample.labels["stage"]): sample.value
        for family in families
        if family.name == "nearkin_lookup_seconds"
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }
    return {
        stage: round(1000 * samples["sum", stage] / count, 3)
        for (kind, stage), count in samples.items()
        if kind == "count" and count
    }


if __name__ == "__main__":
    main()
