"""A worker whose handler does what an event tells it to; run as a process by tests of ops/worker.py.

It appends every value that it applies to the file TEST_APPLIED, one line each, and acknowledges as any worker does.
"""

import asyncio
import os
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
#: While this file is there, the engine that the handler needs is away.
AWAY = APPLIED.with_suffix(".away")


async def handle(records: Sequence[Record]) -> list[Rejected]:
    if AWAY.exists():
        raise Unavailable("index", "it is away")
    rejected = []
    applied = []
    for record in records:
        if record.value in (None, b"reject"):
            error = InvalidEvent("it asks for it", field="value", remedy="ask for something else", reason="asked")
            rejected.append(Rejected(record, error))
            continue
        if record.value == b"crash":
            raise ValueError("words of the event")
        if record.value == b"hang":
            await asyncio.Event().wait()
        if record.value.startswith(b"slow"):
            await asyncio.sleep(1.5)
        applied.append(record.value)
    await asyncio.to_thread(append, b"".join(value + b"\n" for value in applied))
    return rejected


def append(lines: bytes) -> None:
    with APPLIED.open("ab") as file:
        file.write(lines)


async def serve(settings, metrics, health):
    return await Worker(
        settings,
        group=os.environ["TEST_GROUP"],
        topics=[Topic(os.environ["TEST_TOPIC"], 3_600_000)],
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
