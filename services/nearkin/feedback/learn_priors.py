"""Learn from the store's own statistics what a position brings on each surface, and put it in force.

Every worker may learn at once: priors are published by compare-and-set, so of two one is first and both use its result.
A new version is published only where it matters, since what was expected of an exposure stays what it was: counts of
one pair under many versions would compare less well.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from nearkin.core.counting import positions_anchor, sample_anchor, surfaces_anchor
from nearkin.core.evidence import Metric
from nearkin.core.ports import EvidenceStore
from nearkin.core.position_bias import differ, learn, read_statistics
from nearkin.core.position_priors import MOST_SURFACES, PositionPriors, SurfacePriors
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics

log = logging.getLogger(__name__)

#: Exposures, decayed, from which on a surface is one: statistics are kept of it.
LEAST_EXPOSURES = 50

#: How often the priors in force are asked for, in seconds.
FOLLOW_S = 5.0

#: Positions whose priors are metrics.
SHOWN_POSITIONS = 20


class LearnPriors:
    """Estimates position priors, and publishes them where they changed.

    Args:
        store: whose statistics are read, as of its newest event.
        shards: how many it has.
        metrics: where the priors in force are shown.
    """

    def __init__(self, store: EvidenceStore, shards: int, metrics: Metrics) -> None:
        self._store, self._shards, self._metrics = store, range(shards), metrics
        self._shown = -1

    async def __call__(self) -> PositionPriors:
        """Learn once.

        Returns:
            The priors in force afterwards, whoever published them.

        Raises:
            Unavailable: the store does not answer.
            Misconfigured: the store holds priors that this version cannot read.
        """
        held, at_ms = await self._store.read_priors(), await self._store.read_newest()
        surfaces = {surface: await self._learn(surface, at_ms) for surface in await self._surfaces(at_ms)}
        # What did not change enough stays as it is, so that a version changes what it has to alone.
        chosen = {
            surface: found if found is not None and not differ(found, learned) else learned
            for surface, learned in surfaces.items()
            for found in (held.surfaces.get(surface),)
        }
        if chosen != dict(held.surfaces):
            learned = PositionPriors(held.version + 1, at_ms, chosen)
            if await self._store.publish_priors(learned):
                held = learned
                log.info("position priors have changed", extra=fields(version=held.version, surfaces=len(chosen)))
            else:
                held = await self._store.read_priors()
        self.show(held)
        return held

    async def _surfaces(self, at_ms: int) -> list[str]:
        """The surfaces that show most, by name."""
        anchors = [surfaces_anchor(shard) for shard in self._shards]
        shown: dict[str, float] = {}
        for found in (await self._store.read(anchors, [], at_ms)).anchors.values():
            for surface, counts in zip(found.candidates, found.counts, strict=True):
                shown[surface] = shown.get(surface, 0.0) + float(counts[Metric.EXPOSURES])
        enough = [surface for surface in sorted(shown) if shown[surface] >= LEAST_EXPOSURES]
        return sorted(sorted(enough, key=lambda surface: -shown[surface])[:MOST_SURFACES])

    async def _learn(self, surface: str, at_ms: int) -> SurfacePriors:
        positions = [positions_anchor(surface, shard) for shard in self._shards]
        sample = [sample_anchor(surface, shard) for shard in self._shards]
        found = (await self._store.read([*positions, *sample], [], at_ms)).anchors
        statistics = read_statistics((found[one] for one in positions), (found[one] for one in sample))
        # Some milliseconds of arithmetic, in which the loop has events to take.
        return await asyncio.to_thread(learn, statistics)

    async def read(self) -> PositionPriors:
        """The priors in force, learned by whomever; errors as of learning."""
        priors = await self._store.read_priors()
        self.show(priors)
        return priors

    def show(self, priors: PositionPriors) -> None:
        """Set the metrics to the priors in force."""
        if priors.version == self._shown:
            return
        self._shown = priors.version
        self._metrics.priors_version.set(priors.version)
        self._metrics.position_prior.clear()
        for surface in priors.surfaces:
            for position, prior in enumerate(priors.curve(surface)[:SHOWN_POSITIONS], 1):
                self._metrics.position_prior.labels(surface=surface, position=str(position)).set(prior)


async def follow_priors(
    learn: LearnPriors, put_in_force: Callable[[PositionPriors], None], learns: Callable[[], bool], every_s: float
) -> None:
    """Count by the position priors in force, and learn them now and then; it never returns.

    Args:
        learn: learns and reads them.
        put_in_force: is given them whenever they were asked for.
        learns: whether it is for this worker to learn them now; of several one is enough.
        every_s: how often; 0 never learns.
    """
    learned_at = time.monotonic()
    while True:
        try:
            if every_s and time.monotonic() - learned_at >= every_s and learns():
                learned_at = time.monotonic()
                put_in_force(await learn())
            else:
                put_in_force(await learn.read())
        except Exception as error:  # events are counted by the priors that are known
            log.warning("position priors stay as they are", extra=fields(error=describe(error)))
        await asyncio.sleep(FOLLOW_S)
