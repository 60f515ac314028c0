"""`python -m nearkin.feedback`: the feedback worker, configured by NEARKIN_* alone."""

import asyncio
import logging
import time
from dataclasses import replace

from prometheus_client import CollectorRegistry

from nearkin.contracts.topics import FEEDBACK
from nearkin.core.counting import Counting
from nearkin.core.errors import Misconfigured, TemporaryError
from nearkin.core.ports import EvidenceStore
from nearkin.feedback.app import build, make_letters
from nearkin.feedback.apply_feedback import ApplyFeedback
from nearkin.feedback.learn_priors import LearnPriors
from nearkin.feedback.partition import Rules
from nearkin.ops import logs
from nearkin.ops.failures import Stopped, engine_of, patiently
from nearkin.ops.health import Health, HealthServer
from nearkin.ops.metrics import Metrics
from nearkin.ops.process import EXIT_MISCONFIGURED, exit_with, stop_on_signals
from nearkin.ops.read_log import Logs
from nearkin.ops.settings import Settings, load_settings
from nearkin.ops.watchdog import Progress
from nearkin.stores.evidence import connect, rules_of
from nearkin.stores.shards import SHARDS

log = logging.getLogger("nearkin.feedback")

PROCESS = "feedback"

#: How often the position priors in force are asked for, in seconds.
PRIORS_S = 5.0


def main() -> int:
    """Serve until told to stop; the exit status."""
    logs.configure(Settings.model_construct(), PROCESS)  # so that a wrong setting can be told
    try:
        settings = load_settings()
        logs.configure(settings, PROCESS)
        metrics = Metrics(CollectorRegistry(), PROCESS)
        health = Health(metrics, "evidence", "broker", "group")
        with HealthServer(settings.metrics_listen, health, metrics):
            log.info("starting")
            return asyncio.run(serve(settings, metrics, health))
    except Misconfigured as error:
        log.critical("misconfigured", extra=logs.fields(problem=str(error)))
        return EXIT_MISCONFIGURED


async def serve(settings: Settings, metrics: Metrics, health: Health) -> int:
    """Wire the parts, wait for the store, and serve."""
    stopping = stop_on_signals()
    evidence = rules_of(settings)
    store = connect(settings, evidence)

    def failed(error: TemporaryError) -> None:
        health.waits("evidence", str(error))
        metrics.retries.labels(engine=engine_of(error)).inc()

    try:
        await patiently(store.check, settings=settings, stopping=stopping, failed=failed)
        health.ready("evidence")
        log.info("the evidence is ready")
        letters, progress = make_letters(settings, metrics), Progress()
        rules = Rules(
            half_life_ms=evidence.half_life_ms,
            window=settings.feedback_window,
            clamp=settings.feedback_clamp,
            clock=settings.clock,
        )
        apply = ApplyFeedback(
            store,
            Logs(settings.kafka_bootstrap),
            letters,
            rules,
            Counting(store.shard_of, most_partners=settings.evidence_most_partners),
            metrics,
            advance=progress.advance,
            stopping=stopping,
        )
        learn = LearnPriors(store, SHARDS, metrics)
        priors = asyncio.create_task(follow_priors(apply, store, learn, settings.priors_every_s))
        try:
            return await build(settings, apply, letters, progress, metrics, health, stopping).run()
        finally:
            priors.cancel()
    except Stopped:
        return 0
    finally:
        await store.close()


async def follow_priors(apply: ApplyFeedback, store: EvidenceStore, learn: LearnPriors, every_s: float) -> None:
    """Count by the position priors in force, and learn them where this worker holds the first partition.

    Args:
        apply: counts by them.
        store: holds them.
        learn: learns them.
        every_s: how often; 0 never learns.
    """
    learned_at = time.monotonic()
    while True:
        await asyncio.sleep(PRIORS_S)
        try:
            if every_s and time.monotonic() - learned_at >= every_s and apply.holds((FEEDBACK.name, 0)):
                learned_at = time.monotonic()
                priors = await learn()
            else:
                priors = await store.read_priors()
            apply.counting = replace(apply.counting, priors=priors)
        except Exception as error:  # events are counted by the priors that are known
            log.warning("position priors stay as they are", extra=logs.fields(error=logs.describe(error)))


if __name__ == "__main__":
    exit_with(main())
