"""The ranking baseline: weights that fit the features, scores that explain themselves, kinds of ranking."""

import numpy as np
import pytest

from nearkin.core.candidates import Candidates, CandidateSource, ItemFacts, SourcesOf
from nearkin.core.errors import Misconfigured
from nearkin.core.evidence import Metric
from nearkin.core.features import FEATURE_NAMES, FEATURE_VERSION, FEATURES, FeatureGroup
from nearkin.core.ranking import DEFAULT_WEIGHTS, RankingWeights, best_first, contributions, score
from nearkin.core.retrieval import Ranking

NOTHING = dict.fromkeys(FEATURE_NAMES, 0.0)


def some_features(rows=5):
    return np.random.default_rng(0).random((rows, len(FEATURES)))


def test_what_each_feature_adds_makes_up_the_score():
    features = some_features()
    assert contributions(features, DEFAULT_WEIGHTS).sum(axis=1) == pytest.approx(score(features, DEFAULT_WEIGHTS))


def test_ranking_by_content_is_fusion_alone():
    features = some_features()
    assert list(score(features, DEFAULT_WEIGHTS.only(Ranking.CONTENT))) == list(
        features[:, FEATURE_NAMES.index("fused")]
    )


def test_ranking_by_evidence_looks_at_nothing_else():
    features, other = some_features(), some_features()
    evidence = [place for place, one in enumerate(FEATURES) if one.group is FeatureGroup.EVIDENCE]
    rest = [place for place in range(len(FEATURES)) if place not in evidence]
    other[:, rest] = 7.0
    weights = DEFAULT_WEIGHTS.only(Ranking.EVIDENCE)
    assert list(score(features, weights)) == list(score(other, weights))
    assert len(set(score(features, weights))) == len(features)


def test_the_combined_ranking_is_the_weights_as_they_are():
    assert DEFAULT_WEIGHTS.only(Ranking.COMBINED) is DEFAULT_WEIGHTS


@pytest.mark.parametrize(
    ("features", "version", "said"),
    [
        ({**NOTHING, "charm": 1.0}, FEATURE_VERSION, "features.charm is no feature; there are fused, "),
        ({"fused": 1.0}, FEATURE_VERSION, "features.content is missing; give every feature its weight"),
        ({**NOTHING, "coec": float("nan")}, FEATURE_VERSION, "holds a weight that is not finite; give numbers"),
        (NOTHING, FEATURE_VERSION + 1, "fit them again"),
    ],
)
def test_weights_that_do_not_fit_the_features_are_refused_with_the_remedy(features, version, said):
    with pytest.raises(Misconfigured, match=said):
        RankingWeights("mine", features, feature_version=version)


def ranked(ids, named):
    """Candidates that these sources named, each a string of ids, best first."""
    n = len(ids)
    return Candidates(
        tuple(map(ItemFacts, ids)),
        SourcesOf(ids, {name: dict.fromkeys(listed, 0.0) for name, listed in named.items()}),
        np.zeros(n), np.zeros(n), np.zeros((n, len(Metric))), np.zeros(n),
    )  # fmt: skip


def test_equal_scores_are_ordered_by_their_best_rank_then_by_id():
    named = {CandidateSource.CONTENT: "?cde", CandidateSource.LEXICAL: "?a?d", CandidateSource.CO_VISITS: "b??e"}
    candidates = ranked("dcbae", named)
    order = best_first(np.array([1.0, 1.0, 1.0, 1.0, 2.0]), candidates)
    assert [candidates.facts[row].id for row in order] == ["e", "b", "a", "c", "d"]


def test_different_scores_need_no_ranks():
    assert best_first(np.array([1.0, 3.0, 2.0]), ranked("abc", {})) == [1, 2, 0]
