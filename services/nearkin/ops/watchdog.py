"""Ends a worker that has work and makes no progress, so that whoever supervises it starts a fresh one.

It runs in a thread with an event loop and a connection of its own, because what it guards against is exactly that the
worker's loop, its consumer or its connection hangs. Work is a batch in flight, or events on the broker beyond what the
worker has acknowledged. A worker that retries a temporary failure is alive: an index that is down is no reason to die.
Since it asks the broker all the time, it is also who learns that the broker is away: the consumer retries in silence.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from nearkin.core.errors import Unavailable
from nearkin.ops.ask_broker import ask_broker
from nearkin.ops.health import exit_stalled
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity
from nearkin.ops.logs import describe
from nearkin.ops.metrics import Metrics
from nearkin.ops.record import Place

#: So many timeouts a partition may wait behind a worker that is busy with others.
BUSY_TIMEOUTS = 10


@dataclass(slots=True)
class Progress:
    """What the worker writes down as it goes, and the watchdog reads from its thread.

    Attributes:
        positions: per assigned partition, the offset after the last event that was acknowledged or committed.
        in_flight_since: when the batch in flight began, None where none is; on the monotonic clock.
        busy_s: how long those before it were in flight in all; told before it is said that none is.
        retried_at: when a temporary failure was last met.
        advanced_at: when a handler last said that a part of its batch is done.
    """

    positions: dict[Place, int] = field(default_factory=dict)
    in_flight_since: float | None = None
    busy_s: float = 0.0
    retried_at: float = 0.0
    advanced_at: float = 0.0

    def begin(self) -> float:
        """Say that a batch is in flight from now on; when that is."""
        self.in_flight_since = now = time.monotonic()
        return now

    def end(self) -> None:
        """Say that no batch is in flight any more."""
        if self.in_flight_since is not None:
            self.busy_s += time.monotonic() - self.in_flight_since
        self.in_flight_since = None

    def advance(self) -> None:
        """Say that a part of the batch in flight is done, which no position tells of yet."""
        self.advanced_at = time.monotonic()


class Judge:
    """Decides whether a worker has stalled, from what is seen of it each time.

    A batch that is in flight is judged by what its handler says of its parts, and nothing that waits behind it is held
    against a partition. Where another partition has much to do, one waits behind many batches: the time in which any
    was in flight is not held against it either, but for `BUSY_TIMEOUTS` timeouts at most.

    Args:
        timeout_s: how long work may wait without progress.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._seen: dict[Place, tuple[int, float, float]] = {}
        self._looked_at = self._busy_s = 0.0
        self._flew_since: float | None = None

    def verdict(self, now: float, progress: Progress, ends: Mapping[Place, int] | None) -> str:
        """Why the worker has stalled; empty when it has not.

        Args:
            now: the time, on the monotonic clock.
            progress: what the worker wrote down.
            ends: the end offset of each assigned partition, None where the broker does not say.
        """
        since = progress.in_flight_since
        if since is not None and now - max(since, progress.retried_at, progress.advanced_at) > self._timeout_s:
            return f"one batch has been in flight for {now - since:.0f} s"
        busy_s = progress.busy_s + (now - since if since is not None else 0.0)
        excused_s, self._busy_s = max(busy_s - self._busy_s, 0.0), busy_s
        behind_one_s = now - self._looked_at if since is not None and since == self._flew_since else 0.0
        self._looked_at, self._flew_since = now, since
        if ends is None:
            self._seen.clear()
            return ""
        positions = dict(progress.positions)
        before, self._seen = self._seen, {}
        for place, end in ends.items():
            position = positions.get(place, 0)
            if end <= position:
                continue
            known, known_at, idle_since = before.get(place, (position, now, now))
            if known != position:
                known_at = idle_since = now
            known_at = min(now, known_at + behind_one_s)
            idle_since = min(now, idle_since + max(excused_s, behind_one_s))
            self._seen[place] = (position, known_at, idle_since)
            waited_s = max(now - idle_since, (now - known_at) / BUSY_TIMEOUTS)
            if min(waited_s, now - progress.retried_at) > self._timeout_s:
                topic, partition = place
                return f"{topic}[{partition}] has waited at offset {position} of {end} for {now - known_at:.0f} s"
        return ""


class Watchdog(threading.Thread):
    """Watches one worker until it is told to stop.

    Args:
        bootstrap: the brokers to ask for end offsets.
        timeout_s: how long work may wait without progress.
        progress: what the worker writes down.
        assigned: the partitions that the worker holds now; called from this thread.
        metrics: its `waiting_events` is set here.
        heard: told after every question to the broker what was wrong, None where it answered; called from this thread.
        end: called with the verdict when the worker has stalled; ends the process.
        security: how connections to the brokers are protected.
    """

    def __init__(
        self,
        bootstrap: str,
        timeout_s: float,
        progress: Progress,
        assigned: Callable[[], frozenset[Place]],
        metrics: Metrics,
        heard: Callable[[Unavailable | None], None],
        end: Callable[[str], None] | None = None,
        security: KafkaSecurity = PLAINTEXT,
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._brokers, self._timeout_s, self._progress = bootstrap, timeout_s, progress
        self._assigned, self._metrics, self._heard, self._end = assigned, metrics, heard, end or exit_stalled
        self._security = security
        self._told = threading.Event()

    def stop(self) -> None:
        """Stop watching; returns at once."""
        self._told.set()

    def run(self) -> None:
        """Watch, in this thread."""
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        judge = Judge(self._timeout_s)
        while not self._told.is_set():
            places = self._assigned()
            ends: dict[Place, int] | None = None
            try:
                ends = await self._ends(places)
            except Unavailable as error:
                self._heard(error)
            except Exception as error:  # the watchdog must outlive whatever a client library raises
                self._heard(Unavailable("broker", f"it cannot be asked: {describe(error)}"))
            else:
                self._heard(None)
                positions = dict(self._progress.positions)
                waiting = sum(max(0, end - positions.get(place, 0)) for place, end in ends.items())
                self._metrics.waiting_events.set(waiting)
            verdict = judge.verdict(time.monotonic(), self._progress, ends)
            if verdict and not self._told.is_set():
                self._end(verdict)
                return
            await asyncio.to_thread(self._told.wait, min(5.0, self._timeout_s / 4))

    async def _ends(self, places: frozenset[Place]) -> dict[Place, int]:
        """The end offset of each partition; 0 where retention has emptied it, as nobody can apply what is gone.

        Raises:
            Unavailable: the broker does not answer.
        """
        async with ask_broker(self._brokers, 10, self._security) as asker:
            partitions = [TopicPartition(*place) for place in places]
            ends = await asker.end_offsets(partitions) if places else {}
            begins = await asker.beginning_offsets(partitions) if places else {}
        return {(at.topic, at.partition): int(end) if begins[at] < end else 0 for at, end in ends.items()}
