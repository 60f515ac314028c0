"""How many pair exposures a second one feedback worker brings from Kafka into Redis.

`python -m benchmarks.feedback [--messages 150000] [--json FILE]` starts the embedded broker, a Redis with its
append-only file, and one worker, as the stack runs them. Redis holds a million pairs already, so that every anchor is
near its cap. Four of five messages are slates of ten, the fifth is an action; anchors are drawn by Zipf's law, and the
candidates of a slate from all items. All messages lie on the broker before the worker starts; what is measured is how
fast it works them off, from the first tenth to the last, and what each program uses of the processor meanwhile.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
from kafka import KafkaProducer

from benchmarks.evidence import redis_server
from benchmarks.programs import processor_seconds, sum_metric
from benchmarks.report import Bar, conclude
from nearkin.contracts.topics import FEEDBACK
from nearkin.core.evidence import AnchorDelta, Effect, EvidenceRules, Metric, ShardBatch, Source
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.programs import LOOPBACK, accepts, free_port
from nearkin.ops.settings import load_settings
from nearkin.ops.topics import apply_topics
from nearkin.stores.evidence import connect
from nearkin.stores.shards import SHARDS, shard_of

PARTITIONS, SLATE = 4, 10
#: Pairs that are held before: so many candidates for each anchor, the cap being 256.
ANCHORS, CANDIDATES = 10_000, 100
ZIPF = 1.1

MUST, GOAL = 40_000, 80_000

APPLIED = "nearkin_events_total"


def item(number: int) -> str:
    return f"{number:08d}"


async def fill(redis_url: str) -> None:
    """Remember a million pairs, half a year old: what the stream brings is stronger."""
    rules = EvidenceRules()
    store = connect(load_settings(redis_url=redis_url), rules)
    row = [0.0] * len(Metric)
    row[Metric.EXPOSURES], row[Metric.EXPECTED] = 3.0, 0.2
    of_shard: dict[int, list[str]] = {shard: [] for shard in range(SHARDS)}
    for number in range(ANCHORS):
        of_shard[shard_of(item(number))].append(item(number))
    landmark = int(time.time() * 1000) // rules.half_life_ms
    start = 0
    while any(of_shard.values()):
        batches = []
        for shard, anchors in of_shard.items():
            if some := anchors[:10]:
                del anchors[:10]
                deltas = [
                    AnchorDelta(one, 1.0, {item((int(one) + step) % ANCHORS): row for step in range(1, CANDIDATES + 1)})
                    for one in some
                ]
                batches.append(ShardBatch(Source("fill", 0), shard, start, start + 1, landmark, deltas))
        assert {outcome.effect for outcome in await store.apply(batches)} == {Effect.APPLIED}
        start += 1
    await store.close()


def make_messages(number: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values: four slates of ten, then an action."""
    draw = np.random.default_rng(1)
    anchors = np.minimum(draw.zipf(ZIPF, number), ANCHORS) - 1
    shown = draw.integers(0, ANCHORS, (number, SLATE + 2))
    encode = msgspec.json.Encoder().encode
    now_ms = int(time.time() * 1000)
    for place, anchor in enumerate(anchors):
        others = [int(one) for one in dict.fromkeys(shown[place].tolist()) if one != anchor][:SLATE]
        event: dict[str, object] = {"event_id": f"event-{place}", "occurred_at": now_ms, "anchor": item(int(anchor))}
        event["request_id"] = f"request-{place}"
        if place % 5 == 4:
            event |= {"kind": "interaction", "item_id": item(others[0]), "action": "click", "position": 1 + place % 10}
        else:
            event |= {"kind": "impressions", "surface": "product-page"}
            event["positions"] = [
                {"item_id": item(one), "position": position, "visible": True} for position, one in enumerate(others, 1)
            ]
        yield item(int(anchor)).encode(), encode(event)


def publish(bootstrap: str, number: int) -> int:
    """Send the messages; their pair exposures."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=256 * 1024, acks=1)
    exposures = 0
    for key, value in make_messages(number):
        producer.send(FEEDBACK.name, value, key=key)
        exposures += value.count(b'"visible":true')
    producer.flush()
    producer.close()
    return exposures


def measure(number: int, folder: Path, profile: Path | None) -> dict[str, float]:
    (folder / "redis").mkdir()
    with EmbeddedBroker() as broker, redis_server(folder / "redis") as (redis, port):
        url, listen = f"redis://{LOOPBACK}:{port}/0", f"{LOOPBACK}:{free_port()}"
        apply_topics(broker.bootstrap, PARTITIONS, replication=1)
        asyncio.run(fill(url))
        exposures = publish(broker.bootstrap, number)
        print(f"{number:,} messages with {exposures:,} pair exposures are on the broker")
        environment = os.environ | {
            "NEARKIN_KAFKA_BOOTSTRAP": broker.bootstrap,
            "NEARKIN_REDIS_URL": url,
            "NEARKIN_METRICS_LISTEN": listen,
        }
        with (folder / "log").open("wb") as log:
            worker = subprocess.Popen([sys.executable, "-m", "nearkin.feedback"], env=environment, stderr=log)
        try:
            programs = {"worker": psutil.Process(worker.pid), "redis": redis}
            marks: list[tuple[float, float, dict[str, float]]] = []
            while not marks or marks[-1][1] < number:
                if worker.poll() is not None:
                    raise RuntimeError((folder / "log").read_text()[-2000:])
                time.sleep(0.25)
                if accepts(listen):
                    done = sum_metric(listen, APPLIED)
                    used = {name: processor_seconds(one) for name, one in programs.items()}
                    if done >= number / 10 and profile and len(marks) < 2:
                        subprocess.Popen(
                            ["py-spy", "record", "-d", "8", "-f", "raw", "-o", str(profile), "-p", str(worker.pid)]
                        )
                    if done >= number / 10:
                        marks.append((time.monotonic(), done, used))
            (began, first, before), (ended, last, after) = marks[0], marks[-1]
        finally:
            worker.terminate()
            worker.wait(60)
    share = (last - first) / number
    figures = {
        "pair_exposures_a_second": exposures * share / (ended - began),
        "messages_a_second": (last - first) / (ended - began),
        "seconds": ended - began,
    }
    for name in programs:
        figures[f"{name}_processor_us_a_message"] = (after[name] - before[name]) / (last - first) * 1e6
        figures[f"{name}_cores"] = (after[name] - before[name]) / (ended - began)
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Measure, show, and leave JSON where it is asked for."""
    parser = argparse.ArgumentParser("benchmarks.feedback", description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=150_000, help="four of five are slates of ten")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument(
        "--profile", type=Path, help="where py-spy, if it is there, writes where the worker's time goes"
    )
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nearkin-feedback-") as folder:
        figures = measure(chosen.messages, Path(folder), chosen.profile)
    for what, value in figures.items():
        print(f"  {what.replace('_', ' '):<40} {value:12,.2f}")
    bar = Bar(
        what="pair exposures a second and worker",
        measured=figures["pair_exposures_a_second"],
        must=MUST,
        goal=GOAL,
        unit="pairs/s",
        at_least=True,
        note="slates of ten, a fifth of messages actions, Zipf anchors, from the embedded broker into Redis with AOF",
    )
    return conclude(figures, [bar], chosen.json)


if __name__ == "__main__":
    sys.exit(main())
