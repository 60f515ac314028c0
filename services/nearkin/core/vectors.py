"""The vectors of an item, and the hits of a search by one of them before they are fused."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

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
