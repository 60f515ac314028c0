"""Priors go into force where there is something to learn, and change where it matters."""

import asyncio
import random

import pytest
from prometheus_client import CollectorRegistry

from nearkin.core.counting import Counting, count
from nearkin.core.evidence import EvidenceRules, ShardBatch, Source, Tally
from nearkin.core.feedback import Action, Impressions, Interaction, Shown
from nearkin.core.position_priors import MOST_SURFACES, Method, PositionPriors
from nearkin.feedback.learn_priors import LEAST_EXPOSURES, LearnPriors
from nearkin.ops.metrics import Metrics
from nearkin.stores.memory_evidence import MemoryEvidence
from nearkin.stores.shards import SHARDS, shard_of

RULES = EvidenceRules(most_pairs=256)
NOW = 50 * RULES.half_life_ms
CANDIDATES, PLACES, EXPLORED = 20, 4, 0.5


class Stream:
    """Slates of many anchors that are counted by the priors in force."""

    def __init__(self) -> None:
        self.store = MemoryEvidence(RULES)
        self.metrics = Metrics(CollectorRegistry())
        self.learn = LearnPriors(self.store, SHARDS, self.metrics)
        self._offset, self._draw = 0, random.Random(7)

    async def show(self, slates: int, surface: str = "page", theta: tuple[float, ...] = (0.4, 0.2, 0.1, 0.05)) -> None:
        """The first items of each anchor attract most, and stand first but for the drawn slates."""
        by = Counting(shard_of, await self.store.read_priors())
        tallies = [Tally(RULES.half_life_ms) for _ in range(SHARDS)]
        for number in range(slates):
            anchor = f"anchor {self._draw.randrange(60)}"
            greedy = list(range(PLACES))
            drawn = self._draw.random() < EXPLORED
            shown = self._draw.sample(range(CANDIDATES), PLACES) if drawn else greedy
            chances = [
                EXPLORED / CANDIDATES + (1 - EXPLORED) * (item == first)
                for item, first in zip(shown, greedy, strict=True)
            ]
            places = [
                Shown(f"item {item}", place, chance)
                for place, (item, chance) in enumerate(zip(shown, chances, strict=True), 1)
            ]
            count(Impressions(f"e{number}", NOW, anchor, "r", surface, tuple(places)), tallies, by)
            for place, item in zip(places, shown, strict=True):
                if self._draw.random() < theta[place.position - 1] * (1.0 if item < PLACES else 0.4):
                    click = Interaction(
                        *(f"c{number}", NOW, anchor, place.item_id, Action.CLICK),
                        request_id="r",
                        position=place.position,
                        surface=surface,
                        propensity=place.propensity,
                    )
                    count(click, tallies, by)
        await self.store.apply(
            [
                ShardBatch(
                    *(Source("t", 0), shard, self._offset, self._offset + 1, tally.landmark, tally.deltas()),
                    newest_ms=tally.newest_ms,
                )
                for shard, tally in enumerate(tallies)
            ]
        )
        self._offset += 1

    def gauge(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"nearkin_{name}", labels)


@pytest.fixture
def stream() -> Stream:
    return Stream()


async def test_nothing_is_published_before_anything_was_shown(stream: Stream) -> None:
    assert await stream.learn() == PositionPriors()
    assert await stream.store.read_priors() == PositionPriors()
    assert stream.gauge("position_priors_version") == 0


async def test_a_surface_is_known_first_and_learned_then(stream: Stream) -> None:
    await stream.show(300)
    first = await stream.learn()
    assert (first.version, first.at_ms, first.surfaces["page"].method) == (1, NOW, Method.DEFAULT)
    await stream.show(4_000)
    second = await stream.learn()
    assert (second.version, second.surfaces["page"].method) == (2, Method.RANDOMISED)
    assert await stream.store.read_priors() == second
    curve = second.curve("page")
    assert [prior / curve[0] for prior in curve[:PLACES]] == pytest.approx([1, 0.5, 0.25, 0.125], rel=0.3)
    assert stream.gauge("position_priors_version") == 2
    assert stream.gauge("position_prior_ratio", surface="page", position="1") == curve[0]
    assert stream.gauge("position_prior_ratio", surface="page", position="20") == curve[19]
    assert stream.gauge("position_prior_ratio", surface="page", position="21") is None


async def test_more_of_the_same_publishes_nothing_and_a_change_does(stream: Stream) -> None:
    await stream.show(300)
    await stream.learn()
    await stream.show(8_000)
    learned = await stream.learn()
    assert await stream.learn() == learned
    await stream.show(50)
    assert (await stream.learn()).version == learned.version
    await stream.show(8_000, theta=(0.4, 0.4, 0.4, 0.4))
    assert (await stream.learn()).version == learned.version + 1


async def test_a_surface_that_hardly_shows_anything_is_none(stream: Stream) -> None:
    await stream.show(LEAST_EXPOSURES // PLACES - 1, "rare")
    assert (await stream.learn()).surfaces == {}


async def test_a_producer_that_makes_surfaces_up_cannot_have_more_than_a_bounded_number(stream: Stream) -> None:
    for number in range(MOST_SURFACES + 5):
        await stream.show(20 + number, f"surface {number:02}")
    found = await stream.learn()
    assert sorted(found.surfaces) == [f"surface {number:02}" for number in range(5, MOST_SURFACES + 5)]


async def test_of_two_that_learn_at_once_both_have_what_is_in_force(stream: Stream) -> None:
    await stream.show(300)
    found = await asyncio.gather(*(stream.learn() for _ in range(3)))
    held = await stream.store.read_priors()
    assert held.version == 1
    assert found == [held] * 3


async def test_what_nothing_was_shown_on_any_more_is_forgotten(stream: Stream) -> None:
    await stream.show(300, "old")
    await stream.learn()
    later = NOW + 20 * RULES.half_life_ms
    await stream.store.apply([ShardBatch(Source("t", 1), 0, 0, 1, 70, newest_ms=later)])
    forgotten = await stream.learn()
    assert (forgotten.version, forgotten.surfaces) == (2, {})
    assert stream.gauge("position_prior_ratio", surface="old", position="1") is None
