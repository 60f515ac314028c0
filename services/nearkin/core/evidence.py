"""What people did with a pair of items becomes numbers that decay, add up in any order, and compare across positions.

*Decay.* Forward decay (Cormode, Shkapenyuk, Srivastava, Xu: "Forward decay: a practical time decay model for streaming
systems", ICDE 2009) by powers of two: what happened at `t` counts `w * 2**((t - L) / H)`, with a half-life `H` and a
landmark `L` that is a whole number of half-lives; read at `t`, a sum is worth `sum * 2**((L - t) / H)`. So neither
order nor lateness matters, and moving a landmark multiplies by a power of two, which loses nothing.

*Exposure.* Clicks over expected clicks (Zhang and Jones: "Comparing click logs and editorial labels for training query
rewriting", WWW 2007): an exposure at a position is expected to bring what that position brings on average.

*Co-visits.* How often two items are in one visit, against how often each is in any (its marginal).
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: A landmark stays until it is so many half-lives behind: doubles have room for it, and a move rewrites an anchor.
MOVE_AFTER = 32

DAY_MS = 86_400_000

#: A visit adds so many pairs at most, or `FEWEST_PARTNERS` for each of its items.
VISIT_PAIRS, FEWEST_PARTNERS = 160_000, 100

#: Begins the id of an anchor that is no item: it holds what is counted of the whole stream (`core.counting`).
RESERVED = "\x00"


class Metric(IntEnum):
    """What is counted of a pair; the number is its bit in what is stored, so it never changes."""

    EXPOSURES = 0
    EXPECTED = 1  # the sum of the position priors of the exposures
    CLICKS = 2
    LONG_VIEWS = 3
    LIKES = 4
    SAVES = 5
    PURCHASES = 6
    SKIPS = 7
    DISLIKES = 8
    HIDES = 9
    REPORTS = 10
    UNEXPOSED = 11  # actions on what was not logged as shown: kept apart, because nothing was expected of it
    CO_VISITS = 12


@dataclass(frozen=True, slots=True)
class EvidenceRules:
    """How long evidence counts, and how much of it is kept.

    Attributes:
        half_life_ms: after so many milliseconds it counts half; from a minute, the same for the life of a store.
        most_pairs: pairs kept of an anchor, from 8; beyond it the weakest eighth goes.
        idle_ms: an anchor that nothing happens to for so many milliseconds of real time is forgotten.
    """

    half_life_ms: int = 90 * DAY_MS
    most_pairs: int = 256
    idle_ms: int = 400 * DAY_MS

    def __post_init__(self) -> None:
        for name, least in (("half_life_ms", 60_000), ("most_pairs", 8), ("idle_ms", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    @property
    def pairs_after_trim(self) -> int:
        """Pairs left of an anchor that had too many: trimming to the cap itself would trim again at the next pair."""
        return self.most_pairs - self.most_pairs // 8


@dataclass(frozen=True, slots=True)
class AnchorDelta:
    """What a batch adds to one anchor, on the batch's landmark.

    Attributes:
        anchor: the item's id.
        visits: added to its marginal.
        pairs: for each candidate a count of every `Metric`, by its number.
    """

    anchor: str
    visits: float = 0.0
    pairs: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """One partition of one topic; a topic that is made again has another id, and its offsets begin again."""

    topic_id: str
    partition: int


@dataclass(frozen=True, slots=True)
class ShardBatch:
    """What the events of a partition from `start` up to `end` add to the anchors of one shard: applied once, or not.

    A batch without deltas moves the guard of a shard that those events do not concern.

    Attributes:
        source: where the events are from.
        shard: the number of the shard.
        start: the first offset; the guard must be here.
        end: one more than the last offset; the guard is here afterwards.
        landmark: what all values are relative to, in half-lives since the epoch.
        deltas: of distinct anchors, all of this shard.
        visits: added to the shard's part of all visits.
        newest_ms: the newest time of an event that the deltas are made of; 0 where there is none.
    """

    source: Source
    shard: int
    start: int
    end: int
    landmark: int
    deltas: Sequence[AnchorDelta] = ()
    visits: float = 0.0
    newest_ms: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a batch from offset {self.start} to {self.end} holds no events")
        if len({delta.anchor for delta in self.deltas}) < len(self.deltas):
            raise ValueError("one batch holds two deltas of one anchor; add them first")
        for delta in self.deltas:
            for counts in ((delta.visits,), *delta.pairs.values()):
                if not (min(counts) >= 0 and sum(counts) < math.inf):
                    raise ValueError(f"a delta of anchor {delta.anchor!r} holds a count that is negative or not finite")
        if not 0 <= self.visits < math.inf:
            raise ValueError("the batch's visits are negative or not finite")


class Effect(Enum):
    """What became of a batch."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"  # all of it was applied before
    MISMATCH = "mismatch"  # the guard is elsewhere: what is before it counted already, what is between is missing


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch, and the guard: the offset of the first event that is not applied."""

    effect: Effect
    guard: int


@dataclass(frozen=True, slots=True)
class AnchorEvidence:
    """What is remembered of an anchor, decayed to the moment of the question.

    Attributes:
        visits: its marginal.
        candidates: the other items of its pairs.
        counts: (candidates, metrics), columns by `Metric`.
    """

    visits: float
    candidates: tuple[str, ...]
    counts: Array

    def of(self, candidate: str) -> dict[Metric, float]:
        """The counts of one pair that are not nothing."""
        if candidate not in self.candidates:
            return {}
        row = self.counts[self.candidates.index(candidate)]
        return {metric: float(row[metric]) for metric in Metric if row[metric]}


@dataclass(frozen=True, slots=True)
class Remembered:
    """The answer to one look-up's question.

    Attributes:
        anchors: what is remembered of each anchor that was asked for; empty evidence where that is nothing.
        marginals: the visits of each item whose marginal was asked for; 0 where it was never seen.
    """

    anchors: Mapping[str, AnchorEvidence]
    marginals: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """Where an anchor's evidence is kept, and how far it is: what a person asks who doubts a count.

    Attributes:
        shard: the number of its shard.
        landmark: what its counts are kept relative to, in half-lives since the epoch; None where nothing is remembered.
        guards: for each partition that the shard has applied events of, the offset of the first that it has not.
    """

    shard: int
    landmark: int | None
    guards: Mapping[Source, int]


class Tally:
    """Adds up what the events of a batch count in one shard, so that a store sees every pair once, on one landmark.

    Whoever adds takes the event's weight first (`weigh`), which may move the landmark and with it every sum, and then
    adds multiples of it to the counts that `pairs` gives. `core.counting` says which.

    Args:
        half_life_ms: of the store's rules.

    Attributes:
        landmark: what all values are relative to, in half-lives since the epoch; 0 before the first event.
        newest_ms: the newest time of an event; 0 before the first.
        visits: of all visits, those that this shard counts.
    """

    def __init__(self, half_life_ms: int) -> None:
        self._half_life_ms = half_life_ms
        self.landmark = 0
        self.newest_ms = 0
        self.visits = 0.0
        self._pairs: dict[str, dict[str, list[float]]] = {}
        self._marginals: dict[str, float] = {}

    def weigh(self, at_ms: int) -> float:
        """What an event counts on the batch's landmark, which follows events that are far ahead of it.

        Args:
            at_ms: when it happened, in milliseconds since the epoch, above 0.
        """
        if at_ms > self.newest_ms:
            newest = at_ms // self._half_life_ms
            if self.newest_ms == 0:
                self.landmark = newest
            elif newest - self.landmark > MOVE_AFTER:
                self._move(newest)
            self.newest_ms = at_ms
        return weight_at(at_ms, self.landmark, self._half_life_ms)

    def pairs(self, anchor: str) -> dict[str, list[float]]:
        """The counts of each candidate of an anchor, by `Metric`: add to them, and put in what is not there."""
        pairs = self._pairs.get(anchor)
        if pairs is None:
            pairs = self._pairs[anchor] = {}
        return pairs

    def add(self, anchor: str, candidate: str, metric: Metric, at_ms: int, amount: float = 1.0) -> None:
        """Count something of a pair.

        Args:
            anchor: the item that was looked at.
            candidate: the other one.
            metric: what happened.
            at_ms: when, in milliseconds since the epoch.
            amount: how much of it, at least 0.
        """
        weight = self.weigh(at_ms)
        self.pairs(anchor).setdefault(candidate, [0.0] * len(Metric))[metric] += weight * amount

    def visited(self, item_id: str, weight: float) -> None:
        """Add to an item's marginal."""
        self._marginals[item_id] = self._marginals.get(item_id, 0.0) + weight

    def size(self) -> int:
        """How many pairs the sums are of."""
        return sum(map(len, self._pairs.values()))

    def deltas(self) -> list[AnchorDelta]:
        """What the events add, by anchor; those that nothing is added to are left out."""
        anchors = dict.fromkeys((*(anchor for anchor, pairs in self._pairs.items() if pairs), *self._marginals))
        return [AnchorDelta(one, self._marginals.get(one, 0.0), self._pairs.get(one, {})) for one in anchors]

    def _move(self, landmark: int) -> None:
        shift = self.landmark - landmark
        for pairs in self._pairs.values():
            for counts in pairs.values():
                counts[:] = [math.ldexp(count, shift) for count in counts]
        for item, total in self._marginals.items():
            self._marginals[item] = math.ldexp(total, shift)
        self.visits = math.ldexp(self.visits, shift)
        self.landmark = landmark


def weight_at(at_ms: int, landmark: int, half_life_ms: int) -> float:
    """What one event at a time counts relative to a landmark: `2**((t - L) / H)`."""
    return _power_of_two(at_ms - landmark * half_life_ms, half_life_ms)


def decay_to(at_ms: int, landmark: int, half_life_ms: int) -> float:
    """What turns a sum relative to a landmark into its worth at a time: `2**((L - t) / H)`."""
    return _power_of_two(landmark * half_life_ms - at_ms, half_life_ms)


def merge_landmarks(held: int, added: int) -> tuple[int, float, float]:
    """Where a sum's landmark goes when a batch is added, and the powers of two for what is held and what is added.

    It moves to the batch's when that is far ahead, and stays otherwise: most batches touch only their own pairs.
    """
    if added - held > MOVE_AFTER:
        return added, math.ldexp(1.0, held - added), 1.0
    return held, 1.0, math.ldexp(1.0, added - held)


def strength(counts: Sequence[float]) -> float:
    """By what the pairs of an anchor compete for their place: everything that was seen of them, expectations aside."""
    return sum(count for metric, count in enumerate(counts) if metric != Metric.EXPECTED)


def partners_of_each(items: int, most_partners: int) -> int:
    """With how many others an item of a visit is paired, given the visit's size and the most that is ever asked for.

    Fewer in a larger visit, so that its cost stays bounded; all of them as long as that can be afforded, because what a
    sample leaves out makes counts uneven: one pair in four that counts 4 is right on average only.
    """
    return min(items - 1, most_partners, max(FEWEST_PARTNERS, VISIT_PAIRS // max(items, 1)))


def visit_pairs(visit_id: str, items: Sequence[str], most_partners: int) -> list[tuple[str, str, float]]:
    """The pairs of a visit in both directions, as (anchor, partner, weight).

    Where an item may have only m partners (`partners_of_each`) among n items, it gets m of them, drawn without
    replacement, each counted (n - 1) / m times: every pair's expectation is 1 as it is in a small visit
    (Horvitz and Thompson 1952), and the cost grows with n, not with its square. The draw is the visit's own, so a
    repeat gives the same pairs.

    Args:
        visit_id: seeds the draw.
        items: distinct ids.
        most_partners: of an item at most, at least 1.
    """
    others, drawn_of_each = len(items) - 1, partners_of_each(len(items), most_partners)
    if drawn_of_each >= others:
        return [(anchor, partner, 1.0) for anchor in items for partner in items if partner != anchor]
    draw = random.Random(visit_id)  # noqa: S311 - a sample, not a secret
    pairs = []
    for place, anchor in enumerate(items):
        # Of the places of all others, numbered without the anchor's own.
        drawn = draw.sample(range(others), drawn_of_each)
        pairs += [(anchor, items[other + (other >= place)], others / drawn_of_each) for other in drawn]
    return pairs


def coec(actions: Array, expected: Array, prior: float) -> Array:
    """Actions over expected actions, drawn to 1 by a prior: `(a + prior) / (e + prior)`.

    It is the posterior mean of a rate with the prior Gamma(prior, prior), actions being Poisson with mean rate * e
    (shrunk as in DuMouchel 1999, "Bayesian data mining in large frequency tables").

    Args:
        actions: (n,) observed.
        expected: (n,) the sums of position priors.
        prior: how many expected actions the belief in 1 is worth, above 0.
    """
    return (actions + prior) / (expected + prior)


def coec_deviation(actions: Array, prior: float) -> Array:
    """The posterior's standard deviation of log COEC, to first order: `1 / sqrt(a + prior)`."""
    deviation: Array = 1.0 / np.sqrt(actions + prior)
    return deviation


def at_most_visits(co_visits: Array, visits: float, marginals: Array) -> Array:
    """Co-visits, no more than each item's own visits: what was visited together was visited.

    A sample of a large visit (`visit_pairs`) may tell more: it counts a pair for those that it leaves out, which is
    right on average of all pairs, and of one pair that few visits hold impossible.
    """
    possible: Array = np.minimum(co_visits, np.minimum(marginals, visits))
    return possible


def cosine(co_visits: Array, visits: float, marginals: Array) -> Array:
    """Cosine of two items' visit vectors, `c / sqrt(a * b)` (Sarwar et al. 2001); 0 where a marginal is 0."""
    return _over(at_most_visits(co_visits, visits, marginals), np.sqrt(visits * marginals))


def lift(co_visits: Array, visits: float, marginals: Array, total: float) -> Array:
    """How many times more often than by chance, `c * N / (a * b)` (Brin et al. 1997: interest); 0 where unknown."""
    return _over(at_most_visits(co_visits, visits, marginals) * total, visits * marginals)


def shrunk_pmi(co_visits: Array, visits: float, marginals: Array, total: float, prior: float) -> Array:
    """Pointwise mutual information (Church and Hanks 1990) times `c / (c + prior)`, as Pantel and Lin (2002) discount.

    Few co-visits of rare items give the largest lift and the least certain one. Nothing known, or no co-visit, gives 0.

    Args:
        co_visits: (n,) c, visits with both.
        visits: a, those with the anchor.
        marginals: (n,) b, those with the candidate.
        total: N, all visits.
        prior: how many co-visits it takes to be believed half, above 0.
    """
    co_visits, lifts = at_most_visits(co_visits, visits, marginals), lift(co_visits, visits, marginals, total)
    logs = np.log(lifts, out=np.zeros_like(lifts), where=lifts > 0)
    pmi: Array = logs * (co_visits / (co_visits + prior))
    return pmi


def _power_of_two(distance_ms: int, half_life_ms: int) -> float:
    """`2**(distance / half-life)`, whole half-lives apart from the rest.

    So the same moment on another landmark gives the same digits. A question asked a thousand half-lives before its
    evidence is a clock gone wrong: it gets a large number, not an error.
    """
    whole, rest = divmod(distance_ms, half_life_ms)
    return math.ldexp(2.0 ** (rest / half_life_ms), min(whole, 900))


def _over(numerator: Array, denominator: Array) -> Array:
    quotient: Array = np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0)
    return quotient
