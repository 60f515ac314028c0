"""`nearkin demo`: a real catalogue through the real stack, new items found at once, and what real purchases change."""

import asyncio
import json
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import nearkin
from nearkin.cli.printable import printable
from nearkin.cli.similar import RELATIVE_SCORES
from nearkin.cli.terminal import terminal

if TYPE_CHECKING:
    from nearkin.cli.read_freshness import StageAges
    from nearkin.cli.replay_purchases import Purchases
    from nearkin.client.lookup import LookupClient, SimilarItems
    from nearkin.client.producer import Producer
    from nearkin.client.prove_searchable import Proofs
    from nearkin.embedded.catalogue.online_retail import CatalogueItem
    from nearkin.embedded.stack import Stack
    from nearkin.learning.dataset import Dataset

#: Items first sold on or after this day are held back, and streamed in as new.
HELD_BACK_FROM = date(2011, 10, 1)

RATE = 50.0
SHOWN = 5

#: An item that was not found after so long is not proved.
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A new item among similar ones, in both directions.

    Attributes:
        id: the new item.
        title: its title.
        neighbours: its neighbours, as they were answered.
        older_id: an older item whose ten neighbours hold the new one; empty where none of the nearest does.
        older_title: its title.
        older_rank: the new item's rank there, from 1.
    """

    id: str
    title: str
    neighbours: tuple[dict[str, Any], ...]
    older_id: str = ""
    older_title: str = ""
    older_rank: int = 0


@dataclass(slots=True)
class Figures:
    """What the demonstration measured, in seconds where nothing else is said."""

    catalogue_items: int = 0
    new_items: int = 0
    proved: int = 0
    not_proved: tuple[str, ...] = ()
    rate_per_s: float = RATE
    start_s: float = 0.0
    load_s: float = 0.0
    stages: tuple["StageAges", ...] = ()
    end_to_end: dict[str, float] | None = None
    poll_s: dict[str, float] | None = None
    searches: int = 0
    shown: tuple[Shown, ...] = ()
    purchases: "Purchases | None" = None
    total_s: float = 0.0


@click.command()
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file too."
)
@click.option(
    "--kafka",
    metavar="HOST:PORT",
    help="A Kafka that runs already, instead of the embedded broker; it must have none of Nearkin's topics, which are "
    "made there and deleted at the end.",
)
@click.option("--keep", is_flag=True, help="Leave everything running at the end, until Ctrl-C.")
def demo(json_file: Path | None, kafka: str | None, keep: bool) -> None:
    """Stream a real catalogue through the whole of it.

    Finds what was published a moment ago, and learns from purchases.

    Starts broker, Redis, index, workers and look-ups on free ports in a temporary folder, loads the items of a gift
    retailer that were sold before October 2011, streams the newer ones in at 50 a second and proves each one searchable
    over gRPC. Then it replays real invoices from before October 2011 on their own clock, shows the same anchors before
    and after, holds the answers against what was bought later, and stops everything. Exits with 1 where an item was not
    proved, or fewer than five were found from an older one.
    """
    from nearkin.cli.evaluate import read_shipped
    from nearkin.cli.replay_purchases import CUT
    from nearkin.cli.replay_visits import REPLAYING
    from nearkin.cli.show_stack import Reporter
    from nearkin.embedded.lent_topics import lent_topics
    from nearkin.embedded.stack import StopRequested, run_stack
    from nearkin.ops.settings import load_settings

    if json_file is not None and not os.access(json_file.absolute().parent, os.W_OK):
        raise click.BadParameter(f"{json_file.absolute().parent} cannot be written", param_hint="--json")
    console = terminal()
    began = time.perf_counter()
    figures = Figures()
    folder = Path(tempfile.mkdtemp(prefix="nearkin-demo-"))
    finished = False
    reading: asyncio.Task[Dataset]

    async def work(stack: "Stack") -> None:
        nonlocal finished
        figures.start_s = time.perf_counter() - began
        console.print(f"The stack is up after {figures.start_s:.1f} s.", highlight=False)
        await _demonstrate(stack, kafka, figures, console, reading)
        figures.total_s = time.perf_counter() - began
        _show(console, figures, stack)
        _write_json(json_file, figures, stack)
        finished = True
        if keep:
            console.print(
                f"\nEverything stays up until Ctrl-C. Try: nearkin similar --data {folder} --text 'red mug'",
                markup=False, highlight=False,
            )  # fmt: skip
            await asyncio.Event().wait()

    async def run() -> None:
        nonlocal reading
        reading = asyncio.create_task(asyncio.to_thread(read_shipped, CUT))
        report = Reporter(terminal(stderr=True)).report
        with nullcontext() if kafka is None else lent_topics(load_settings(kafka_bootstrap=kafka)):
            await run_stack(folder, work, report=report, environment=REPLAYING, kafka=kafka)

    broker = "" if kafka else "broker, "
    console.print(f"Starting {broker}Redis, index, two indexers, the feedback worker, look-ups and the monitor ...")
    try:
        asyncio.run(run())
    except StopRequested:
        if not finished:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(130) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"Everything is stopped, {time.perf_counter() - began:.1f} s after the start.", highlight=False)
    if figures.not_proved:
        console.print(f"[red]{len(figures.not_proved)} items were not proved searchable[/red]")
        raise click.exceptions.Exit(1)
    if any(not shown.older_id for shown in figures.shown) or len(figures.shown) < SHOWN:
        console.print(f"[red]fewer than {SHOWN} new items were found among the neighbours of an older one[/red]")
        raise click.exceptions.Exit(1)


async def _demonstrate(
    stack: "Stack", kafka: str | None, figures: Figures, console: Console, reading: "asyncio.Task[Dataset]"
) -> None:
    from nearkin.cli.read_freshness import ages_between, read_counts
    from nearkin.cli.replay_purchases import replay_purchases
    from nearkin.cli.target import settings_beside
    from nearkin.client.lookup import LookupClient
    from nearkin.client.producer import Producer
    from nearkin.client.prove_searchable import Proofs
    from nearkin.embedded.catalogue.online_retail import load_catalogue

    catalogue = load_catalogue()
    older = [one for one in catalogue if one.first_sold < HELD_BACK_FROM]
    newer = [one for one in catalogue if one.first_sold >= HELD_BACK_FROM]
    figures.catalogue_items, figures.new_items = len(catalogue), len(newer)
    live = stack.endpoints.metrics["indexer-live"]
    settings = settings_beside(stack.endpoints, own_broker=kafka is None)
    with Producer(settings.kafka_bootstrap, security=settings.kafka_security) as producer:
        async with LookupClient.by_settings(settings) as lookups:
            with _progress(console) as progress:
                figures.load_s = await _load(producer, lookups, older, progress)
                before = await asyncio.to_thread(read_counts, live)
                proofs = Proofs()
                await _stream(producer, lookups, newer, proofs, progress)
            after = await asyncio.to_thread(read_counts, live)
            figures.stages = tuple(ages_between(before, after))
            figures.proved, figures.not_proved = len(proofs.seconds), tuple(proofs.waiting)
            figures.end_to_end = _summary(list(proofs.seconds.values()))
            figures.poll_s = _summary(proofs.poll_gaps)
            figures.searches = proofs.searches
            found = [one for one in newer if one.id in proofs.seconds]
            figures.shown = tuple(await _both_directions(lookups, found, {one.id for one in older}))
            with _progress(console) as progress:
                figures.purchases = await replay_purchases(settings, lookups, await reading, progress)


async def _load(
    producer: "Producer", lookups: "LookupClient", older: Sequence["CatalogueItem"], progress: Progress
) -> float:
    """Publish the older items on the bulk lane, and wait until the index holds them; how long it took."""
    from nearkin.cli.load_items import load_items

    began = time.perf_counter()
    task = progress.add_task(f"{len(older)} items first sold before {HELD_BACK_FROM}, bulk lane", total=len(older))

    def publish() -> None:
        for one in older:
            _upsert(producer, one, bulk=True)
        producer.flush()

    ids = [one.id for one in older]
    await load_items(publish, ids, lookups, lambda arrived: progress.update(task, completed=arrived))
    return time.perf_counter() - began


async def _stream(
    producer: "Producer",
    lookups: "LookupClient",
    newer: Sequence["CatalogueItem"],
    proofs: "Proofs",
    progress: Progress,
) -> None:
    """Publish the newer items on the live lane, and wait until each is found."""
    task = progress.add_task(f"{len(newer)} new items at {RATE:g}/s, live lane", total=len(newer))
    following = asyncio.create_task(proofs.follow(lookups))
    try:
        began = time.perf_counter()
        for number, one in enumerate(newer):
            await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            proofs.expect(one.id, _content(one), time.perf_counter())
            _upsert(producer, one, bulk=False)
            progress.update(task, completed=len(proofs.seconds))
        deadline = time.perf_counter() + PATIENCE_S
        while proofs.waiting and time.perf_counter() < deadline and not following.done():
            progress.update(task, completed=len(proofs.seconds))
            await asyncio.sleep(0.05)
        progress.update(task, completed=len(proofs.seconds))
        if following.done():
            await following
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _both_directions(lookups: "LookupClient", found: Sequence["CatalogueItem"], older: set[str]) -> list[Shown]:
    """Five new items with their neighbours, those first of which an older neighbour now knows."""
    known: list[Shown] = []
    unknown: list[Shown] = []
    # Items of one range lie side by side in the catalogue: a stride shows different ones.
    stride = max(1, len(found) // SHOWN)
    for one in [item for start in range(stride) for item in found[start::stride]]:
        answer = await lookups.similar(item_id=one.id, k=20, no_exploration=True)
        shown = await _known_by(lookups, one, answer, older)
        (known if shown.older_id else unknown).append(shown)
        if len(known) == SHOWN:
            break
    return (known + unknown)[:SHOWN]


async def _known_by(lookups: "LookupClient", one: "CatalogueItem", answer: "SimilarItems", older: set[str]) -> Shown:
    neighbours = tuple({"id": near.id, "score": near.score, "title": near.title} for near in answer.neighbours[:SHOWN])
    for near in answer.neighbours:
        if near.id not in older:
            continue
        theirs = await lookups.similar(item_id=near.id, k=10, no_exploration=True)
        ids = [neighbour.id for neighbour in theirs.neighbours]
        if one.id in ids:
            return Shown(one.id, one.title, neighbours, near.id, near.title, ids.index(one.id) + 1)
    return Shown(one.id, one.title, neighbours)


def _content(one: "CatalogueItem") -> Any:
    from nearkin.core.item import Content

    return Content(title=one.title, language="en")


def _upsert(producer: "Producer", one: "CatalogueItem", *, bulk: bool) -> None:
    from nearkin.core.item import Offer, Price

    offer = Offer(price=Price(one.price, one.currency), markets=one.markets)
    producer.upsert(one.id, _content(one), offer=offer, bulk=bulk)


def _summary(values: list[float]) -> dict[str, float]:
    """Count, median, 95th percentile (nearest rank) and greatest."""
    if not values:
        return {"count": 0}
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return {"count": len(ordered), "p50": rank(0.5), "p95": rank(0.95), "max": ordered[-1]}


def _show(console: Console, figures: Figures, stack: "Stack") -> None:
    from nearkin.cli.replay_purchases import show_purchases
    from nearkin.cli.show_stack import endpoints_table
    from nearkin.client.prove_searchable import POLL_S

    console.print(
        f"\n{figures.proved} of {figures.new_items} new items proved searchable: each was returned by a search for its "
        "own content.", highlight=False,
    )  # fmt: skip
    table = Table("stage", "events", "p50", "p95", "max", title="How old an item is at each step, in milliseconds")
    for column in table.columns[1:]:
        column.justify = "right"
    for age in figures.stages:
        table.add_row(age.stage.replace("_", " "), str(age.count), _ms(age.p50), _ms(age.p95), f"≤ {_ms(age.at_most)}")
    table.add_section()
    whole = figures.end_to_end or {"count": 0}
    if whole["count"]:
        table.add_row(
            "published to proved, from outside",
            str(whole["count"]), _ms(whole["p50"]), _ms(whole["p95"]), _ms(whole["max"]), style="bold",
        )  # fmt: skip
    console.print(table)
    gaps = figures.poll_s or {"count": 0}
    if gaps["count"]:
        console.print(
            f"Stages come from the indexer's histograms (interpolated within a bucket); those that end in visible are "
            f"measured on a sample. The last row is measured here: asked {POLL_S * 1000:g} ms after "
            f"each answer (intervals p50 {_ms(gaps['p50'])}, p95 {_ms(gaps['p95'])} ms), so a time may be too long by "
            "that, never too short.", style="dim", highlight=False,
        )  # fmt: skip
    for shown in figures.shown:
        _show_item(console, shown)
    if figures.shown:
        console.print(RELATIVE_SCORES, style="dim", highlight=False)
    if figures.purchases:
        show_purchases(console, figures.purchases)
    console.print(endpoints_table(stack.endpoints))
    console.print(
        f"Start {figures.start_s:.1f} s, first load of {figures.catalogue_items - figures.new_items} items "
        f"{figures.load_s:.1f} s, in all {figures.total_s:.1f} s.", highlight=False,
    )  # fmt: skip


def _show_item(console: Console, shown: Shown) -> None:
    table = Table("score", "id", "neighbour", title=printable(f"new: {shown.title} ({shown.id})"), title_justify="left")
    for near in shown.neighbours:
        table.add_row(f"{near['score']:.4f}", near["id"], printable(near["title"]))
    console.print(table)
    if shown.older_id:
        console.print(
            f"  and the older {shown.older_title} ({shown.older_id}) now has it as neighbour {shown.older_rank} of 10",
            markup=False, highlight=False,
        )  # fmt: skip
    else:
        console.print("  none of its 20 neighbours has it among its own ten", style="dim")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _write_json(file: Path | None, figures: Figures, stack: "Stack") -> None:
    if file is None:
        return
    from nearkin.client.prove_searchable import POLL_S

    machine = {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()}
    said = asdict(figures) | {
        "poll_interval_s": POLL_S,
        "endpoints": {name: getattr(stack.endpoints, name) for name in stack.endpoints.__struct_fields__},
        "machine": machine,
        "version": nearkin.__version__,
    }
    file.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
