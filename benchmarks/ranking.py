"""What ranking by itself costs, and how good the shipped weights rank what nobody fitted on.

    python -m benchmarks.ranking [--speed] [--json FILE]

*Speed*: features, scores, order and what each feature adds, of 200 candidates with categories and prices, a quarter of
whose cosines are not known; on one thread, p50 of 2,000 calls. *Quality*: the Online Retail anchors of the last cut
(2011-10-01), which no weight or prior was chosen on, by brute force (`learning/offline_lookups.py`): content alone,
evidence alone and both, with paired 95% intervals. `nearkin evaluate online-retail` measures the same through the
service. `--speed` leaves quality out.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Bar, conclude, print_table
from nearkin.cli.evaluate import SHIPPED_CUT, read_shipped
from nearkin.cli.fit import states_of
from nearkin.core.candidates import AnchorContext, Candidates, CandidateSource, ItemFacts, SourcesOf
from nearkin.core.evidence import DAY_MS, EvidenceRules, Metric
from nearkin.core.features import compute_features
from nearkin.core.ranking import DEFAULT_WEIGHTS, RankingWeights, best_first, contributions, score
from nearkin.core.retrieval import Ranking
from nearkin.encoders.bundle import load_encoder
from nearkin.learning.offline_lookups import OfflineLookup, OfflineLookups
from nearkin.learning.score import Score, score_run

CANDIDATES, CALLS, WARM_UP, K = 200, 2_000, 200, 10

#: What is asked of ranking by itself, in milliseconds, and of the last cut.
SPEED_MS = (0.6, 0.15)
QUALITY = {("warm", "Recall@10"): (0.505, 0.55), ("warm", "NDCG@10"): (0.55, 0.60)}
COLD_GOALS = {"Recall@10": 0.41, "NDCG@10": 0.46}

#: The half-life that the shipped weights were fitted with.
HALF_LIFE_DAYS = 90

#: In which lists a ranking's answers must stand: content alone has no others, and evidence alone shows no others.
_LISTS = {
    Ranking.COMBINED: frozenset(CandidateSource),
    Ranking.CONTENT: frozenset({CandidateSource.CONTENT, CandidateSource.LEXICAL}),
    Ranking.EVIDENCE: frozenset({CandidateSource.CO_VISITS}),
}


def make_candidates(count: int) -> tuple[AnchorContext, Candidates]:
    rng = np.random.default_rng(0)
    facts = tuple(
        ItemFacts(f"item-{n}", categories=(f"home/room-{n % 9}",), price=1.0 + n, currency="GBP", first_seen=10**12 + n)
        for n in range(count)
    )
    content = rng.random(count)
    by_words = rng.random(count) < 0.25
    ids = [one.id for one in facts]
    lexical = {ids[n]: 0.5 for n in np.flatnonzero(by_words)}
    meaning = dict.fromkeys([one for one in ids if one not in lexical], 0.5)
    named = {CandidateSource.CONTENT: meaning, CandidateSource.LEXICAL: lexical}
    candidates = Candidates(
        facts, SourcesOf(ids, named), np.where(by_words, np.nan, content), rng.random(count),
        rng.poisson(2.0, (count, len(Metric))).astype(float), rng.poisson(40.0, count).astype(float),
    )  # fmt: skip
    return AnchorContext(facts[0], 60.0, 5_000.0, 10**12 + 30 * DAY_MS), candidates


def measure_speed() -> dict[str, float]:
    anchor, candidates = make_candidates(CANDIDATES)
    took = []
    for _ in range(WARM_UP + CALLS):
        began = time.perf_counter()
        features = compute_features(anchor, candidates)
        scores = score(features, DEFAULT_WEIGHTS)
        best_first(scores, candidates)
        contributions(features, DEFAULT_WEIGHTS)
        took.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.percentile(took[WARM_UP:], [50, 99])
    return {"candidates": CANDIDATES, "calls": CALLS, "p50_ms": float(p50), "p99_ms": float(p99)}


def answer(lookup: OfflineLookup, ranking: Ranking, weights: RankingWeights = DEFAULT_WEIGHTS) -> list[str]:
    candidates = lookup.candidates
    order = best_first(score(lookup.features, weights.only(ranking)), candidates)
    listed = [row for row in order if any(one.name in _LISTS[ranking] for one in candidates.sources[row])]
    return [candidates.facts[row].id for row in listed[:K]]


def measure_quality() -> dict[str, list[Score]]:
    """The scores of each ranking on the last cut, against those of content alone."""
    known = read_shipped(SHIPPED_CUT)
    truth = known.evaluation.truth
    rules = EvidenceRules(half_life_ms=HALF_LIFE_DAYS * DAY_MS)
    look_up = OfflineLookups(states_of(known), known.evaluation.training, load_encoder(None, 2), rules)
    lookups = list(look_up([anchor for anchors in truth.slices.values() for anchor in anchors]))
    runs = {ranking: {one.anchor: answer(one, ranking) for one in lookups} for ranking in Ranking}
    return {str(ranking): score_run(run, truth, runs[Ranking.CONTENT], K) for ranking, run in runs.items()}


def show_quality(scores: dict[str, list[Score]]) -> list[Bar]:
    rows, bars = [], []
    for ranking, measured in scores.items():
        for one in map(asdict, measured):
            if one["metric"] not in COLD_GOALS:
                continue
            cells = ("{mean:.4f} [{low:.4f}, {high:.4f}]", "{mean:+.4f} [{low:+.4f}, {high:+.4f}]")
            value, gain = cells[0].format(**one["value"]), cells[1].format(**one["difference"])
            rows.append((one["slice"], one["anchors"], one["metric"], ranking, value, gain))
            if ranking == Ranking.COMBINED:
                bars += bars_of(one)
    print_table(
        "Online Retail from 2011-10-01", ("slice", "anchors", "metric", "ranking", "score", "gain"), sorted(rows)
    )
    return bars


def bars_of(one: dict[str, Any]) -> list[Bar]:
    what, gain = f"{one['slice']}, {one['metric']}", one["difference"]
    if one["slice"] == "cold":
        note = "the paired interval must not be wholly below 0"
        hurt = Bar(what=f"{what}, upper end of the gain", measured=gain["high"], must=0.0, at_least=True, note=note)
        return [Bar(what=what, measured=one["value"]["mean"], goal=COLD_GOALS[one["metric"]], at_least=True), hurt]
    must, goal = QUALITY[one["slice"], one["metric"]]
    return [
        Bar(what=what, measured=one["value"]["mean"], must=must, goal=goal, at_least=True),
        Bar(what=f"{what}, lower end of the gain", measured=gain["low"], must=0.0, at_least=True),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true", help="leave quality out")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    speed = measure_speed()
    must, goal = SPEED_MS
    bars = [
        Bar(
            what=f"ranking and explaining {CANDIDATES} candidates, p50", measured=speed["p50_ms"], must=must, goal=goal,
            unit="ms",
        )
    ]  # fmt: skip
    figures: dict[str, object] = {"speed": speed, "weights": DEFAULT_WEIGHTS.id}
    if not args.speed:
        scores = measure_quality()
        bars += show_quality(scores)
        figures["quality"] = {ranking: [asdict(one) for one in measured] for ranking, measured in scores.items()}
    return conclude(figures, bars, args.json)


if __name__ == "__main__":
    sys.exit(main())
