"""Wires and runs a look-up server: `python -m nearkin.lookup`, configured by `NEARKIN_*`.

Exit codes: 0 after SIGTERM or SIGINT, 2 where a setting or a file is not as it must be.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry

from nearkin.contracts.weights import read_weights
from nearkin.core.errors import Misconfigured
from nearkin.core.ports import ContentEncoder
from nearkin.core.ranking import DEFAULT_WEIGHTS
from nearkin.encoders.bundle import load_encoder
from nearkin.lookup.authorise import TokenFile
from nearkin.lookup.curation import CurationFile
from nearkin.lookup.find_similar import Depths
from nearkin.lookup.log_answers import AnswerLog
from nearkin.lookup.rank_candidates import Ordering
from nearkin.lookup.server import Limits, LookupServer
from nearkin.ops import logs
from nearkin.ops.grpc_tls import ServerCertificate
from nearkin.ops.health import Health, HealthServer, beating
from nearkin.ops.listening import require_protected
from nearkin.ops.metrics import Metrics
from nearkin.ops.process import EXIT_MISCONFIGURED, collect_young_garbage_only, exit_with, stop_on_signals
from nearkin.ops.settings import Settings, load_settings
from nearkin.ops.tracing import Traces, start_traces
from nearkin.stores import evidence as redis
from nearkin.stores import qdrant

log = logging.getLogger("nearkin.lookup")


def main() -> int:
    """Run until a signal says to stop."""
    logs.configure(Settings.model_construct(), "lookup")  # so that a wrong setting can be told
    try:
        settings = load_settings()
        logs.configure(settings, "lookup")
        metrics = Metrics(CollectorRegistry(), "lookup")
        health = Health(metrics, "index", stall_timeout_s=settings.stall_timeout_s)
        with HealthServer(settings.metrics_listen, health, metrics, insecure=settings.listen_insecure):
            encoder = load_encoder(settings.bundle_path, settings.encode_threads)
            traces = start_traces(settings, "lookup")
            try:
                asyncio.run(beating(health, serve(settings, encoder, metrics, health, traces)))
            finally:
                traces.close()
    except Misconfigured as error:
        log.critical("cannot start: %s", error)
        return EXIT_MISCONFIGURED
    return 0


async def serve(settings: Settings, encoder: ContentEncoder, metrics: Metrics, health: Health, traces: Traces) -> None:
    """Serve look-ups until SIGTERM or SIGINT, then finish what runs.

    Raises:
        Misconfigured: the address cannot be taken, or may not be without TLS; or a file is not as it must be.
    """
    require_protected(
        settings.lookup_listen,
        "NEARKIN_LOOKUP_LISTEN",
        by_tls=settings.lookup_cert is not None,
        insecure=settings.listen_insecure,
        remedy="set NEARKIN_LOOKUP_CERT and NEARKIN_LOOKUP_KEY, ",
    )
    certificate = tokens = None
    if settings.lookup_cert is not None:
        certificate = ServerCertificate(settings.lookup_cert, settings.lookup_key, settings.lookup_client_ca)
    if settings.lookup_tokens is not None:
        tokens = TokenFile(settings.lookup_tokens)
    stop = stop_on_signals()
    curation = CurationFile(settings.rules_file, metrics)
    weights = DEFAULT_WEIGHTS if settings.ranking_weights is None else read_weights(settings.ranking_weights)
    # Contents are encoded in the default executor: one thread for each encoder call that may run at a time.
    asyncio.get_running_loop().set_default_executor(
        ThreadPoolExecutor(settings.encode_threads, thread_name_prefix="encode")
    )
    index, evidence = qdrant.connect(settings), redis.connect(settings, redis.rules_of(settings))
    limits = Limits(
        max_message_bytes=settings.lookup_max_message_bytes,
        timeout_s=settings.lookup_timeout_s,
        concurrency=settings.lookup_concurrency,
        at_once=settings.lookup_at_once,
        evidence_budget_s=settings.lookup_evidence_budget_ms / 1000,
        depths=Depths(settings.lookup_candidates, settings.lookup_partners),
    )
    answers = AnswerLog(settings, metrics)
    server = LookupServer(
        index,
        encoder,
        evidence,
        limits,
        metrics,
        health,
        ordering=Ordering.by_settings(settings, weights),
        curation=curation.current,
        log_answer=answers.offer,
        clock=settings.clock,
        tokens=tokens,
        traces=traces,
    )
    following = asyncio.create_task(curation.follow())
    try:
        await answers.start()
        address = await server.start(settings.lookup_listen, certificate)
        collect_young_garbage_only()
        log.info("look-ups are served", extra=logs.fields(address=address, bundle=encoder.bundle))
        await stop.wait()
        log.info("stopping", extra=logs.fields(grace_s=settings.lookup_grace_s))
        await server.drain(settings.lookup_grace_s)
    finally:
        following.cancel()
        await answers.drain(settings.lookup_grace_s)  # after a start that failed, too: it has begun already
        await index.close()
        await evidence.close()


if __name__ == "__main__":
    exit_with(main())
