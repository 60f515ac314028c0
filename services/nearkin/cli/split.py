"""`nearkin split`: make an evaluation of a log of what was bought or seen together."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from nearkin.cli.terminal import terminal


class TimeType(click.ParamType):
    """A day or a moment, as ISO 8601 writes it."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        """Read it as a log's times are read."""
        from nearkin.learning.item_to_item import TIMES, parse_time

        try:
            return parse_time(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write it as {TIMES}", param, context)


@click.command()
@click.argument("log", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--cut", type=TimeType(), required=True, help="The first moment that is asked about.")
@click.option("--until", type=TimeType(), help="The first moment after what is asked about; the log's end by default.")
def split(log: Path, folder: Path, cut: datetime, until: datetime | None) -> None:
    """Make an evaluation over time of a log of purchases.

    Splits the CSV file LOG (columns visit, item, time) into what may be learnt from and what is asked.

    Leaves in FOLDER train_visits.jsonl (all that may be learnt from), anchors.json (the items to answer to, warm and
    cold ones), truth.json (what is right, for `nearkin score`) and items.jsonl (the ids of all items).
    """
    from nearkin.learning.item_to_item import read_log, split_log, write_evaluation

    evaluation = split_log(read_log(log), cut, until)
    write_evaluation(folder, evaluation)
    truth = evaluation.truth
    anchors = ", ".join(f"{len(found)} {name}" for name, found in truth.slices.items())
    terminal().print(
        f"{anchors} anchors, {len(truth.catalogue)} items, {truth.visits} visits to learn from, in {folder}",
        markup=False, highlight=False,
    )  # fmt: skip
