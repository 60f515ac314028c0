"""`nearkin publish`: send items, feedback and visits from files, each checked before it is sent."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from nearkin.cli.parse_line import Outgoing, parse_line
from nearkin.cli.read_lines import Line, read_lines, reads_once, require_readable
from nearkin.cli.target import data_option, target
from nearkin.cli.terminal import terminal
from nearkin.client.producer import Producer, Published, key_of_settings, now_ms
from nearkin.contracts.feedback import StreamTime
from nearkin.contracts.topics import ITEMS, ITEMS_BULK, SOURCES
from nearkin.core.errors import InvalidEvent, Misconfigured
from nearkin.ops.topics import require_topics
from nearkin.ops.tracing import start_traces

#: How many refused lines are named before only their number is told, unless more are asked for.
NAMED = 20


@dataclass(slots=True)
class Refusals:
    """Lines that are not sent, told as they are found.

    Attributes:
        console: where they are told.
        named: how many of them; the others are counted.
        count: how many there are.
    """

    console: Console
    named: int = NAMED
    count: int = 0

    def add(self, line: Line, error: InvalidEvent) -> None:
        """Tell one."""
        self.count += 1
        if self.count <= self.named:
            self.console.print(f"refused {_located(line, error)}", style="yellow", markup=False, highlight=False)
        elif self.count == self.named + 1:
            self.console.print("… further refusals are counted only: --name-refused names more", style="yellow")

    def end(self, why: str = "") -> NoReturn:
        """Tell how many there are, and end the command."""
        lines = "1 line" if self.count == 1 else f"{self.count} lines"
        self.console.print(f"refused {lines}{why}", style="yellow", highlight=False)
        raise click.exceptions.Exit(4)


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
@click.option("--bulk", is_flag=True, help="Send items on the lane for first loads, which never delays new items.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="stop: check every line of a file before the first is sent, and send nothing where one is refused; "
    "skip: send the others.",
)
@click.option(
    "--name-refused",
    "named",
    type=click.IntRange(0),
    default=NAMED,
    show_default=True,
    metavar="N",
    help="Name so many refused lines, and count the others.",
)
@click.option(
    "--users",
    type=click.Choice(["pseudonyms", "plain"]),
    default="pseudonyms",
    show_default=True,
    help="What stands in `user` of feedback. pseudonyms: whatever is none is refused; plain: your own ids, of which "
    "pseudonyms are made under NEARKIN_PSEUDONYM_KEY before anything is sent.",
)
@click.option(
    "--clock",
    type=click.Choice(["wall", "stream"]),
    default="wall",
    show_default=True,
    help="By which feedback is late or early. wall: this machine's; stream: the newest time that a line told, for logs "
    "that are replayed in order. The stack needs NEARKIN_CLOCK=stream then: by the wall's time it refuses what is old.",
)
@data_option
def publish(
    files: tuple[str, ...],
    rate: float | None,
    bulk: bool,
    on_error: str,
    named: int,
    users: str,
    clock: str,
    data: Path | None,
) -> None:
    """Publish items, feedback and visits from JSON Lines.

    Files may be plain or compressed (gzip, bzip2, xz); - is standard input.

    A line is a whole event of the contract, which goes to the topic of its kind, or an item:

    \b
    {"id": "1", "title": "Red mug", "price": {"amount": 4.5, "currency": "GBP"}, "markets": ["GB"]}

    An item's versions are the time in milliseconds where it does not bring content_version and offer_version. Exits
    with 4 where a line was refused. Standard input and pipes cannot be read twice: there, stop ends at the first
    refused line, and what came before it is published.
    """  # noqa: D301  # click reads \b
    console = terminal(stderr=True)
    refusals = Refusals(console, named)
    for name in files:
        require_readable(name)
    pseudonym_key = key_of_settings() if users == "plain" else None

    def parser() -> Callable[[bytes], Outgoing]:
        """Reads lines from the first on: a stream's clock starts with it."""
        stream = StreamTime() if clock == "stream" else None
        return lambda line: parse_line(line, now_ms(), pseudonym_key=pseudonym_key, stream=stream)

    if on_error == "stop":
        _check(files, refusals, parser())
    settings = target(data)
    require_topics(settings.kafka_bootstrap, SOURCES, security=settings.kafka_security)
    parse = parser()
    outcomes = Outcomes()
    began = time.monotonic()
    try:
        with (
            closing(start_traces(settings, "publish")) as traces,
            Producer(settings.kafka_bootstrap, security=settings.kafka_security, traces=traces) as producer,
            _progress(console) as progress,
        ):
            task = progress.add_task("publishing", total=_total_bytes(files), sent=0)
            sent = 0
            try:
                for line, done_bytes in _lines(files):
                    if rate and (early := began + sent / rate - time.monotonic()) > 0:
                        time.sleep(early)
                    # Stamped when it is sent: a time before the pause would call the item older than it is.
                    try:
                        event = parse(line.value)
                    except InvalidEvent as error:
                        refusals.add(line, error)
                        if on_error == "stop":
                            break
                        continue
                    topic = ITEMS_BULK if bulk and event.topic is ITEMS else event.topic
                    producer.send(event.key, event.value, topic).add_done_callback(outcomes.take)
                    sent += 1
                    outcomes.check()
                    progress.update(task, completed=done_bytes, sent=sent)
                else:
                    progress.update(task, completed=_total_bytes(files), sent=sent)
            except Misconfigured as error:
                if error.reason == "file":  # its rest cannot be read; what came before it is sent
                    producer.flush()
                raise
            producer.flush()
        outcomes.check()
    except BaseException:
        if outcomes.acknowledged:
            console.print(f"published {outcomes.acknowledged} events before it ended", highlight=False)
        raise
    took = time.monotonic() - began
    console.print(f"published {outcomes.acknowledged} events in {took:.1f} s", highlight=False)
    if clock == "stream":
        console.print(
            "what is older than 30 days counts only on a stack with NEARKIN_CLOCK=stream: by the wall's time it is "
            "refused there (too_late), which `nearkin evidence ID` shows of an anchor or a visit",
            style="yellow", markup=False, highlight=False,
        )  # fmt: skip
    if refusals.count:
        refusals.end("; what came after it was not read" if on_error == "stop" else "")


def _check(files: tuple[str, ...], refusals: Refusals, parse: Callable[[bytes], Outgoing]) -> None:
    """Check every line that can be read twice; where one is refused, nothing is sent."""
    for name in files:
        for line in () if reads_once(name) else read_lines(name):
            try:
                parse(line.value)
            except InvalidEvent as error:
                refusals.add(line, error)
    if refusals.count:
        refusals.end("; published nothing (--on-error skip publishes the others)")


def _lines(files: tuple[str, ...]) -> Iterator[tuple[Line, int]]:
    """Every line of every file, with how many bytes are read in all."""
    before = 0
    for name in files:
        for line in read_lines(name):
            yield line, before + line.read_bytes
        before += 0 if reads_once(name) else Path(name).stat().st_size


def _located(line: Line, error: InvalidEvent) -> str:
    where = f"{line.place}: {error.field}" if error.field else line.place
    return f"{where}: {error.problem}; {error.remedy}"


def _total_bytes(files: tuple[str, ...]) -> float | None:
    return None if any(map(reads_once, files)) else sum(Path(name).stat().st_size for name in files)


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
