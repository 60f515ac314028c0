"""`nearkin evaluate`: how good the service itself answers, on what was bought or seen together later."""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nearkin.cli.parse_line import Outgoing, parse_line
from nearkin.cli.printable import printable
from nearkin.cli.publish import Outcomes
from nearkin.cli.similar import MOST
from nearkin.cli.split import TimeType
from nearkin.cli.target import data_option, settings_beside, target
from nearkin.cli.terminal import terminal
from nearkin.client.producer import Producer, now_ms
from nearkin.contracts.topics import ITEMS_BULK
from nearkin.core.errors import InvalidEvent, Misconfigured
from nearkin.core.retrieval import Ranking

if TYPE_CHECKING:
    from nearkin.embedded.stack import Stack
    from nearkin.learning.dataset import Dataset, ItemLine
    from nearkin.learning.item_to_item import Evaluation
    from nearkin.learning.score import Interval, Score
    from nearkin.ops.settings import Settings

#: Names the data set that ships with the package, where no file of this name is there, and its cut.
SHIPPED, SHIPPED_CUT = "online-retail", datetime(2011, 10, 1, tzinfo=UTC)

#: A ranking's answers, by anchor.
Answers = dict[str, list[str]]


@dataclass(slots=True)
class Evaluated:
    """What an evaluation was of, and what came of it.

    Attributes:
        dataset: as it was named.
        items: that were published.
        without_text: items that could not be.
        visits: that were learnt from.
        k: how many neighbours of an answer count.
        against: the ranking that the others are compared with.
        seconds: what each step took.
        scores: of each ranking, against that one.
    """

    dataset: str
    items: int
    without_text: int
    visits: int
    k: int
    against: Ranking
    seconds: dict[str, float] = field(default_factory=dict)
    scores: "dict[Ranking, list[Score]]" = field(default_factory=dict)


@click.command()
@click.argument("dataset")
@click.option(
    "--items", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the items are, where DATASET itself does not say: JSON Lines, as `nearkin publish` takes them.",
)  # fmt: skip
@click.option("--cut", type=TimeType(), help="The first moment that is asked about, where DATASET is a log.")
@click.option("--until", type=TimeType(), help="The first moment after it, where DATASET is a log.")
@click.option(
    "--ranking", "rankings", type=click.Choice([str(r) for r in Ranking]), multiple=True,
    help="Which rankings to ask for, in place of all.",
)  # fmt: skip
@click.option(
    "--against", type=click.Choice([str(r) for r in Ranking]), default=str(Ranking.CONTENT), show_default=True,
    help="The ranking that the others are compared with.",
)  # fmt: skip
@click.option("-k", type=click.IntRange(1, MOST), default=10, show_default=True, help="How many neighbours count.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Leave run files and scores.json there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--running", is_flag=True,
    help="Use the stack that runs, with all it knows already, in place of one of its own; it must run with "
    "NEARKIN_CLOCK=stream.",
)  # fmt: skip
@data_option
def evaluate(
    dataset: str,
    items: Path | None,
    cut: datetime | None,
    until: datetime | None,
    rankings: tuple[str, ...],
    against: str,
    k: int,
    out: Path | None,
    as_json: bool,
    running: bool,
    data: Path | None,
) -> None:
    """Evaluate the service itself on a data set.

    DATASET goes through the real pipeline and look-ups.

    DATASET is a folder that `nearkin split` made, a log as `nearkin split` reads it (with --cut), or online-retail, the
    data set that ships with Nearkin. Its items are published, and of its visits those before the cut, in time order on
    their own clock; once all count, each anchor is looked up with content alone, evidence alone, and both combined,
    without exploration. docs/evaluation.md says what the scores mean.
    """
    if data is not None and not running:
        raise click.UsageError("--data names a stack that runs: give --running too")
    from nearkin.learning.run_file import write_run

    # In the order of the enumeration, whatever that of the options; the one to compare with is always asked.
    chosen = [one for one in Ranking if not rankings or one in rankings or one == against]
    console = terminal(stderr=True)
    known = _read(dataset, items, cut, until)
    evaluation, records = known.evaluation, [_record(line) for line in known.items]
    done = Evaluated(dataset, len(known.items), len(known.without_text), len(evaluation.training), k, Ranking(against))
    _tell_what_is_missing(console, known)

    async def work(settings: "Settings") -> dict[Ranking, Answers]:
        with _progress(console) as progress:
            return await _answer(known, records, settings, chosen, done, progress)

    runs = _beside_the_running(work, data) if running else _beside_its_own(work, console)
    done.scores = score_rankings(runs, evaluation, done.against, k)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for ranking, answers in runs.items():
            write_run(out / f"{ranking}.jsonl", answers)
        (out / "scores.json").write_text(json.dumps(asdict(done), indent=1) + "\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(asdict(done)))
        return
    show_scores(terminal(), done.scores, done.against)
    took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in done.seconds.items())
    terminal().print(
        f"{done.items} items, {done.visits} visits before the cut; {took}", style="dim", markup=False, highlight=False
    )


def score_rankings(
    runs: Mapping[Ranking, Answers], evaluation: "Evaluation", against: Ranking, k: int
) -> "dict[Ranking, list[Score]]":
    """The scores of each ranking's answers, compared with those of one of them."""
    from nearkin.learning.score import score_run

    return {
        ranking: score_run(run, evaluation.truth, None if ranking is against else runs[against], k)
        for ranking, run in runs.items()
    }


def show_scores(console: Console, scores: "Mapping[Ranking, Sequence[Score]]", against: Ranking) -> None:
    """A table for each slice: what each ranking scores by each metric, and what it gains."""
    by_metric: dict[tuple[str, int], dict[str, list[tuple[Ranking, Score]]]] = {}
    for ranking, measured in scores.items():
        for one in measured:
            metrics = by_metric.setdefault((one.slice, one.anchors), {})
            metrics.setdefault(one.metric, []).append((ranking, one))
    for (name, anchors), metrics in by_metric.items():
        title = printable(f"{name}: {anchors} anchors")
        table = Table("metric", "ranking", "score, 95%", f"gain over {against}, 95%", title=title, title_justify="left")
        for metric, rows in metrics.items():
            for place, (ranking, one) in enumerate(rows):
                gain = "" if one.difference is None else with_interval(one.difference, "+.3f")
                table.add_row("" if place else metric, str(ranking), with_interval(one.value, ".3f"), gain)
            table.add_section()
        console.print(table)


def read_shipped(cut: datetime, until: datetime | None = None) -> "Dataset":
    """The data set that ships with Nearkin, split at a time."""
    from nearkin.embedded.catalogue.online_retail import load_catalogue, load_invoices
    from nearkin.learning.dataset import ItemLine, make_dataset
    from nearkin.learning.item_to_item import TransactionLog, split_log

    lines = [(one, item) for one in load_invoices() for item in one.items]
    log = TransactionLog.of([one.visit for one, _ in lines], [item for _, item in lines], [one.at for one, _ in lines])
    items = [
        ItemLine(
            one.id,
            {
                "id": one.id,
                "title": one.title,
                "language": "en",
                "price": {"amount": one.price, "currency": one.currency},
                "markets": one.markets,
            },
        )
        for one in load_catalogue()
    ]
    return make_dataset(split_log(log, cut, until), items, SHIPPED)


def _read(dataset: str, items: Path | None, cut: datetime | None, until: datetime | None) -> "Dataset":
    """The data set of a folder or a log, or the one that ships.

    Raises:
        Misconfigured: there is no such data set, or it is not as it must be.
    """
    from nearkin.learning.dataset import make_dataset, read_items
    from nearkin.learning.item_to_item import read_evaluation, read_log, split_log

    path = Path(dataset)
    if dataset == SHIPPED and not path.exists():
        if items is not None:
            raise click.UsageError(f"{SHIPPED} has items of its own: leave out --items")
        return read_shipped(cut or SHIPPED_CUT, until)
    if path.is_dir():
        if cut is not None or until is not None:
            raise click.UsageError("a folder is split already: leave out --cut and --until, or give the log")
        evaluation, described = read_evaluation(path), items or path / "items.jsonl"
    else:
        if cut is None or items is None:
            raise click.UsageError("a log needs --cut, and --items with what its items are")
        evaluation, described = split_log(read_log(path), cut, until), items
    return make_dataset(evaluation, read_items(described), str(described))


def _tell_what_is_missing(console: Console, known: "Dataset") -> None:
    if known.without_text:
        console.print(
            f"{len(known.without_text)} items have no text, {known.without_text[0]} first: they cannot be published, "
            "and no answer can hold them; give them a title in the file of items",
            style="yellow", markup=False, highlight=False,
        )  # fmt: skip


def _beside_its_own(work: "Callable[[Settings], Any]", console: Console) -> dict[Ranking, Answers]:
    """Do the work beside a stack of its own, which is gone afterwards with its data."""
    from nearkin.cli.replay_visits import REPLAYING
    from nearkin.cli.show_stack import Reporter
    from nearkin.embedded.stack import StopRequested, run_stack

    folder = Path(tempfile.mkdtemp(prefix="nearkin-evaluate-"))

    async def beside(stack: "Stack") -> dict[Ranking, Answers]:
        found: dict[Ranking, Answers] = await work(settings_beside(stack.endpoints))
        return found

    try:
        # Nobody will learn from these answers.
        environment = REPLAYING | {"NEARKIN_LOOKUP_LOG_RATE": "0"}
        return asyncio.run(run_stack(folder, beside, report=Reporter(console).report, environment=environment))
    except StopRequested:
        click.echo("interrupted", err=True)
        raise click.exceptions.Exit(130) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside_the_running(work: "Callable[[Settings], Any]", data: Path | None) -> dict[Ranking, Answers]:
    found: dict[Ranking, Answers] = asyncio.run(work(target(data)))
    return found


async def _answer(
    known: "Dataset",
    records: Sequence[Outgoing],
    settings: "Settings",
    rankings: Sequence[Ranking],
    done: Evaluated,
    progress: Progress,
) -> dict[Ranking, Answers]:
    """Publish the items and what is known before the cut; once it counts, ask for every anchor under each ranking."""
    from nearkin.cli.answer_anchors import answer_anchors
    from nearkin.cli.load_items import load_items
    from nearkin.cli.replay_visits import replay_visits
    from nearkin.client.lookup import LookupClient

    anchors = [anchor for found in known.evaluation.truth.slices.values() for anchor in found]
    async with LookupClient.by_settings(settings) as lookups:
        with _timed(done, "items"):
            task = progress.add_task("items to the index", total=len(records))
            ids = [str(line.fields["id"]) for line in known.items]
            await load_items(
                lambda: _publish(settings, records), ids, lookups, lambda there: progress.update(task, completed=there)
            )
        with _timed(done, "visits"):
            task = progress.add_task("visits to the evidence", total=done.visits)
            await replay_visits(settings, known.evaluation.training, lambda sent: progress.update(task, completed=sent))
        with _timed(done, "look-ups"):
            task = progress.add_task("look-ups", total=len(anchors) * len(rankings))
            return {
                ranking: await answer_anchors(
                    lookups, anchors, ranking, done.k, lambda count: progress.advance(task, count)
                )
                for ranking in rankings
            }


def _record(line: "ItemLine") -> Outgoing:
    """The event that publishes an item.

    Raises:
        Misconfigured: the item breaks the contract; names its line.
    """
    try:
        return parse_line(json.dumps(line.fields).encode(), now_ms())
    except InvalidEvent as error:
        where = f"{line.place}: {error.field}" if error.field else line.place
        raise Misconfigured(error.problem, field=where, remedy=error.remedy, reason="file") from error


def _publish(settings: "Settings", records: Sequence[Outgoing]) -> None:
    outcomes = Outcomes()
    with Producer(settings.kafka_bootstrap, security=settings.kafka_security) as producer:
        for record in records:
            producer.send(record.key, record.value, ITEMS_BULK).add_done_callback(outcomes.take)
        producer.flush()
    outcomes.check()


@contextmanager
def _timed(done: Evaluated, step: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    done.seconds[step] = round(time.perf_counter() - began, 2)


def with_interval(value: "Interval | float", form: str) -> str:
    """A mean with its interval, or a figure that has none."""
    if isinstance(value, float):
        return format(value, form)
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
        transient=True, disable=not console.is_terminal,
    )  # fmt: skip
