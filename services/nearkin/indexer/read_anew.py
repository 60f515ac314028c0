"""A topic that was deleted and made again is read from its first event on, however far the one before it had come.

Offsets of one log mean nothing in another. A consumer notices a log that ends before its place; in one that is longer
already it reads on there, and what lies before would never be indexed. The topic's id tells the two apart. It is
written beside each commit, so that whoever comes next sees which topic the offset is of, however the one before it
ended. To read too much costs time and changes nothing, since the newest version wins.
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


class ReadAnew:
    """The ledger of a worker that trusts what its group has committed, as long as the topic is the same.

    Args:
        logs: the broker.
        topic: the topic's name.
    """

    def __init__(self, logs: Logs, topic: str) -> None:
        self._logs, self._topic = logs, topic
        # Of which topic the place is where each partition is read; empty while nobody knows.
        self._ids: dict[Place, str] = {}
        self._seen = ""
        self._looking: asyncio.Task[dict[str, str]] | None = None
        self._due_at = 0.0

    def take(self, notes: Mapping[Place, str]) -> None:
        """Begin with the ids that are written beside the commits; where there are none, with the one seen last."""
        self._ids = {place: note or self._seen for place, note in notes.items()}

    def note(self, place: Place) -> str:
        """The id of the topic that was read; one that was not noticed yet is not named."""
        return self._ids.get(place, "")

    async def begin(self, places: frozenset[Place]) -> Mapping[Place, int]:
        """From where the group has committed; whether that is of this topic is looked at soon."""
        self._due_at = min(self._due_at, time.monotonic())
        return {}

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
        if topic_id is None:
            return {}
        others = [place for place, known in self._ids.items() if known not in ("", topic_id)]
        self._ids, self._seen = dict.fromkeys(self._ids, topic_id), topic_id
        if others:
            log.warning(
                "the topic was made again: it is read from its first event on",
                extra=fields(topic=self._topic, topic_id=topic_id),
            )
        return dict.fromkeys(others, 0)
