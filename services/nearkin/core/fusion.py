"""Two rankings of the same items become one: the dense one knows meaning, the lexical one knows exact words.

Each list's scores are divided by its best one, so that neither the engine's scale nor the length of the anchor's text
matters, and summed with fixed weights (a convex combination, which keeps what ranks forget: Bruch, Gai, Ingber 2023,
"An analysis of fusion functions for hybrid retrieval", doi:10.1145/3596512). An item that the
dense list lacks is taken to be as far as the last one there: every item is some distance away, and so fusion does not
depend on how many hits are asked for. One that the lexical list lacks shares no word that counts, and gets nothing.
Measured against reciprocal ranks and other normalisations: docs/decisions/0004-fusion.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nearkin.core.candidates import CandidateSource, ItemFacts, Source
from nearkin.core.vectors import Hit

#: What the best lexical hit weighs; the best dense hit weighs what is left of 1.
LEXICAL_WEIGHT = 0.6


@dataclass(frozen=True, slots=True)
class Fused:
    """One neighbour: its place comes from `score`, and `sources` says why."""

    id: str
    score: float
    facts: ItemFacts
    sources: tuple[Source, ...]


def fuse(dense: Sequence[Hit], lexical: Sequence[Hit], k: int) -> list[Fused]:
    """Fuse two lists of hits into the best `k`.

    Args:
        dense: hits of the dense search, best first.
        lexical: hits of the lexical search, best first.
        k: how many to return at most.

    Returns:
        The neighbours, best first, with scores from 0 to 1; equal scores by their best rank, then by id. An item that a
        list holds twice counts there once, at its better rank.
    """
    facts: dict[str, ItemFacts] = {}
    shares: dict[CandidateSource, dict[str, float]] = {CandidateSource.CONTENT: {}, CandidateSource.LEXICAL: {}}
    floors: dict[CandidateSource, float] = {}
    sources: dict[str, list[Source]] = {}
    weighted = (
        (CandidateSource.CONTENT, dense, 1 - LEXICAL_WEIGHT),
        (CandidateSource.LEXICAL, lexical, LEXICAL_WEIGHT),
    )
    for name, hits, weight in weighted:
        scale = weight / hits[0].score if hits and hits[0].score > 0 else 0.0
        floor = max(hits[-1].score, 0.0) * scale if hits and name is CandidateSource.CONTENT else 0.0
        for rank, hit in enumerate(hits, 1):
            named = sources.setdefault(hit.id, [])
            if any(source.name is name for source in named):
                continue
            named.append(Source(name, hit.score, rank))
            facts.setdefault(hit.id, hit.facts)
            shares[name][hit.id] = max(hit.score, 0.0) * scale
        floors[name] = floor
    scores = {item_id: sum(shares[name].get(item_id, floors[name]) for name, _, _ in weighted) for item_id in sources}
    fused = [Fused(item_id, scores[item_id], facts[item_id], tuple(named)) for item_id, named in sources.items()]
    return sorted(fused, key=lambda one: (-one.score, min(source.rank for source in one.sources), one.id))[:k]
