"""What a ranking looks at: named numbers for each candidate of a look-up, the same when serving, in logs, in training.

Whoever adds, removes or redefines a feature raises `FEATURE_VERSION`: weights and logs say which one they are for.
Every value is finite. What is not known is 0 beside a flag that says so, and features of evidence are 0 where there is
none, so that a ranking with evidence falls back to content by itself.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from nearkin.core.candidates import AnchorContext, Candidates, CandidateSource, ItemFacts
from nearkin.core.evidence import DAY_MS, Metric, coec, coec_deviation, shrunk_pmi
from nearkin.core.fusion import LEXICAL_WEIGHT

Array = NDArray[np.float64]

#: Changes whenever the same candidates would give other numbers.
FEATURE_VERSION = 1

#: How many expected actions the belief that a pair is as good as its positions is worth.
COEC_PRIOR = 1.0

#: How many exposures without any reaction a rate of reactions is diluted with.
RATE_PRIOR = 20.0

#: Co-visits are believed the less the fewer there are: added to the cosine's denominator, and half belief in PMI.
COSINE_PRIOR = 20.0
PMI_PRIOR = 5.0

#: After so many milliseconds an item is half as fresh.
FRESH_FOR_MS = 30 * DAY_MS

#: What reactions weigh beside each other: how much effort or annoyance each says.
CONVERSIONS = ((Metric.LONG_VIEWS, 0.25), (Metric.LIKES, 0.5), (Metric.SAVES, 0.5), (Metric.PURCHASES, 1.0))
COMPLAINTS = ((Metric.SKIPS, 0.1), (Metric.DISLIKES, 1.0), (Metric.HIDES, 1.0), (Metric.REPORTS, 2.0))


class FeatureGroup(StrEnum):
    """What a feature is made of."""

    CONTENT = "content"  # the contents of anchor and candidate
    EVIDENCE = "evidence"  # what people did
    ITEM = "item"  # facts of the items


@dataclass(frozen=True, slots=True)
class Feature:
    """One column.

    Attributes:
        name: stands in weights, explanations and logs.
        group: what it is made of.
        meaning: in one line.
    """

    name: str
    group: FeatureGroup
    meaning: str


_C, _E, _I = FeatureGroup.CONTENT, FeatureGroup.EVIDENCE, FeatureGroup.ITEM

FEATURES = (
    Feature("fused", _C, "the score of fusion: words and meaning, each relative to the best of this answer; 0 to 1"),
    Feature("content", _C, "cosine of the dense vectors, at least 0; the least known one where it is not known"),
    Feature("lexical", _C, "score by words, relative to the best of this answer; 0 to 1"),
    Feature("content_missing", _C, "1 where the cosine is not known"),
    Feature("coec", _E, "logarithm of clicks over expected clicks, drawn to 0"),
    Feature("coec_deviation", _E, "how uncertain that is, from 0 to 1: 1 without any click"),
    Feature("conversions", _E, "weighted long views, likes, saves and purchases an exposure"),
    Feature("complaints", _E, "weighted skips, dislikes, hides and reports an exposure"),
    Feature("unexposed", _E, "actions on what was not logged as shown, from 0 to 1"),
    Feature("co_visits", _E, "cosine of the items' visits, drawn to 0 where there are few; 0 to 1"),
    Feature("co_visit_pmi", _E, "pointwise mutual information of the items' visits, above 0, drawn to 0"),
    Feature("popularity", _E, "logarithm of 1 + the candidate's visits"),
    Feature("unvisited", _E, "1 where the candidate was in no visit"),
    Feature("freshness", _I, "1 for an item first seen now, half as much every 30 days; 0 where that is not known"),
    Feature("category", _I, "the longest beginning that two category paths share, over the longer one's length"),
    Feature("category_missing", _I, "1 where one of the two has no category"),
    Feature("price", _I, "the lower price over the higher one; 0 where they cannot be compared"),
    Feature("price_missing", _I, "1 where the prices cannot be compared"),
)

#: The names of the columns, in order.
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)


def compute_features(anchor: AnchorContext, candidates: Candidates) -> Array:
    """The features of all candidates of one look-up.

    Args:
        anchor: what is known of the anchor.
        candidates: n of them, their counts decayed to the same moment as the anchor's.

    Returns:
        (n, len(FEATURES)) finite numbers, columns as in `FEATURES`.
    """
    count = len(candidates)
    rows = np.zeros((len(FEATURES), count))
    if count:
        rows[0:4] = _content_features(candidates)
        rows[4:13] = _evidence_features(anchor, candidates)
        rows[13:18] = _item_features(anchor, candidates.facts)
    return rows.T


def _content_features(candidates: Candidates) -> list[Array]:
    known = np.isfinite(candidates.content)
    cosine = np.maximum(np.where(known, candidates.content, 0.0), 0.0)
    words = np.maximum(candidates.lexical, 0.0)
    shares = words / max(float(words.max()), 1e-9)
    least = float(cosine[known].min()) if known.any() else 0.0
    listed = np.array(
        [any(one.name is CandidateSource.CONTENT for one in named) for named in candidates.sources], dtype=bool
    )
    near = cosine[listed & known]
    if len(near) and near.max() > 0:
        # As in core/fusion: what the search by meaning did not return is as far as the last that it did.
        dense = np.where(listed & known, cosine, near.min()) / near.max()
    else:
        dense = np.zeros_like(cosine)
    fused = (1 - LEXICAL_WEIGHT) * dense + LEXICAL_WEIGHT * shares
    return [fused, np.where(known, cosine, least), shares, np.where(known, 0.0, 1.0)]


def _evidence_features(anchor: AnchorContext, candidates: Candidates) -> list[Array]:
    counts, marginals = candidates.counts, candidates.visits
    clicks, together = counts[:, Metric.CLICKS], counts[:, Metric.CO_VISITS]
    exposures = counts[:, Metric.EXPOSURES] + RATE_PRIOR
    unexposed = counts[:, Metric.UNEXPOSED]
    return [
        np.log(coec(clicks, counts[:, Metric.EXPECTED], COEC_PRIOR)),
        coec_deviation(clicks, COEC_PRIOR),
        counts @ _CONVERSION_WEIGHTS / exposures,
        counts @ _COMPLAINT_WEIGHTS / exposures,
        unexposed / (unexposed + RATE_PRIOR),
        together / (np.sqrt(anchor.visits * marginals) + COSINE_PRIOR),
        np.maximum(shrunk_pmi(together, anchor.visits, marginals, anchor.all_visits, PMI_PRIOR), 0.0),
        np.log1p(marginals),
        np.where(marginals > 0, 0.0, 1.0),
    ]


def _item_features(anchor: AnchorContext, facts: tuple[ItemFacts, ...]) -> list[Array]:
    first_seen = np.array([one.first_seen for one in facts], dtype=float)
    age = np.maximum(anchor.at_ms - first_seen, 0.0)
    fresh = np.where(first_seen > 0, np.exp2(-age / FRESH_FOR_MS), 0.0)
    own = anchor.facts
    unknown = np.ones(len(facts))
    if own is None:
        return [fresh, unknown * 0, unknown, unknown * 0, unknown]
    category, without = unknown * 0, unknown
    if own.categories:
        agreement = {path: _agreement(own.categories, path) for path in {one.categories for one in facts}}
        category = np.array([agreement[one.categories] for one in facts])
        without = np.array([0.0 if one.categories else 1.0 for one in facts])
    price, unpriced = unknown * 0, unknown
    if own.price is not None and own.price > 0:
        prices = np.array([_comparable(own, one) for one in facts])
        unpriced = np.where(prices > 0, 0.0, 1.0)
        price = np.minimum(prices, own.price) / np.maximum(prices, own.price)
    return [fresh, category, without, price, unpriced]


def _comparable(own: ItemFacts, other: ItemFacts) -> float:
    return other.price if other.price is not None and other.currency == own.currency else 0.0


def _agreement(paths: tuple[str, ...], others: tuple[str, ...]) -> float:
    """The share of names, from the top, that the two paths have in common that agree most."""
    best = 0.0
    for path in paths:
        names = path.split("/")
        for other in others:
            theirs = other.split("/")
            shared = 0
            for one, two in zip(names, theirs, strict=False):
                if one != two:
                    break
                shared += 1
            best = max(best, shared / max(len(names), len(theirs)))
    return best


def _weights(of: tuple[tuple[Metric, float], ...]) -> Array:
    weights = np.zeros(len(Metric))
    for metric, weight in of:
        weights[metric] = weight
    return weights


_CONVERSION_WEIGHTS, _COMPLAINT_WEIGHTS = _weights(CONVERSIONS), _weights(COMPLAINTS)
