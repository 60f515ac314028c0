"""A dense vector as 256 signs: enough to tell how alike two items are, in 32 bytes that travel with every candidate.

Each bit says on which side of a random hyperplane the vector lies. Two vectors at an angle θ differ in a bit with
probability θ / π (Charikar: "Similarity estimation techniques from rounding algorithms", STOC 2002), so the share of
bits that differ estimates the angle. The hyperplanes are drawn from numpy's legacy generator, whose stream is frozen
(NEP 19): sketches that were stored by an older version stay comparable.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BITS = 256
SIZE = BITS // 8

_SEED = 2002

#: The cosine that so many differing bits stand for.
_COSINES = np.cos(np.pi * np.arange(BITS + 1) / BITS)


def sketch(vector: NDArray[np.float32]) -> bytes:
    """The signs of a vector's projections.

    Args:
        vector: (d,) finite; its length does not matter.

    Returns:
        32 bytes; those of vectors with different d do not compare.
    """
    return np.packbits(_hyperplanes(len(vector)) @ vector > 0).tobytes()


def similarities(sketches: Sequence[bytes]) -> Array:
    """The estimated cosine of every two of the sketched vectors.

    Args:
        sketches: n of them; an empty one is of a vector that is not known.

    Returns:
        (n, n), 1 on the diagonal; what is not known is 0 to everything else.
    """
    nothing = bytes(SIZE)
    packed = b"".join([one or nothing for one in sketches])
    words = np.frombuffer(packed, np.uint64).reshape(len(sketches), SIZE // 8).T.copy()
    # Bits are counted rather than signs multiplied: a matrix product would wake a thread for every core.
    differing = np.zeros((len(sketches), len(sketches)), np.uint16)
    for word in words:
        differing += np.bitwise_count(word[:, None] ^ word)
    cosines: Array = _COSINES.take(differing)
    if not all(sketches):
        known = np.fromiter(map(bool, sketches), bool, len(sketches))
        cosines[~known] = 0.0
        cosines[:, ~known] = 0.0
    np.fill_diagonal(cosines, 1.0)
    return cosines


@cache
def _hyperplanes(dimensions: int) -> NDArray[np.float32]:
    drawn = np.random.RandomState(_SEED).standard_normal((BITS, dimensions))
    return drawn.astype(np.float32)
