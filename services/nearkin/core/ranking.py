"""The ranking baseline: a weighted sum of features, whose parts are the explanation.

The score is on the scale of a choice model: how much more likely one candidate is the right one than another is the
exponential of the difference of their scores (`learning/fit_ranking.py`). docs/ranking.md says what each feature weighs
and why.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nearkin.core.candidates import Candidates
from nearkin.core.errors import Misconfigured
from nearkin.core.features import FEATURE_NAMES, FEATURE_VERSION, FEATURES, FeatureGroup
from nearkin.core.retrieval import Ranking

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankingWeights:
    """What each feature weighs.

    Attributes:
        id: names these weights in answers and logs.
        features: what each feature weighs, by its name; all of `FEATURES`, and no other.
        fitted_on: where they come from, for a person.
        feature_version: of the features that they are for.
        vector: (features,) the weights in the order of `FEATURES`.
    """

    id: str
    features: Mapping[str, float]
    fitted_on: str = ""
    feature_version: int = FEATURE_VERSION
    vector: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.feature_version != FEATURE_VERSION:
            raise _refused("feature_version", f"is {self.feature_version}; this is {FEATURE_VERSION}", "fit them again")
        if unknown := sorted(set(self.features) - set(FEATURE_NAMES)):
            raise _refused(f"features.{unknown[0]}", "is no feature", f"there are {', '.join(FEATURE_NAMES)}")
        if missing := [name for name in FEATURE_NAMES if name not in self.features]:
            raise _refused(f"features.{missing[0]}", "is missing", "give every feature its weight; 0 leaves it out")
        vector = np.array([self.features[name] for name in FEATURE_NAMES], dtype=float)
        if not np.isfinite(vector).all():
            raise _refused("features", "holds a weight that is not finite", "give numbers")
        vector.flags.writeable = False
        object.__setattr__(self, "vector", vector)

    def only(self, ranking: Ranking) -> "RankingWeights":
        """The weights of one kind of ranking: those of other features are 0."""
        if ranking is Ranking.COMBINED:
            return self
        if ranking is Ranking.CONTENT:
            kept = {"fused": 1.0}
        else:
            groups = {one.name: one.group for one in FEATURES}
            kept = {name: one for name, one in self.features.items() if groups[name] is FeatureGroup.EVIDENCE}
        features = {name: kept.get(name, 0.0) for name in FEATURE_NAMES}
        return RankingWeights(f"{self.id}:{ranking}", features, self.fitted_on)


def score(features: Array, weights: RankingWeights) -> Array:
    """(n,) the weighted sum of each candidate's features: higher is better; differences matter, the level does not."""
    scores: Array = features @ weights.vector
    return scores


def contributions(features: Array, weights: RankingWeights) -> Array:
    """(n, features) what each feature adds to a candidate's score."""
    parts: Array = features * weights.vector
    return parts


def best_first(scores: Array, candidates: Candidates) -> list[int]:
    """The rows of the candidates, best first; equal scores by their best rank in a source, then by id."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    ordered = scores[order]
    if (ordered[1:] < ordered[:-1]).all():
        return order
    ranks = [min((one.rank for one in named), default=0) for named in candidates.sources]
    levels = scores.tolist()
    return sorted(order, key=lambda row: (-levels[row], ranks[row], candidates.facts[row].id))


def _refused(place: str, problem: str, remedy: str) -> Misconfigured:
    return Misconfigured(f"{place} {problem}", field="ranking weights", remedy=remedy, reason="weights")


#: What is shipped: `nearkin fit online-retail --half-life-days 90` fits those of fusion, co-visits and
#: price. Purchases alone say nothing of the others; docs/ranking.md says why they weigh what they do.
DEFAULT_WEIGHTS = RankingWeights(
    id="default-1",
    features=dict.fromkeys(FEATURE_NAMES, 0.0)
    | {
        "fused": 2.561,
        "coec": 2.0,
        "conversions": 10.0,
        "complaints": -20.0,
        "unexposed": 1.0,
        "co_visit_lift": 7.787,
        "category": 0.3,
        "price": 1.106,
    },
    fitted_on="online-retail, cuts 2011-03-01, 2011-05-01 and 2011-07-01 (3,531 warm anchors), a half-life of 90 days",
)
