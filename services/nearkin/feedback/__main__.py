"""`python -m nearkin.feedback`: the feedback worker, configured by NEARKIN_* alone."""

import asyncio
import logging
from dataclasses import replace

from prometheus_client import CollectorRegistry

from nearkin.contracts.topics import FEEDBACK
from nearkin.core.counting import Counting
from nearkin.core.errors import Misconfigured, TemporaryError
from nearkin.core.position_priors import PositionPriors
from nearkin.feedback.app import build, make_letters
from nearkin.feedback.apply_feedback import ApplyFeedback
from nearkin.feedback.forget_topics import keep_forgetting_topics
from nearkin.feedback.learn_priors import LearnPriors, follow_priors
from nearkin.feedback.partition import Rules
from nearkin.ops import logs
from nearkin.ops.failures import Stopped, engine_of, patiently
from nearkin.ops.health import Health, HealthServer, beating
from nearkin.ops.metrics import Metrics
from nearkin.ops.process import EXIT_MISCONFIGURED, exit_with, stop_on_signals
from nearkin.ops.read_log import Logs
from nearkin.ops.settings import Settings, load_settings
from nearkin.ops.tracing import Traces, start_traces
from nearkin.ops.watchdog import Progress
from nearkin.stores.evidence import connect, rules_of
from nearkin.stores.shards import SHARDS

log = logging.getLogger("nearkin.feedback")

PROCESS = "feedback"


def main() -> int:
    """Serve until told to stop; the exit status."""
    logs.configure(Settings.model_construct(), PROCESS)  # so that a wrong setting can be told
    try:
        settings = load_settings()
        logs.configure(settings, PROCESS)
        metrics = Metrics(CollectorRegistry(), PROCESS)
        health = Health(metrics, "evidence", "broker", "group", stall_timeout_s=settings.stall_timeout_s)
        with HealthServer(settings.metrics_listen, health, metrics, insecure=settings.listen_insecure):
            traces = start_traces(settings, PROCESS)
            log.info("starting")
            try:
                return asyncio.run(beating(health, serve(settings, metrics, health, traces)))
            finally:
                traces.close()
    except Misconfigured as error:
        log.critical("misconfigured", extra=logs.fields(problem=str(error)))
        return EXIT_MISCONFIGURED


async def serve(settings: Settings, metrics: Metrics, health: Health, traces: Traces) -> int:
    """Wire the parts, wait for the store, and serve."""
    stopping = stop_on_signals()
    evidence = rules_of(settings)
    store = connect(settings, evidence)

    def failed(error: TemporaryError) -> None:
        health.waits("evidence", str(error))
        metrics.retries.labels(engine=engine_of(error)).inc()

    try:
        await patiently(store.check, settings=settings, stopping=stopping, failed=failed)
        learn = LearnPriors(store, SHARDS, metrics)
        # Before anything is counted: what was expected of an exposure stays.
        in_force = await patiently(learn.read, settings=settings, stopping=stopping, failed=failed)
        health.ready("evidence")
        log.info("the evidence is ready")
        letters, progress = make_letters(settings, metrics, traces), Progress()
        rules = Rules(
            half_life_ms=evidence.half_life_ms,
            window=settings.feedback_window,
            clamp=settings.feedback_clamp,
            clock=settings.clock,
        )
        apply = ApplyFeedback(
            store,
            Logs(settings.kafka_bootstrap, settings.kafka_security),
            letters,
            rules,
            Counting(store.shard_of, in_force, settings.evidence_most_partners),
            metrics,
            advance=progress.advance,
            stopping=stopping,
            traces=traces,
        )

        def put_in_force(priors: PositionPriors) -> None:
            apply.counting = replace(apply.counting, priors=priors)

        def is_the_one() -> bool:
            return apply.holds((FEEDBACK.name, 0))

        beside = [
            asyncio.create_task(follow_priors(learn, put_in_force, is_the_one, settings.priors_every_s)),
            asyncio.create_task(
                keep_forgetting_topics(store, Logs(settings.kafka_bootstrap, settings.kafka_security), is_the_one)
            ),
        ]
        try:
            return await build(settings, apply, letters, progress, metrics, health, stopping).run()
        finally:
            for task in beside:
                task.cancel()
    except Stopped:
        return 0
    finally:
        await store.close()


if __name__ == "__main__":
    exit_with(main())
