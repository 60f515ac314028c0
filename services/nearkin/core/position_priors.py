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


@lru_cache(maxsize=2048)
def default_prior(position: int) -> float:
    """`0.1 / log2(1 + position)`: the discount of DCG (Järvelin and Kekäläinen 2002), which never comes near 0."""
    return DEFAULT_RATE / math.log2(1 + position)


#: The default priors of the positions from 1 to `POSITIONS`.
DEFAULT_CURVE = tuple(default_prior(position) for position in range(1, POSITIONS + 1))


class Method(StrEnum):
    """How the priors of a surface came to be."""

    DEFAULT = "default"  # nothing is known: the default curve
    SCALED = "scaled"  # the default curve, with as many clicks in all as there were
    CLICK_MODEL = "click_model"  # from pairs that stood at several positions
    RANDOMISED = "randomised"  # from the randomised share


@dataclass(frozen=True, slots=True)
class Prior:
    """What one exposure brings, and the interval of 95% around it; None where nothing was learned."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class SurfacePriors:
    """The priors of one surface.

    Attributes:
        method: how they came to be.
        positions: of the positions from 1 to `POSITIONS` or less; those beyond share the default's decrease.
        exposures: that they were learned from, decayed.
        clicks: the same of clicks.
    """

    method: Method = Method.DEFAULT
    positions: tuple[Prior, ...] = ()
    exposures: float = 0.0
    clicks: float = 0.0

    @property
    def curve(self) -> tuple[float, ...]:
        """The priors of the positions from 1 to `POSITIONS`."""
        learned = tuple(prior.value for prior in self.positions[:POSITIONS])
        if not learned:
            return DEFAULT_CURVE
        beyond = learned[-1] / default_prior(len(learned))
        return learned + tuple(beyond * default_prior(position) for position in range(len(learned) + 1, POSITIONS + 1))


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
        return prior_at(self.curve(surface), position)

    def curve(self, surface: str) -> tuple[float, ...]:
        """The priors of the positions from 1 to `POSITIONS`."""
        known = self.surfaces.get(surface)
        return known.curve if known is not None else DEFAULT_CURVE


def prior_at(curve: tuple[float, ...], position: int) -> float:
    """The prior of a position on a curve, which goes on beyond `POSITIONS` as the default does."""
    if position <= POSITIONS:
        return curve[position - 1]
    return curve[-1] * default_prior(position) / DEFAULT_CURVE[-1]
