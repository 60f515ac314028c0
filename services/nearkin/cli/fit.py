"""`nearkin fit`: fit the weights of the ranking to what was bought or seen together after a cut."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nearkin.cli.evaluate import SHIPPED, read_shipped
from nearkin.cli.parse_line import parse_line
from nearkin.cli.terminal import terminal
from nearkin.client.producer import now_ms
from nearkin.core.errors import InvalidEvent, Misconfigured

if TYPE_CHECKING:
    from nearkin.core.item import ItemState
    from nearkin.core.ports import ContentEncoder
    from nearkin.core.ranking import RankingWeights
    from nearkin.learning.dataset import Dataset
    from nearkin.learning.fit_ranking import Fit, Judged

#: What of the shipped data set is fitted on: it leaves the time from the cut that `nearkin evaluate` reports.
SHIPPED_CUTS = tuple(
    (datetime(2011, cut, 1, tzinfo=UTC), datetime(2011, until, 1, tzinfo=UTC))
    for cut, until in ((3, 5), (5, 7), (7, 9))
)


@click.command()
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Write the weights there.")
@click.option(
    "--items", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the items are, where the folders themselves do not say: JSON Lines, as `nearkin publish` takes them.",
)  # fmt: skip
@click.option(
    "--start", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Weights to start from, and to keep where nothing is fitted; the shipped ones by default.",
)  # fmt: skip
@click.option(
    "--feature", "features", multiple=True, help="Fit the weight of this feature, in place of the usual ones."
)
@click.option("--half-life-days", type=click.IntRange(1), help="Of the evidence; as it is set by default.")
@click.option("--id", "weights_id", help="Names the weights in answers and logs; made of the time by default.")
def fit(
    datasets: tuple[str, ...],
    out: Path,
    items: Path | None,
    start: Path | None,
    features: tuple[str, ...],
    half_life_days: int | None,
    weights_id: str | None,
) -> None:
    """Fit the weights of the ranking on data sets.

    Leaves them in a file for NEARKIN_RANKING_WEIGHTS.

    DATASET is a folder that `nearkin split` made, or online-retail, the data set that ships with Nearkin, at three cuts
    before the one that `nearkin evaluate` reports. Evidence is what was there before a cut, right is what came after
    it. All warm anchors that have something right are learnt from, not those alone that are scored: where nothing is
    remembered of an anchor, evidence and content need not be weighed against each other. Several folders of different
    cuts make weights that hold for more than one season. Fit on earlier cuts than the one you report: docs/ranking.md.
    """
    from nearkin.contracts.weights import encode_weights, read_weights, require_new_id
    from nearkin.core.ranking import DEFAULT_WEIGHTS
    from nearkin.encoders.bundle import load_encoder
    from nearkin.learning.fit_ranking import FITTED, fit_weights
    from nearkin.ops.settings import load_settings

    weights_id = weights_id or time.strftime("fit-%Y%m%d-%H%M%S", time.gmtime())
    require_new_id(weights_id)
    settings = load_settings()
    begin = DEFAULT_WEIGHTS if start is None else read_weights(start)
    encoder = load_encoder(settings.bundle_path, settings.encode_threads)
    days = half_life_days or settings.evidence_half_life_days
    judged: list[Judged] = []
    fitted_on = []
    for dataset in datasets:
        for name, known in _read(dataset, items):
            found = _judge(name, known, encoder, days)
            fitted_on.append(f"{name} ({sum(bool(one.right.any()) for one in found)} anchors)")
            judged += found
    done = fit_weights(
        judged,
        weights_id=weights_id,
        fitted_on=f"{', '.join(fitted_on)}; half-life of {days} days, bundle {encoder.bundle}",
        start=begin,
        fitted=features or FITTED,
    )
    try:
        out.write_bytes(encode_weights(done.weights))
    except OSError as error:
        raise Misconfigured(
            error.strerror or "cannot be written",
            field=str(out),
            remedy="name a file that can be written",
            reason="file",
        ) from error
    _show(done, begin, out)


def _read(dataset: str, items: Path | None) -> "list[tuple[str, Dataset]]":
    from nearkin.learning.dataset import make_dataset, read_items
    from nearkin.learning.item_to_item import read_evaluation

    path = Path(dataset)
    if dataset == SHIPPED and not path.exists():
        return [(f"{SHIPPED} {cut:%Y-%m-%d}", read_shipped(cut, until)) for cut, until in SHIPPED_CUTS]
    if not path.is_dir():
        raise click.UsageError(f"{dataset} is no folder: make one of a log with `nearkin split`")
    described = items or path / "items.jsonl"
    return [(path.name, make_dataset(read_evaluation(path), read_items(described), str(described)))]


def _judge(name: str, known: "Dataset", encoder: "ContentEncoder", half_life_days: int) -> "list[Judged]":
    """The candidates of the anchors of one data set, with what is right."""
    import numpy as np

    from nearkin.core.evidence import DAY_MS, EvidenceRules
    from nearkin.learning.fit_ranking import Judged
    from nearkin.learning.item_to_item import WARM
    from nearkin.learning.offline_lookups import OfflineLookups

    evaluation = known.evaluation
    positives, popularity = evaluation.truth.positives, evaluation.truth.popularity
    anchors = [anchor for anchor in positives if popularity.get(anchor, 0) >= WARM]
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=terminal(stderr=True), transient=True) as progress:
        task = progress.add_task(f"encoding {name}", total=None)
        look_up = OfflineLookups(
            states_of(known), evaluation.training, encoder, EvidenceRules(half_life_ms=half_life_days * DAY_MS)
        )
        progress.update(task, description=name, total=len(anchors))
        judged = []
        for one in look_up(anchors):
            right = positives[one.anchor]
            judged.append(Judged(one.features, np.array([facts.id in right for facts in one.candidates.facts])))
            progress.advance(task)
    return judged


def states_of(known: "Dataset") -> "dict[str, ItemState]":
    """The items as the index would hold them.

    Raises:
        Misconfigured: an item breaks its contract.
    """
    from nearkin.contracts.events import read_item_event

    states: dict[str, ItemState] = {}
    for line in known.items:
        try:
            event = read_item_event(parse_line(msgspec.json.encode(line.fields), now_ms()).value)
        except InvalidEvent as error:
            raise Misconfigured(str(error), field=line.place, remedy="correct the line", reason="file") from error
        states[event.item_id] = event.state
    return states


def _show(done: "Fit", begin: "RankingWeights", out: Path) -> None:
    table = Table("feature", "weight", "before")
    for name, weight in done.weights.features.items():
        before = begin.features[name]
        if weight or before:
            table.add_row(name, f"{weight:g}", "" if weight == before else f"{before:g}")
    console = terminal()
    console.print(table)
    console.print(
        f"{done.weights.id} in {out}: the first item is right with a chance of {done.likelihood:.4f}, "
        f"{done.before:.4f} before (geometric mean over {done.anchors} anchors)",
        markup=False, highlight=False,
    )  # fmt: skip
