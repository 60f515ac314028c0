"""Let the store forget how far it has counted topics that are gone: each new broker of `nearkin up` brings its own.

Of several workers one is enough, and nothing waits for it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from nearkin.contracts.topics import FEEDBACK, VISITS
from nearkin.core.evidence import Source
from nearkin.core.ports import EvidenceStore
from nearkin.ops.logs import describe, fields
from nearkin.ops.read_log import Logs

log = logging.getLogger(__name__)

#: How long a guard stands still before it may go: twice what the topics keep, as a log ends in whole segments.
STILL_MS: Final = 2 * max(FEEDBACK.retention_ms, VISITS.retention_ms)

#: How often that must have been seen. A worker looks each hour, so this takes three weeks, whatever a clock says.
LEAST_LOOKS: Final = 500

#: How often that is looked for, and how often whether it is for this worker to do, in seconds.
FORGET_EVERY_S, LOOK_EVERY_S = 3600.0, 1.0


async def forget_topics(store: EvidenceStore, logs: Logs, now_ms: int) -> frozenset[Source]:
    """Forget once what may be forgotten; where the broker does not tell both topics, nothing is.

    Args:
        store: what is remembered.
        logs: the broker that is counted now.
        now_ms: the wall's time.

    Returns:
        What is forgotten.

    Raises:
        Unavailable: the store or the broker does not answer.
    """
    places = [(topic.name, 0) for topic in (FEEDBACK, VISITS)]
    found = await logs.describe(places)
    if len(found) < len(places):
        return frozenset()
    gone = await store.forget_former({each.topic_id for each in found.values()}, now_ms, STILL_MS, LEAST_LOOKS)
    if gone:
        log.info("guards of topics that are gone are forgotten", extra=fields(partitions=len(gone)))
    return gone


async def keep_forgetting_topics(store: EvidenceStore, logs: Logs, forgets: Callable[[], bool]) -> None:
    """Forget topics now and then; it never returns.

    Args:
        store: what is remembered.
        logs: the broker that is counted now.
        forgets: whether it is for this worker to do now.
    """
    due_at = 0.0
    while True:
        if time.monotonic() >= due_at and forgets():
            due_at = time.monotonic() + FORGET_EVERY_S
            try:
                await forget_topics(store, logs, time.time_ns() // 1_000_000)
            except Exception as error:  # nothing is lost: it is due again
                log.warning("topics that are gone stay remembered", extra=fields(error=describe(error)))
        await asyncio.sleep(LOOK_EVERY_S)
