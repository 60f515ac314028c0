"""What an exposure at a position is expected to bring, on each surface: learned from the stream, and versioned.

A prior is the number of clicks that one exposure at a position brings on average. Clicks over expected clicks compare
items across positions with it, so what matters is the shape: twice the priors of a whole surface change no order.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

#: Positions whose priors are learned; those beyond share the decrease of the default curve.
POSITIONS = 50

#: Surfaces of which statistics are kept: those that show most.
MOST_SURFACES = 32

#: What the first position of a surface is held to bring before anything is known.
DEFAULT_RATE = 0.1


class Method(StrEnum):
    """How the priors of a surface came to be."""

    DEFAULT = "default"  # nothing is known: the default curve
    SCALED = "scaled"  # the default curve, with as many clicks in all as there were
    CLICK_MODEL = "click_model"  # from pairs that stood at several positions
    RANDOMISED = "randomised"  # from the randomised share


@dataclass(frozen=True, slots=True)
class Prior:
    """What one exposure brings, and an interval of 95% of it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SurfacePriors:
    """The priors of one surface.

    Attributes:
        method: how they came to be.
        positions: of the positions from 1.
    """

    method: Method = Method.DEFAULT
    positions: tuple[Prior, ...] = ()


@dataclass(frozen=True, slots=True)
class PositionPriors:
    """The priors of all surfaces that are known.

    Attributes:
        version: counts up from 0, the default for every surface.
        at_ms: when they were estimated, on the clock in force.
        surfaces: by name.
    """

    version: int = 0
    at_ms: int = 0
    surfaces: Mapping[str, SurfacePriors] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, surface: str, position: int) -> float:
        """The prior of a position: always above 0, whatever the surface and the position, counted from 1."""
        known = self.surfaces.get(surface)
        if known is None or not known.positions:
            return default_prior(position)
        positions = known.positions
        if position <= len(positions):
            return positions[position - 1].value
        return positions[-1].value * default_prior(position) / default_prior(len(positions))


@lru_cache(maxsize=2048)
def default_prior(position: int) -> float:
    """`0.1 / log2(1 + position)`: the discount of DCG (Järvelin and Kekäläinen 2002), which never comes near 0."""
    return DEFAULT_RATE / math.log2(1 + position)
