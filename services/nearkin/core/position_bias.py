"""Learns from what a surface showed what each of its positions brings.

All methods hold that an item at a position is clicked with the product of what the item attracts and what the position
brings (the examination hypothesis: Richardson, Dominowska, Ragno, "Predicting clicks", WWW 2007; Craswell, Zoeter,
Taylor, Ramsey, "An experimental comparison of click position-bias models", WSDM 2008). A policy puts what attracts more
further up, so clicks by position alone tell the two apart in no way. Two things do:

*The randomised share.* Weighted by 1 / propensity, every item that the policy may draw stands everywhere equally often,
and what is left is the position (Joachims, Swaminathan, Schnabel, "Unbiased learning-to-rank with biased feedback",
WSDM 2017); normalised by the weights' sum (SNIPS: Swaminathan and Joachims, NIPS 2015). It takes a policy that may put
the same items at each position, if seldom. That can be seen: a slate's weight at a position is, on average, the number
of items that the policy may put there, so where it differs between positions, this method is not used.

*The same pair at several positions.* What changed for it is the position alone (intervention harvesting: Agarwal,
Zaitsev, Wang, Li, Najork, Joachims, "Estimating position bias without intrusive interventions", WSDM 2019). Clicks are
taken as Poisson, with a rate of each pair's own, and the likelihood is the one given each pair's number of clicks, in
which those rates do not occur. So it is consistent however few clicks a pair has, and wherever the mean alone is
right (fixed effects: Hausman, Hall, Griliches, Econometrica 1984; Wooldridge, Journal of Econometrics 1999).

Both are drawn to the default curve by a prior: one click's worth for the first, a standard deviation of 1 of the
logarithm for the second. Then all priors are scaled so that a surface's expected clicks are its clicks: an item with
clicks over expected clicks of 1 is as good as what the surface shows on average.

*Intervals* are of 95%, normal in the logarithm; the scale's share by the delta method. Counts are decayed, and the sum
of weights is taken for that of their squares, which is less: so under decay intervals are too wide rather than narrow.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearkin.core.evidence import AnchorEvidence, Array, Metric
from nearkin.core.position_priors import POSITIONS, Method, Prior, SurfacePriors, default_prior

#: Clicks that a method needs: in the randomised share what they are worth without weights, in the sample those of pairs
#: that stood at several positions.
ENOUGH_CLICKS = 100
#: Clicks that tell how much a surface brings as a whole.
ENOUGH_TO_SCALE = 20

#: Ends the name of a position in the randomised share: its weights, and their squares.
WEIGHTS, SQUARES = "/w", "/v"
#: Stands between a sampled pair and its position.
AT = "@"

#: 95% of a normal distribution lie within so many standard deviations.
_NORMAL_95 = 1.959964

#: How much the numbers of items that may stand at two positions may differ, beyond chance; a share.
_SAME_ITEMS = 0.1

_DEFAULT = np.array([default_prior(position) for position in range(1, POSITIONS + 1)])


@dataclass(frozen=True, slots=True)
class SampledPairs:
    """Pairs at their positions, a row for each.

    Attributes:
        pair: (n,) which pair it is, from 0.
        position: (n,) where it stood, from 0.
        exposures: (n,) how often.
        clicks: (n,) what came of it.
    """

    pair: NDArray[np.intp]
    position: NDArray[np.intp]
    exposures: Array
    clicks: Array


@dataclass(frozen=True, slots=True)
class SurfaceStatistics:
    """What was counted of one surface; each but the sample is (`POSITIONS`,).

    Attributes:
        exposures: at each position.
        clicks: at each position.
        weights: of the randomised share, the sums of 1 / propensity over exposures.
        weights_of_clicks: the same over clicks.
        squares: the sums of the weights' squares over exposures.
        squares_of_clicks: the same over clicks.
        randomised: exposures of the randomised share, without weights.
        sample: of pairs at their positions.
    """

    exposures: Array
    clicks: Array
    randomised: Array
    weights: Array
    weights_of_clicks: Array
    squares: Array
    squares_of_clicks: Array
    sample: SampledPairs


def read_statistics(positions: Iterable[AnchorEvidence], sample: Iterable[AnchorEvidence]) -> SurfaceStatistics:
    """Add up what the reserved anchors of all shards hold of a surface (`core.counting` says in which form)."""
    columns = [Metric.EXPOSURES, Metric.CLICKS, Metric.EXPECTED]
    sums = {suffix: np.zeros((POSITIONS, len(columns))) for suffix in ("", WEIGHTS, SQUARES)}
    for found in positions:
        for candidate, counts in zip(found.candidates, found.counts, strict=True):
            position, slash, suffix = candidate.partition("/")
            sums[slash + suffix][int(position) - 1] += counts[columns]
    numbers: dict[str, int] = {}
    rows = []
    for found in sample:
        for candidate, counts in zip(found.candidates, found.counts, strict=True):
            pair, _, position = candidate.partition(AT)
            number = numbers.setdefault(pair, len(numbers))
            rows.append((number, int(position) - 1, counts[Metric.EXPOSURES], counts[Metric.EXPECTED]))
    table = np.array(rows).reshape(-1, 4)
    counted, weights, squares = sums.values()
    return SurfaceStatistics(
        exposures=counted[:, 0],
        clicks=counted[:, 1],
        randomised=weights[:, 2],
        weights=weights[:, 0],
        weights_of_clicks=weights[:, 1],
        squares=squares[:, 0],
        squares_of_clicks=squares[:, 1],
        sample=SampledPairs(table[:, 0].astype(np.intp), table[:, 1].astype(np.intp), table[:, 2], table[:, 3]),
    )


def learn(statistics: SurfaceStatistics, enough: float = ENOUGH_CLICKS) -> SurfacePriors:
    """The priors of a surface, by the best method that its statistics have enough clicks for.

    Args:
        statistics: what was counted.
        enough: clicks that a method which tells positions apart needs.
    """
    exposures, clicks = float(statistics.exposures.sum()), float(statistics.clicks.sum())
    if exposures == 0:
        return SurfacePriors(clicks=clicks)
    for method, estimate in ((Method.RANDOMISED, from_randomised_share), (Method.CLICK_MODEL, from_repeated_pairs)):
        found = estimate(statistics, enough)
        if found is not None and clicks > 0:
            return SurfacePriors(method, _scaled(*found, statistics), exposures, clicks)
    if clicks >= ENOUGH_TO_SCALE:
        scale = clicks / float(statistics.exposures @ _DEFAULT)
        scaled = tuple(Prior(float(prior)) for prior in _DEFAULT[: _last_shown(statistics)] * scale)
        return SurfacePriors(Method.SCALED, scaled, exposures, clicks)
    return SurfacePriors(Method.DEFAULT, (), exposures, clicks)


def from_randomised_share(statistics: SurfaceStatistics, enough: float) -> tuple[Array, Array] | None:
    """The logarithm of what each position brings, up to a constant, by self-normalised inverse propensity weights.

    A position with rate r and variance v of it is worth `r**2 / v` clicks, to which the prior adds one click at the
    level of the default curve. The variance is the linearised one of a ratio, `sum(w**2 (c - r)**2) / sum(w)**2`.

    Returns:
        (`POSITIONS`,) the logarithms and (`POSITIONS`, `POSITIONS`) their covariance; None where there are too few
        clicks, or the policy may not put the same items everywhere.
    """
    shown = statistics.weights > 0
    weights = np.where(shown, statistics.weights, 1.0)
    rates = np.where(shown, statistics.weights_of_clicks, 0.0) / weights
    spread = statistics.squares_of_clicks * (1 - 2 * rates) + rates**2 * statistics.squares
    clicked = (rates > 0) & (spread > 0)
    worth = np.zeros(POSITIONS)
    worth[clicked] = (rates * weights)[clicked] ** 2 / spread[clicked]
    if worth.sum() < enough or not _has_same_items(statistics):
        return None
    # Without a click, exposures still say that it is not more: so many without weights would say as much.
    squares = np.where(shown, statistics.squares, 1.0)
    size = np.where(clicked, worth / np.where(clicked, rates, 1.0), np.where(shown, weights**2 / squares, 0.0))
    level = worth.sum() / (size @ _DEFAULT)
    logarithms = np.log((worth + 1) / (size + 1 / (level * _DEFAULT)))
    return logarithms, np.diag(1 / (worth + 1))


def _has_same_items(statistics: SurfaceStatistics) -> bool:
    """Whether the policy may put about as many items at each position as at any other."""
    shown = (statistics.weights > 0) & (statistics.randomised > 0)
    weights = statistics.weights[shown]
    items = np.log(weights / statistics.randomised[shown])
    variances = statistics.squares[shown] / weights**2
    most, least = int(items.argmax()), int(items.argmin())
    by_chance = 3 * math.sqrt(variances[most] + variances[least])
    return bool(items[most] - items[least] <= math.log1p(_SAME_ITEMS) + by_chance)


def from_repeated_pairs(statistics: SurfaceStatistics, enough: float) -> tuple[Array, Array] | None:
    """The same from pairs that stood at several positions: the maximum of the likelihood given each pair's clicks.

    With theta what a position brings, a click of a pair was at position p with a probability of
    `exposures_p theta_p / sum(exposures theta)`. That is concave in log theta, so Newton's method finds it; the
    inverse of the negative second derivative is the covariance.
    """
    sample = statistics.sample
    usable = sample.exposures > 0
    if not usable.any():
        return None
    places = int(sample.position[usable].max()) + 1
    default = _DEFAULT[:places]
    exposures, clicks = np.zeros((2, int(sample.pair.max()) + 1, places))
    np.add.at(exposures, (sample.pair[usable], sample.position[usable]), sample.exposures[usable])
    np.add.at(clicks, (sample.pair[usable], sample.position[usable]), sample.clicks[usable])
    telling = ((exposures > 0).sum(1) > 1) & (clicks.sum(1) > 0)
    exposures, clicks = exposures[telling], clicks[telling]
    if clicks.sum() < enough:
        return None
    totals, at_positions = clicks.sum(1), clicks.sum(0)
    apart = np.zeros(places)  # the logarithms, less those of the default
    for _ in range(100):
        expected = exposures * (default * np.exp(apart))
        shares = expected / expected.sum(1, keepdims=True)
        gradient = at_positions - totals @ shares - apart
        information = np.diag(totals @ shares + 1) - (shares * totals[:, None]).T @ shares
        step = np.linalg.solve(information, gradient)
        # Far from the maximum a whole step may overshoot.
        apart += step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    # Of positions beyond, the prior alone is known.
    logarithms, covariance = np.log(_DEFAULT), np.eye(POSITIONS)
    logarithms[:places] += apart
    covariance[:places, :places] = np.linalg.inv(information)
    return logarithms, covariance


def _scaled(logarithms: Array, covariance: Array, statistics: SurfaceStatistics) -> tuple[Prior, ...]:
    """Priors under which the surface's expected clicks are its clicks, with their intervals."""
    relative = np.exp(logarithms - logarithms.max())
    clicks = float(statistics.clicks.sum())
    expected = statistics.exposures * relative
    priors = relative * (clicks / expected.sum())
    # d log prior_p / d logarithm_q = (p is q) - q's share of the expected clicks.
    slopes = np.eye(POSITIONS) - expected / expected.sum()
    variances = np.einsum("pq,qr,pr->p", slopes, covariance, slopes) + 1 / clicks
    spread = np.exp(_NORMAL_95 * np.sqrt(variances))
    shown = _last_shown(statistics)
    return tuple(
        Prior(float(prior), float(prior / factor), float(prior * factor))
        for prior, factor in zip(priors[:shown], spread[:shown], strict=True)
    )


def _last_shown(statistics: SurfaceStatistics) -> int:
    """The last position that anything stood at."""
    return int(np.flatnonzero(statistics.exposures)[-1]) + 1


def differ(before: SurfacePriors | None, after: SurfacePriors, share: float = 0.1) -> bool:
    """Whether priors changed so much that it matters: another method, or a position by more than a share of itself."""
    if before is None or before.method is not after.method:
        return True
    most = math.log1p(share)
    return any(abs(math.log(new / old)) > most for old, new in zip(before.curve, after.curve, strict=True))
