"""In a world whose truth is known, evidence recovers it."""

import itertools

import numpy as np
import pytest
from scipy.stats import kendalltau

from nearkin.core.counting import Counting, count
from nearkin.core.evidence import DAY_MS, Metric, Tally, coec, decay_to
from nearkin.core.exploration import ExplorationRules, Policy
from nearkin.core.position_priors import Method, PositionPriors, SurfacePriors
from nearkin.learning.simulation import (
    anchor_id,
    candidate_id,
    count_positions,
    learn_priors,
    make_world,
    simulate,
    to_events,
)

NOW, HALF_LIFE, SURFACE = 1_700_000_000_000, 30 * DAY_MS, "page"


def tally_of(lookups, priors):
    """What the worker would count of simulated look-ups."""
    tally, by = Tally(HALF_LIFE), Counting(lambda _: 0, PositionPriors(1, NOW, {SURFACE: priors}))
    for lookup in lookups:
        for event in to_events(lookup, NOW, SURFACE):
            count(event, [tally], by)
    return tally


def counts_of(tally, world):
    """(anchors, candidates, metrics) what was counted of each pair."""
    counts = np.zeros((*world.belief.shape, len(Metric)))
    held = {delta.anchor: delta.pairs for delta in tally.deltas()}
    for anchor, candidate in np.ndindex(world.belief.shape):
        row = held[anchor_id(anchor)].get(candidate_id(anchor, candidate))
        if row is not None:
            counts[anchor, candidate] = row
    return counts * decay_to(NOW, tally.landmark, HALF_LIFE)


def mean_tau(scores, world):
    return np.mean([kendalltau(*pair).statistic for pair in zip(scores, world.attractiveness, strict=True)])


def orders(counts, world):
    """Mean Kendall tau with the true order: of clicks over expected clicks, and of the raw click rate."""
    clicks, exposures = counts[..., Metric.CLICKS], counts[..., Metric.EXPOSURES]
    raw = clicks / np.maximum(exposures, 1e-9)
    return mean_tau(coec(clicks, counts[..., Metric.EXPECTED], 1.0), world), mean_tau(raw, world)


@pytest.mark.slow
def test_counted_as_the_worker_counts_with_priors_learned_from_exploration_evidence_finds_the_true_order():
    world = make_world(4, anchors=12, found=10)
    learning = ExplorationRules(share=0.2, pool=10, new_item_share=0.0)
    priors = learn_priors(simulate(world, np.arange(15_000) % 12, learning, 1))
    assert priors.method is Method.RANDOMISED
    serving = ExplorationRules(share=0.02, pool=10, new_item_share=0.0)
    tally = tally_of(simulate(world, np.arange(24_000) % 12, serving, 2), priors)
    found, raw = orders(counts_of(tally, world), world)
    print(f"mean Kendall tau with the true order: COEC {found:.3f}, raw click rate {raw:.3f}")
    assert found > 0.7
    assert found > raw + 0.05


def found_with_learned_priors(lookups):
    """Mean tau in a world of a thousand anchors, by COEC and by the raw rate, from so many look-ups of each anchor."""
    world = make_world(1, anchors=1000, candidates=50, places=10, found=10)
    everything_shuffled = ExplorationRules(share=1.0, pool=10, new_item_share=0.0)
    learned = learn_priors(simulate(world, np.arange(4000) % 1000, everything_shuffled, 1))
    assert learned.method is Method.RANDOMISED
    exposures, clicks = count_positions(world, lookups, seed=1)
    priors = np.array(learned.curve[: world.places])
    # With as many expected clicks as there were, as a surface's priors are learned.
    priors *= clicks.sum() / (exposures.sum((0, 1)) @ priors)
    tally = Tally(HALF_LIFE)
    for anchor, candidate in itertools.product(range(1000), range(50)):
        pair = anchor_id(anchor), candidate_id(anchor, candidate)
        tally.add(*pair, Metric.EXPOSURES, NOW, exposures[anchor, candidate].sum())
        tally.add(*pair, Metric.EXPECTED, NOW, exposures[anchor, candidate] @ priors)
        tally.add(*pair, Metric.CLICKS, NOW, clicks[anchor, candidate].sum())
    found, raw = orders(counts_of(tally, world), world)
    print(f"mean Kendall tau with the true order: COEC {found:.3f}, raw click rate {raw:.3f}")
    return found, raw


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_a_thousand_anchors_the_true_order_is_found_with_priors_learned_from_exploration_not_by_click_rates():
    found, raw = found_with_learned_priors(lookups=3000)
    assert found > 0.8
    assert found > raw + 0.1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_with_few_clicks_a_pair_evidence_is_a_little_below_the_raw_rate_of_a_policy_that_is_right_in_part():
    found, raw = found_with_learned_priors(lookups=200)
    assert raw - 0.05 < found < raw


def test_what_is_counted_of_look_ups_is_what_happened_in_them():
    world = make_world(2, anchors=3, candidates=8, places=4, found=6)
    lookups = list(simulate(world, [0, 1, 2, 1, 1], ExplorationRules(share=0.5, pool=6, new_item_share=0), 5))
    counts = counts_of(tally_of(lookups, SurfacePriors()), world)
    expected = np.zeros((3, 8, 2))
    for one in lookups:
        for row, clicked in zip(one.slate.items, one.clicked, strict=True):
            expected[one.anchor, row] += 1, clicked
    assert counts[..., [Metric.EXPOSURES, Metric.CLICKS]] == pytest.approx(expected)


def test_clicks_follow_attractiveness_and_position():
    world = make_world(3, anchors=1, candidates=6, places=3)
    clicked, shown = np.zeros((6, 3)), np.zeros((6, 3))
    for one in simulate(world, [0] * 20_000, ExplorationRules(share=1.0, pool=6, new_item_share=0), 1):
        assert one.slate.policy is Policy.SHUFFLED
        for place, row in enumerate(one.slate.items):
            shown[row, place] += 1
            clicked[row, place] += one.clicked[place]
    chance = world.attractiveness[0][:, None] * world.examination
    assert np.abs(clicked / shown - chance).max() < 0.04
    exposures, clicks = count_positions(world, 20_000, 1)
    assert exposures.sum((1, 2)) == pytest.approx([60_000])
    assert sorted(exposures[0].max(0)) == [20_000] * 3, "one order, where all are found and nothing is explored"
    best = np.argsort(-world.belief[0])[:3]
    assert clicks[0, best, range(3)] / 20_000 == pytest.approx(chance[best, range(3)], abs=0.02)
    assert world.value(best[None]) == pytest.approx(chance[best, range(3)].sum())


def test_a_look_up_finds_so_many_of_the_candidates_by_chance_in_the_policys_order():
    world = make_world(3, anchors=1, candidates=20, places=5, found=5)
    exposures, _ = count_positions(world, 20_000, 1)
    assert exposures[0].sum(1) / 20_000 == pytest.approx(np.full(20, 0.25), abs=0.02)
    rank = np.argsort(np.argsort(-world.belief[0]))
    mean_place = exposures[0] @ np.arange(5) / exposures[0].sum(1)
    assert kendalltau(mean_place, rank).statistic > 0.95


def test_the_same_seed_gives_the_same_world_and_the_same_look_ups():
    one, other = make_world(9, anchors=4), make_world(9, anchors=4)
    rules = ExplorationRules()
    assert list(simulate(one, [0, 1, 2], rules, 1)) == list(simulate(other, [0, 1, 2], rules, 1))
