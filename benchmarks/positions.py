"""What positions bring in the Open Bandit Dataset (Saito et al. 2021), with intervals.

    python -m benchmarks.positions [--json FILE]

ZOZOTOWN showed three items side by side; the sample has 10,000 impressions for each of two policies (one that draws by
chance, and Thompson sampling) and three campaigns, each row one item at one position with the propensity with which it
stood there. Campaigns are surfaces; the anchor is the campaign, so a pair is an item. Both methods are given all they
can use: the randomised share the rows of the policy by chance, the click model those of both policies.

There are few clicks (about 40 in 10,000 rows), so what is worth saying is how wide the intervals are: with fewer clicks
than `learn` asks for, it takes the default curve with the scale that the clicks give. Nothing is asked of these
figures.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from numpy.typing import NDArray

from benchmarks.datasets import unpack
from benchmarks.report import conclude, print_table
from nearkin.core.position_bias import SampledPairs, SurfaceStatistics, learn
from nearkin.core.position_priors import POSITIONS, SurfacePriors

CAMPAIGNS = ("all", "men", "women")
POLICIES = ("random", "bts")
PLACES = 3

#: So few that every method answers, to see what its interval is.
ONE_CLICK = 1

COLUMNS = ("campaign", "rows", "clicks", "estimate", *(f"position {place}" for place in range(1, PLACES + 1)))


def read(folder: Path, policy: str, campaign: str) -> pd.DataFrame:
    """The rows of one policy and campaign: item_id, position from 1, click, propensity_score."""
    rows = pd.read_csv(folder / policy / campaign / f"{campaign}.csv.gz")
    return rows[["item_id", "position", "click", "propensity_score"]]


def statistics_of(random: pd.DataFrame, everything: pd.DataFrame) -> SurfaceStatistics:
    """What `core.counting` would count, had it sampled every pair."""
    weights = 1 / random["propensity_score"].to_numpy()
    at = random["position"].to_numpy() - 1
    clicks = random["click"].to_numpy(np.float64)
    pairs = everything.groupby(["item_id", "position"])["click"].agg(["size", "sum"]).reset_index()
    number = pairs["item_id"].astype("category").cat.codes.to_numpy(np.intp)

    def by_position(places: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(places, values, minlength=POSITIONS).astype(np.float64)

    all_at = everything["position"].to_numpy() - 1
    return SurfaceStatistics(
        exposures=by_position(all_at, np.ones(len(all_at))),
        clicks=by_position(all_at, everything["click"].to_numpy(np.float64)),
        randomised=by_position(at, np.ones(len(at))),
        weights=by_position(at, weights),
        weights_of_clicks=by_position(at, weights * clicks),
        squares=by_position(at, weights**2),
        squares_of_clicks=by_position(at, weights**2 * clicks),
        sample=SampledPairs(
            number,
            pairs["position"].to_numpy(np.intp) - 1,
            pairs["size"].to_numpy(np.float64),
            pairs["sum"].to_numpy(np.float64),
        ),
    )


def row(campaign: str, name: str, found: SurfacePriors) -> tuple[str, ...]:
    cells = []
    for prior in found.positions[:PLACES]:
        interval = "" if prior.low is None else f" ({prior.low:.4f} to {prior.high:.4f})"
        cells.append(f"{prior.value:.4f}{interval}")
    return campaign, f"{found.exposures:,.0f}", f"{found.clicks:.0f}", name, *cells


def main(arguments: list[str] | None = None) -> int:
    """Estimate, show, and leave JSON where it is asked for."""
    parser = argparse.ArgumentParser("benchmarks.positions", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args(arguments)
    rows, figures = [], {}
    with tempfile.TemporaryDirectory(prefix="nearkin-positions-") as folder:
        data = unpack("obd_open_bandit", Path(folder))
        for campaign in CAMPAIGNS:
            random, sampling = (read(data, policy, campaign) for policy in POLICIES)
            statistics = statistics_of(random, pd.concat([random, sampling]))
            without = replace(statistics, weights=np.zeros(POSITIONS))
            estimates = {
                "in force": learn(statistics),
                "randomised share": learn(statistics, ONE_CLICK),
                "click model": learn(without, ONE_CLICK),
            }
            rows += [row(campaign, name, found) for name, found in estimates.items()]
            figures[campaign] = {name: asdict(found) for name, found in estimates.items()}
    print_table("clicks that an exposure brings, with intervals of 95%", COLUMNS, rows)
    return conclude(figures, [], chosen.json)


if __name__ == "__main__":
    sys.exit(main())
