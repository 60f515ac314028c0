"""Item-to-item quality on the Online Retail cold anchors: items first sold after the cut, found by content alone.

    python -m benchmarks.quality [--simulate] [--json FILE] [--runs FOLDER]

The protocol's own split (`item_to_item.py` beside the data, see benchmarks/datasets.py) on four cuts, scored as
`nearkin score` does.
Settings were tuned on the first three; the last is what nobody tuned on, and all four pooled are the figure that is
held to. For each cut an embedded stack is started, the cut's catalogue published to it, and every cold anchor looked up
over gRPC in the three retrieval modes; TF-IDF is the protocol's own floor. The intervals are 95% bootstrap intervals,
those of differences are paired. `--simulate` computes what look-ups would see by brute force instead
(`learning/offline_lookups.py`): the same encoder and features, no stack and no rules.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.datasets import load_protocol, unpack
from benchmarks.programs import run_embedded
from benchmarks.publishing import until_visible
from benchmarks.report import Bar, conclude, print_table
from nearkin.client.lookup import LookupClient
from nearkin.client.producer import Producer
from nearkin.core.candidates import CandidateSource
from nearkin.core.errors import NearkinError
from nearkin.core.item import Content, upserted
from nearkin.core.ranking import DEFAULT_WEIGHTS, best_first, score
from nearkin.core.retrieval import Ranking, Retrieval
from nearkin.embedded.stack import Stack
from nearkin.encoders.bundle import DEFAULT_BUNDLE, load_encoder, read_manifest
from nearkin.learning.offline_lookups import Depths, OfflineLookups
from nearkin.learning.run_file import read_run, write_run
from nearkin.learning.score import score_run
from nearkin.learning.truth import Truth, read_objects, read_truth
from nearkin.ops.settings import Settings

#: From the cut to the end of the test period; the last stays out of every choice.
CUTS = (("2011-03-01", "2011-05-01"), ("2011-05-01", "2011-07-01"), ("2011-07-01", "2011-09-01"), ("2011-10-01", None))
TUNED_ON = 3
#: The most that the metrics look at.
NEIGHBOURS = 10
CANDIDATES: int = Settings.model_fields["lookup_candidates"].default

#: What is asked of fused look-ups over all cuts pooled: what must be reached, and the goal.
ASKED = {"Recall@10": (0.375, 0.41), "NDCG@10": (0.421, 0.46)}

#: How many anchors go into one call.
ANCHORS_A_CALL = 50
LOADED_WITHIN_S = 300

#: Which source a retrieval mode shows alone.
_SOURCES = {Retrieval.DENSE: CandidateSource.CONTENT, Retrieval.LEXICAL: CandidateSource.LEXICAL}

Row = dict[str, Any]
#: For each retrieval mode, the ids found for each anchor, best first.
Answers = dict[Retrieval, dict[str, list[str]]]
#: Indexes a catalogue of (id, text) and looks anchors up.
Answer = Callable[[dict[str, str], list[str]], Answers]


def split(protocol: ModuleType, transactions: Path, folder: Path, cut: str, until: str | None) -> None:
    protocol.split(argparse.Namespace(transactions=transactions, out=folder, cut=cut, until=until, items=r"\d{5}"))
    protocol.floors(argparse.Namespace(out=folder))


def answer_exactly(texts: dict[str, str], anchors: list[str]) -> Answers:
    items = {item: upserted(item, Content(title=text), 1) for item, text in texts.items()}
    look_up = OfflineLookups(items, [], load_encoder(None, 2), depths=Depths(hits=CANDIDATES))
    found: Answers = {mode: {anchor: [] for anchor in anchors} for mode in Retrieval}
    for one in look_up(anchors):
        scores = {Retrieval.FUSED: score(one.features, DEFAULT_WEIGHTS.only(Ranking.CONTENT))}
        # A search that did not name an item has not found it.
        for mode, name in _SOURCES.items():
            named = [{source.name: source.score for source in sources} for sources in one.candidates.sources]
            scores[mode] = np.array([held.get(name, -np.inf) for held in named])
        for mode, values in scores.items():
            best = [row for row in best_first(values, one.candidates) if values[row] > -np.inf]
            found[mode][one.anchor] = [one.candidates.facts[row].id for row in best[:NEIGHBOURS]]
    return found


def answer_through_service(texts: dict[str, str], anchors: list[str]) -> Answers:
    """Publish to an embedded stack of its own, wait until all is visible, and look up over gRPC."""

    async def work(stack: Stack) -> Answers:
        published = {item: text for item, text in texts.items() if text.strip()}
        with Producer(stack.endpoints.kafka) as producer:
            for item, text in published.items():
                producer.upsert(item, Content(title=text), bulk=True)
            producer.flush(LOADED_WITHIN_S)
        async with LookupClient(stack.endpoints.lookup) as client:
            async with asyncio.timeout(LOADED_WITHIN_S):
                await until_visible(client, published)
            return {mode: await look_up(client, anchors, mode) for mode in Retrieval}

    return run_embedded(work)


async def look_up(client: LookupClient, anchors: list[str], mode: Retrieval) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for start in range(0, len(anchors), ANCHORS_A_CALL):
        asked = anchors[start : start + ANCHORS_A_CALL]
        answers = await client.similar_many(
            asked,
            k=NEIGHBOURS,
            retrieval=mode,
            ranking=Ranking.CONTENT if mode is Retrieval.FUSED else None,
            no_exploration=True,
            timeout_s=30,
        )
        for anchor, answer in zip(asked, answers, strict=True):
            if isinstance(answer, NearkinError):
                raise answer
            found[anchor] = [neighbour.id for neighbour in answer.neighbours]
    return found


def write_runs(folder: Path, answer: Answer) -> None:
    """Look every cold anchor of a cut up in each mode; leaves a run file a mode."""
    texts = {item["id"]: item["text"] for _, item in read_objects(folder / "items.jsonl")}
    for mode, found in answer(texts, list(read_truth(folder).slices["cold"])).items():
        write_run(folder / "runs" / f"{mode}.jsonl", found)


def score_runs(folders: Iterable[Path]) -> list[Row]:
    """Means with intervals over the cold anchors of the cuts together, and the paired difference of FUSED to each."""
    positives: dict[str, Mapping[str, float]] = {}
    runs: dict[str, dict[str, list[str]]] = {run: {} for run in ("tfidf", *Retrieval)}
    for folder in folders:
        truth = read_truth(folder)
        cold = truth.slices["cold"]  # of one cut alone: whoever was sold before a cut is never cold again
        positives |= {anchor: truth.positives[anchor] for anchor in cold}
        for run, found in runs.items():
            answers = read_run(folder / "runs" / f"{run}.jsonl")
            found |= {anchor: answers[anchor] for anchor in cold}
    pooled = Truth(positives, {"cold": list(positives)})
    rows: list[Row] = []
    for run, found in runs.items():
        for one in map(asdict, score_run(runs[Retrieval.FUSED], pooled, found, NEIGHBOURS)):
            if one["metric"] in ASKED:
                row = {"run": str(run), "metric": one["metric"], "anchors": one["anchors"]}
                rows.append({**row, **one["against"], "fused_minus_this": one["difference"]})
    return rows


def measure(answer: Answer, folder: Path) -> dict[str, list[Row]]:
    """Run every cut, and score all pooled, those tuned on, and the one held out."""
    protocol = load_protocol("item_to_item")
    transactions = unpack("onlineretail", folder) / "transactions.parquet"
    folders = [folder / cut for cut, _ in CUTS]
    for cut_folder, (cut, until) in zip(folders, CUTS, strict=True):
        split(protocol, transactions, cut_folder, cut, until)
        write_runs(cut_folder, answer)
    return {
        "pooled": score_runs(folders),
        "tuned on": score_runs(folders[:TUNED_ON]),
        "held out": score_runs(folders[TUNED_ON:]),
    }


def show(results: dict[str, list[Row]]) -> None:
    for name, rows in results.items():
        table = []
        for row in rows:
            gain = row["fused_minus_this"]
            interval = "[{low:.3f}, {high:.3f}]".format(**row)
            difference = "{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**gain)
            table.append((row["run"], row["metric"], row["anchors"], f"{row['mean']:.4f}", interval, difference))
        columns = ("run", "metric", "anchors", "mean", "95%", "fused minus this")
        print_table(f"Online Retail, cold anchors, {name}", columns, table)


def bars_of(results: dict[str, list[Row]]) -> list[Bar]:
    """What is asked of this run."""
    means = {row["metric"]: row["mean"] for row in results["pooled"] if row["run"] == Retrieval.FUSED}
    return [
        Bar(what=f"fused, pooled, {metric}", measured=means.get(metric), must=must, goal=goal, at_least=True)
        for metric, (must, goal) in ASKED.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", action="store_true", help="brute force in place of the stack")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--runs", type=Path, help="keep splits and run files in this folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = measure(answer_exactly if args.simulate else answer_through_service, args.runs or Path(temporary))
    show(results)
    through = "brute force" if args.simulate else "gRPC look-ups on an embedded stack"
    figures = {"bundle": read_manifest(DEFAULT_BUNDLE).id, "through": through, "cold": results}
    return conclude(figures, bars_of(results), args.json)


if __name__ == "__main__":
    sys.exit(main())
