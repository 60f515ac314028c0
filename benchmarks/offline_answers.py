"""Ranked candidates of Online Retail anchors without a service: what rules, diversity and exploration then work on.

A cut's catalogue is searched by brute force (benchmarks/quality.py), co-visits are all those of the training visits,
undecayed, and features and weights are those that look-ups rank by.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from benchmarks.datasets import load_protocol, unpack
from benchmarks.quality import CUTS, ExactEngine, split
from nearkin.core.candidates import AnchorContext, Candidates, CandidateSource, ItemFacts, Source
from nearkin.core.evidence import Metric
from nearkin.core.features import compute_features
from nearkin.core.ranking import DEFAULT_WEIGHTS, best_first, score
from nearkin.core.sketch import sketch
from nearkin.encoders.bundle import load_encoder
from nearkin.learning.truth import Truth, read_objects, read_truth

Array = NDArray[np.float64]

#: How many candidates each source names.
DEPTH = 100

#: When the catalogue is looked up, and when the items were first seen that were sold before the cut.
NOW_MS, SOLD_BEFORE_MS = 1_000_000_000_000, 1


@dataclass(frozen=True, slots=True)
class RankedAnchor:
    """The candidates of one anchor, with their scores and their order."""

    anchor: str
    candidates: Candidates
    scores: Array
    order: list[int]


class RetailCut:
    """The catalogue and the visits before one cut.

    Args:
        folder: of the split.
    """

    def __init__(self, folder: Path) -> None:
        self.truth: Truth = read_truth(folder)
        texts = {item["id"]: item["text"] for _, item in read_objects(folder / "items.jsonl")}
        self._engine = ExactEngine.of(texts, load_encoder(None, 2))
        self.row = {item: row for row, item in enumerate(self._engine.ids)}
        visits = [visit["items"] for _, visit in read_objects(folder / "train_visits.jsonl")]
        pairs = {(number, self.row[item]) for number, items in enumerate(visits) for item in items if item in self.row}
        rows, columns = np.array(sorted(pairs)).T
        baskets = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(visits), len(self.row)))
        self._visits = np.asarray(baskets.sum(0)).ravel()
        self._all_visits = float(len(visits))
        self._together = (baskets.T @ baskets).tocsr()
        # What was never sold before the cut was published just now.
        self._facts = [
            ItemFacts(item, texts[item], first_seen=SOLD_BEFORE_MS if self._visits[row] else NOW_MS, sketch=sketch(one))
            for row, (item, one) in enumerate(zip(self._engine.ids, self.dense, strict=True))
        ]

    @property
    def dense(self) -> NDArray[np.float32]:
        """(items, d) the vectors."""
        return self._engine.dense

    @cached_property
    def ranked(self) -> list[RankedAnchor]:
        """The candidates of all anchors that can be looked up."""
        anchors = {anchor for anchors in self.truth.slices.values() for anchor in anchors}
        return [self._rank(anchor) for anchor in sorted(anchors) if anchor in self.row]

    def _rank(self, anchor: str) -> RankedAnchor:
        engine, own = self._engine, self.row[anchor]
        content = engine.dense @ engine.dense[own]
        weighted = engine.lexical[[own]].multiply(engine.idf).tocsr()
        lexical = (weighted @ engine.lexical.T).toarray().ravel()
        together = self._together[[own]].toarray().ravel()
        named: dict[int, list[Source]] = {}
        for name, values in (
            (CandidateSource.CONTENT, content),
            (CandidateSource.LEXICAL, lexical),
            (CandidateSource.CO_VISITS, together),
        ):
            best = [row for row in np.argsort(-values, kind="stable")[: DEPTH + 1] if row != own and values[row] > 0]
            for rank, row in enumerate(best[:DEPTH], 1):
                named.setdefault(int(row), []).append(Source(name, float(values[row]), rank))
        rows = list(named)
        counts = np.zeros((len(rows), len(Metric)))
        counts[:, Metric.CO_VISITS] = together[rows]
        listed = np.array([any(one.name is CandidateSource.LEXICAL for one in named[row]) for row in rows])
        candidates = Candidates(
            facts=tuple(self._facts[row] for row in rows),
            sources=tuple(tuple(named[row]) for row in rows),
            content=content[rows].astype(float),
            lexical=np.where(listed, lexical[rows], 0.0),
            counts=counts,
            visits=self._visits[rows],
        )
        context = AnchorContext(self._facts[own], float(self._visits[own]), self._all_visits, NOW_MS)
        scores = score(compute_features(context, candidates), DEFAULT_WEIGHTS)
        return RankedAnchor(anchor, candidates, scores, best_first(scores, candidates))


def retail_cuts(folder: Path, *, last_only: bool = False) -> Iterator[tuple[str, RetailCut]]:
    """Each cut by its name, in order; nothing was tuned on the last."""
    protocol = load_protocol("item_to_item")
    transactions = unpack("onlineretail", folder) / "transactions.parquet"
    for cut, until in CUTS[-1:] if last_only else CUTS:
        split(protocol, transactions, folder / cut, cut, until)
        yield cut, RetailCut(folder / cut)


def ids_of(ranked: RankedAnchor, rows: Sequence[int]) -> list[str]:
    """The ids of rows of an anchor's candidates."""
    return [ranked.candidates.facts[row].id for row in rows]


def pooled(truths: Sequence[tuple[str, Truth]]) -> Truth:
    """The anchors of several cuts as one truth, named by their cut; only positives and slices."""
    positives = {f"{cut} {anchor}": grades for cut, truth in truths for anchor, grades in truth.positives.items()}
    slices: dict[str, tuple[str, ...]] = {}
    for cut, truth in truths:
        for name, anchors in truth.slices.items():
            slices[name] = (*slices.get(name, ()), *(f"{cut} {anchor}" for anchor in anchors))
    return Truth(positives, slices)
