"""What a ranking looks at: named numbers for each candidate of a look-up, the same when serving, in logs, in training.

Whoever adds, removes or redefines a feature raises `FEATURE_VERSION`: weights and logs say which one they are for.
Every value is finite. What is not known is 0 beside a flag that says so, and features of pairs are 0 where nothing was
seen of anchor or candidate, so that a ranking with evidence falls back to content by itself. docs/ranking.md has the
formulas and what each weighs.

*Fusion* of two searches: the dense one knows meaning, the lexical one knows exact words. Each list's scores are divided
by its best one, so that neither the engine's scale nor the length of the anchor's text matters, and summed with fixed
weights (a convex combination, which keeps what ranks forget: Bruch, Gai, Ingber 2023, "An analysis of fusion functions
for hybrid retrieval", doi:10.1145/3596512). An item that the dense list lacks is taken to be as far as the last one
there: every item is some distance away, and so fusion does not depend on how many hits are asked for. One that the
lexical list lacks shares no word that counts, and gets nothing. Measured against reciprocal ranks and other
normalisations: docs/decisions/0004-fusion.md.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from nearkin.core.candidates import AnchorContext, Candidates, CandidateSource, ItemFacts
from nearkin.core.evidence import DAY_MS, Metric, at_most_visits, coec, coec_deviation

Array = NDArray[np.float64]

#: Changes whenever the same candidates would give other numbers than in a release; 1 is that of the first one.
FEATURE_VERSION = 1

#: What the best lexical hit weighs in `fused`; the best dense hit weighs what is left of 1.
LEXICAL_WEIGHT = 0.6

#: How many expected clicks the belief that a pair is as good as its positions is worth.
COEC_PRIOR = 1.0

#: How many expected co-visits the belief that a pair meets by chance is worth.
CO_VISITS_PRIOR = 5.0

#: What is added to the denominator of the co-visits' cosine: few of them are believed less.
COSINE_PRIOR = 20.0

#: How many exposures without any reaction a rate of reactions is diluted with.
RATE_PRIOR = 20.0

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
    Feature("fused", _C, "the score of fusion: meaning and words, each relative to the best of this answer; 0 to 1"),
    Feature("content", _C, "cosine of the dense vectors, at least 0; the least of this answer where it is not known"),
    Feature("lexical", _C, "score by words, relative to the best of this answer; 0 to 1"),
    Feature("content_missing", _C, "1 where the cosine is not known"),
    Feature("coec", _E, "logarithm of clicks over expected clicks, drawn to 0"),
    Feature("coec_deviation", _E, "standard deviation of that; 1 without any click"),
    Feature("conversions", _E, "weighted long views, likes, saves and purchases an exposure, drawn to 0"),
    Feature("complaints", _E, "weighted skips, dislikes, hides and reports an exposure, drawn to 0"),
    Feature("unexposed", _E, "actions u on what was not logged as shown, as u / (u + 20); 0 to 1"),
    Feature("co_visit_lift", _E, "logarithm of co-visits over those that chance would give, drawn to 0"),
    Feature("co_visit_cosine", _E, "cosine of the two items' visits, drawn to 0; 0 to 1"),
    Feature("popularity", _E, "logarithm of 1 + the candidate's visits"),
    Feature("unvisited", _E, "1 where the candidate was in no visit"),
    Feature("freshness", _I, "1 for an item first seen now, half as much every 30 days; 0 where that is not known"),
    Feature("category", _I, "names that two category paths begin with alike, over the longer path's; the best two"),
    Feature("category_missing", _I, "1 where one of the two items has no category"),
    Feature("price", _I, "the lower price over the higher one; 0 where they cannot be compared"),
    Feature("price_missing", _I, "1 where the prices cannot be compared"),
)

#: The names of the columns, in order.
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)

_PLACE = {name: place for place, name in enumerate(FEATURE_NAMES)}


def compute_features(anchor: AnchorContext, candidates: Candidates) -> Array:
    """The features of all candidates of one look-up.

    Args:
        anchor: what is known of the anchor.
        candidates: n of them, their counts decayed to the same moment as the anchor's.

    Returns:
        (n, len(FEATURES)) finite numbers, columns as in `FEATURES`.
    """
    rows = np.zeros((len(FEATURES), len(candidates)))
    if len(candidates):
        _fill_content(rows, candidates)
        _fill_evidence(rows, anchor, candidates)
        _fill_items(rows, anchor, candidates.facts)
    return rows.T


def _fill_content(rows: Array, candidates: Candidates) -> None:
    known = np.isfinite(candidates.content)
    cosines = np.maximum(candidates.content, 0.0)
    best = least = 0.0
    if known.all():
        best, least = float(cosines.max()), float(cosines.min())
    else:
        if known.any():
            best, least = float(cosines[known].max()), float(cosines[known].min())
        cosines[~known] = least
        rows[_PLACE["content_missing"]] = ~known
    words = np.maximum(candidates.lexical, 0.0, out=rows[_PLACE["lexical"]])
    if best_words := float(words.max()):
        words /= best_words
    rows[_PLACE["content"]] = cosines
    fused = rows[_PLACE["fused"]]
    if best:
        # What the search by meaning did not return is as far as the last that it did. What others named is farther than
        # that, and known.
        near = cosines if known.all() else np.where(known, cosines, _last_listed(candidates, cosines, known, least))
        fused += (1 - LEXICAL_WEIGHT) * (near / best)
    fused += LEXICAL_WEIGHT * words


def _last_listed(candidates: Candidates, cosines: Array, known: NDArray[np.bool_], least: float) -> float:
    """The least cosine that the search by meaning returned; looks at no more candidates than are farther than that."""
    for row in np.argsort(cosines).tolist():
        if known[row] and candidates.sources.has(row, CandidateSource.CONTENT):
            return float(cosines[row])
    return least


def _fill_evidence(rows: Array, anchor: AnchorContext, candidates: Candidates) -> None:
    counts, marginals = candidates.counts, candidates.visits
    clicks, unexposed = counts[:, Metric.CLICKS], counts[:, Metric.UNEXPOSED]
    together = at_most_visits(counts[:, Metric.CO_VISITS], anchor.visits, marginals)
    exposures = counts[:, Metric.EXPOSURES] + RATE_PRIOR
    products = anchor.visits * marginals
    all_visits = max(anchor.all_visits, anchor.visits)  # read at two moments, the whole may be the smaller
    rows[_PLACE["coec"]] = np.log(coec(clicks, counts[:, Metric.EXPECTED], COEC_PRIOR))
    rows[_PLACE["coec_deviation"]] = coec_deviation(clicks, COEC_PRIOR)
    rows[_PLACE["conversions"]] = counts @ _CONVERSION_WEIGHTS / exposures
    rows[_PLACE["complaints"]] = counts @ _COMPLAINT_WEIGHTS / exposures
    rows[_PLACE["unexposed"]] = unexposed / (unexposed + RATE_PRIOR)
    if all_visits > 0:
        expected = products / all_visits
        rows[_PLACE["co_visit_lift"]] = np.log(coec(together, expected, CO_VISITS_PRIOR))
    rows[_PLACE["co_visit_cosine"]] = together / (np.sqrt(products) + COSINE_PRIOR)
    rows[_PLACE["popularity"]] = np.log1p(marginals)
    rows[_PLACE["unvisited"]] = marginals == 0


def _fill_items(rows: Array, anchor: AnchorContext, facts: tuple[ItemFacts, ...]) -> None:
    first_seen = np.array([one.first_seen for one in facts], dtype=float)
    fresh = np.exp2(np.minimum(first_seen - anchor.at_ms, 0.0) / FRESH_FOR_MS)
    fresh[first_seen <= 0] = 0.0
    rows[_PLACE["freshness"]] = fresh

    own = anchor.facts
    if own is None or not own.categories:
        rows[_PLACE["category_missing"]] = 1.0
    else:
        paths = [one.categories for one in facts]
        agreement = {some: _agreement(own.categories, some) for some in set(paths)}
        rows[_PLACE["category"]] = [agreement[some] for some in paths]
        rows[_PLACE["category_missing"]] = [not some for some in paths]

    if own is None or not own.price:
        rows[_PLACE["price_missing"]] = 1.0
        return
    prices = np.array([(one.price or 0.0) if one.currency == own.currency else 0.0 for one in facts])
    rows[_PLACE["price"]] = np.minimum(prices, own.price) / np.maximum(prices, own.price)
    rows[_PLACE["price_missing"]] = prices <= 0


def _agreement(paths: tuple[str, ...], others: tuple[str, ...]) -> float:
    return max((_shared(path, other) for path in paths for other in others), default=0.0)


def _shared(path: str, other: str) -> float:
    """The share of names, from the top, that two category paths have in common."""
    names, theirs = path.split("/"), other.split("/")
    longer = max(len(names), len(theirs))
    for depth, (one, two) in enumerate(zip(names, theirs, strict=False)):
        if one != two:
            return depth / longer
    return min(len(names), len(theirs)) / longer


def _weights(of: tuple[tuple[Metric, float], ...]) -> Array:
    weights = np.zeros(len(Metric))
    for metric, weight in of:
        weights[metric] = weight
    return weights


_CONVERSION_WEIGHTS, _COMPLAINT_WEIGHTS = _weights(CONVERSIONS), _weights(COMPLAINTS)
