"""What metrics, logs and traces cost: each service as shipped, and with traces, against itself without instruments.

    python -m benchmarks.overhead [--items 5000] [--rounds 40] [--events 40] [--seconds 0.5] [--json FILE]

Four of each service run at once and do the same in turn, a slice each a round, in an order that changes: without
instruments (`benchmarks.bare`), as shipped (metrics and logs; traces off), with traces of the share that is the
default, and with all events and look-ups traced. A live indexer has a broker of its own and is sent events at a rate;
it is the processor time of its process an event that is compared, and the time from publishing to a search that
returns the item. A look-up service answers a few callers who call again at once; compared are its processor time a
look-up and the median of the latencies. A ratio is of two slices of one round, next to each other in time; told is
the median of the rounds with the middle half of them: many short slices, as who else is on the machine changes
meanwhile. Spans go to a collector that throws them away. What a scrape of the metrics takes is timed apart, as it
comes every 15 s.

What is asked is asked of the processor time: of latencies a machine that does something else besides says little.
Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from benchmarks.catalogue import vary_catalogue
from benchmarks.evidence import redis_server
from benchmarks.load import Latencies, saturate, similar_to
from benchmarks.lookups import fill, until_answered
from benchmarks.programs import GONE_S, READY_S, index_owner
from benchmarks.publishing import prove
from benchmarks.report import Bar, conclude, print_table
from nearkin.client.lookup import LookupClient
from nearkin.client.producer import Producer
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.catalogue.online_retail import CatalogueItem
from nearkin.embedded.programs import LOOPBACK, free_port, start, wait_until
from nearkin.embedded.stack import says_ready
from nearkin.encoders.bundle import load_encoder
from nearkin.ops.settings import load_settings
from nearkin.ops.topics import apply_topics
from nearkin.ops.tracing import start_traces

#: Against what the others are held, and what they are: the share that is traced, None where traces are off.
BARE = "without instruments"
AS_SHIPPED, TRACED, ALL_TRACED = "as shipped", "with traces", "all traced"
SHARES: dict[str, float | None] = {BARE: None, AS_SHIPPED: None, TRACED: 0.01, ALL_TRACED: 1.0}

#: What is asked: at most so much more, in per cent.
MUST = {AS_SHIPPED: 3.0, TRACED: 10.0}

#: Makes the id of a process's clock of a process's id, as clock_getcpuclockid(3) does on Linux.
CPUCLOCK_SCHED = 2

#: How often Prometheus asks, by deploy/prometheus/prometheus.yml.
SCRAPED_EVERY_S = 15.0

#: New items a second, and callers who wait for answers.
RATE, CALLERS = 50.0, 4


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is measured.

    Attributes:
        variant: how it is instrumented.
        process: the service's.
        metrics: host:port of its /metrics.
        address: of the broker that it serves, or where it answers.
    """

    variant: str
    process: psutil.Process
    metrics: str
    address: str

    def processor_s(self) -> float:
        """What its process has used so far, by the kernel's clock of it: psutil's ticks are of 10 ms."""
        return time.clock_gettime((~self.process.pid << 3) | CPUCLOCK_SCHED)

    def scrape_s(self) -> float:
        """What it takes to have its metrics read once, as Prometheus reads them."""
        used = self.processor_s()
        with urllib.request.urlopen(f"http://{self.metrics}/metrics") as answer:
            answer.read()
        return self.processor_s() - used


def main() -> int:
    parser = argparse.ArgumentParser(description="What metrics, logs and traces cost.")
    parser.add_argument("--items", type=int, default=5_000, help="items that the index holds before")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--events", type=int, default=40, help="new items in a slice")
    parser.add_argument("--seconds", type=float, default=0.5, help="of look-ups in a slice")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearkin-overhead-") as folder:
        figures = asyncio.run(measure(Path(folder), chosen.items, chosen.rounds, chosen.events, chosen.seconds))
    figures["asked"] = {**vars(chosen), "json": None}
    bars = show(figures)
    return conclude(figures, bars, chosen.json)


async def measure(folder: Path, items: int, rounds: int, events: int, seconds: float) -> dict[str, Any]:
    everything = vary_catalogue(items + rounds * len(SHARES) * events + len(SHARES) * events)
    fresh = iter(everything[items:])
    with ExitStack() as stack:
        with index_owner(folder) as (_, url):
            ids = await fill(url, load_encoder(None, 2), items)
        collector = stack.enter_context(collecting())
        _, url = stack.enter_context(index_owner(folder))
        _, port = stack.enter_context(redis_server(folder))
        common = {"NEARKIN_QDRANT_URL": url, "NEARKIN_REDIS_URL": f"redis://{LOOPBACK}:{port}/0"}
        lookups = [stack.enter_context(lookup_service(folder, name, common, collector)) for name in SHARES]
        indexers = [stack.enter_context(indexer_service(folder, name, common, collector)) for name in SHARES]
        figures: dict[str, Any] = {"lookups": {name: [] for name in SHARES}, "events": {name: [] for name in SHARES}}
        # One more: whoever is asked more knows more, and answers at less cost.
        prove_at = stack.enter_context(lookup_service(folder, AS_SHIPPED, common, collector)).address
        async with LookupClient(prove_at) as prover:
            await until_answered(prover, ids[0])
            for round_ in range(-1, rounds):  # the first warms up
                for service in turned(lookups, round_):
                    figure = await look_up(service, ids, seconds)
                    if round_ >= 0:
                        figures["lookups"][service.variant].append(figure)
                for service in turned(indexers, round_):
                    figure = await publish(service, prover, [next(fresh) for _ in range(events)], collector)
                    if round_ >= 0:
                        figures["events"][service.variant].append(figure)
                print(f"round {round_ + 1} of {rounds}", flush=True)
        shipped = [service for service in (*lookups, *indexers) if service.variant == AS_SHIPPED]
        figures["scrape_ms"] = round(
            1000 * max(statistics.median(one.scrape_s() for _ in range(9)) for one in shipped), 2
        )
    return figures


def turned(services: Sequence[Service], round_: int) -> list[Service]:
    """The same in another order each round: forth and back, beginning with another one."""
    first = round_ % len(services)
    order = [*services[first:], *services[:first]]
    return order if round_ % 2 else order[::-1]


async def look_up(service: Service, ids: Sequence[str], seconds: float) -> dict[str, float]:
    """One slice of look-ups."""
    async with LookupClient(service.address) as client:
        await client.similar(item_id=ids[0])
        used = service.processor_s()
        load = await saturate(similar_to(client, ids), CALLERS, seconds)
        spent = service.processor_s() - used
    return {"processor_ms": 1000 * spent / load.latency.count, "p50_ms": load.latency.percentiles["p50"]}


async def publish(
    service: Service, prover: LookupClient, items: Sequence[CatalogueItem], collector: str
) -> dict[str, float]:
    """One slice of new items."""
    share = SHARES[service.variant]
    traces = start_traces(load_settings(**by_share(share, collector)), "benchmark")
    with Producer(service.address, traces=traces) as producer:
        used = service.processor_s()
        proofs = await prove(producer, prover, items, RATE)
        spent = service.processor_s() - used
    traces.close()
    latency = Latencies.of(list(proofs.seconds.values()))
    return {"processor_ms": 1000 * spent / len(items), "p50_ms": latency.percentiles["p50"]}


def by_share(share: float | None, collector: str) -> dict[str, Any]:
    """The settings of traces, by name."""
    if share is None:
        return {}
    return {"traces": "otlp", "traces_endpoint": collector, "traces_share": share}


@contextmanager
def lookup_service(folder: Path, variant: str, common: Mapping[str, str], collector: str) -> Iterator[Service]:
    """A look-up service, ready."""
    address = f"{LOOPBACK}:{free_port()}"
    further = {"NEARKIN_LOOKUP_LISTEN": address, "NEARKIN_LOOKUP_LOG_RATE": "0"}
    with service_of("nearkin.lookup", folder, variant, {**common, **further}, collector) as (process, metrics):
        yield Service(variant, process, metrics, address)


@contextmanager
def indexer_service(folder: Path, variant: str, common: Mapping[str, str], collector: str) -> Iterator[Service]:
    """A live indexer on a broker of its own, ready."""
    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, 1, 1)
        further = {"NEARKIN_KAFKA_BOOTSTRAP": broker.bootstrap}
        with service_of("nearkin.indexer", folder, variant, {**common, **further}, collector) as (process, metrics):
            yield Service(variant, process, metrics, broker.bootstrap)


@contextmanager
def service_of(
    module: str, folder: Path, variant: str, environment: Mapping[str, str], collector: str
) -> Iterator[tuple[psutil.Process, str]]:
    """A service that is ready, as a variant has it, and host:port of its metrics."""
    metrics = f"{LOOPBACK}:{free_port()}"
    traces = {f"NEARKIN_{name.upper()}": str(value) for name, value in by_share(SHARES[variant], collector).items()}
    before = dict(os.environ)
    os.environ |= {**environment, **traces, "NEARKIN_METRICS_LISTEN": metrics}
    command = [sys.executable, "-m", *(["benchmarks.bare"] if variant == BARE else []), module]
    with (folder / "log").open("ab") as log:
        process = start(command, log)
        os.environ.clear()
        os.environ |= before
        try:
            wait_until(lambda: says_ready(metrics), module, process, READY_S)
            yield psutil.Process(process.pid), metrics
        finally:
            process.terminate()
            process.wait(GONE_S)


@contextmanager
def collecting() -> Iterator[str]:
    """The URL of a collector that throws away what it is sent."""

    class Collector(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        server.stop(0)


def show(figures: dict[str, Any]) -> list[Bar]:
    """Print what each variant costs beside the bare one, leave the ratios in the figures, and say what is asked."""
    bars, rows = [], []
    ratios: dict[str, Any] = {}
    for work, what in (("events", "an event"), ("lookups", "a look-up")):
        bare = figures[work][BARE]
        for variant in SHARES:
            for figure, unit in (("processor_ms", "processor time"), ("p50_ms", "median latency")):
                mine = [one[figure] for one in figures[work][variant]]
                more = [100 * (one / other[figure] - 1) for one, other in zip(mine, bare, strict=True)]
                low, middle, high = statistics.quantiles(more, n=4)
                ratios[f"{work}, {variant}, {unit}"] = {
                    "more_%": round(middle, 2),
                    "half_%": [round(low, 2), round(high, 2)],
                }
                rows.append(
                    (
                        f"{unit} of {what}",
                        variant,
                        round(statistics.median(mine), 3),
                        f"{middle:+.1f}",
                        f"{low:+.1f} to {high:+.1f}",
                    )
                )
                if variant in MUST and figure == "processor_ms":
                    bars.append(
                        Bar(
                            what=f"{unit} of {what}, {variant}",
                            measured=round(middle, 2),
                            must=MUST[variant],
                            unit="% more",
                        )
                    )
    figures["ratios"] = ratios
    scrapes = figures["scrape_ms"] / SCRAPED_EVERY_S / 10
    bars.append(Bar(what="processor for being scraped", measured=round(scrapes, 3), unit="% of a core"))
    print_table("against the same without instruments", ("what", "variant", "ms", "% more", "middle half"), rows)
    return bars


if __name__ == "__main__":
    sys.exit(main())
