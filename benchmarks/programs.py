"""The programs that are measured: how they are run, and what they say and use meanwhile."""

import asyncio
import sys
import tempfile
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from nearkin.embedded.programs import accepts, free_port, start, wait_until
from nearkin.embedded.stack import Stack, run_stack

T = TypeVar("T")

#: How long a program may take until it answers, and until it is gone.
READY_S, GONE_S = 120, 60

#: Parts of command lines, and what their programs are called here.
NAMES = {
    "nearkin.embedded.index_owner": "index",
    "nearkin.lookup": "lookup",
    "nearkin.indexer": "indexer",
    "nearkin.feedback": "feedback",
    "tansu": "broker",
    "redis-server": "redis",
}


def run_embedded(work: Callable[[Stack], Awaitable[T]], kafka: str | None = None) -> T:
    """Do some work beside an embedded stack of its own, which is gone afterwards with its data.

    Args:
        work: what to do.
        kafka: host:port of a Kafka that has the topics; a broker of its own where it is None.
    """
    with tempfile.TemporaryDirectory(prefix="nearkin-benchmark-") as folder:
        return asyncio.run(
            run_stack(Path(folder) / "data", work, report=lambda name, what: print(f"{name}: {what}"), kafka=kafka)
        )


@contextmanager
def index_owner(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The owner of an embedded index alone, and its URL; the index stays in the folder, and its start builds the graph.

    Args:
        folder: holds the index, and the log.
    """
    address = f"127.0.0.1:{free_port()}"
    arguments = ["nearkin.embedded.index_owner", "--data", str(folder / "index"), "--listen", address]
    with running(arguments, folder, address) as process:
        yield process, f"http://{address}"


@contextmanager
def running(module: Sequence[str], folder: Path, address: str) -> Iterator[psutil.Process]:
    """A program of Nearkin that answers, and is gone afterwards.

    Args:
        module: the module and its arguments.
        folder: where its log goes.
        address: host:port where it listens.
    """
    with (folder / "log").open("ab") as log:
        process = start([sys.executable, "-m", *module], log)
        try:
            wait_until(lambda: accepts(address), module[0], process, READY_S)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(GONE_S)


def read_metrics(address: str) -> list[Sample]:
    """All that a program's /metrics say now."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return [sample for family in families for sample in family.samples]


def sum_metric(address: str, name: str) -> float:
    """The sum of all samples of one name."""
    return sum(sample.value for sample in read_metrics(address) if sample.name == name)


def read_memory() -> dict[str, float]:
    """Resident megabytes of each program of the stack."""
    return {name: round(one.memory_info().rss / 1e6, 1) for name, one in find_programs().items()}


def read_processor() -> dict[str, float]:
    """Processor seconds that each program has used so far, this one as `benchmark`."""
    return {name: processor_seconds(one) for name, one in (find_programs() | {"benchmark": psutil.Process()}).items()}


def processor_seconds(process: psutil.Process) -> float:
    """What one program has used so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def find_programs() -> dict[str, psutil.Process]:
    """The programs of the stack by name."""
    found: dict[str, psutil.Process] = {}
    for process in psutil.Process().children(recursive=True):
        command = " ".join(process.cmdline())
        name = next((short for part, short in NAMES.items() if part in command), "")
        if name == "indexer":
            name = f"indexer-{process.environ().get('NEARKIN_INDEXER_LANE', '')}"
        if name and (name not in found or process.memory_info().rss > found[name].memory_info().rss):
            found[name] = process
    return found
