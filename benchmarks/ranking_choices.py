"""What each choice in the ranking gains: the tables of docs/ranking.md.

    python -m benchmarks.ranking_choices [--json FILE]

*Choices*: half-life of evidence, prior of the lift, cosine in place of the lift; each on the warm Online Retail anchors
of the three cuts that settings are chosen on, the weights fitted on two cuts and scored on the third, the mean of the
three. *Transfer*: the shipped weights on MovieLens (latest small), which nothing was chosen on, beside weights fitted
on the very warm anchors that are scored. A visit is a run of up to 20 films that one user rated 4 or more; a film has
Wikipedia's text and MovieLens' genres. By brute force (`learning/offline_lookups.py`); the last Online Retail cut is
not read.
"""

import argparse
import csv
import gzip
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import numpy as np

from benchmarks.datasets import unpack
from benchmarks.ranking import HALF_LIFE_DAYS, answer
from benchmarks.report import conclude, print_table
from nearkin.cli.evaluate import SHIPPED, read_shipped
from nearkin.cli.fit import SHIPPED_CUTS, states_of
from nearkin.core import features
from nearkin.core.evidence import DAY_MS, EvidenceRules
from nearkin.core.item import Content, ItemState, upserted
from nearkin.core.ports import ContentEncoder
from nearkin.core.ranking import DEFAULT_WEIGHTS, RankingWeights
from nearkin.core.retrieval import Ranking
from nearkin.encoders.bundle import load_encoder
from nearkin.learning.fit_ranking import FITTED, Judged, fit_weights
from nearkin.learning.item_to_item import Evaluation, TransactionLog, split_log
from nearkin.learning.offline_lookups import OfflineLookup, OfflineLookups
from nearkin.learning.score import Interval, score_run

METRICS = ("Recall@10", "NDCG@10")

#: Half-life in days, prior of the lift, and which features are fitted.
CHOICES: dict[str, tuple[int, float, tuple[str, ...]]] = {
    **{f"half-life of {days} days": (days, features.CO_VISITS_PRIOR, FITTED) for days in (30, 60, 90, 180, 3650)},
    **{f"prior of the lift {prior:g}": (HALF_LIFE_DAYS, prior, FITTED) for prior in (3.0, 10.0)},
    "cosine in place of the lift": (HALF_LIFE_DAYS, features.CO_VISITS_PRIOR, ("fused", "co_visit_cosine", "price")),
}

MOVIE_CUTS = ("2003-01-01", "2006-01-01")
MOVIES_A_VISIT, LIKED = 20, 4.0


@dataclass(frozen=True)
class Asked:
    """The anchors of one cut as look-ups see them."""

    evaluation: Evaluation
    lookups: Sequence[OfflineLookup]

    @property
    def judged(self) -> list[Judged]:
        """The warm ones with what is right."""
        positives, warm = self.evaluation.truth.positives, set(self.evaluation.truth.slices["warm"])
        return [
            Judged(one.features, np.array([facts.id in positives[one.anchor] for facts in one.candidates.facts]))
            for one in self.lookups
            if one.anchor in warm
        ]

    def scored(self, weights: RankingWeights, ranking: Ranking = Ranking.COMBINED) -> dict[str, tuple[float, float]]:
        """Recall and NDCG, by slice."""
        run = {one.anchor: answer(one, ranking, weights) for one in self.lookups}
        found: dict[str, dict[str, float]] = {}
        for one in score_run(run, self.evaluation.truth, None, 10):
            if one.metric in METRICS and isinstance(one.value, Interval):
                found.setdefault(one.slice, {})[one.metric] = one.value.mean
        return {name: (values[METRICS[0]], values[METRICS[1]]) for name, values in found.items()}


def ask(
    evaluation: Evaluation, items: Mapping[str, ItemState], encoder: ContentEncoder, days: int, slices: Sequence[str]
) -> Asked:
    truth = evaluation.truth
    kept = {name: anchors for name, anchors in truth.slices.items() if name in slices}
    look_up = OfflineLookups(items, evaluation.training, encoder, EvidenceRules(half_life_ms=days * DAY_MS))
    lookups = list(look_up([anchor for anchors in kept.values() for anchor in anchors]))
    return Asked(replace(evaluation, truth=replace(truth, slices=kept)), lookups)


def fitted(asked: Sequence[Asked], names: Sequence[str]) -> RankingWeights:
    judged = [one for some in asked for one in some.judged]
    without = {**DEFAULT_WEIGHTS.features, **dict.fromkeys(FITTED, 0.0)}
    start = RankingWeights("nothing", without)
    return fit_weights(judged, weights_id="tried", fitted_on="", start=start, fitted=names).weights


@contextmanager
def lift_prior(value: float) -> Iterator[None]:
    shipped = features.CO_VISITS_PRIOR
    features.CO_VISITS_PRIOR = value
    try:
        yield
    finally:
        features.CO_VISITS_PRIOR = shipped


def measure_choices(encoder: ContentEncoder) -> dict[str, tuple[float, ...]]:
    """Of each choice Recall and NDCG, the mean over the cuts, each with weights that were fitted on the others."""
    datasets = [read_shipped(cut, until) for cut, until in SHIPPED_CUTS]
    items = [states_of(known) for known in datasets]
    results: dict[str, tuple[float, ...]] = {}
    for name, (days, prior, names) in CHOICES.items():
        with lift_prior(prior):
            asked = [
                ask(known.evaluation, states, encoder, days, ("warm",))
                for known, states in zip(datasets, items, strict=True)
            ]
        scores = [one.scored(fitted([other for other in asked if other is not one], names))["warm"] for one in asked]
        results[name] = tuple(np.mean(scores, axis=0).tolist())
        print(f"{name}: {results[name]}", flush=True)
    return results


def read_movies(folder: Path) -> dict[str, ItemState]:
    """The films of MovieLens with what Wikipedia says of them, where title and year agree."""
    extracts: dict[tuple[str, int], str] = {}
    with gzip.open(unpack("wikipedia_movies", folder) / "movies.jsonl.gz", "rt", encoding="utf-8") as lines:
        for film in map(json.loads, lines):
            extracts[film["title"].lower(), film["year"]] = film.get("extract") or ""
    films = {}
    with (folder / "ml_latest_small" / "movies.csv").open(encoding="utf-8", newline="") as file:
        for film_id, named, genres in csv.reader(file):
            parts = re.fullmatch(r"(.*?)(?: \(.*\))? \((\d{4})\)", named.strip())
            if parts is None:
                continue
            title, year = re.sub(r"^(.*), (The|A|An)$", r"\2 \1", parts[1]), int(parts[2])
            text = next(
                (found for at in (year, year - 1, year + 1) if (found := extracts.get((title.lower(), at)))), ""
            )
            paths = tuple((genre,) for genre in genres.split("|") if not genre.startswith("("))
            films[film_id] = upserted(film_id, Content(title=title, description=text, categories=paths), 1)
    return films


def read_ratings(folder: Path, films: Mapping[str, ItemState]) -> TransactionLog:
    """What users liked, in runs of some films each; a run is at the time of its first rating."""
    liked = []
    with (folder / "ml_latest_small" / "ratings.csv").open(encoding="utf-8", newline="") as file:
        for user, film, rating, at in csv.reader(file):
            if film in films and float(rating) >= LIKED:
                liked.append((int(user), int(at), film))
    visits, items, times = [], [], []
    for user, rated in groupby(sorted(liked), key=lambda one: one[0]):
        run = list(rated)
        for place, (_, _, film) in enumerate(run):
            first = place - place % MOVIES_A_VISIT
            visits.append(f"{user}-{first}")
            items.append(film)
            times.append(datetime.fromtimestamp(run[first][1], UTC))
    return TransactionLog.of(visits, items, times)


def measure_transfer(encoder: ContentEncoder, folder: Path) -> list[tuple[str, str, str, float, float]]:
    """(cut, slice and anchors, weights, recall, NDCG) on MovieLens."""
    unpack("ml_latest_small", folder)
    films = read_movies(folder)
    log = read_ratings(folder, films)
    rows = []
    for cut in MOVIE_CUTS:
        evaluation = split_log(log, datetime.fromisoformat(cut).replace(tzinfo=UTC))
        known = {film: state for film, state in films.items() if film in evaluation.truth.catalogue}
        asked = ask(evaluation, known, encoder, 3650, ("warm", "cold"))
        own = fitted([asked], FITTED)
        print(cut, {name: own.features[name] for name in FITTED})
        for name, weights, ranking in (
            ("content alone", DEFAULT_WEIGHTS, Ranking.CONTENT),
            ("evidence alone", DEFAULT_WEIGHTS, Ranking.EVIDENCE),
            ("shipped", DEFAULT_WEIGHTS, Ranking.COMBINED),
            ("fitted on these very warm anchors", own, Ranking.COMBINED),
        ):
            for group, (recall, ndcg) in asked.scored(weights, ranking).items():
                rows.append((cut, f"{group} {len(evaluation.truth.slices[group])}", name, recall, ndcg))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    encoder = load_encoder(None, 2)
    with tempfile.TemporaryDirectory() as temporary:
        transfer = measure_transfer(encoder, Path(temporary))
    shown = [(cut, group, name, f"{recall:.4f}", f"{ndcg:.4f}") for cut, group, name, recall, ndcg in transfer]
    print_table("MovieLens", ("cut", "slice", "weights", *METRICS), shown)
    choices = measure_choices(encoder)
    rows = [(name, *(f"{value:.4f}" for value in values)) for name, values in choices.items()]
    print_table(f"{SHIPPED}, warm, cuts that are chosen on", ("choice", *METRICS), rows)
    return conclude({"choices": choices, "transfer": transfer}, [], args.json)


if __name__ == "__main__":
    sys.exit(main())
