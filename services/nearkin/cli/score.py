"""`nearkin score`: how good the answers of a run are, and what they gain over those of another."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from nearkin.cli.printable import printable
from nearkin.cli.terminal import terminal

if TYPE_CHECKING:
    from nearkin.learning.score import Interval, Score

RUN = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("run", type=RUN)
@click.option(
    "--truth", type=click.Path(exists=True, path_type=Path), required=True,
    help="The folder of `nearkin split`, or a file of judgements: qrels, or JSON.",
)  # fmt: skip
@click.option("--against", type=RUN, help="Another run: shows what RUN gains over it.")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="How many items of an answer count.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def score(run: Path, truth: Path, against: Path | None, k: int, as_json: bool) -> None:
    """Score the answers that the file RUN holds.

    A run is TREC's (`anchor Q0 item rank score tag`), or in a file named *.jsonl has lines {"anchor": "1", "items":
    ["2", "3"]}, best first. Intervals are 95% bootstrap intervals over anchors, those of a gain are paired; a gain is
    beyond chance where its interval leaves out 0. An anchor that RUN does not answer scores 0. docs/evaluation.md has
    the formulas.
    """
    from nearkin.learning.run_file import read_run
    from nearkin.learning.score import score_run
    from nearkin.learning.truth import read_truth

    other = None if against is None else read_run(against)
    scores = score_run(read_run(run), read_truth(truth), other, k)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in scores]))
        return
    table = Table(
        "slice", "anchors", "metric", "score", "95%", *(["against", "gain", "95% of the gain"] if against else [])
    )
    for one in scores:
        table.add_row(printable(one.slice), str(one.anchors), one.metric, *_cells(one))
    terminal().print(table)


def _cells(one: "Score") -> list[str]:
    cells = _mean_and_ends(one.value)
    if one.against is not None and one.difference is not None:
        cells += [_mean_and_ends(one.against)[0], *_mean_and_ends(one.difference, "+.4f")]
    return cells


def _mean_and_ends(value: "Interval | float", form: str = ".4f") -> list[str]:
    if isinstance(value, float):
        return [format(value, form), ""]
    return [format(value.mean, form), f"[{value.low:{form}}, {value.high:{form}}]"]
