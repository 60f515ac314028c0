"""A worker whose handler does what an event tells it to; run as a process by tests of ops/worker.py.

It appends every value that it applies to the file of its topic's name in the folder TEST_APPLIED, one line each, and
acknowledges as any worker does.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from nearkin.contracts.topics import Topic
from nearkin.core.errors import InvalidEvent, Unavailable
from nearkin.ops import logs
from nearkin.ops.health import Health, HealthServer
from nearkin.ops.metrics import Metrics
from nearkin.ops.process import exit_with, stop_on_signals
from nearkin.ops.record import Record, Rejected
from nearkin.ops.settings import load_settings
from nearkin.ops.worker import Worker

APPLIED = Path(os.environ["TEST_APPLIED"])
#: While this file is there, the engine that the handler needs is away; and: an event that asks for it is held.
AWAY, HELD = APPLIED / "away", APPLIED / "held"


async def handle(records: Sequence[Record]) -> list[Rejected]:
    if AWAY.exists():
        raise Unavailable("index", "it is away")
    rejected = []
    applied = defaultdict(list)
    for record in records:
        if record.value in (None, b"reject"):
            error = InvalidEvent("it asks for it", field="value", remedy="ask for something else", reason="asked")
            rejected.append(Rejected(record, error))
            continue
        if record.value == b"crash":
            raise ValueError("words of the event")
        if record.value == b"hang":
            await asyncio.Event().wait()
        while record.value == b"hold" and HELD.exists():  # noqa: ASYNC110  # a file is no event
            await asyncio.sleep(0.02)
        applied[record.topic].append(record.value + b"\n")
    for topic, lines in applied.items():
        await asyncio.to_thread(append, APPLIED / topic, b"".join(lines))
    return rejected


def append(path: Path, lines: bytes) -> None:
    with path.open("ab") as file:
        file.write(lines)


async def serve(settings, metrics, health):
    return await Worker(
        settings,
        group=os.environ["TEST_GROUP"],
        topics=[Topic(name, 3_600_000) for name in os.environ["TEST_TOPICS"].split()],
        handle=handle,
        metrics=metrics,
        health=health,
        batch=int(os.environ.get("TEST_BATCH", "16")),
        within_s=0.005,
        fetch_wait_ms=20,
        stopping=stop_on_signals(),
    ).run()


def main() -> int:
    settings = load_settings()
    logs.configure(settings, "test")
    metrics = Metrics(CollectorRegistry(), "test")
    health = Health(metrics, "broker", "group")
    with HealthServer(settings.metrics_listen, health, metrics):
        return asyncio.run(serve(settings, metrics, health))


if __name__ == "__main__":
    exit_with(main())
