"""Probe items: published as a producer does, looked up as a user does, until one is found, and then until it is gone.

A probe's time is everybody's: broker, indexer, index and look-ups all had their share of it. Ids are used in turn, so
that an index holds a bounded number of tombstones for them, and every partition has its turn. What a killed monitor has
left behind is deleted by the next one, and what anybody left behind for longer than a probe may take, too.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum

from nearkin.client.lookup import ItemStatus, LookupClient
from nearkin.client.producer import Producer, Published, now_ms
from nearkin.client.prove_searchable import is_found
from nearkin.core.errors import NearkinError, TemporaryError, Unavailable
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content, Offer
from nearkin.core.probe import PROBE_MARKET, PROBE_PREFIX
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import Settings

log = logging.getLogger(__name__)

#: The ids, used in turn.
IDS = tuple(f"{PROBE_PREFIX}{number:02}" for number in range(32))

#: The first pause between two questions, and the longest, in seconds: it grows by a tenth of the time waited so far.
POLL_S, LONGEST_POLL_S = 0.01, 1.0

#: After so many times what makes it late, a probe has failed.
GIVE_UP = 6

_OF_PROBES = ItemFilter(market=PROBE_MARKET)
_THERE = (ItemStatus.VISIBLE, ItemStatus.HIDDEN)


class Outcome(StrEnum):
    """What became of a probe."""

    PROVED = "proved"
    LATE = "late"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Probed:
    """One probe.

    Attributes:
        outcome: what became of it.
        visible_s: from its publication until a look-up held it; None where none did.
        gone_s: from the publication of its deletion until a look-up did not; None where that was not seen.
        problem: why it failed.
    """

    outcome: Outcome
    visible_s: float | None = None
    gone_s: float | None = None
    problem: str = ""


class Prober:
    """Publishes probes and follows them.

    Args:
        settings: where the broker is, and when a probe is late.
        lookups: is asked.
        clock: milliseconds since the epoch, for versions.
    """

    def __init__(self, settings: Settings, lookups: LookupClient, clock: Callable[[], int] = now_ms) -> None:
        self._settings, self._lookups, self._clock = settings, lookups, clock
        self._late_s, self._give_up_s = settings.probe_late_s, GIVE_UP * settings.probe_late_s
        self._producer: Producer | None = None
        self._turn = itertools.count(self._clock() // 1000)
        self._versions: dict[str, int] = {}

    async def clear(self, older_than_s: float) -> list[str]:
        """Delete the probes that the index has held for so long, and take note of the versions that it holds.

        Returns:
            Their ids.

        Raises:
            NearkinError: they cannot be read or deleted.
        """
        before_ms = self._clock() - older_than_s * 1000
        held = await self._lookups.items(IDS)
        self._versions = {one.id: max(one.content_version or 0, one.deleted_version or 0) for one in held}
        left = [one.id for one in held if one.status in _THERE and one.indexed_at_ms <= before_ms]
        for item_id in left:
            self._versions[item_id] = deleted = self._version(self._versions[item_id])
            await self._delete(item_id, deleted)
        return left

    async def probe(self) -> Probed:
        """Publish one, look it up until it is found, delete it, look it up until it is gone."""
        item_id = IDS[next(self._turn) % len(IDS)]
        # Above what the index holds, which a clock that was set back since then may have given.
        version = self._version(self._versions.get(item_id, 0) + 1)
        content = Content(title=f"Probe {item_id.removeprefix(PROBE_PREFIX)} of {version}", language="en")
        visible_s: float | None = None
        gone_s: float | None = None
        problem = ""
        try:
            began = time.perf_counter()
            await self._publish(
                lambda producer: producer.upsert(item_id, content, version, offer=Offer(markets=(PROBE_MARKET,)))
            )
            await self._until(lambda: self._is_visible(item_id, content, version), began)
            visible_s = time.perf_counter() - began
        except NearkinError as error:
            problem = f"not found: {error}"
        try:
            began = time.perf_counter()
            deleted = self._version(version)
            await self._delete(item_id, deleted)
            if visible_s is not None:
                await self._until(lambda: self._is_gone(item_id, content, deleted), began)
                gone_s = time.perf_counter() - began
        except NearkinError as error:
            problem = problem or f"not gone: {error}"
        if visible_s is None or gone_s is None:
            return Probed(Outcome.FAILED, visible_s, gone_s, problem)
        late = max(visible_s, gone_s) > self._late_s
        return Probed(Outcome.LATE if late else Outcome.PROVED, visible_s, gone_s)

    async def close(self) -> None:
        """Disconnect from the broker."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await asyncio.to_thread(producer.close, 0)

    async def _delete(self, item_id: str, version: int) -> None:
        await self._publish(lambda producer: producer.delete(item_id, version))

    def _version(self, at_least: int) -> int:
        return max(self._clock(), at_least)

    async def _until(self, holds: Callable[[], Awaitable[bool]], began: float) -> None:
        """Ask until something holds; what the service cannot answer meanwhile is asked again.

        Raises:
            Unavailable: it does not hold in time.
        """
        problem = "look-ups do not show it"
        while True:
            try:
                if await holds():
                    return
                problem = "look-ups do not show it"
            except TemporaryError as error:
                problem = str(error)
            waited = time.perf_counter() - began
            if waited > self._give_up_s:
                raise Unavailable("probe", f"given up after {waited:.0f} s, {problem}")
            await asyncio.sleep(min(max(POLL_S, waited / 10), LONGEST_POLL_S))

    async def _is_visible(self, item_id: str, content: Content, version: int) -> bool:
        """Whether it is found; a cheap question says when to search."""
        (held,) = await self._lookups.items([item_id])
        if held.status not in _THERE or held.content_version != version:
            return False
        return await is_found(self._lookups, item_id, content, filter=_OF_PROBES)

    async def _is_gone(self, item_id: str, content: Content, deleted: int) -> bool:
        (held,) = await self._lookups.items([item_id])
        if held.status in _THERE or (held.deleted_version or 0) < deleted:
            return False
        return not await is_found(self._lookups, item_id, content, filter=_OF_PROBES)

    async def _publish(self, send: Callable[[Producer], Future[Published]]) -> None:
        """Publish, and wait until the broker has it. A producer that failed is not used again.

        Raises:
            NearkinError: the broker does not take it in time.
        """
        try:
            async with asyncio.timeout(self._give_up_s):
                if self._producer is None:
                    self._producer = await asyncio.to_thread(self._connect)
                sent = await asyncio.to_thread(send, self._producer)
                await asyncio.wrap_future(sent)
        except (NearkinError, TimeoutError) as error:
            await self.close()
            if isinstance(error, NearkinError):
                raise
            raise Unavailable("broker", f"no acknowledgement within {self._give_up_s:g} s") from error

    def _connect(self) -> Producer:
        return Producer(
            self._settings.kafka_bootstrap,
            connect_timeout_s=min(5.0, self._give_up_s),
            delivery_timeout_s=self._give_up_s,
            may_probe=True,
            security=self._settings.kafka_security,
        )


async def keep_probing(prober: Prober, metrics: Metrics, every_s: float, late_s: float) -> None:
    """Probe on schedule until cancelled; one log line when probes begin to fail or to be late, and to be well."""
    said = Outcome.PROVED
    leftovers_s = 0.0  # at the start whatever is there was left behind by a former monitor
    for outcome in Outcome:
        metrics.monitor_probes.labels(outcome.value)
    metrics.monitor_last_probe.set(0)
    while True:
        began = time.monotonic()
        try:
            if left := await prober.clear(leftovers_s):
                log.info("probes that were left behind are deleted", extra=fields(ids=left))
            leftovers_s = 2 * GIVE_UP * late_s
        except NearkinError:
            pass  # the probe meets the same trouble, and says so
        try:
            probed = await prober.probe()
        except Exception as error:
            probed = Probed(Outcome.FAILED, problem=f"in a way that is not foreseen: {describe(error)}")
        count(probed, metrics)
        if probed.outcome is not said:
            said = probed.outcome
            tell = log.info if said is Outcome.PROVED else log.error
            words = {
                Outcome.PROVED: "probes are proved",
                Outcome.LATE: "a probe is late",
                Outcome.FAILED: "a probe has failed",
            }
            tell(words[said], extra=fields(**_told(probed)))
        await asyncio.sleep(max(0.0, every_s - (time.monotonic() - began)))


def _told(probed: Probed) -> dict[str, object]:
    """What a line says of a probe: what is known of it."""
    times = {"visible_s": probed.visible_s, "gone_s": probed.gone_s}
    told: dict[str, object] = {name: round(seconds, 3) for name, seconds in times.items() if seconds is not None}
    return told | ({"problem": probed.problem} if probed.problem else {})


def count(probed: Probed, metrics: Metrics) -> None:
    """Tell what became of a probe."""
    metrics.monitor_probes.labels(probed.outcome.value).inc()
    for step, seconds in (("visible", probed.visible_s), ("gone", probed.gone_s)):
        if seconds is not None:
            metrics.monitor_probe_seconds.labels(step).observe(seconds)
            if probed.outcome is not Outcome.FAILED:
                metrics.monitor_last_probe_seconds.labels(step).set(seconds)
    if probed.outcome is not Outcome.FAILED:
        metrics.monitor_last_probe.set(time.time())
