"""The vectors of an item, and the hits of a search by one of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from nearkin.core.candidates import ItemFacts


class VectorName(StrEnum):
    """The named vectors of a point in the index."""

    CONTENT = "content"
    LEXICAL = "lexical"


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Term weights: strictly increasing term indices, and a positive finite weight for each.

    Attributes:
        indices: (terms,) uint32.
        values: (terms,) float32.
    """

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Vectors:
    """What an encoder makes of one item's content.

    Attributes:
        content: (dimensions,) float32 of unit length, all finite.
        lexical: the item's terms; may hold none.
    """

    content: NDArray[np.float32]
    lexical: SparseVector


class Hit(NamedTuple):
    """One candidate as one search returned it, with its facts; scores of two searches are not comparable."""

    id: str
    score: float
    facts: ItemFacts


class Hits(Sequence[Hit]):
    """What one search returned, from best to worst: a sequence of hits, kept as columns.

    A look-up has some 300 hits and shows ten: an object for each of them took a twentieth of its time.

    Args:
        facts: of each hit.
        scores: of each hit.

    Attributes:
        ids: of each hit.
        facts: of each hit.
        scores: of each hit.
    """

    __slots__ = ("facts", "ids", "scores")

    def __init__(self, facts: Sequence[ItemFacts] = (), scores: Sequence[float] = ()) -> None:
        self.ids: Sequence[str] = [one.id for one in facts]
        self.facts, self.scores = facts, scores

    @classmethod
    def of(cls, hits: Iterable[Hit]) -> "Hits":
        """These hits."""
        kept = list(hits)
        return cls([one.facts for one in kept], [one.score for one in kept])

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> "Hits": ...
    def __getitem__(self, place: int | slice) -> "Hit | Hits":
        if isinstance(place, slice):
            return Hits(self.facts[place], self.scores[place])
        return Hit(self.ids[place], self.scores[place], self.facts[place])

    def __iter__(self) -> Iterator[Hit]:
        return map(Hit, self.ids, self.scores, self.facts)
