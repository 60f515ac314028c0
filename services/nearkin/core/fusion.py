"""Two rankings of the same items become one: the dense one knows meaning, the lexical one knows exact words.

Each list's scores are divided by its best, so that neither the engine's scale nor the anchor's length matters, and
summed with fixed weights (convex combination: Bruch, Gai, Ingber 2023, "An analysis of fusion functions for hybrid
retrieval", doi:10.1145/3596512). An item that one list lacks scores there as that list's last. Chosen by measurement:
docs/decisions/0004-fusion.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nearkin.core.similarity import Hit, VectorName

#: What the lexical list weighs beside the dense one.
LEXICAL_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Source:
    """What one list said of an item: the name of its vector, its score there, and its rank, from 1."""

    name: VectorName
    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Fused:
    """One neighbour: its place comes from `score`, and `sources` says why."""

    id: str
    score: float
    title: str
    sources: tuple[Source, ...]


def fuse(dense: Sequence[Hit], lexical: Sequence[Hit], k: int) -> list[Fused]:
    """Fuse two lists of hits into the best `k`.

    Args:
        dense: hits of the dense search, best first; each item at most once.
        lexical: hits of the lexical search, likewise.
        k: how many to return at most.

    Returns:
        The neighbours, best first; equal scores in the order of their ids.
    """
    found: dict[str, tuple[str, list[Source]]] = {}
    scores: dict[str, float] = {}
    lists = ((VectorName.CONTENT, dense, 1 - LEXICAL_WEIGHT), (VectorName.LEXICAL, lexical, LEXICAL_WEIGHT))
    for name, hits, _ in lists:
        for rank, hit in enumerate(hits, 1):
            found.setdefault(hit.id, (hit.title, []))[1].append(Source(name, hit.score, rank))
    for _, hits, weight in lists:
        best, last = (hits[0].score, hits[-1].score) if hits else (1.0, 0.0)
        scale = weight / best if best > 0 else 0.0
        listed = {hit.id: hit.score for hit in hits}
        for item_id in found:
            scores[item_id] = scores.get(item_id, 0.0) + scale * listed.get(item_id, last)
    order = sorted(found, key=lambda item_id: (-scores[item_id], item_id))
    return [Fused(item_id, scores[item_id], found[item_id][0], tuple(found[item_id][1])) for item_id in order[:k]]
