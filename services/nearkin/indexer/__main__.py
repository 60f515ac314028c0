"""`python -m nearkin.indexer`: one lane of the indexer, configured by NEARKIN_* alone."""

import asyncio
import contextlib
import logging
import os

from prometheus_client import CollectorRegistry

from nearkin.core.errors import Misconfigured, NearkinError, TemporaryError
from nearkin.core.ports import ContentEncoder, ItemCollection
from nearkin.encoders.bundle import load_encoder
from nearkin.indexer.app import LANES, Lane, build
from nearkin.indexer.index_item import IndexItems
from nearkin.indexer.open_collection import open_collection, tell_switches
from nearkin.ops import logs
from nearkin.ops.failures import Stopped, engine_of, patiently
from nearkin.ops.health import Health, HealthServer, beating
from nearkin.ops.metrics import Metrics
from nearkin.ops.process import EXIT_MISCONFIGURED, exit_with, stop_on_signals
from nearkin.ops.settings import Settings, load_settings
from nearkin.ops.tracing import Traces, start_traces
from nearkin.stores.qdrant import connect

log = logging.getLogger("nearkin.indexer")

#: How often the collection's points are counted, in seconds.
COUNT_EVERY_S = 10.0

#: How often it is asked whether look-ups still search what is written, in seconds.
ALIAS_EVERY_S = 5.0


def main() -> int:
    """Serve until told to stop; the exit status."""
    logs.configure(Settings.model_construct(), "indexer")  # so that a wrong setting can be told
    try:
        settings = load_settings()
        process = f"indexer-{settings.indexer_lane}"
        logs.configure(settings, process)
        lane = LANES[settings.indexer_lane]
        os.nice(lane.nice)
        metrics = Metrics(CollectorRegistry(), process)
        health = Health(metrics, "index", "broker", "group", stall_timeout_s=settings.stall_timeout_s)
        with HealthServer(settings.metrics_listen, health, metrics, insecure=settings.listen_insecure):
            encoder = load_encoder(settings.bundle_path, settings.encode_threads)
            traces = start_traces(settings, process)
            metrics.bundle_info.labels(bundle=encoder.bundle, use="encodes").set(1)
            log.info("starting", extra=logs.fields(lane=settings.indexer_lane, bundle=encoder.bundle))
            try:
                return asyncio.run(beating(health, serve(settings, lane, encoder, metrics, health, traces)))
            finally:
                traces.close()
    except Misconfigured as error:
        log.critical("misconfigured", extra=logs.fields(problem=str(error)))
        return EXIT_MISCONFIGURED


async def serve(
    settings: Settings, lane: Lane, encoder: ContentEncoder, metrics: Metrics, health: Health, traces: Traces
) -> int:
    """Wire the parts, wait for the index, and serve the lane."""
    stopping = stop_on_signals()
    index = connect(settings)

    def failed(error: TemporaryError) -> None:
        health.waits("index", str(error))
        metrics.retries.labels(engine=engine_of(error)).inc()

    try:
        items = await patiently(
            lambda: open_collection(index, encoder, settings.index_alias),
            settings=settings,
            stopping=stopping,
            failed=failed,
        )
        health.ready("index")
        log.info("the collection is ready", extra=logs.fields(collection=items.name))
        index_items = IndexItems(
            items,
            encoder,
            metrics,
            write_batch=lane.write_batch,
            sample_every_s=lane.sample_every_s,
            traces=traces,
        )
        following = (
            asyncio.create_task(count_points(items, metrics)),
            asyncio.create_task(tell_switches(index, items, ALIAS_EVERY_S)),
        )
        try:
            return await build(settings, lane, index_items, metrics, health, stopping, traces).run()
        finally:
            for task in following:
                task.cancel()
            await index_items.close()
    except Stopped:
        return 0
    finally:
        await index.close()


async def count_points(items: ItemCollection, metrics: Metrics) -> None:
    """Keep the collection's size in the metrics."""
    while True:
        with contextlib.suppress(NearkinError):
            counts = await items.count()
            metrics.index_points.labels(kind="items").set(counts.points)
            metrics.index_points.labels(kind="tombstones").set(counts.tombstones)
        await asyncio.sleep(COUNT_EVERY_S)


if __name__ == "__main__":
    exit_with(main())
