"""A topic that was deleted and made again is read from its first event on, however far the one before it had come.

Offsets of one log mean nothing in another. A consumer notices a log that ends before its place; in one that is longer
already it reads on there, and what lies before would never be indexed. The topic's id tells the two apart. To read too
much costs time and changes nothing, since the newest version wins.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping

from nearkin.core.errors import Misconfigured, TemporaryError
from nearkin.ops.logs import fields
from nearkin.ops.read_log import Logs
from nearkin.ops.record import Place

log = logging.getLogger(__name__)

#: How often the broker is asked for the topic's id, in seconds.
LOOK_EVERY_S = 5.0

#: For so long after a topic was found to be another one, partitions that the worker gets are read from their beginning
#: too: the group may have committed what was applied of the former one.
ANEW_S = 60.0


class ReadAnew:
    """The ledger of a worker that trusts what its group has committed, as long as the topic is the same.

    Args:
        logs: the broker.
        topic: the topic's name.
    """

    def __init__(self, logs: Logs, topic: str) -> None:
        self._logs, self._topic = logs, topic
        self._topic_id: str | None = None
        self._places: frozenset[Place] = frozenset()
        self._looking: asyncio.Task[dict[str, str]] | None = None
        self._due_at, self._anew_until = 0.0, -math.inf

    async def begin(self, places: frozenset[Place]) -> Mapping[Place, int]:
        """From the beginning where the topic was made again a moment ago; else from where the group has committed."""
        self._places = places
        return dict.fromkeys(places, 0) if time.monotonic() < self._anew_until else {}

    async def tick(self) -> Mapping[Place, int]:
        """Look now and then whether the topic is another one; asking takes its time beside the batches."""
        if self._looking is None:
            if time.monotonic() >= self._due_at:
                self._looking = asyncio.create_task(self._logs.ids([self._topic]))
            return {}
        if not self._looking.done():
            return {}
        looking, self._looking = self._looking, None
        self._due_at = time.monotonic() + LOOK_EVERY_S
        try:
            topic_id = looking.result().get(self._topic)
        except TemporaryError:
            return {}  # the watchdog tells that the broker is away
        except Misconfigured as error:
            log.warning("a topic that is made again would not be noticed", extra=fields(problem=str(error)))
            self._due_at = math.inf
            return {}
        former, self._topic_id = self._topic_id, topic_id or self._topic_id
        if former is None or topic_id in (None, former):
            return {}
        self._anew_until = time.monotonic() + ANEW_S
        log.warning(
            "the topic was made again: it is read from its first event on",
            extra=fields(topic=self._topic, topic_id=topic_id),
        )
        return dict.fromkeys(self._places, 0)
