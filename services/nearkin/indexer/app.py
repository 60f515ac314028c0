"""The indexer at the edge of Faust: which topic a lane serves, in which group, and how greedily."""

import asyncio
from dataclasses import dataclass

from nearkin.contracts.topics import GROUPS, ITEMS, ITEMS_BULK, Topic
from nearkin.indexer.read_anew import ReadAnew
from nearkin.ops.health import Health
from nearkin.ops.metrics import Metrics
from nearkin.ops.read_log import Logs
from nearkin.ops.settings import Settings
from nearkin.ops.tracing import OFF, Traces
from nearkin.ops.worker import Handle, Worker


@dataclass(frozen=True, slots=True)
class Lane:
    """How one lane is served; two lanes are two processes, so neither waits behind the other's batch.

    Attributes:
        topic: what it serves.
        group: its consumer group.
        take: its batch, in multiples of the setting: bulk encodes more at once.
        write_batch: most items in one write to the index; small, so that a live write is never behind a large one.
        nice: how far it steps back for others on the processor.
        sample_every_s: how often an item's visibility is proved.
        fetch_wait_ms: how long the broker may hold a fetch back while there is nothing. The embedded broker answers
            late in proportion, so a live item pays half of it, and each fetch costs both sides half a millisecond.
    """

    topic: Topic
    group: str
    take: int
    write_batch: int
    nice: int
    sample_every_s: float
    fetch_wait_ms: int


LANES = {
    "live": Lane(ITEMS, GROUPS[ITEMS], take=1, write_batch=256, nice=0, sample_every_s=0.25, fetch_wait_ms=20),
    "bulk": Lane(
        ITEMS_BULK, GROUPS[ITEMS_BULK], take=4, write_batch=32, nice=19, sample_every_s=2.0, fetch_wait_ms=200
    ),
}


def build(
    settings: Settings,
    lane: Lane,
    handle: Handle,
    metrics: Metrics,
    health: Health,
    stopping: asyncio.Event,
    traces: Traces = OFF,
) -> Worker:
    """The worker of a lane, around its use case."""
    anew = ReadAnew(Logs(settings.kafka_bootstrap, settings.kafka_security), lane.topic.name)
    return Worker(
        settings,
        group=lane.group,
        topics=[lane.topic],
        handle=handle,
        metrics=metrics,
        health=health,
        batch=settings.indexer_batch * lane.take,
        within_s=settings.indexer_within_ms / 1000,
        fetch_wait_ms=lane.fetch_wait_ms,
        stopping=stopping,
        ledger=anew,
        notes=anew,
        traces=traces,
    )
