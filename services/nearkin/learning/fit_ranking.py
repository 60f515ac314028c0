"""Fits the weights of the ranking baseline to what people did after a cut, from what was known before it.

The model is Luce's choice among an anchor's candidates (Luce, "Individual choice behavior", 1959): the first item that
is drawn with chances proportional to `exp(score)` is one that is right. What is made as likely as can be is that, over
all anchors that have a right one among their candidates:

    sum over anchors of log( sum over right candidates of exp(score) / sum over all candidates of exp(score) )

It asks for one right item on top of each list, so it spends nothing on positives that no feature tells from the rest,
where a loss that asks for all of them (ListNet's softmax, Cao et al. 2007) trades the top for the tail: on Online
Retail that cost .05 of NDCG@10. A penalty draws the weights to those that one starts from, as if these had been fitted
on `PRIOR_ANCHORS` anchors; a weight whose feature does not vary stays where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]

from nearkin.core.errors import Misconfigured
from nearkin.core.features import FEATURE_NAMES
from nearkin.core.ranking import DEFAULT_WEIGHTS, RankingWeights

Array = NDArray[np.float64]

#: What a fit moves where nobody says. Feedback has no look-ups to be fitted on yet. Popularity and `unvisited` are left
#: out because a log of purchases lists only items that somebody bought: to be unsold before the cut means there to be
#: sold after it. `content` and `lexical` are what `fused` is made of.
FITTED = ("fused", "co_visit_lift", "co_visit_cosine", "category", "price")

#: As how many anchors the weights count that one starts from.
PRIOR_ANCHORS = 10.0


@dataclass(frozen=True, slots=True)
class Judged:
    """The candidates of one anchor, and which of them are right.

    Attributes:
        features: (n, features).
        right: (n,).
    """

    features: Array
    right: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fit:
    """What came of a fit.

    Attributes:
        weights: the fitted ones.
        anchors: how many had a right candidate, and so could be learnt from.
        likelihood: how likely the first item is right, the geometric mean over those anchors.
        before: the same with the weights that it started from.
    """

    weights: RankingWeights
    anchors: int
    likelihood: float
    before: float


def fit_weights(
    judged: Sequence[Judged],
    *,
    weights_id: str,
    fitted_on: str,
    start: RankingWeights = DEFAULT_WEIGHTS,
    fitted: Sequence[str] = FITTED,
) -> Fit:
    """Fit some weights, and keep the others.

    Args:
        judged: the anchors.
        weights_id: names the fitted weights.
        fitted_on: says what they were fitted on.
        start: where the weights come from that are not fitted, and to which those that are fitted are drawn.
        fitted: the names of the features whose weights may move; none becomes negative, as each says agreement.

    Raises:
        Misconfigured: no anchor has a right candidate, or a name is no feature's.
    """
    if unknown := [name for name in fitted if name not in FEATURE_NAMES]:
        raise Misconfigured(
            f"{unknown[0]!r} is no feature",
            field="feature",
            remedy=f"there are {', '.join(FEATURE_NAMES)}",
            reason="setting",
        )
    usable = [one for one in judged if one.right.any()]
    if not usable:
        raise Misconfigured(
            "no anchor has an item among its candidates that is right",
            field="evaluation",
            remedy="give a longer log, or an earlier cut",
            reason="file",
        )
    moving = [FEATURE_NAMES.index(name) for name in fitted]
    problem = _Choices.of(usable, start, moving)
    origin = start.vector[moving]
    found = minimize(
        problem.loss, np.maximum(origin, 0.0), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * len(moving)
    )
    # Rounded as they are written: a weight's fourth digit says nothing.
    values = {name: round(float(value), 3) for name, value in zip(fitted, found.x, strict=True)}
    weights = RankingWeights(weights_id, {**start.features, **values}, fitted_on)
    return Fit(
        weights,
        len(usable),
        float(np.exp(problem.log_chances(weights.vector[moving]).mean())),
        float(np.exp(problem.log_chances(origin).mean())),
    )


@dataclass(frozen=True, slots=True)
class _Choices:
    """All anchors' candidates one after another.

    Attributes:
        features: (rows, moving) of the weights that move.
        fixed: (rows,) what the other weights add.
        right: (rows,) 1 where the candidate is right.
        starts: (anchors,) the first row of each.
        origin: (moving,) the weights that those are drawn to.
        spread: (moving,) how far each feature varies within an anchor's candidates.
    """

    features: Array
    fixed: Array
    right: Array
    starts: NDArray[np.int64]
    origin: Array
    spread: Array
    sizes: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", np.diff(np.append(self.starts, len(self.fixed))))

    @classmethod
    def of(cls, judged: Sequence[Judged], start: RankingWeights, moving: Sequence[int]) -> "_Choices":
        kept = start.vector.copy()
        kept[moving] = 0.0
        sizes = np.array([len(one.right) for one in judged])
        features = np.concatenate([one.features[:, moving] for one in judged])
        return cls(
            features=features,
            fixed=np.concatenate([one.features @ kept for one in judged]),
            right=np.concatenate([one.right for one in judged]).astype(float),
            starts=np.append(0, np.cumsum(sizes)[:-1]),
            origin=start.vector[moving],
            spread=np.mean([one.features[:, moving].std(axis=0) for one in judged], axis=0),
        )

    def log_chances(self, weights: Array) -> Array:
        """(anchors,) the logarithm of the chance that the first item is right."""
        return self._chances(weights)[0]

    def loss(self, weights: Array) -> tuple[float, Array]:
        """What is to be small, and its gradient."""
        logs, pull = self._chances(weights)
        anchors = len(self.starts)
        away = (weights - self.origin) * self.spread**2 * (PRIOR_ANCHORS / anchors)
        gradient: Array = -(self.features.T @ pull) / anchors + away
        return float(-logs.mean() + 0.5 * away @ (weights - self.origin)), gradient

    def _chances(self, weights: Array) -> tuple[Array, Array]:
        """(anchors,) log chances, and (rows,) their derivatives by the scores."""
        scores = self.features @ weights + self.fixed
        total, of_all = self._softmax(scores)
        # On its own scale: right candidates that are all hopeless still have a logarithm, and still pull.
        hits, of_right = self._softmax(np.where(self.right > 0, scores, -np.inf))
        return hits - total, of_right - of_all

    def _softmax(self, scores: Array) -> tuple[Array, Array]:
        """(anchors,) the logarithm of the sum of `exp(score)`, and (rows,) each row's share of the sum."""
        best = np.maximum.reduceat(scores, self.starts)
        odds = np.exp(scores - np.repeat(best, self.sizes))
        sums = np.add.reduceat(odds, self.starts)
        return best + np.log(sums), odds / np.repeat(sums, self.sizes)
