"""Wires and runs the monitor: `python -m nearkin.monitor`, configured by `NEARKIN_*`.

It needs none of what it watches, at the start or later: it is ready when it watches, and says what is down.
Exit codes: 0 after SIGTERM or SIGINT, 2 where a setting or a file is not as it must be.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

from prometheus_client import CollectorRegistry

from nearkin.client.lookup import LookupClient
from nearkin.core.errors import Misconfigured, NearkinError
from nearkin.monitor.count_points import count_points
from nearkin.monitor.probe import Prober, keep_probing
from nearkin.monitor.read_dead_letters import ReadDeadLetters
from nearkin.monitor.read_lag import LANES, BrokerSide, Oldest, Waiting, read_heads
from nearkin.monitor.watch_certificates import watch_certificates
from nearkin.monitor.watch_parts import Parts, asking, engines_of, services_of, watch_part
from nearkin.ops import logs
from nearkin.ops.health import Health, HealthServer, beating
from nearkin.ops.metrics import Metrics
from nearkin.ops.process import EXIT_MISCONFIGURED, collect_young_garbage_only, exit_with, stop_on_signals
from nearkin.ops.settings import Settings, load_settings
from nearkin.stores import qdrant

log = logging.getLogger("nearkin.monitor")

#: Of whatever a client library says while what it is connected to is away, the monitor says the one line that counts.
LOUD = ("aiokafka", "kafka", "grpc")

#: The labels of a partition's lag: group, topic and partition.
Lagging = tuple[str, str, int]

#: How often dead letters are read, and points counted, in seconds.
LETTERS_EVERY_S, POINTS_EVERY_S = 5.0, 30.0


def main() -> int:
    """Watch until a signal says to stop."""
    logs.configure(Settings.model_construct(), "monitor")  # so that a wrong setting can be told
    try:
        settings = load_settings()
        logs.configure(settings, "monitor")
        for name in LOUD:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        metrics = Metrics(CollectorRegistry(), "monitor")
        health = Health(metrics, "watching", stall_timeout_s=settings.stall_timeout_s)
        with HealthServer(settings.metrics_listen, health, metrics, insecure=settings.listen_insecure):
            asyncio.run(beating(health, serve(settings, metrics, health)))
    except Misconfigured as error:
        log.critical("cannot start: %s", error)
        return EXIT_MISCONFIGURED
    return 0


async def serve(settings: Settings, metrics: Metrics, health: Health) -> None:
    """Watch until SIGTERM or SIGINT.

    Raises:
        Misconfigured: an address or a file of TLS cannot be used.
    """
    stop = stop_on_signals()
    engines, every_s = engines_of(settings), settings.monitor_every_s
    parts, index = Parts(metrics), qdrant.connect(settings)
    broker = BrokerSide(settings.kafka_bootstrap, settings.kafka_security)
    async with asking(settings) as asks, LookupClient.by_settings(settings) as lookups:
        prober = Prober(settings, lookups)
        watching = [watch_part(name, ask, parts, every_s) for name, ask in asks.items()]
        watching.append(watch_certificates(settings, metrics))
        if "broker" in engines:
            watching.append(_watch_broker(broker, parts, metrics, every_s))
        if "index" in engines:
            watching.append(_again_and_again(lambda: _count_points(index, metrics), POINTS_EVERY_S))
        if settings.probe_every_s:
            watching.append(_probe(prober, parts, [*engines, *asks], metrics, settings))
        tasks = [asyncio.create_task(each) for each in watching]
        collect_young_garbage_only()
        health.ready("watching")
        log.info("watching", extra=logs.fields(engines=engines, services=sorted(services_of(settings))))
        try:
            stopping = asyncio.create_task(stop.wait())
            # None of them ends by itself: one that does has failed in a way that nobody foresaw.
            await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await prober.close()
            await broker.close()
            await index.close()


async def _watch_broker(broker: BrokerSide, parts: Parts, metrics: Metrics, every_s: float) -> None:
    """Read lag, ages and dead letters again and again: one after the other, over the same connections."""
    oldest, letters = Oldest(), ReadDeadLetters(broker)
    letters_at, told = -LETTERS_EVERY_S, frozenset[Lagging]()
    for lane in LANES.values():
        # Whenever it is asked for: ages grow while a broker that hangs keeps everybody waiting.
        metrics.monitor_oldest_age.labels(lane).set_function(partial(_age, oldest, lane))

    async def look() -> None:
        nonlocal letters_at, told
        waiting = await broker.read_lag()
        told = tell_lag(waiting, told, metrics)
        await read_heads(broker, oldest, oldest.see(waiting))
        if time.monotonic() - letters_at >= LETTERS_EVERY_S:
            for (topic, reason), number in (await letters()).items():
                metrics.monitor_dead_letters.labels(topic, reason).set(number)
            letters_at = time.monotonic()

    while True:
        problem = ""
        try:
            await look()
        except NearkinError as error:
            problem = str(error)
        parts.hear("broker", problem)
        await asyncio.sleep(every_s)


def tell_lag(waiting: Sequence[Waiting], told: Collection[Lagging], metrics: Metrics) -> frozenset[Lagging]:
    """Tell how far each partition is behind; of one that is not there any more, nothing is told any longer.

    Args:
        waiting: what waits.
        told: of which partitions it was told last.
        metrics: where it is told.

    Returns:
        Of which it is told now.
    """
    counts = {(one.group, *one.place): one.count for one in waiting}
    for labels, count in counts.items():
        metrics.monitor_lag.labels(*labels).set(count)
    for gone in frozenset(told) - counts.keys():
        metrics.monitor_lag.remove(*gone)
    return frozenset(counts)


def _age(oldest: Oldest, lane: str) -> float:
    return oldest.ages()[lane]


async def _probe(prober: Prober, parts: Parts, names: Sequence[str], metrics: Metrics, settings: Settings) -> None:
    """Probe, from when all parts answer: where they start together, the first probe would be late every time."""
    await parts.answer(names)
    await keep_probing(prober, metrics, settings.probe_every_s, settings.probe_late_s)


async def _count_points(index: qdrant.QdrantIndex, metrics: Metrics) -> None:
    counts = await count_points(index)
    metrics.monitor_index_points.labels("items").set(counts.points)
    metrics.monitor_index_points.labels("tombstones").set(counts.tombstones)


async def _again_and_again(step: Callable[[], Awaitable[None]], every_s: float) -> None:
    """Do something until cancelled; what fails is tried again sooner, and told by whoever watches the part."""
    while True:
        try:
            await step()
            pause = every_s
        except NearkinError:
            pause = min(1.0, every_s)
        await asyncio.sleep(pause)


if __name__ == "__main__":
    exit_with(main())
