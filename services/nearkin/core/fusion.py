"""Two searches rank the same items by scores that cannot be compared; fusion makes one ranking of them by rank alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from nearkin.core.similarity import Hit, VectorName

#: Reciprocal rank fusion's constant: how much a first place outweighs a tenth.
RANK_OFFSET = 60


@dataclass(frozen=True, slots=True)
class Source:
    """Where a neighbour came from: a search, the score that it gave and the rank, from 1."""

    name: VectorName
    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Fused:
    """A neighbour with the score of the fused ranking and the sources that named it."""

    id: str
    score: float
    title: str
    sources: tuple[Source, ...]


def fuse(dense: Sequence[Hit], lexical: Sequence[Hit], k: int) -> list[Fused]:
    """Join the hits of a dense and a lexical search, each from best to worst, into the k best.

    An item that a list holds twice counts once, at its better rank; ties are broken by id.
    """
    sources: dict[str, list[Source]] = {}
    titles: dict[str, str] = {}
    for name, hits in ((VectorName.CONTENT, dense), (VectorName.LEXICAL, lexical)):
        for rank, hit in enumerate(hits, 1):
            known = sources.setdefault(hit.id, [])
            if all(source.name is not name for source in known):
                known.append(Source(name, hit.score, rank))
            titles.setdefault(hit.id, hit.title)
    fused = [
        Fused(item_id, sum(1 / (RANK_OFFSET + source.rank) for source in found), titles[item_id], tuple(found))
        for item_id, found in sources.items()
    ]
    return sorted(fused, key=lambda one: (-one.score, one.id))[:k]
