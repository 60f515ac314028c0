"""A made-up world whose truth is known: what evidence recovers and what estimates say can be held against it.

Clicks follow the position-based model (Craswell et al., WSDM 2008): somebody looks at a position with a probability of
its own, and clicks what stands there with a probability of the pair's own, its attractiveness. Each look-up finds some
of the anchor's candidates, by chance, and the policy that logs puts first what it believes to attract. That belief is
confounded with attractiveness: right in part. So how often an item is clicked where it is shown says as much of where
the policy puts it as of the item.

Slates are drawn by `core.exploration` over the policy's order, with the propensities that serving logs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearkin.core.counting import Counting, count, positions_anchor, sample_anchor
from nearkin.core.evidence import DAY_MS, AnchorEvidence, Tally, decay_to
from nearkin.core.exploration import ExplorationRules, Slate, draw
from nearkin.core.feedback import Action, Impressions, Interaction, Shown
from nearkin.core.position_bias import learn, read_statistics
from nearkin.core.position_priors import PositionPriors, SurfacePriors
from nearkin.learning.counterfactual import LoggedPlaces

Array = NDArray[np.float64]
Numbers = NDArray[np.intp]

#: When simulated look-ups are counted that happen all at once, and what then counts half.
_AT_MS, _HALF_LIFE_MS = 1_700_000_000_000, 30 * DAY_MS


@dataclass(frozen=True, slots=True)
class World:
    """What is true, and what the policy believes.

    Attributes:
        attractiveness: (anchors, candidates) with which probability a candidate is clicked once it is looked at.
        examination: (places,) with which probability a position is looked at; the first one always.
        belief: (anchors, candidates) what the policy orders candidates by, highest first.
        found: how many candidates a look-up finds, from as many as there are places.
    """

    attractiveness: Array
    examination: Array
    belief: Array
    found: int

    @property
    def places(self) -> int:
        """How many items a slate shows."""
        return len(self.examination)

    def value(self, shown: Numbers) -> float:
        """What a policy that always shows the same candidates beside an anchor truly earns of a look-up.

        Anchors are looked up equally often.

        Args:
            shown: (anchors, places) the candidates by position.
        """
        return float((np.take_along_axis(self.attractiveness, shown, axis=1) @ self.examination).mean())


@dataclass(frozen=True, slots=True)
class SimulatedLookup:
    """One look-up, and what came of it.

    Attributes:
        request_id: seeds the draw; no two look-ups of one seed have the same.
        anchor: which anchor.
        slate: what was shown, rows being candidates.
        clicked: for each place whether it was clicked.
    """

    request_id: str
    anchor: int
    slate: Slate
    clicked: tuple[bool, ...]


def make_world(
    seed: int, anchors: int = 1000, candidates: int = 50, places: int = 10, *, fidelity: float = 0.5, found: int = 0
) -> World:
    """Draw a world; the same seed gives the same.

    Args:
        seed: of the world.
        anchors: how many.
        candidates: of each anchor.
        places: of a slate.
        fidelity: the correlation of the policy's belief with the logit of attractiveness, from -1 to 1.
        found: how many candidates a look-up finds; 0 for all.
    """
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((anchors, candidates))
    belief = fidelity * logits + np.sqrt(1 - fidelity**2) * rng.standard_normal((anchors, candidates))
    examination = np.arange(1.0, places + 1) ** -rng.uniform(0.6, 1.2)
    attractiveness = 1 / (1 + np.exp(1.5 - logits))
    return World(attractiveness, np.asarray(examination, np.float64), belief, found or candidates)


def simulate(
    world: World, anchors: Sequence[int] | Numbers, rules: ExplorationRules, seed: int
) -> Iterator[SimulatedLookup]:
    """Look anchors up one after the other, and see what is clicked.

    Args:
        world: whose truth the clicks follow.
        anchors: of each look-up.
        rules: how much the policy explores of what a look-up finds; nothing is new.
        seed: of what look-ups find, and of clicks; part of the requests' ids.
    """
    rng = np.random.default_rng((seed, 1))
    for number, anchor in enumerate(anchors):
        order = _ordered(world, int(anchor), 1, rng)[0]
        request_id = f"simulated-{seed}-{number}"
        slate = draw(order.tolist(), (), world.places, request_id, rules)
        chances = world.examination * world.attractiveness[anchor, list(slate.items)]
        yield SimulatedLookup(request_id, int(anchor), slate, tuple((rng.random(world.places) < chances).tolist()))


def count_positions(world: World, lookups: int, seed: int) -> tuple[Array, Array]:
    """Look each anchor up so often, without exploration, and add up what came of it: `simulate` for large worlds.

    Returns:
        (anchors, candidates, places) how often each candidate stood at each position, and its clicks there.
    """
    rng = np.random.default_rng((seed, 2))
    exposures = np.zeros((*world.belief.shape, world.places))
    for anchor, table in enumerate(exposures):
        shown = _ordered(world, anchor, lookups, rng)
        for place in range(world.places):
            table[:, place] = np.bincount(shown[:, place], minlength=len(table))
    chances = world.attractiveness[:, :, None] * world.examination
    return exposures, rng.binomial(exposures.astype(np.int64), chances).astype(float)


def learn_priors(lookups: Iterable[SimulatedLookup]) -> SurfacePriors:
    """What a feedback worker would learn of the positions from look-ups: their events are counted as it counts them."""
    surface, tally = "simulated", Tally(_HALF_LIFE_MS)
    by = Counting(lambda _: 0, PositionPriors(surfaces={surface: SurfacePriors()}))
    for lookup in lookups:
        for event in to_events(lookup, _AT_MS, surface):
            count(event, [tally], by)
    decay = decay_to(_AT_MS, tally.landmark, _HALF_LIFE_MS)
    held = {
        delta.anchor: AnchorEvidence(0.0, tuple(delta.pairs), np.array(list(delta.pairs.values())) * decay)
        for delta in tally.deltas()
    }
    return learn(read_statistics([held[positions_anchor(surface, 0)]], [held[sample_anchor(surface, 0)]]))


def places_of(lookups: Sequence[SimulatedLookup], shown: Numbers) -> LoggedPlaces:
    """The places of simulated look-ups, a click earning 1, for a target that always shows the same beside an anchor.

    Args:
        lookups: all of them logged.
        shown: (anchors, places) the candidates that the target shows, by position.
    """
    slates = [one.slate for one in lookups]
    items = np.array([slate.items for slate in slates])
    slate, place = np.indices(items.shape)
    wanted = shown[[one.anchor for one in lookups]]
    return LoggedPlaces(
        slate=slate.ravel(),
        position=place.ravel() + 1,
        propensity=np.array([one.propensities for one in slates]).ravel(),
        target=(items == wanted).ravel().astype(float),
        reward=np.array([one.clicked for one in lookups], dtype=float).ravel(),
        log_rate=np.ones(len(lookups)),
    )


def _ordered(world: World, anchor: int, lookups: int, rng: np.random.Generator) -> Numbers:
    """(lookups, found) the candidates that look-ups find, in the policy's order."""
    belief = world.belief[anchor]
    if world.found == len(belief):
        return np.tile(np.argsort(-belief), (lookups, 1))
    chance = rng.random((lookups, len(belief)))
    # Of random numbers the smallest ones: a draw without replacement.
    drawn = np.argpartition(chance, world.found - 1, axis=1)[:, : world.found]
    return np.take_along_axis(drawn, np.argsort(-belief[drawn], axis=1), axis=1)


def anchor_id(anchor: int) -> str:
    """The id of an anchor in events."""
    return f"anchor-{anchor}"


def candidate_id(anchor: int, candidate: int) -> str:
    """The id of an anchor's candidate in events; no two anchors share one."""
    return f"item-{anchor}-{candidate}"


def to_events(lookup: SimulatedLookup, at_ms: int, surface: str) -> list[Impressions | Interaction]:
    """What a producer would publish of a look-up: its slate, and each click.

    Args:
        lookup: what was shown and clicked.
        at_ms: when, in milliseconds since the epoch.
        surface: where.
    """
    anchor, request_id, slate = anchor_id(lookup.anchor), lookup.request_id, lookup.slate
    shown = tuple(
        Shown(candidate_id(lookup.anchor, row), position, propensity)
        for position, (row, propensity) in enumerate(zip(slate.items, slate.propensities, strict=True), 1)
    )
    events: list[Impressions | Interaction] = [
        Impressions(f"{request_id}-shown", at_ms, anchor, request_id, surface, shown)
    ]
    events += [
        Interaction(
            f"{request_id}-{place.position}",
            at_ms,
            anchor,
            place.item_id,
            Action.CLICK,
            request_id=request_id,
            position=place.position,
            surface=surface,
            propensity=place.propensity,
        )
        for place, clicked in zip(shown, lookup.clicked, strict=True)
        if clicked
    ]
    return events
