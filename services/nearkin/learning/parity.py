"""How near the vectors of a graph are to those of the model that it was made of.

Cosines say how much a vector moved; neighbours say whether that matters: what is found is what a look-up shows.
"""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nearkin.encoders.manifest import Parity

#: How many nearest neighbours are compared.
NEIGHBOURS = 10

#: Flags of a processor that adds four products of bytes at a time.
INTEGER_INSTRUCTIONS = {"avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX VNNI", "amx_int8": "AMX"}


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near vectors are to their reference.

    Attributes:
        samples: how many were compared.
        cosine_mean: of a vector to its reference.
        cosine_p1: the first percentile of the same.
        equal_neighbours: which share of a sample's ten nearest are the same; None where there are too few samples.
    """

    samples: int
    cosine_mean: float
    cosine_p1: float
    equal_neighbours: float | None


def compare(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> Nearness:
    """Hold vectors against their reference, row by row and by their neighbours among themselves.

    Args:
        vectors: (samples, dimensions), of unit length.
        reference: as many, of any length but zero.

    Raises:
        ValueError: there are none, or one has no direction: then nothing can be said of all.
    """
    if not len(vectors) or vectors.shape != reference.shape:
        raise ValueError(f"vectors of shape {vectors.shape} cannot be compared with {reference.shape}")
    with np.errstate(all="ignore"):
        units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (vectors, reference)]
    if not all(np.isfinite(each).all() for each in units):
        raise ValueError("a vector or its reference has no direction")
    cosines = np.sum(units[0] * units[1], axis=1)
    equal = None
    if len(vectors) > NEIGHBOURS:
        found, right = (find_neighbours(each) for each in units)
        equal = float(np.mean([len(np.intersect1d(*pair)) for pair in zip(found, right, strict=True)])) / NEIGHBOURS
    return Nearness(len(vectors), float(cosines.mean()), float(np.percentile(cosines, 1)), equal)


def parity_of(near: Nearness, modality: Literal["text", "image"], reference: str, on: str) -> Parity:
    """What a manifest says of it, found on this processor."""
    return Parity(
        modality=modality,
        reference=reference,
        processor=name_processor(),
        on=on,
        samples=near.samples,
        cosine_mean=near.cosine_mean,
        cosine_p1=near.cosine_p1,
        equal_neighbours_at_10=near.equal_neighbours,
    )


def find_neighbours(units: NDArray[np.float32], count: int = NEIGHBOURS) -> NDArray[np.intp]:
    """(samples, count): the rows that are nearest to each row but itself, in any order."""
    found = []
    for start in range(0, len(units), 1024):  # a part at a time: all pairs of many samples would not fit in memory
        cosines = units[start : start + 1024] @ units.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -np.inf
        found.append(np.argpartition(-cosines, count - 1, axis=1)[:, :count])
    return np.concatenate(found)


def name_processor() -> str:
    """This machine's processor, with what decides how it multiplies integers."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    flags = set(told.get("flags", "").split())
    integer = [name for flag, name in INTEGER_INSTRUCTIONS.items() if flag in flags]
    return f"{told.get('model name', platform.machine())} ({', '.join(integer) or 'no VNNI'})"
