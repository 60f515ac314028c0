"""Fitting weights: they find what the choices were made by, keep what nothing is known of, and never turn negative."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad

from nearkin.core.errors import Misconfigured
from nearkin.core.features import FEATURE_NAMES
from nearkin.core.ranking import DEFAULT_WEIGHTS, RankingWeights, score
from nearkin.learning.fit_ranking import FITTED, Judged, _Choices, fit_weights

NOTHING = RankingWeights("nothing", dict.fromkeys(FEATURE_NAMES, 0.0))


def world(weights, anchors=400, candidates=20, seed=0):
    """Anchors of which one candidate is right: the one that was drawn with chances by its score."""
    rng = np.random.default_rng(seed)
    judged = []
    for _ in range(anchors):
        features = np.zeros((candidates, len(FEATURE_NAMES)))
        for name in weights:
            features[:, FEATURE_NAMES.index(name)] = rng.normal(size=candidates)
        odds = np.exp(features @ np.array([weights.get(name, 0.0) for name in FEATURE_NAMES]))
        judged.append(Judged(features, np.arange(candidates) == rng.choice(candidates, p=odds / odds.sum())))
    return judged


def fit(judged, **options):
    return fit_weights(judged, weights_id="fitted", fitted_on="a made-up world", **{"start": NOTHING, **options})


def test_the_weights_that_choices_were_made_by_are_found():
    true = {"fused": 2.0, "co_visit_lift": 1.0}
    found = fit(world(true, anchors=2000), fitted=tuple(true)).weights.features
    assert {name: found[name] for name in true} == pytest.approx(true, abs=0.2)


def test_a_fit_makes_what_was_right_more_likely():
    done = fit(world({"fused": 1.5}))
    assert done.likelihood > 1.5 * done.before
    assert done.anchors == 400


def test_a_weight_whose_feature_does_not_vary_stays_where_it_was():
    done = fit(world({"fused": 1.0}), start=DEFAULT_WEIGHTS)
    assert done.weights.features["price"] == pytest.approx(DEFAULT_WEIGHTS.features["price"], abs=1e-3)


def test_what_is_not_fitted_is_kept():
    done = fit(world({"fused": 1.0, "coec": 3.0}), start=DEFAULT_WEIGHTS)
    kept = [name for name in FEATURE_NAMES if name not in FITTED]
    assert [done.weights.features[name] for name in kept] == [DEFAULT_WEIGHTS.features[name] for name in kept]


def test_agreement_never_counts_against_a_candidate():
    assert fit(world({"price": -2.0})).weights.features["price"] == 0


def test_few_anchors_move_the_weights_less_than_many():
    few, many = (fit(world({"fused": 2.0}, anchors)).weights.features["fused"] for anchors in (5, 500))
    assert 0 < few < many


def test_anchors_without_a_right_candidate_say_nothing():
    judged = world({"fused": 1.0}, anchors=50)
    mute = [Judged(one.features, np.zeros(len(one.right), bool)) for one in world({"fused": 1.0}, 50, seed=1)]
    with_mute, without = fit(judged + mute), fit(judged)
    assert with_mute.weights.features == without.weights.features
    assert with_mute.anchors == 50


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(Misconfigured, match="no anchor has an item among its candidates that is right"):
        fit([Judged(np.zeros((2, len(FEATURE_NAMES))), np.zeros(2, bool))])


def test_a_name_that_is_no_features_is_refused():
    with pytest.raises(Misconfigured, match="'charm' is no feature; there are fused, "):
        fit(world({"fused": 1.0}, 5), fitted=("charm",))


@given(st.lists(st.floats(0, 5), min_size=2, max_size=2))
def test_the_gradient_is_that_of_the_loss(weights):
    moving = [FEATURE_NAMES.index(name) for name in ("fused", "price")]
    problem = _Choices.of(world({"fused": 1.0, "price": 0.5}, 10, 5), DEFAULT_WEIGHTS, moving)
    away = check_grad(lambda at: problem.loss(at)[0], lambda at: problem.loss(at)[1], np.array(weights))
    assert away == pytest.approx(0, abs=1e-5)


def test_a_hopeless_right_candidate_still_pulls():
    features = np.zeros((2, len(FEATURE_NAMES)))
    features[0, FEATURE_NAMES.index("fused")] = 1.0
    hopeless = [Judged(features, np.array([False, True]))] * 20
    start = RankingWeights("steep", {**NOTHING.features, "fused": 2000.0})
    done = fit(hopeless, start=start, fitted=("fused",))
    assert score(features, done.weights)[0] < 2000
