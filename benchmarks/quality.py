"""Item-to-item quality on the Online Retail cold anchors: items first sold after the cut, found by content alone.

    python -m benchmarks.quality [--json FILE] [--runs FOLDER]

The protocol's own split and scorer (`item_to_item.py` beside the data, see benchmarks/datasets.py) on four cuts.
Settings were tuned on the first three; the last is what nobody tuned on, and all four pooled are the figure that is
held to. For each cut the catalogue is indexed and every cold anchor looked up in the three retrieval modes; TF-IDF is
the protocol's own floor. The intervals are 95% bootstrap intervals, those of differences are paired.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.datasets import load_protocol, unpack
from benchmarks.report import describe_machine, print_table
from nearkin.core.errors import NothingToEncode
from nearkin.core.fusion import fuse
from nearkin.core.item import Content
from nearkin.core.ports import ContentEncoder
from nearkin.core.retrieval import Retrieval
from nearkin.core.similarity import Hit
from nearkin.encoders.bundle import load_encoder
from nearkin.ops.settings import Settings

#: From the cut to the end of the test period; the last stays out of every choice.
CUTS = (("2011-03-01", "2011-05-01"), ("2011-05-01", "2011-07-01"), ("2011-07-01", "2011-09-01"), ("2011-10-01", None))
TUNED_ON = 3
NEIGHBOURS = 100
CANDIDATES: int = Settings.model_fields["lookup_candidates"].default

Row = dict[str, object]
#: Answers a look-up: the anchor's id and the retrieval mode to ids, best first.
LookUp = Callable[[str, Retrieval], list[str]]
#: Makes a catalogue of (id, text) ready for look-ups.
Index = Callable[[dict[str, str]], LookUp]


@dataclass(frozen=True)
class ExactEngine:
    """What the index computes, by brute force: cosine, and the sparse product with the engine's own IDF."""

    ids: list[str]
    dense: NDArray[np.float32]
    lexical: sparse.csr_matrix
    idf: NDArray[np.float64]

    @classmethod
    def of(cls, texts: dict[str, str], encoder: ContentEncoder) -> "ExactEngine":
        """Encode a catalogue of (id, text) and weigh its terms."""
        outcomes = encoder.encode([Content(title=text) for text in texts.values()])
        encoded = [
            (item, vectors)
            for item, vectors in zip(texts, outcomes, strict=True)
            if not isinstance(vectors, NothingToEncode)
        ]
        terms = [vectors.lexical for _, vectors in encoded]
        names, columns = np.unique(np.concatenate([term.indices for term in terms]), return_inverse=True)
        starts = np.cumsum([0, *(len(term.indices) for term in terms)])
        weights = np.concatenate([term.values for term in terms]).astype(float)
        lexical = sparse.csr_matrix((weights, columns, starts), shape=(len(terms), len(names)))
        holding = np.bincount(columns, minlength=len(names))
        idf = np.log((len(terms) - holding + 0.5) / (holding + 0.5) + 1)
        return cls([item for item, _ in encoded], np.stack([v.content for _, v in encoded]), lexical, idf)

    def look_up(self, anchor: str, retrieval: Retrieval) -> list[str]:
        """The ids most similar to an item, best first."""
        row = self.ids.index(anchor)
        weighted = self.lexical[[row]].multiply(self.idf).tocsr()
        dense = self._hits(row, self.dense @ self.dense[row])
        lexical = [hit for hit in self._hits(row, (weighted @ self.lexical.T).toarray().ravel()) if hit.score > 0]
        if retrieval is Retrieval.FUSED:
            return [one.id for one in fuse(dense[:CANDIDATES], lexical[:CANDIDATES], NEIGHBOURS)]
        return [hit.id for hit in (dense if retrieval is Retrieval.DENSE else lexical)[:NEIGHBOURS]]

    def _hits(self, row: int, scores: NDArray[np.floating]) -> list[Hit]:
        order = np.argsort(-scores, kind="stable")[: CANDIDATES + 1]
        return [Hit(self.ids[other], float(scores[other])) for other in order if other != row]


def split(protocol: ModuleType, transactions: Path, folder: Path, cut: str, until: str | None) -> None:
    protocol.split(argparse.Namespace(transactions=transactions, out=folder, cut=cut, until=until, items=r"\d{5}"))
    protocol.floors(argparse.Namespace(out=folder))


def write_runs(protocol: ModuleType, folder: Path, index: Index) -> None:
    """Look every cold anchor of a cut up in each mode; leaves a run file a mode, as the protocol's scorer reads it."""
    items = protocol.read_lines(folder / "items.jsonl")
    look_up = index({item["id"]: item["text"] for item in items})
    anchors = json.loads((folder / "anchors.json").read_text())["cold"]
    for mode in Retrieval:
        lines = [{"anchor": anchor, "items": look_up(anchor, mode)} for anchor in anchors]
        protocol.write_lines(folder / "runs" / f"{mode}.jsonl", lines)


def score(protocol: ModuleType, folders: Iterable[Path]) -> list[Row]:
    """Means with intervals over the cold anchors of the cuts together, and the paired difference of FUSED to each."""
    values: dict[str, NDArray[np.float64]] = {}
    for run in ("tfidf", *Retrieval):
        parts = []
        for folder in folders:
            truth = {a: set(found) for a, found in json.loads((folder / "truth.json").read_text()).items()}
            anchors = json.loads((folder / "anchors.json").read_text())["cold"]
            parts.append(protocol.measure(folder / "runs" / f"{run}.jsonl", anchors, truth))
        values[run] = np.concatenate(parts)
    count = len(values["tfidf"])
    draws = np.random.default_rng(0).integers(0, count, (2000, count))
    rows: list[Row] = []
    for run, measured in values.items():
        for column, metric in enumerate((f"Recall@{protocol.K}", f"NDCG@{protocol.K}")):
            gain = values[Retrieval.FUSED][:, column] - measured[:, column]
            rows.append(
                {
                    "run": str(run),
                    "metric": metric,
                    "anchors": count,
                    **protocol.interval(measured[:, column], draws),
                    "fused_minus_this": protocol.interval(gain, draws),
                }
            )
    return rows


def measure(index: Index, folder: Path) -> dict[str, list[Row]]:
    """Run every cut through an index, and score the last cut alone, the tuned ones, and all pooled."""
    protocol = load_protocol("item_to_item")
    transactions = unpack("onlineretail", folder) / "transactions.parquet"
    folders = [folder / cut for cut, _ in CUTS]
    for cut_folder, (cut, until) in zip(folders, CUTS, strict=True):
        split(protocol, transactions, cut_folder, cut, until)
        write_runs(protocol, cut_folder, index)
    return {
        "pooled": score(protocol, folders),
        "tuned on": score(protocol, folders[:TUNED_ON]),
        "held out": score(protocol, folders[TUNED_ON:]),
    }


def show(results: dict[str, list[Row]]) -> None:
    for name, rows in results.items():
        table = []
        for row in rows:
            gain = row["fused_minus_this"]
            interval = "[{low:.3f}, {high:.3f}]".format(**row)
            difference = "{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**gain)  # type: ignore[arg-type]
            table.append((row["run"], row["metric"], row["anchors"], f"{row['mean']:.4f}", interval, difference))
        columns = ("run", "metric", "anchors", "mean", "95%", "fused minus this")
        print_table(f"Online Retail, cold anchors, {name}", columns, table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--runs", type=Path, help="keep splits and run files in this folder")
    args = parser.parse_args()
    encoder = load_encoder(None, 2)
    with tempfile.TemporaryDirectory() as temporary:
        results = measure(lambda texts: ExactEngine.of(texts, encoder).look_up, args.runs or Path(temporary))
    show(results)
    if args.json:
        figures = {"machine": describe_machine(), "bundle": encoder.bundle, "through": "exact engine", "cold": results}
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
