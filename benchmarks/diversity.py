"""What diversity and near-duplicate removal cost: intra-list distance against NDCG on Online Retail.

    python -m benchmarks.diversity [--json FILE]

Candidates are ranked offline (benchmarks/retail_cuts.py), go through the rules and the code that diversifies look-ups,
and are scored as `nearkin score` does. The distance of two items is 1 - the cosine of their vectors, that of a list the
mean over its pairs (intra-list distance: Ziegler et al., "Improving recommendation lists through topic
diversification", WWW 2005); sketches decide, whole vectors judge. Settings are chosen on the first three cuts; the last
one is reported. Differences are paired, against no diversity and no near-duplicate removal.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Bar, conclude, print_table
from benchmarks.retail_cuts import RankedAnchor, RetailCut, pooled, retail_cuts
from nearkin.core.diversity import diversify
from nearkin.core.rules import Rules, apply_rules
from nearkin.encoders.bundle import load_encoder
from nearkin.learning.score import score_run

K = 10
STRENGTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
NEAR_DUPLICATES = (0.98, 0.96, 0.94, 0.9, 0.85)
OFF = Rules(near_duplicate=2.0, same_title=2.0)

Row = dict[str, Any]
#: Gives the rows that are shown.
Answer = Callable[[RankedAnchor], Sequence[int]]


def diversified(strength: float) -> Answer:
    return lambda one: diversify(one.order, one.scores, one.candidates, strength, K).order[:K]


def ruled(rules: Rules) -> Answer:
    return lambda one: apply_rules(one.order, one.candidates, rules, enough=K).order


ANSWERS: dict[str, Answer] = {
    "as ranked": lambda one: one.order[:K],
    **{f"diversity {strength:g}": diversified(strength) for strength in STRENGTHS},
    **{
        f"near duplicates from {cosine:g}": ruled(Rules(near_duplicate=cosine, same_title=2.0))
        for cosine in NEAR_DUPLICATES
    },
    "same title": ruled(Rules(near_duplicate=2.0)),
    "default rules": ruled(Rules()),
}


def distance(cut: RetailCut, shown: Sequence[str]) -> float:
    """Intra-list distance of an answer; 0 of one with less than two items."""
    if len(shown) < 2:
        return 0.0
    vectors = cut.look_up.vectors_of(shown)
    cosines = vectors @ vectors.T
    return float(1 - cosines[np.triu_indices(len(shown), 1)].mean())


def measure(cuts: Sequence[RetailCut]) -> list[Row]:
    """Distance, NDCG and its loss for each way of answering, over the anchors of some cuts."""
    truth = pooled(cuts)
    runs: dict[str, dict[str, list[str]]] = {}
    distances: dict[str, dict[str, float]] = {}
    for way, answer in ANSWERS.items():
        runs[way], distances[way] = {}, {}
        for cut in cuts:
            for anchor, one in cut.ranked.items():
                shown = one.ids(answer(one))
                runs[way][f"{cut.name} {anchor}"] = shown
                distances[way][f"{cut.name} {anchor}"] = distance(cut, shown)
    rows: list[Row] = []
    for way, run in runs.items():
        for found in score_run(run, truth, runs["as ranked"], K):
            if found.metric != f"NDCG@{K}":
                continue
            spread = np.mean([distances[way].get(anchor, 0.0) for anchor in truth.slices[found.slice]])
            rows.append({"way": way, "slice": found.slice, "anchors": found.anchors, "distance": float(spread),
                         "ndcg": found.value.mean, "difference": found.difference})  # type: ignore[union-attr]  # fmt: skip
    return rows


def time_it(cut: RetailCut) -> float:
    """Milliseconds to diversify one pool, the median over anchors."""
    taken = []
    for one in cut.ranked.values():
        began = time.perf_counter()
        diversify(one.order, one.scores, one.candidates, 0.3, K)
        taken.append((time.perf_counter() - began) * 1e3)
    return float(np.median(taken))


def show(title: str, rows: Sequence[Row]) -> None:
    table = []
    for row in rows:
        gain = row["difference"]
        table.append(
            (row["way"], row["slice"], row["anchors"], f"{row['distance']:.4f}", f"{row['ndcg']:.4f}",
             f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
        )  # fmt: skip
    print_table(title, ("answers", "slice", "anchors", "distance", "NDCG@10", "against as ranked"), table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    *earlier, last = retail_cuts(load_encoder(None, 2))
    results = {"chosen on": measure(earlier), "held out": measure([last])}
    for name, rows in results.items():
        show(f"Online Retail, {name}", rows)
    bars = [Bar(what="diversify a pool of 50, ten places, median", measured=time_it(last), goal=0.3, unit="ms")]
    figures = {
        name: [{**row, "difference": asdict(row["difference"])} for row in rows] for name, rows in results.items()
    }
    return conclude({"answers": figures}, bars, args.json)


if __name__ == "__main__":
    sys.exit(main())
