"""Ten answers that are all alike help less than ten that are not: maximal marginal relevance over the best candidates.

Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing summaries",
SIGIR 1998: each place goes to the item with the most of `(1 - s) * relevance - s * (its largest similarity to what
stands above it)`, with a strength s from 0 (the ranking as it is) to 1. Scores are of any scale, so relevance is the
score's place between the best and the worst of the pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearkin.core.candidates import Candidates
from nearkin.core.rules import Moved, Rule
from nearkin.core.sketch import similarities

Array = NDArray[np.float64]

#: How many of the best candidates compete for the places.
POOL = 50


@dataclass(frozen=True, slots=True)
class Diversified:
    """A new order of the rows, and which of its first k stood elsewhere before."""

    order: tuple[int, ...]
    moved: tuple[Moved, ...]


def diversify(
    order: Sequence[int], scores: Array, candidates: Candidates, strength: float, k: int, pins: int = 0
) -> Diversified:
    """Fill the first k places by maximal marginal relevance; what is left keeps its order behind them.

    Args:
        order: rows of `candidates`, best first, as the rules left them.
        scores: (n,) of each row of `candidates`.
        candidates: what `order` and `scores` are rows of.
        strength: from 0, which leaves the order as it is, to 1.
        k: how many places there are.
        pins: how many at the head of `order` stay where they are; the others keep their distance from them too.
    """
    places = min(k, len(order)) - pins
    if strength <= 0 or places < 2:
        return Diversified(tuple(order), ())
    pool = list(order[: pins + max(POOL, places)])
    gains = scores[pool]
    least = gains[pins:].min()
    spread = gains[pins:].max() - least
    relevance = (1 - strength) * ((gains - least) / spread if spread > 0 else np.zeros(len(pool)))
    alike = strength * likeness(candidates, pool)
    nearest = alike[:pins].max(axis=0) if pins else np.zeros(len(pool))
    relevance[:pins] = -np.inf
    chosen = list(range(pins))
    for _ in range(places):
        best = int((relevance - nearest).argmax())  # of equal ones the first, which ranks higher
        chosen.append(best)
        relevance[best] = -np.inf
        np.maximum(nearest, alike[best], out=nearest)
    taken = set(chosen)
    rest = [place for place in range(len(pool)) if place not in taken]
    moved = tuple(
        Moved(candidates.facts[pool[was]].id, Rule.DIVERSITY, was + 1, now + 1)
        for now, was in enumerate(chosen)
        if was != now
    )
    return Diversified((*(pool[place] for place in chosen + rest), *order[len(pool) :]), moved)


def likeness(candidates: Candidates, rows: Sequence[int]) -> Array:
    """How alike every two of some candidates are, from 0 to 1: (rows, rows).

    The cosine of their sketches where both have one; else half for a category that both are in, and half for one maker.
    """
    facts = [candidates.facts[row] for row in rows]
    alike = np.maximum(similarities([one.sketch for one in facts]), 0.0)
    unknown = np.fromiter((not one.sketch for one in facts), bool, len(facts))
    if unknown.any():
        agreement = 0.5 * _together([one.categories for one in facts])
        agreement += 0.5 * _together([(one.maker,) if one.maker else () for one in facts])
        alike = np.where(unknown[:, None] | unknown, agreement, alike)
        np.fill_diagonal(alike, 1.0)
    return alike


def _together(names: Sequence[Sequence[str]]) -> Array:
    """(n, n) 1 where two of n items share a name, else 0."""
    named: dict[str, list[int]] = {}
    for place, some in enumerate(names):
        for name in some:
            named.setdefault(name, []).append(place)
    shared = np.zeros((len(names), len(names)))
    for places in named.values():
        shared[np.ix_(places, places)] = 1.0
    return shared
