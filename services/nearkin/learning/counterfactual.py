"""What another policy would have earned, told from what this one showed: inverse propensity scoring of logged slates.

The item-position model (Li et al., "Offline evaluation of ranking policies with click models", KDD 2018): what an item
earns at a position does not depend on what stands elsewhere in the slate. Then each shown item counts with the ratio
`w = target / propensity` of the probabilities with which the two policies put it at its position, whatever the rest of
the slate is, and what a policy earns of a look-up is the sum over positions.

- *IPS* (Horvitz and Thompson 1952): the mean over look-ups of `w * reward`, summed over positions. Unbiased.
- *SNIPS* (Swaminathan and Joachims, "The self-normalized estimator for counterfactual learning", NIPS 2015): at each
  position the mean of rewards weighted by w, the sum of the weights in the denominator. Its bias vanishes with 1 / n,
  and it usually varies much less: weights that add up to more than they should make both sums larger.

Intervals are normal ones of 95%, with the standard error by linearisation (the delta method; Owen, "Monte Carlo theory,
methods and examples", 2013, chapter 9.2). Look-ups are taken as independent, the positions of one slate are not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearkin.core.errors import Misconfigured

Array = NDArray[np.float64]

#: 95% of a normal distribution lie within so many standard deviations.
_NORMAL_95 = 1.959964

#: With less the normal interval is not to be believed.
LEAST_EFFECTIVE = 30.0

#: So many standard errors may the mean weight of a position be off 1.
_DEVIATIONS = 5.0


@dataclass(frozen=True, slots=True)
class LoggedPlaces:
    """What was shown, a row for each place of each slate.

    Attributes:
        slate: (n,) the number of its slate, from 0; a slate that showed nothing has no row, but counts.
        position: (n,) where it stands in it, from 1.
        propensity: (n,) with which the logging policy put this item there, in (0, 1].
        target: (n,) with which the target policy would, for the same look-up; in [0, 1].
        reward: (n,) what came of it, such as 1 for a click.
        log_rate: (slates,) with which probability a slate as this one was logged, in (0, 1].
    """

    slate: NDArray[np.intp]
    position: NDArray[np.intp]
    propensity: Array
    target: Array
    reward: Array
    log_rate: Array

    def __post_init__(self) -> None:
        for name, least in (("propensity", np.nextafter(0, 1)), ("target", 0.0), ("log_rate", np.nextafter(0, 1))):
            values = getattr(self, name)
            if len(values) and not (values.min() >= least and values.max() <= 1 + 1e-12):
                bounds = "from 0 to 1" if least == 0 else "above 0, to 1"
                raise _refused(name, "holds what is no probability", f"every one must be {bounds}")
        if not np.isfinite(self.reward).all():
            raise _refused("reward", "holds what is not finite", "leave such places out")
        if not len(self.slate):
            raise _refused("slate", "there are no places", "give slates that show something")
        if self.slate.min() < 0 or self.slate.max() >= len(self.log_rate):
            raise _refused(
                "slate", "names a slate that is not there", "count slates from 0, and give each its log_rate"
            )
        if self.position.min() < 1:
            raise _refused("position", "is below 1", "count positions from 1")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a policy earns of one look-up.

    Attributes:
        value: the estimate.
        low: the lower end of its 95% interval.
        high: the upper end.
        effective: look-ups of the target policy that would tell as much: Kish's effective sample size,
            `sum(w)**2 / sum(w**2)` (Kish, "Survey sampling", 1965), of the position where it is smallest.
        slates: how many were logged.
    """

    value: float
    low: float
    high: float
    effective: float
    slates: int


def ips(log: LoggedPlaces) -> Estimate:
    """Inverse propensity scoring.

    Raises:
        Misconfigured: the log does not support the target policy.
    """
    weighed = _Weighed(log)
    slates = len(log.log_rate)
    sums = _add_up(log.slate, weighed.weight * log.reward, slates)
    # Of the places' weights those of their slates are a part; the sum of the latter normalises.
    value = float(sums.sum() / weighed.total)
    return weighed.estimate(value, sums - weighed.of_slate * value)


def snips(log: LoggedPlaces) -> Estimate:
    """Self-normalised inverse propensity scoring, each position by itself.

    Raises:
        Misconfigured: the log does not support the target policy.
    """
    weighed = _Weighed(log)
    slates = len(log.log_rate)
    # A position counts as much as there are slates that have it.
    present = _add_up(log.position, weighed.of_slate[log.slate])
    means = _add_up(log.position, weighed.weight * log.reward) / np.where(present > 0, weighed.sums, 1.0)
    value = float(present @ means / weighed.total)
    scale = (present / np.where(present > 0, weighed.sums, 1.0))[log.position]
    parts = weighed.of_slate[log.slate] * means[log.position]
    parts += weighed.weight * (log.reward - means[log.position]) * scale
    return weighed.estimate(value, _add_up(log.slate, parts, slates) - weighed.of_slate * value)


class _Weighed:
    """The weights of a log's places, once it is sure that they tell of the target policy."""

    def __init__(self, log: LoggedPlaces) -> None:
        self.of_slate: Array = 1.0 / log.log_rate
        self.total = float(self.of_slate.sum())
        ratio = log.target / log.propensity
        self.weight: Array = self.of_slate[log.slate] * ratio
        self.sums: Array = _add_up(log.position, self.weight)
        squares = _add_up(log.position, self.weight**2)
        present = _add_up(log.position, self.of_slate[log.slate])
        of_positions = np.flatnonzero(present)
        # The target's probabilities of all items at a position add up to 1, so there the weights' mean is 1, but for
        # what the logging policy never shows; and but for chance, whose size the weights tell.
        off = _add_up(log.position, (self.of_slate[log.slate] * (ratio - 1.0)) ** 2)
        for position in of_positions.tolist():
            mean, chance = self.sums[position] / present[position], np.sqrt(off[position]) / present[position]
            if abs(mean - 1.0) > _DEVIATIONS * chance + 1e-9:
                raise _unsupported(position, f"its weights' mean is {mean:.3g} where 1 is due")
        effective = self.sums[of_positions] ** 2 / np.maximum(squares[of_positions], np.finfo(float).tiny)
        self.effective = float(effective.min())
        if self.effective < LEAST_EFFECTIVE:
            worst = int(of_positions[effective.argmin()])
            raise _unsupported(
                worst, f"it is worth {self.effective:.3g} look-ups of the target, not {LEAST_EFFECTIVE:g}"
            )

    def estimate(self, value: float, residuals: Array) -> Estimate:
        """The estimate, given what each slate adds to its error, times the sum of the slates' weights."""
        slates = len(residuals)
        deviation = float(np.sqrt((residuals**2).sum() * slates / max(slates - 1, 1)) / self.total)
        return Estimate(value, value - _NORMAL_95 * deviation, value + _NORMAL_95 * deviation, self.effective, slates)


def _add_up(numbers: NDArray[np.intp], values: Array, size: int = 0) -> Array:
    """The sum of the values under each number, from 0."""
    return np.bincount(numbers, values, size).astype(np.float64)


def _unsupported(position: int, problem: str) -> Misconfigured:
    return _refused(
        "target",
        f"the log does not support it at position {position}: {problem}",
        "log more exploration, or judge a policy that shows what was explored",
    )


def _refused(field: str, problem: str, remedy: str) -> Misconfigured:
    return Misconfigured(problem, field=field, remedy=remedy, reason="log")
