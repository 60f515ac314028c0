"""The feedback worker at the edge of Faust: which topics it serves, in which group, and where their dead letters go."""

import asyncio
from typing import Final

from nearkin.contracts.feedback import without_users
from nearkin.contracts.topics import FEEDBACK, GROUPS, VISITS
from nearkin.feedback.apply_feedback import ApplyFeedback
from nearkin.ops.dead_letters import DeadLetters
from nearkin.ops.health import Health
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import Settings
from nearkin.ops.tracing import OFF, Traces
from nearkin.ops.watchdog import Progress
from nearkin.ops.worker import Worker

#: Its consumer group; what it has committed is for those who watch lag, and decides nothing.
GROUP: Final = GROUPS[FEEDBACK]

TOPICS: Final = (FEEDBACK, VISITS)

#: How long the broker may hold a fetch back while there is nothing, in milliseconds: the embedded one answers late in
#: proportion.
FETCH_WAIT_MS = 20


def make_letters(settings: Settings, metrics: Metrics, traces: Traces = OFF) -> DeadLetters:
    """Where refused events go, without whoever they may name."""
    return DeadLetters(
        settings.kafka_bootstrap,
        TOPICS,
        metrics,
        dict.fromkeys(TOPICS, without_users),
        settings.kafka_security,
        traces,
    )


def build(
    settings: Settings,
    apply: ApplyFeedback,
    letters: DeadLetters,
    progress: Progress,
    metrics: Metrics,
    health: Health,
    stopping: asyncio.Event,
) -> Worker:
    """The worker around its use case."""
    return Worker(
        settings,
        group=GROUP,
        topics=TOPICS,
        handle=apply,
        metrics=metrics,
        health=health,
        batch=settings.feedback_batch,
        within_s=settings.feedback_within_ms / 1000,
        fetch_wait_ms=FETCH_WAIT_MS,
        stopping=stopping,
        ledger=apply,
        letters=letters,
        progress=progress,
    )
