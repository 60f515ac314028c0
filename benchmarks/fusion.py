"""What each choice in fusion and in the lexical scheme gains: the table of docs/decisions/0004-fusion.md.

    python -m benchmarks.fusion [--json FILE]

Every row changes one thing of what is shipped and computes the answers by brute force, on the cold anchors that the
choices were tuned on, those held out, and both pooled (see benchmarks/quality.py).
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from benchmarks.datasets import load_protocol, unpack
from benchmarks.quality import CUTS, TUNED_ON, split
from benchmarks.report import conclude, print_table
from nearkin.core.features import LEXICAL_WEIGHT
from nearkin.core.item import Content
from nearkin.core.ports import ContentEncoder
from nearkin.core.vectors import Vectors
from nearkin.encoders import lexical
from nearkin.encoders.bundle import load_encoder
from nearkin.learning.score import ndcg, recall
from nearkin.learning.truth import read_objects, read_truth
from nearkin.ops.settings import Settings

Scores = NDArray[np.float64]
#: Scores of all items by each search to fused scores.
Fusion = Callable[[Scores, Scores], Scores]
DEPTH: int = Settings.model_fields["lookup_candidates"].default

#: Changes to the lexical scheme: names of the module and their values.
SCHEMES: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "whole words alone": {"WORDS_IN_PIECES": 0},
    "no weight on opening words": {"OPENING_WEIGHTS": ()},
    "neither": {"WORDS_IN_PIECES": 0, "OPENING_WEIGHTS": ()},
    "pieces of 3": {"PIECE_LENGTH": 3},
    "pieces of 4": {"PIECE_LENGTH": 4},
    "pieces weigh 0.3": {"PIECE_WEIGHT": 0.3},
    "pieces weigh 1": {"PIECE_WEIGHT": 1.0},
    "pieces of every word": {"WORDS_IN_PIECES": lexical.WORDS_READ},
    "opening words 1.5 and 1.25": {"OPENING_WEIGHTS": (1.5, 1.25)},
}


def top(scores: Scores, depth: int) -> NDArray[np.bool_]:
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-scores, kind="stable")[:depth]] = True
    return chosen & (scores > 0)


def share(weight: float, *, absent_is_last: bool = True, depth: int = DEPTH) -> Fusion:
    """What the feature `fused` is, with another weight, other absent items, or other lengths of the lists."""

    def fusion(dense: Scores, words: Scores) -> Scores:
        near, matching = top(dense, depth), top(words, depth)
        floor = dense[near].min(initial=np.inf) if absent_is_last else 0.0
        total = (1 - weight) * np.where(near, dense, floor) / max(dense.max(), 1e-9)
        total += weight * np.where(matching, words, 0) / max(words.max(), 1e-9)
        return np.where(near | matching, total, 0)

    return fusion


def reciprocal_ranks(offset: int) -> Fusion:
    def fusion(dense: Scores, words: Scores) -> Scores:
        total = np.zeros(len(dense))
        for scores in (dense, words):
            ranks = np.empty(len(scores))
            ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
            total += np.where(top(scores, DEPTH), 1 / (offset + ranks), 0)
        return total

    return fusion


def minmax(weight: float) -> Fusion:
    def scaled(scores: Scores) -> Scores:
        chosen = top(scores, DEPTH)
        low = scores[chosen].min(initial=np.inf)
        return np.where(chosen, (scores - low) / max(scores.max() - low, 1e-9), 0)

    return lambda dense, words: (1 - weight) * scaled(dense) + weight * scaled(words)


FUSIONS: dict[str, Fusion] = {
    "dense alone": lambda dense, words: dense,
    "lexical alone": lambda dense, words: words,
    **{f"share of the best, lexical {weight}": share(weight) for weight in (0.3, 0.4, 0.5, 0.6, 0.67, 0.75)},
    "share of the best, absent from dense is 0": share(LEXICAL_WEIGHT, absent_is_last=False),
    **{f"share of the best, {depth} candidates": share(LEXICAL_WEIGHT, depth=depth) for depth in (50, 100, 200)},
    "reciprocal ranks, offset 60": reciprocal_ranks(60),
    "reciprocal ranks, offset 10": reciprocal_ranks(10),
    "min-max, lexical 0.5": minmax(0.5),
    "min-max, lexical 0.67": minmax(0.67),
}


@contextmanager
def scheme(changes: dict[str, Any]) -> Iterator[None]:
    """The lexical encoder with other constants."""
    before = {name: getattr(lexical, name) for name in changes}
    for name, value in changes.items():
        setattr(lexical, name, value)
    lexical._hash_word.cache_clear()  # noqa: SLF001  # other hashes are tried
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(lexical, name, value)
        lexical._hash_word.cache_clear()  # noqa: SLF001  # other hashes are tried


def lexical_scores(texts: list[str], rows: list[int]) -> tuple[Scores, float]:
    """(rows, texts) products with the engine's IDF, and the mean number of terms."""
    vectors = [lexical.encode_lexical(text) for text in texts]
    names, columns = np.unique(np.concatenate([vector.indices for vector in vectors]), return_inverse=True)
    starts = np.cumsum([0, *(len(vector.indices) for vector in vectors)])
    weights = np.concatenate([vector.values for vector in vectors]).astype(float)
    matrix = sparse.csr_matrix((weights, columns, starts), shape=(len(texts), len(names)))
    holding = np.bincount(columns, minlength=len(names))
    idf = np.log((len(texts) - holding + 0.5) / (holding + 0.5) + 1)
    return (matrix[rows].multiply(idf).tocsr() @ matrix.T).toarray(), len(weights) / len(texts)


class Shop:
    """The cold anchors of the four cuts."""

    def __init__(self, folder: Path, encoder: ContentEncoder) -> None:
        protocol = load_protocol("item_to_item")
        transactions = unpack("onlineretail", folder) / "transactions.parquet"
        self.cuts: list[tuple[list[str], list[int], Scores, list[dict[int, float]]]] = []
        for cut, until in CUTS:
            split(protocol, transactions, folder / cut, cut, until)
            items = [item for _, item in read_objects(folder / cut / "items.jsonl")]
            place = {item["id"]: number for number, item in enumerate(items)}
            truth = read_truth(folder / cut)
            anchors = truth.slices["cold"]
            rows, texts = [place[anchor] for anchor in anchors], [item["text"] for item in items]
            vectors = encode(encoder, texts)
            positives = [{place[other]: grade for other, grade in truth.positives[one].items()} for one in anchors]
            self.cuts.append((texts, rows, (vectors[rows] @ vectors.T).astype(float), positives))

    def measure(self, fusion: Fusion) -> dict[str, float]:
        """Recall@10 and NDCG@10 of a fusion with the lexical scheme in force."""
        parts, terms = [], 0.0
        for texts, rows, dense, positives in self.cuts:
            words, terms = lexical_scores(texts, rows)
            parts.append([self._score(fusion, *one) for one in zip(rows, dense, words, positives, strict=True)])
        held, pooled = np.mean(parts[TUNED_ON], 0), np.mean(np.concatenate(parts), 0)
        tuned = np.mean(np.concatenate(parts[:TUNED_ON]), 0)
        names = [
            f"{part} {metric}" for part in ("tuned on", "held out", "pooled") for metric in ("Recall@10", "NDCG@10")
        ]
        return dict(zip(names, map(float, [*tuned, *held, *pooled]), strict=True)) | {"terms": terms}

    @staticmethod
    def _score(
        fusion: Fusion, row: int, dense: Scores, words: Scores, positives: dict[int, float]
    ) -> tuple[float, float]:
        dense, words = dense.copy(), words.copy()
        dense[row] = words[row] = 0
        fused = fusion(dense, words)
        fused[row] = -np.inf
        found = np.argsort(-fused, kind="stable")[:10].tolist()
        return recall(found, positives, 10), ndcg(found, positives, 10)


def encode(encoder: ContentEncoder, texts: list[str]) -> NDArray[np.float32]:
    """(texts, dimensions); zeros for what cannot be encoded."""
    outcomes = encoder.encode([Content(title=text) for text in texts])
    nothing = np.zeros(encoder.dimensions, np.float32)
    return np.stack([one.content if isinstance(one, Vectors) else nothing for one in outcomes])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    encoder = load_encoder(None, 2)
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder), encoder)
    results = {}
    for name, changes in SCHEMES.items():
        with scheme(changes):
            results[f"scheme: {name}"] = shop.measure(share(LEXICAL_WEIGHT))
    for name, fusion in FUSIONS.items():
        results[f"fusion: {name}"] = shop.measure(fusion)
    columns = list(next(iter(results.values())))
    rows = [(name, *(f"{one[column]:.4f}" for column in columns)) for name, one in results.items()]
    print_table("Online Retail, cold anchors", ("what", *columns), rows)
    return conclude({"bundle": encoder.bundle, "choices": results}, (), args.json)


if __name__ == "__main__":
    sys.exit(main())
