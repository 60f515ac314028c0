"""`nearkin publish`: send items or events from files, each checked before it is sent."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from nearkin.cli.parse_line import parse_line
from nearkin.cli.read_lines import Line, read_lines
from nearkin.cli.target import data_option, target
from nearkin.client.producer import ItemProducer, Published, now_ms
from nearkin.core.errors import InvalidEvent
from nearkin.ops.topics import require_lanes

#: How many refused lines are named before only their number is told.
NAMED = 20


@dataclass(slots=True)
class Refusals:
    """Lines that were not sent, told as they are found.

    Attributes:
        console: where they are told.
        count: how many there are.
    """

    console: Console
    count: int = 0

    def add(self, line: Line, error: InvalidEvent) -> None:
        """Tell one."""
        self.count += 1
        if self.count <= NAMED:
            self.console.print(f"refused {_located(line, error)}", style="yellow", markup=False, highlight=False)
        elif self.count == NAMED + 1:
            self.console.print("… further refusals are counted only", style="yellow")


@dataclass(slots=True)
class Outcomes:
    """What became of what was sent: the number of acknowledged events, and the first failure."""

    acknowledged: int = 0
    failure: list[BaseException] = field(default_factory=list)

    def take(self, outcome: "Future[Published]") -> None:
        """Count one; called by the producer's thread."""
        error = outcome.exception()
        if error is None:
            self.acknowledged += 1
        elif not self.failure:
            self.failure.append(error)

    def check(self) -> None:
        """Raise the first failure."""
        if self.failure:
            raise self.failure[0]


@click.command()
@click.argument("files", metavar="FILE...|-", nargs=-1, required=True)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Events a second; as fast as it goes by default.")
@click.option("--bulk", is_flag=True, help="Use the lane for first loads, which never delays new items.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="stop: check every line of a file before the first is sent, and send nothing where one is refused; "
    "skip: send the others.",
)
@data_option
def publish(files: tuple[str, ...], rate: float | None, bulk: bool, on_error: str, data: Path | None) -> None:
    """Publish items or events from JSON Lines, plain or compressed (gzip, bzip2, xz); - is standard input.

    A line is a whole event of the contract, or an item:

    \b
    {"id": "1", "title": "Red mug", "price": {"amount": 4.5, "currency": "GBP"}, "markets": ["GB"]}

    An item's versions are the time in milliseconds where it does not bring content_version and offer_version. Exits
    with 4 where a line was refused. Standard input cannot be read twice: there, stop ends at the first refused line.
    """  # noqa: D301  # click reads \b
    console = Console(stderr=True)
    refusals = Refusals(console)
    if on_error == "stop":
        for name in files:
            for line in () if name == "-" else read_lines(name):
                _parsed(line)
    settings = target(data)
    require_lanes(settings.kafka_bootstrap)
    outcomes = Outcomes()
    began = time.monotonic()
    sent = 0
    with ItemProducer(settings.kafka_bootstrap) as producer, _progress(console) as progress:
        task = progress.add_task("publishing", total=_total_bytes(files), sent=0)
        for line, done_bytes in _lines(files):
            try:
                key, value = parse_line(line.value, now_ms())
            except InvalidEvent as error:
                if on_error == "stop":
                    producer.flush()
                    raise _at(line, error) from error
                refusals.add(line, error)
                continue
            if rate and (early := began + sent / rate - time.monotonic()) > 0:
                time.sleep(early)
            producer.send(key, value, bulk=bulk).add_done_callback(outcomes.take)
            sent += 1
            outcomes.check()
            progress.update(task, completed=done_bytes, sent=sent)
        producer.flush()
        progress.update(task, completed=_total_bytes(files), sent=sent)
    outcomes.check()
    took = time.monotonic() - began
    console.print(f"published {outcomes.acknowledged} events in {took:.1f} s", highlight=False)
    if refusals.count:
        console.print(f"refused {refusals.count} lines", style="yellow", highlight=False)
        raise click.exceptions.Exit(4)


def _lines(files: tuple[str, ...]) -> Iterator[tuple[Line, int]]:
    """Every line of every file, with how many bytes are read in all."""
    before = 0
    for name in files:
        for line in read_lines(name):
            yield line, before + line.read_bytes
        before += 0 if name == "-" else Path(name).stat().st_size


def _parsed(line: Line) -> None:
    try:
        parse_line(line.value, now_ms())
    except InvalidEvent as error:
        raise _at(line, error) from error


def _at(line: Line, error: InvalidEvent) -> InvalidEvent:
    field_ = f"{line.place}: {error.field}" if error.field else line.place
    return InvalidEvent(error.problem, remedy=error.remedy, field=field_, reason=error.reason)


def _located(line: Line, error: InvalidEvent) -> str:
    return str(_at(line, error))


def _total_bytes(files: tuple[str, ...]) -> float | None:
    return None if "-" in files else sum(Path(name).stat().st_size for name in files)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[sent]} events"),
        TimeElapsedColumn(),
        console=console,
        transient=not console.is_terminal,
        disable=not console.is_terminal,
    )
