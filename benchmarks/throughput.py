"""How many items a second one indexer process brings into the index, how many two do, and what limits them.

    python -m benchmarks.throughput [--items 12000] [--json FILE] [--profile FOLDER]

Each case has a broker, an index and indexers of its own; the items go to the two partitions of one topic, and two
indexers have one each. What is measured is from the first tenth to the last, once all items lie on the broker. What
each program uses of the processor meanwhile says where the limit is; py-spy, where it is on the PATH, says in which
part of the indexer its threads are busy (native code counts for the Python line that calls it).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.catalogue import vary_catalogue
from benchmarks.programs import index_owner, processor_seconds, read_metrics, sum_metric
from benchmarks.publishing import send_in_bulk
from benchmarks.report import conclude, print_table
from nearkin.client.producer import Producer
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.programs import LOOPBACK, free_port, wait_until
from nearkin.ops.topics import apply_topics

PARTITIONS = 2

#: For how long py-spy looks, in seconds.
PROFILE_S = 8

#: Parts of an indexer by what stands in the path of the innermost frame that is one of ours, or the group's.
PARTS = {
    "encode": ("nearkin/encoders/",),
    "index: write, read and search": ("nearkin/stores/", "qdrant_client", "grpc/"),
    "merge and decode": ("nearkin/indexer/", "nearkin/core/", "nearkin/contracts/"),
    "Kafka": ("aiokafka/", "kafka/", "faust/", "mode/", "nearkin/ops/worker.py"),
}

#: Where threads wait.
WAITS = ("selectors.py", "threading.py", "concurrent/futures/thread.py", "queue.py")


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        processes: how many indexers.
        threads: how many threads each encodes with.
    """

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes} process{'es' * (self.processes > 1)} of {self.threads} encoding threads"


CASES = (Case(1, 1), Case(1, 2), Case(2, 1), Case(2, 2))


def main() -> int:
    parser = argparse.ArgumentParser(description="Throughput of one indexer and of two.")
    parser.add_argument("--items", type=int, default=12_000, help="of each case")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--profile", type=Path, help="where py-spy's stacks are kept")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"items": chosen.items, "cases": {}}
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="nearkin-throughput-") as folder:
            figures["cases"][str(case)] = measure(case, chosen.items, Path(folder), chosen.profile)
    show(figures)
    return conclude(figures, [], chosen.json)


def measure(case: Case, number: int, folder: Path, profiles: Path | None) -> dict[str, Any]:
    """Bring the items into an index of its own."""
    items = vary_catalogue(number)
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker())
        apply_topics(broker.bootstrap, PARTITIONS, replication=1)
        owner, url = stack.enter_context(index_owner(folder))
        indexers = [
            stack.enter_context(indexer(case, folder, broker.bootstrap, url, name)) for name in range(case.processes)
        ]
        programs = {"index": owner} | {f"indexer {name}": one for name, (one, _) in enumerate(indexers)}
        with Producer(broker.bootstrap) as producer:
            send_in_bulk(producer, items)
        spies: list[tuple[subprocess.Popen[bytes], Path]] = []
        marks: list[tuple[float, float, dict[str, float]]] = []
        while not marks or marks[-1][1] < number:
            time.sleep(0.25)
            done = sum(sum_metric(address, "nearkin_events_total") for _, address in indexers)
            if done >= number / 10:
                marks.append((time.monotonic(), done, {name: processor_seconds(one) for name, one in programs.items()}))
                if not spies and (spy := shutil.which("py-spy")):
                    spies = [look_into(spy, one, folder / f"stacks-{name}") for name, (one, _) in enumerate(indexers)]
        (began, first, before), (ended, last, after) = marks[0], marks[-1]
        encoding = [mean_ms(address, "nearkin_encode_seconds", "nearkin_encoded_items") for _, address in indexers]
        for spy_, _ in spies:
            spy_.wait(60)
        stacks = [line for _, path in spies if path.exists() for line in path.read_text().splitlines()]
        if profiles and stacks:
            profiles.mkdir(parents=True, exist_ok=True)
            (profiles / f"{case.processes}x{case.threads}.txt").write_text("\n".join(stacks))
    seconds = ended - began
    return {
        "items_a_second": round((last - first) / seconds, 1),
        "seconds": round(seconds, 1),
        "cores": {name: round((after[name] - before[name]) / seconds, 2) for name in programs},
        "processor_ms_an_item": {
            name: round(1000 * (after[name] - before[name]) / (last - first), 2) for name in programs
        },
        "encode_ms_an_item": [round(one, 2) for one in encoding],
        "profile": shares(stacks),
    }


@contextmanager
def indexer(case: Case, folder: Path, bootstrap: str, url: str, number: int) -> Iterator[tuple[psutil.Process, str]]:
    """An indexer of the bulk lane that holds its partitions, and the address of its metrics."""
    listen = f"{LOOPBACK}:{free_port()}"
    environment = os.environ | {
        "NEARKIN_KAFKA_BOOTSTRAP": bootstrap,
        "NEARKIN_QDRANT_URL": url,
        "NEARKIN_METRICS_LISTEN": listen,
        "NEARKIN_INDEXER_LANE": "bulk",
        "NEARKIN_ENCODE_THREADS": str(case.threads),
    }
    with (folder / f"indexer-{number}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "nearkin.indexer"], env=environment, stderr=log)
    try:
        wait_until(lambda: is_ready(listen), "the indexer", process, 120)
        yield psutil.Process(process.pid), listen
    finally:
        process.terminate()
        process.wait(60)


def is_ready(address: str) -> bool:
    """Whether a worker holds partitions."""
    try:
        return bool(sum_metric(address, "nearkin_rebalances_total"))
    except OSError:
        return False


def look_into(spy: str, process: psutil.Process, path: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Have py-spy look into a process for a while; where its stacks will be."""
    command = [spy, "record", "-d", str(PROFILE_S), "-r", "50", "-f", "raw", "--full-filenames", "-o", str(path)]
    command += ["-p", str(process.pid)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), path


def is_wait(stack: str) -> bool:
    """Whether a thread does nothing; on a busy machine py-spy takes one that is about to wait for one that works."""
    innermost = stack.rpartition(" ")[0].rpartition(";")[2]
    return any(path in innermost for path in WAITS)


def shares(stacks: Sequence[str]) -> dict[str, float]:
    """Which share of the time that threads were busy each part had."""
    samples: Counter[str] = Counter()
    for line in stacks:
        if is_wait(line):
            continue
        frames, _, count = line.rpartition(" ")
        part = next(
            (
                name
                for frame in reversed(frames.split(";"))
                for name, paths in PARTS.items()
                if any(path in frame for path in paths)
            ),
            "other",
        )
        samples[part] += int(count)
    return {part: round(count / samples.total(), 3) for part, count in samples.most_common()}


def mean_ms(address: str, seconds: str, items: str) -> float:
    """Milliseconds an item, from two histograms' sums."""
    sums = {sample.name: sample.value for sample in read_metrics(address) if sample.name.endswith("_sum")}
    return 1000 * sums.get(f"{seconds}_sum", 0.0) / (sums.get(f"{items}_sum") or 1.0)


def show(figures: dict[str, Any]) -> None:
    rows = [
        (
            name,
            case["items_a_second"],
            case["encode_ms_an_item"],
            "  ".join(f"{program} {cores}" for program, cores in case["cores"].items()),
            "  ".join(f"{part} {share:.0%}" for part, share in case["profile"].items()),
        )
        for name, case in figures["cases"].items()
    ]
    print_table(
        f"{figures['items']} items on {PARTITIONS} partitions",
        ("case", "items/s", "encode ms an item", "cores", "busy threads of the indexers"),
        rows,
    )


if __name__ == "__main__":
    sys.exit(main())
