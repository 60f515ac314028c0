"""Estimates off policy: right where the log supports the target, refused where it does not."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from nearkin.core.errors import Misconfigured
from nearkin.core.exploration import ExplorationRules
from nearkin.learning.counterfactual import LoggedPlaces, ips, snips
from nearkin.learning.simulation import make_world, places_of, simulate


def a_log(count=1000, seed=0, first_with=0.5, **changed):
    """Slates of one place, on which one of two items stands with equal chances; the first one earns 1."""
    rng = np.random.default_rng(seed)
    first = rng.random(count) < 0.5
    columns = {
        "slate": np.arange(count),
        "position": np.ones(count, int),
        "propensity": np.full(count, 0.5),
        "target": np.where(first, first_with, 1 - first_with),
        "reward": first.astype(float),
        "log_rate": np.ones(count),
    }
    return LoggedPlaces(**(columns | changed))


@pytest.mark.parametrize("estimator", [ips, snips])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_the_value_of_a_policy_that_was_not_followed_is_found(estimator, target):
    found = estimator(a_log(20_000, first_with=target))
    assert found.value == pytest.approx(target, abs=0.02)
    assert found.low <= target <= found.high
    assert found.slates == 20_000


def test_by_hand_on_four_slates():
    """Weights 2, 2, 1/2 and 1 at the first position; at the second one 1 and 1."""
    log = LoggedPlaces(
        slate=np.array([0, 0, 1, 1, 2, 3] * 20) + np.repeat(np.arange(20) * 4, 6),
        position=np.array([1, 2, 1, 2, 1, 1] * 20),
        propensity=np.array([0.25, 1, 0.25, 1, 0.5, 0.5] * 20),
        target=np.array([0.5, 1, 0.5, 1, 0.25, 0.5] * 20),
        reward=np.array([1.0, 0, 0, 1, 1, 0] * 20),
        log_rate=np.ones(80),
    )
    assert ips(log).value == pytest.approx((2 * 1 + 0.5 * 1 + 1 * 1) / 4)
    # At the first position 2.5 of 5.5, in all slates; at the second one 1 of 2, in half of them.
    assert snips(log).value == pytest.approx(2.5 / 5.5 + 0.5 * 0.5)
    assert snips(log).effective == pytest.approx(min((5.5 * 20) ** 2 / (9.25 * 20), 40**2 / 40))


def test_a_reward_that_never_changes_is_known_for_sure_once_normalised():
    log = a_log(first_with=0.8, reward=np.full(1000, 0.7))
    found = snips(log)
    assert (found.value, found.low, found.high) == pytest.approx((0.7, 0.7, 0.7))
    assert ips(log).high - ips(log).low > 0.01


def test_slates_that_were_logged_at_a_lower_rate_count_for_those_that_were_not():
    rng = np.random.default_rng(3)
    whole = a_log(200_000, first_with=0.9)
    rate = np.where(whole.reward == 1, 0.1, 1.0)
    kept = np.flatnonzero(rng.random(200_000) < rate)
    sampled = LoggedPlaces(
        np.arange(len(kept)), *(getattr(whole, name)[kept] for name in ("position", "propensity", "target", "reward")),
        log_rate=rate[kept],
    )  # fmt: skip
    for estimator in (ips, snips):
        found = estimator(sampled)
        assert found.low <= 0.9 <= found.high
        assert found.value == pytest.approx(0.9, abs=0.02)


def test_following_ones_own_policy_is_the_mean_with_its_ordinary_interval():
    log = a_log()
    own = snips(log)
    assert own.value == pytest.approx(log.reward.mean())
    assert own.high - own.value == pytest.approx(1.959964 * log.reward.std(ddof=1) / np.sqrt(1000), rel=1e-6)
    assert own.effective == pytest.approx(1000)


@pytest.mark.parametrize("estimator", [ips, snips])
def test_a_policy_that_shows_what_was_never_shown_is_refused(estimator):
    greedy = {"propensity": np.ones(1000), "target": np.zeros(1000)}
    with pytest.raises(Misconfigured, match="position 1: its weights' mean is 0 where 1 is due; log more exploration"):
        estimator(a_log(**greedy))


def test_a_policy_of_which_a_tenth_was_never_shown_is_refused():
    with pytest.raises(Misconfigured, match=r"weights' mean is 0\.9"):
        snips(a_log(10_000, propensity=np.full(10_000, 0.5), target=np.full(10_000, 0.45)))


def test_a_log_that_is_worth_too_few_look_ups_is_refused():
    with pytest.raises(Misconfigured, match=r"worth 2\d look-ups of the target, not 30"):
        snips(a_log(25))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"propensity": np.zeros(1000)}, "propensity: holds what is no probability; every one must be above 0, to 1"),
        ({"propensity": np.full(1000, 1.5)}, "propensity: holds what is no probability"),
        ({"target": np.full(1000, -0.1)}, "target: holds what is no probability; every one must be from 0 to 1"),
        ({"target": np.full(1000, np.nan)}, "target: holds what is no probability"),
        ({"log_rate": np.zeros(1000)}, "log_rate: holds what is no probability"),
        ({"reward": np.full(1000, np.inf)}, "reward: holds what is not finite"),
        ({"slate": np.full(1000, 1000)}, "slate: names a slate that is not there"),
        ({"position": np.zeros(1000, int)}, "position: is below 1"),
    ],
)
def test_a_log_that_cannot_be_is_refused_with_the_column(changed, problem):
    with pytest.raises(Misconfigured, match=problem):
        a_log(**changed)


def test_a_log_without_places_is_refused():
    nothing = {name: np.array([]) for name in ("propensity", "target", "reward")}
    with pytest.raises(Misconfigured, match="there are no places"):
        LoggedPlaces(np.array([], int), np.array([], int), **nothing, log_rate=np.ones(3))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_interval_covers_the_truth_in_95_of_100_worlds():
    """200 seeded worlds; their logs are drawn by the code that serves. The bounds hold 99% of a binomial of 0.95."""
    worlds, covered, misses = 200, {"best": 0, "worst": 0}, {"best": [], "worst": []}
    rules = ExplorationRules(share=0.3, pool=12, new_item_share=0.0)
    for seed in range(worlds):
        world = make_world(seed, anchors=20, candidates=12, places=5)
        anchors = np.random.default_rng((seed, 0)).integers(0, 20, 2500)
        lookups = list(simulate(world, anchors, rules, seed))
        best = np.argsort(-world.attractiveness, axis=1)[:, :5]
        worst = np.argsort(world.attractiveness, axis=1)[:, :5]
        for name, shown in (("best", best), ("worst", worst)):
            truth, found = world.value(shown), snips(places_of(lookups, shown))
            covered[name] += found.low <= truth <= found.high
            misses[name].append((found.value - truth) / truth)
    low, high = binom.interval(0.99, worlds, 0.95)
    for name, count in covered.items():
        assert low <= count <= high, f"{name}: {count} of {worlds}"
        assert abs(np.mean(misses[name])) < 4 * np.std(misses[name]) / np.sqrt(worlds) + 0.01


def test_an_estimate_from_a_log_that_explored_too_little_of_a_world_is_refused():
    world = make_world(1, anchors=5, candidates=30, places=5)
    lookups = list(simulate(world, np.arange(3000) % 5, ExplorationRules(share=0.3, pool=10, new_item_share=0.0), 1))
    least_believed = np.argsort(world.belief, axis=1)[:, :5]
    with pytest.raises(Misconfigured, match="does not support it at position 1"):
        snips(places_of(lookups, least_believed))


def test_the_example_of_the_evaluation_page_runs_and_finds_what_it_says(capsys):
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(example, names)
    assert names["found"].low <= 0.28 <= names["found"].high
    assert "look-ups of that policy" in capsys.readouterr().out
