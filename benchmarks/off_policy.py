"""What evidence and estimates off policy recover, where the truth is known.

    python -m benchmarks.off_policy [--worlds 200] [--json FILE]

- A made-up world (`nearkin.learning.simulation`) of 1,000 anchors with 50 candidates each, whose look-ups each find ten
  by chance and show them in an order confounded with attractiveness: mean Kendall tau of clicks over expected clicks,
  and of the raw click rate, with the true order. What a position brings is learned from 4,000 shuffled look-ups, as
  many as exploration at its default shuffles of 200,000; beside it stands what the true examination would give.
- 200 seeded worlds whose slates are drawn by the code that serves: in how many the 95% interval of SNIPS holds what a
  policy truly earns that shows the best, or the worst, of the pool.
- Open Bandit Dataset (Saito et al. 2020, small version: 10,000 places a policy): the click rate of the Bernoulli
  Thompson sampling policy estimated from the log of the random one, against what it really got. The target's
  probabilities are its own log's frequencies of items at each position. 38 clicks tell little: the mean relative error
  over bootstrap draws of the log is what published figures are.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from scipy.stats import binom, kendalltau  # type: ignore[import-untyped]

from benchmarks.datasets import unpack
from benchmarks.report import Bar, conclude, print_table
from nearkin.core.evidence import DAY_MS, Metric, Tally, coec, decay_to
from nearkin.core.exploration import ExplorationRules
from nearkin.core.features import COEC_PRIOR
from nearkin.core.position_priors import Method
from nearkin.learning.counterfactual import Array, Estimate, LoggedPlaces, ips, snips
from nearkin.learning.simulation import World, count_positions, learn_priors, make_world, places_of, simulate

#: Look-ups of each anchor, so that a candidate stands in a fifth of so many slates.
LOOKUPS = (200, 1000, 5000)
#: Look-ups that what a position brings is learned from.
SHUFFLED = 4000
NOW_MS = 1_700_000_000_000

#: Of the simulated exploration logs.
LOGGED, POOL, PLACES, ANCHORS = 2500, 12, 5, 20
SHARE = 0.3

DRAWS = 500
PUBLISHED = 0.312


def learn_examination(world: World) -> Array:
    """(places,) what each position brings, learned as the feedback worker learns it, from shuffled look-ups alone."""
    anchors = np.arange(SHUFFLED) % len(world.belief)
    learned = learn_priors(
        simulate(world, anchors, ExplorationRules(share=1.0, pool=world.found, new_item_share=0.0), seed=2)
    )
    if learned.method is not Method.RANDOMISED:
        raise RuntimeError(f"priors are {learned.method}: the exploration log tells too little")
    return np.array(learned.curve[: world.places])


def recover_order(world: World, lookups: int, learned: Array) -> dict[str, float]:
    """How well the true order is found from so many look-ups of each anchor."""
    exposures, clicks = count_positions(world, lookups, seed=1)
    counts = count_pairs(exposures, clicks, learned)
    clicked, shown_in_all = counts[..., Metric.CLICKS], counts[..., Metric.EXPOSURES]
    truly = count_pairs(exposures, clicks, world.examination)[..., Metric.EXPECTED]
    return {
        "clicks a pair": float(clicked.mean()),
        "coec": mean_tau(coec(clicked, counts[..., Metric.EXPECTED], COEC_PRIOR), world),
        "click rate": mean_tau(clicked / np.maximum(shown_in_all, 1e-9), world),
        "coec, true examination": mean_tau(coec(clicked, truly, COEC_PRIOR), world),
    }


def count_pairs(exposures: Array, clicks: Array, curve: Array) -> Array:
    """(anchors, candidates, metrics) what is remembered of each pair, by some curve of the positions."""
    # With as many expected clicks as there were, as a surface's priors are learned.
    priors = curve * clicks.sum() / (exposures.sum((0, 1)) @ curve)
    tally = Tally(30 * DAY_MS)
    for anchor, candidate in itertools.product(*map(range, exposures.shape[:2])):
        pair = str(anchor), f"item-{candidate}"
        shown = exposures[anchor, candidate]
        tally.add(*pair, Metric.EXPOSURES, NOW_MS, float(shown.sum()))
        tally.add(*pair, Metric.EXPECTED, NOW_MS, float(shown @ priors))
        tally.add(*pair, Metric.CLICKS, NOW_MS, float(clicks[anchor, candidate].sum()))
    counts = np.array([list(delta.pairs.values()) for delta in tally.deltas()])
    return counts * decay_to(NOW_MS, tally.landmark, 30 * DAY_MS)


def mean_tau(scores: Array, world: World) -> float:
    taus = [kendalltau(*pair).statistic for pair in zip(scores, world.attractiveness, strict=True)]
    return float(np.mean(taus))


def cover(worlds: int) -> dict[str, dict[str, float]]:
    """In how many worlds the interval holds the truth, for each estimator and target."""
    found: dict[str, list[tuple[float, ...]]] = {}
    rules = ExplorationRules(share=SHARE, pool=POOL, new_item_share=0.0)
    for seed in range(worlds):
        world = make_world(seed, anchors=ANCHORS, candidates=POOL, places=PLACES)
        anchors = np.random.default_rng((seed, 0)).integers(0, ANCHORS, LOGGED)
        lookups = list(simulate(world, anchors, rules, seed))
        by_attractiveness = np.argsort(-world.attractiveness, axis=1)
        for target, shown in (
            ("best", by_attractiveness[:, :PLACES]),
            ("worst", by_attractiveness[:, ::-1][:, :PLACES]),
        ):
            places, truth = places_of(lookups, shown), world.value(shown)
            for estimator in (ips, snips):
                one = estimator(places)
                row = (
                    one.low <= truth <= one.high,
                    one.value / truth - 1,
                    (one.high - one.low) / 2 / truth,
                    one.effective,
                )
                found.setdefault(f"{estimator.__name__}, the {target}", []).append(row)
    columns = ("covered", "relative error", "relative half width", "effective")
    return {
        name: dict(zip(columns, (float(np.sum(rows, 0)[0]), *map(float, np.mean(rows, 0)[1:])), strict=True))
        for name, rows in found.items()
    }


def open_bandit(folder: Path) -> dict[str, float]:
    """The relative error of the estimated click rate, random to Bernoulli Thompson sampling, campaign all."""
    root = unpack("obd_open_bandit", folder)
    random, thompson = (pd.read_csv(root / name / "all" / "all.csv.gz") for name in ("random", "bts"))
    shown = thompson.groupby(["position", "item_id"]).size() / thompson.groupby("position").size()
    wanted = shown.reindex(pd.MultiIndex.from_frame(random[["position", "item_id"]]), fill_value=0.0).to_numpy()
    # A row of this log is one place, a look-up of its own.
    log = LoggedPlaces(
        slate=np.arange(len(random)),
        position=random.position.to_numpy(),
        propensity=random.propensity_score.to_numpy(),
        target=wanted,
        reward=random.click.to_numpy(float),
        log_rate=np.ones(len(random)),
    )
    truth = float(thompson.click.mean())
    estimates: dict[str, Estimate] = {"ips": ips(log), "snips": snips(log)}
    errors: dict[str, list[float]] = {name: [] for name in estimates}
    rng = np.random.default_rng(0)
    weight = log.target / log.propensity
    for _ in range(DRAWS):
        # The estimators' formulas without their checks: among so many draws some are off by chance.
        drawn = rng.integers(0, len(random), len(random))
        position, drawn_weight = log.position[drawn], weight[drawn]
        earned = np.bincount(position, drawn_weight * log.reward[drawn])
        means = earned[1:] / np.bincount(position, drawn_weight)[1:]
        errors["ips"].append(abs(float(earned.sum()) / len(random) / truth - 1))
        errors["snips"].append(abs(float(np.bincount(position)[1:] @ means) / len(random) / truth - 1))
    figures = {
        "clicks": float(random.click.sum()),
        "truth": truth,
        "effective sample size": estimates["snips"].effective,
    }
    for name, one in estimates.items():
        figures |= {name: one.value, f"{name} low": one.low, f"{name} high": one.high}
        figures[f"{name} relative error"] = abs(one.value / truth - 1)
        figures[f"{name} mean relative error over draws"] = float(np.mean(errors[name]))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200, help="how many worlds an estimate is held against")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    world = make_world(1, anchors=1000, candidates=50, places=10, found=10)
    learned = learn_examination(world)
    orders = {f"{lookups} look-ups an anchor": recover_order(world, lookups, learned) for lookups in LOOKUPS}
    rows = [(name, *(f"{value:.3f}" for value in found.values())) for name, found in orders.items()]
    columns = ("mean Kendall tau with the true order", *next(iter(orders.values())))
    print_table("1,000 anchors of 50 candidates", columns, rows)
    coverage = cover(args.worlds)
    low, high = (int(end) for end in binom.interval(0.99, args.worlds, 0.95))
    rows = [(name, *(f"{value:.3f}" for value in found.values())) for name, found in coverage.items()]
    columns = ("estimator, target", *next(iter(coverage.values())))
    print_table(
        f"{args.worlds} worlds, {LOGGED:,} look-ups each; {low} to {high} hold 99% of a binomial of 0.95", columns, rows
    )
    with tempfile.TemporaryDirectory() as folder:
        bandit = open_bandit(Path(folder))
    print_table("Open Bandit Dataset, random to BTS", ("figure", "value"), [(k, f"{v:.5g}") for k, v in bandit.items()])
    most = orders[f"{LOOKUPS[1]} look-ups an anchor"]
    bars = [
        Bar(
            what="mean Kendall tau, COEC",
            measured=most["coec"],
            at_least=True,
            note=f"{LOOKUPS[1]:,} look-ups an anchor",
        ),
        Bar(what="the same, raw click rate", measured=most["click rate"]),
        *(
            Bar(
                what=f"worlds whose interval covers the truth, {name}", measured=one["covered"], must=low, at_least=True
            )
            for name, one in coverage.items()
            if name.startswith("snips")
        ),
        Bar(
            what="Open Bandit, SNIPS, mean relative error over draws",
            measured=bandit["snips mean relative error over draws"],
            note=f"published {PUBLISHED}, where the target's probabilities are simulated from its priors",
        ),
    ]
    return conclude({"orders": orders, "coverage": coverage, "open bandit": bandit}, bars, args.json)


if __name__ == "__main__":
    sys.exit(main())
