"""How long each service takes from its start until it is ready, on an index that is there already.

    python -m benchmarks.cold_start [--items 5000] [--rounds 5] [--json FILE]

Broker, Redis and the index's owner run; each service is started alone, again and again, and asked for /ready fifty
times a second. Before a worker is ready its consumer group forms, which a broker makes it wait for: the embedded one
half a session timeout, 3 s, and Apache Kafka as long where the group is empty (`group.initial.rebalance.delay.ms`).
What of the processor a start takes is told beside it: on a machine that is busy it is that which grows.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.evidence import redis_server
from benchmarks.lookups import fill
from benchmarks.programs import GONE_S, READY_S, index_owner, processor_seconds
from benchmarks.report import Bar, conclude, print_table
from nearkin.core.errors import Unavailable
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.programs import LOOPBACK, free_port, start
from nearkin.embedded.stack import says_ready
from nearkin.encoders.bundle import load_encoder
from nearkin.ops.topics import apply_topics

#: What is started, and what it is called here.
SERVICES = {
    "indexer-live": ("nearkin.indexer", {"NEARKIN_INDEXER_LANE": "live"}),
    "indexer-bulk": ("nearkin.indexer", {"NEARKIN_INDEXER_LANE": "bulk"}),
    "feedback": ("nearkin.feedback", {}),
    "lookup": ("nearkin.lookup", {}),
    "monitor": ("nearkin.monitor", {}),
}

#: What must be reached, in seconds.
MUST_S = 5.0

POLL_S = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description="From a service's start until it is ready.")
    parser.add_argument("--items", type=int, default=5_000, help="items that the index holds")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each service")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearkin-cold-start-") as folder:
        figures = measure(Path(folder), chosen.items, chosen.rounds)
    columns = ("service", "starts", "median s", "longest s", "processor s until ready")
    rows = [
        (name, len(one["ready_s"]), statistics.median(one["ready_s"]), max(one["ready_s"]), one["processor_s"])
        for name, one in figures["services"].items()
    ]
    print_table("from start to ready", columns, rows)
    bars = [
        Bar(
            what=f"{name}, start to ready, longest of {chosen.rounds}",
            measured=max(one["ready_s"]),
            must=MUST_S,
            unit="s",
        )
        for name, one in figures["services"].items()
    ]
    return conclude(figures, bars, chosen.json)


def measure(folder: Path, items: int, rounds: int) -> dict[str, Any]:
    with index_owner(folder) as (_, url):
        asyncio.run(fill(url, load_encoder(None, 2), items))
    with EmbeddedBroker() as broker, index_owner(folder) as (_, url), redis_server(folder) as (_, port):
        apply_topics(broker.bootstrap, 4, 1)
        environment = {
            "NEARKIN_KAFKA_BOOTSTRAP": broker.bootstrap,
            "NEARKIN_QDRANT_URL": url,
            "NEARKIN_REDIS_URL": f"redis://{LOOPBACK}:{port}/0",
            "NEARKIN_LOOKUP_LISTEN": f"{LOOPBACK}:0",
        }
        measured = {}
        for name, (module, further) in SERVICES.items():
            starts = [time_start(module, environment | further, folder) for _ in range(rounds)]
            measured[name] = {
                "ready_s": [round(ready_s, 3) for ready_s, _ in starts],
                "processor_s": round(statistics.median(used_s for _, used_s in starts), 3),
            }
            print(name, measured[name], flush=True)
    return {"items": items, "rounds": rounds, "services": measured}


def time_start(module: str, environment: Mapping[str, str], folder: Path) -> tuple[float, float]:
    """Seconds until a service is ready, and what of the processor it used until then; it is gone afterwards."""
    address = f"{LOOPBACK}:{free_port()}"
    os.environ |= {**environment, "NEARKIN_METRICS_LISTEN": address}
    with (folder / "log").open("ab") as log:
        began = time.perf_counter()
        process = start([sys.executable, "-m", module], log)
        try:
            while not says_ready(address):
                if process.poll() is not None or time.perf_counter() - began > READY_S:
                    raise Unavailable(module, f"it was not ready; its log is {folder / 'log'}")
                time.sleep(POLL_S)
            ready_s = time.perf_counter() - began
            return ready_s, processor_seconds(psutil.Process(process.pid))
        finally:
            process.terminate()
            try:
                process.wait(GONE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    sys.exit(main())
