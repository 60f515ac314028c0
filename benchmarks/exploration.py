"""What exploration costs: NDCG on Online Retail that the last draw gives up, for several shares.

    python -m benchmarks.exploration [--json FILE]

Candidates are ranked offline (benchmarks/retail_cuts.py) and go through the rules; each anchor is answered 200 times
under different request ids by the very code that serves, and the mean NDCG of these answers is compared with that of
the order as it is, paired over anchors. An item is as old as its first sale, and new where it has none. Beside the cost
stands what it buys: the effective sample size (Kish) that 100,000 logged look-ups have for a policy that shows, at each
place, another item of the pool than the ranking does.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Bar, conclude, print_table
from benchmarks.retail_cuts import RetailCut, retail_cuts
from nearkin.core.exploration import ExplorationRules, draw
from nearkin.core.rules import Rules, apply_rules
from nearkin.encoders.bundle import load_encoder
from nearkin.learning.score import SEED, bootstrap, ndcg

K, DRAWS = 10, 200
RULES: dict[str, ExplorationRules] = {
    "default": ExplorationRules(),
    "no floor for new items": ExplorationRules(new_item_share=0.0),
    "no shuffled answers": ExplorationRules(share=0.0),
    "share 0.01, pool 20": ExplorationRules(share=0.01, new_item_share=0.0),
    "share 0.05, pool 20": ExplorationRules(share=0.05, new_item_share=0.0),
    "share 0.1, pool 20": ExplorationRules(share=0.1, new_item_share=0.0),
    "share 0.02, pool 10": ExplorationRules(share=0.02, pool=10, new_item_share=0.0),
    "share 0.02, pool 50": ExplorationRules(share=0.02, pool=50, new_item_share=0.0),
}

Row = dict[str, Any]


def measure(cut: RetailCut) -> list[Row]:
    """NDCG of the order and of what is drawn, for each slice and rule."""
    orders = {
        anchor: (one, apply_rules(one.order, one.candidates, Rules(), enough=100).order)
        for anchor, one in cut.ranked.items()
    }
    rows: list[Row] = []
    for name, rules in RULES.items():
        since = rules.new_since(cut.look_up.now_ms)
        for slice_name, anchors in cut.truth.slices.items():
            table = []
            for anchor in anchors:
                if anchor not in orders:
                    continue
                one, order = orders[anchor]
                grades = cut.truth.positives[anchor]
                new = {row for row in order if one.candidates.facts[row].first_seen > since}
                drawn = [draw(order, new, K, f"{anchor} {number}", rules).items for number in range(DRAWS)]
                worth = {items: ndcg(one.ids(items), grades, K) for items in set(drawn)}
                greedy = ndcg(one.ids(order[:K]), grades, K)
                explored = float(np.mean([worth[items] for items in drawn]))
                table.append((greedy, explored, explored - greedy))
            order_as_it_is, drawn_from, loss = bootstrap(np.array(table), np.random.default_rng(SEED))
            rows.append(
                {
                    "rules": name, "slice": slice_name, "anchors": len(table), "greedy": order_as_it_is.mean,
                    "drawn": drawn_from.mean, "loss": loss, "worth": 100_000 * rules.share / max(rules.pool, K),
                }
            )  # fmt: skip
    return rows


def show(rows: Sequence[Row]) -> None:
    table = [
        (
            row["rules"], row["slice"], row["anchors"], f"{row['greedy']:.4f}", f"{row['drawn']:.4f}",
            "{0.mean:+.4f} [{0.low:+.4f}, {0.high:+.4f}]".format(row["loss"]), f"{row['worth']:,.0f}",
        )
        for row in rows
    ]  # fmt: skip
    columns = ("exploration", "slice", "anchors", "NDCG@10 as ranked", "as drawn", "difference", "look-ups of 100,000")
    print_table("Online Retail, the last cut", columns, table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    (last,) = retail_cuts(load_encoder(None, 2), last_only=True)
    rows = measure(last)
    show(rows)
    (warm,) = (row for row in rows if row["rules"] == "default" and row["slice"] == "warm")
    bars = [
        Bar(
            what="NDCG@10 that exploration costs, warm, share of the whole",
            measured=-warm["loss"].mean / warm["greedy"],
        )
    ]
    return conclude({"last cut": [{**row, "loss": asdict(row["loss"])} for row in rows]}, bars, args.json)


if __name__ == "__main__":
    sys.exit(main())
