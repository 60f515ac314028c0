"""How good a run is: what each anchor's answer scores, the means over anchors, and how sure they are.

An answer is what a run holds for an anchor, without the anchor itself and without repeats, cut at k. In the formulas
`g(i)` is the grade of the item at rank i (0 where it is not right), `P` the number of the anchor's positives. An anchor
that the run does not answer scores 0 in all of them.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nearkin.core.errors import Misconfigured
from nearkin.learning.run_file import Run
from nearkin.learning.truth import Truth

Id = TypeVar("Id", bound=Hashable)

#: How often anchors are drawn anew for an interval.
DRAWS = 2000
SEED = 0

#: How many drawn anchors are in memory at once.
_DRAWN_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over anchors, and the ends of its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Score:
    """What a run scores on one slice by one metric.

    Attributes:
        slice: the group of anchors.
        metric: its name, such as `NDCG@10`.
        anchors: how many anchors the mean is over.
        value: the mean, with its interval; coverage, which is no mean over anchors, has the value alone.
        against: the same of the run that it is compared with; None where there is none.
        difference: value less against, with its paired interval: both runs on the same drawn anchors.
    """

    slice: str
    metric: str
    anchors: int
    value: Interval | float
    against: Interval | float | None = None
    difference: Interval | float | None = None


def cut(answer: Iterable[Id], anchor: Id, k: int) -> list[Id]:
    """The first k different items of an answer that are not the anchor."""
    return [item for item in dict.fromkeys(answer) if item != anchor][:k]


def recall(answer: Sequence[Id], grades: Mapping[Id, float], k: int) -> float:
    """Recall@k, capped: hits / min(k, P), so that 1 can be reached where more than k items are right."""
    return sum(item in grades for item in answer[:k]) / min(k, len(grades))


def ndcg(answer: Sequence[Id], grades: Mapping[Id, float], k: int) -> float:
    """NDCG@k: the sum of g(i) / log2(i + 1) over ranks i to k, divided by that of the best possible answer.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20 (2002), with the discount
    that reaches rank 2 too; the gain is the grade, as in `trec_eval`.
    """
    best = sorted(grades.values(), reverse=True)
    return _discounted([grades.get(item, 0.0) for item in answer[:k]]) / _discounted(best[:k])


def reciprocal_rank(answer: Sequence[Id], grades: Mapping[Id, float], k: int) -> float:
    """What MRR@k is the mean of: 1 / the rank of the first item that is right, 0 where none is among the first k.

    Voorhees, "The TREC-8 question answering track report", 1999.
    """
    return next((1 / rank for rank, item in enumerate(answer[:k], 1) if item in grades), 0.0)


def average_precision(answer: Sequence[Id], grades: Mapping[Id, float], k: int) -> float:
    """What MAP@k is the mean of: precision at the rank of each hit among the first k, summed, over min(k, P).

    Buckley and Voorhees, "Retrieval system evaluation", in TREC: Experiment and Evaluation, 2005; capped as recall is.
    With k beyond the answer's length and P it is the MAP of `trec_eval`.
    """
    hits, total = 0, 0.0
    for rank, item in enumerate(answer[:k], 1):
        if item in grades:
            hits += 1
            total += hits / rank
    return total / min(k, len(grades))


def novelty(answer: Sequence[str], popularity: Mapping[str, int], visits: int) -> float:
    """The mean surprise of the items shown, in bits: -log2 of the share of past visits that held the item.

    Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 107 (2010). The share is
    (n + 1) / (visits + 1), so that the surprise of an item that was in no visit is finite. An answer without items
    surprises nobody: 0, so that answering fewer anchors never raises the mean.
    """
    if not answer:
        return 0.0
    return sum(math.log2((visits + 1) / (popularity.get(item, 0) + 1)) for item in answer) / len(answer)


def coverage(answers: Iterable[Sequence[str]], catalogue: frozenset[str]) -> float:
    """The share of the catalogue that stands in any of the answers.

    Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy: evaluating recommender systems by coverage and serendipity",
    RecSys 2010 (catalogue coverage).
    """
    return len({item for answer in answers for item in answer} & catalogue) / len(catalogue)


def bootstrap(values: NDArray[np.float64], rng: np.random.Generator) -> list[Interval]:
    """The mean of each column of (anchors, columns), with its 95% percentile interval.

    Anchors are drawn anew, as many as there are, `DRAWS` times, the same for all columns; the interval ends at the
    2.5th and 97.5th percentile of the means (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter
    13). A column of differences so gets the paired interval. It says how much the choice of anchors matters, nothing
    else.
    """
    count = len(values)
    means = np.empty((DRAWS, values.shape[1]))
    rows = max(1, _DRAWN_AT_ONCE // count)
    for start in range(0, DRAWS, rows):
        drawn = rng.integers(0, count, (min(rows, DRAWS - start), count))
        for column in range(values.shape[1]):
            means[start : start + rows, column] = values[:, column][drawn].mean(1)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return [Interval(*map(float, ends)) for ends in zip(values.mean(0), low, high, strict=True)]


def score_run(run: Run, truth: Truth, against: Run | None = None, k: int = 10) -> list[Score]:
    """Score a run on every slice, and where another one is given what it gains over that one.

    Recall@k, NDCG@k, MRR@k and MAP@k always; Novelty@k where the truth knows past visits, Coverage@k where it knows the
    catalogue. Draws are seeded: the same files give the same figures.

    Raises:
        Misconfigured: a run answers none of the anchors.
    """
    runs = [run] if against is None else [run, against]
    for one in runs:
        if not any(one.get(anchor) for anchors in truth.slices.values() for anchor in anchors):
            raise Misconfigured(
                "answers none of the anchors that count",
                field="run" if one is run else "the run to compare with",
                remedy="give a run on the same items as the truth, whose ids are written in the same way",
                reason="run",
            )
    rng = np.random.default_rng(SEED)
    scores: list[Score] = []
    for name, anchors in truth.slices.items():
        answers = [[cut(one.get(anchor, ()), anchor, k) for anchor in anchors] for one in runs]
        measured = [measure(found, anchors, truth, k) for found in answers]
        metrics, columns = list(measured[0]), [np.column_stack(list(one.values())) for one in measured]
        if against is not None:
            columns.append(columns[0] - columns[1])
        intervals = bootstrap(np.hstack(columns), rng)
        for place, metric in enumerate(metrics):
            scores.append(Score(name, metric, len(anchors), *intervals[place :: len(metrics)]))
        if truth.catalogue:
            shares = [coverage(found, truth.catalogue) for found in answers]
            differences = [shares[0] - shares[1]] if against is not None else []
            scores.append(Score(name, f"Coverage@{k}", len(anchors), *shares, *differences))
    return scores


def measure(
    answers: Sequence[Sequence[str]], anchors: Sequence[str], truth: Truth, k: int
) -> dict[str, NDArray[np.float64]]:
    """Each anchor's score by each metric that has one for every anchor; answers are `cut` already."""
    grades = [truth.positives[anchor] for anchor in anchors]
    metrics = {"Recall": recall, "NDCG": ndcg, "MRR": reciprocal_rank, "MAP": average_precision}
    values = {
        f"{name}@{k}": np.array([metric(*pair, k) for pair in zip(answers, grades, strict=True)])
        for name, metric in metrics.items()
    }
    if truth.visits:
        surprise = [novelty(answer, truth.popularity, truth.visits) for answer in answers]
        values[f"Novelty@{k}"] = np.array(surprise)
    return values


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
