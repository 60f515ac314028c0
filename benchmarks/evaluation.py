"""What evidence gains: Online Retail's last cut through the pipeline and the look-up service, warm and cold anchors.

    python -m benchmarks.evaluation [--json FILE] [--runs FOLDER]

`nearkin evaluate online-retail`: all items and the visits before the cut are published to an embedded stack, and every
anchor is looked up by content alone, by evidence alone, and by both. Anchors and what is right are those of the
protocol's own split (`item_to_item.py` beside the data, see benchmarks/datasets.py), whose run files are the floors;
what describes an item is the shipped catalogue's, known before the cut, where the protocol's texts and prices come from
the whole log. Differences to content alone are paired. Every setting has its default; nothing was tuned on this cut.

Exits with 1 where something that must be reached was missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.datasets import load_protocol, unpack
from benchmarks.quality import split
from benchmarks.report import Bar, conclude, print_table
from nearkin.cli.evaluate import SHIPPED, SHIPPED_CUT
from nearkin.learning.run_file import read_run
from nearkin.learning.score import Interval, score_run
from nearkin.learning.truth import read_truth

CUT = f"{SHIPPED_CUT:%Y-%m-%d}"

FLOORS = ("popularity", "tfidf", "cooccurrence")
METRICS = ("Recall@10", "NDCG@10")

#: The best of what the protocol's authors measured beside those.
KNOWN = "measured beforehand: shrunk co-occurrence + 0.1 MiniLM .503 / .549 warm, TF-IDF + MiniLM .367 / .415 cold"

#: What is asked of warm anchors, and the goal; of cold ones there is a goal alone.
WARM = {"Recall@10": (0.505, 0.55), "NDCG@10": (0.55, 0.60)}
COLD = {"Recall@10": 0.41, "NDCG@10": 0.46}

#: Scores of one ranking: by slice and metric.
Scores = dict[tuple[str, str], dict[str, Any]]


def evaluate(runs: Path) -> dict[str, Any]:
    """What `nearkin evaluate` says of the data set that ships, every setting at its default."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEARKIN_")}
    command = [sys.executable, "-m", "nearkin.cli", "evaluate", SHIPPED, "--json", "--out", str(runs)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def by_metric(scores: list[dict[str, Any]]) -> Scores:
    return {(one["slice"], one["metric"]): one for one in scores}


def floors(folder: Path) -> list[tuple[str, str, str, float]]:
    """What simple baselines score: name, slice, metric, mean."""
    truth = read_truth(folder)
    return [
        (name, one.slice, one.metric, one.value.mean)
        for name in FLOORS
        for one in score_run(read_run(folder / "runs" / f"{name}.jsonl"), truth)
        if one.metric in METRICS and isinstance(one.value, Interval)
    ]


def bars_of(combined: Mapping[tuple[str, str], dict[str, Any]]) -> list[Bar]:
    """What is asked of both together, and of what they gain over content alone."""
    bars = []
    for metric, (must, goal) in WARM.items():
        found = combined["warm", metric]
        bars.append(Bar(what=f"warm, {metric}", measured=found["value"]["mean"], must=must, goal=goal, at_least=True))
        bars.append(
            Bar(
                what=f"warm, {metric}, gain over content, where its interval begins",
                measured=found["difference"]["low"],
                must=0.0,
                at_least=True,
            )
        )
    for metric, goal in COLD.items():
        found = combined["cold", metric]
        bars.append(Bar(what=f"cold, {metric}", measured=found["value"]["mean"], goal=goal, at_least=True))
        bars.append(
            Bar(
                what=f"cold, {metric}, difference to content, where its interval ends",
                measured=found["difference"]["high"],
                must=0.0,
                at_least=True,
                note="below 0, evidence would hurt anchors that nobody has bought",
            )
        )
    return bars


def show(scores: Mapping[str, Scores], simple: list[tuple[str, str, str, float]]) -> None:
    rows: list[tuple[str, ...]] = [
        (f"floor: {name}", of, metric, f"{mean:.4f}", "") for name, of, metric, mean in simple
    ]
    for ranking, found in scores.items():
        for (of, metric), one in found.items():
            if metric.startswith("Coverage"):
                gain = "" if one["difference"] is None else f"{one['difference']:+.4f}"
                rows.append((ranking, of, metric, f"{one['value']:.4f}", gain))
                continue
            mean = "{mean:.4f} [{low:.4f}, {high:.4f}]".format(**one["value"])
            form = "" if one["difference"] is None else "{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
            gain = form.format(**one["difference"] or {})
            rows.append((ranking, of, metric, mean, gain))
    columns = ("ranking", "anchors", "metric", "mean, 95%", "gain over content, 95%")
    print_table(f"Online Retail, cut {CUT}, through the service", columns, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--runs", type=Path, help="keep the split and run files in this folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.runs or Path(temporary)) / CUT
        transactions = unpack("onlineretail", Path(temporary)) / "transactions.parquet"
        split(load_protocol("item_to_item"), transactions, folder, CUT, None)
        said = evaluate(folder / "runs")
        simple = floors(folder)
    scores = {ranking: by_metric(found) for ranking, found in said["scores"].items()}
    show(scores, simple)
    print(KNOWN)
    return conclude({"floors": simple, **said}, bars_of(scores["combined"]), args.json)


if __name__ == "__main__":
    sys.exit(main())
