"""`nearkin evidence`: what is remembered of the pairs of an item, how far the counting is, and what was refused."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nearkin.cli.find_refusals import find_refusals, refusals_as_json, show_refusals
from nearkin.cli.printable import printable
from nearkin.cli.target import data_option, target
from nearkin.cli.terminal import terminal
from nearkin.core.errors import NearkinError, Unavailable

if TYPE_CHECKING:
    from nearkin.core.evidence import AnchorEvidence, Source
    from nearkin.ops.letters import Letter
    from nearkin.ops.settings import Settings

#: How many pairs a table shows, unless more are asked for.
SHOWN = 15

#: An interval of 95% ends at so many standard deviations.
_NORMAL_95 = 1.96

#: Counts that have columns of their own.
_IN_COLUMNS = frozenset({"exposures", "expected", "clicks", "co_visits"})


@dataclass(frozen=True, slots=True)
class Pair:
    """What is remembered of an anchor and one other item, decayed to the moment of the question.

    Attributes:
        id: the other item.
        title: its title; empty where the look-up service does not tell it.
        strength: by what pairs compete for their place.
        counts: what was counted and is not nothing, by the metric's name.
        coec: clicks over expected clicks, drawn to 1, which it is where the other item was never shown.
        coec_low: where its 95% interval begins, to first order.
        coec_high: where it ends.
        visits: of the other item; all of its own.
        cosine: of the two items' visits.
        lift: how many times more often than by chance they share visits.
        pmi: its logarithm, drawn to 0 where they share few.
    """

    id: str
    title: str
    strength: float
    counts: dict[str, float]
    coec: float
    coec_low: float
    coec_high: float
    visits: float
    cosine: float
    lift: float
    pmi: float


@dataclass(frozen=True, slots=True)
class Guard:
    """How far the anchor's shard is in one partition.

    Attributes:
        topic: its name; the topic's id where the broker does not tell it, or has no such topic any more.
        partition: its number.
        applied: the offset of the first event that is not applied.
        end: one more than the last event's; None where the broker does not tell it.
        former: whether the broker has no such topic any more: it was made again, or is another broker's.
    """

    topic: str
    partition: int
    applied: int
    end: int | None
    former: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of an anchor.

    Attributes:
        id: the anchor.
        title: its title.
        at: to when everything is decayed.
        half_life_days: after so many days what happened counts half.
        visits: the anchor's own.
        all_visits: of all items.
        shard: where it is kept.
        landmark: what its counts are relative to there.
        guards: how far that shard is.
        pairs: the strongest first.
    """

    id: str
    title: str
    at: str
    half_life_days: float
    visits: float
    all_visits: float
    shard: int
    landmark: str
    guards: tuple[Guard, ...]
    pairs: tuple[Pair, ...]


@click.command()
@click.argument("anchor", metavar="ID")
@click.option("-n", "shown", type=click.IntRange(1), default=SHOWN, show_default=True, help="How many pairs to show.")
@click.option(
    "--clock", type=click.Choice(["wall", "stream"]),
    help="What is now: this machine's time, or that of the newest event where a log is replayed; NEARKIN_CLOCK by "
    "default.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every pair.")
@data_option
def evidence(anchor: str, shown: int, clock: str | None, as_json: bool, data: Path | None) -> None:
    """Show what is remembered of an item's pairs.

    Tells of the item ID also how far the counting is, and what was refused lately.

    Counts are decayed to now. COEC is clicks over expected clicks: 1 where a pair does as its positions do on average.
    Refusals are those of the key ID: of feedback with that anchor, of the visit or the item with that ID. Exits with 4
    where nothing is remembered of the item.
    """
    settings = target(data)
    known, problems = asyncio.run(_read(settings, anchor, clock or settings.clock))
    refusals: list[Letter] = []
    try:
        refusals = find_refusals(settings.kafka_bootstrap, anchor, security=settings.kafka_security)
    except Unavailable as error:
        problems.append(f"refusals could not be looked for: {error}")
    if known is None:
        terminal(stderr=True).print(
            f"nothing is remembered of {anchor!r}: no visit and no feedback of it was counted, or none for long; "
            "`nearkin item` says whether it is indexed",
            markup=False, highlight=False,
        )  # fmt: skip
        show_refusals(terminal(stderr=True), refusals)
    elif as_json:
        click.echo(json.dumps(asdict(known) | {"refusals": refusals_as_json(refusals)}))
    else:
        _show(terminal(), known, shown)
        show_refusals(terminal(), refusals)
    for problem in problems:
        terminal(stderr=True).print(problem, style="yellow", markup=False, highlight=False)
    if known is None:
        raise click.exceptions.Exit(4)


def describe_pairs(
    remembered: "AnchorEvidence", marginals: Mapping[str, float], all_visits: float, titles: Mapping[str, str]
) -> tuple[Pair, ...]:
    """What is remembered of each pair of an anchor, the strongest first.

    Args:
        remembered: of the anchor.
        marginals: the visits of each of its candidates.
        all_visits: of all items.
        titles: of the candidates, where they are known.
    """
    import numpy as np

    from nearkin.core.evidence import Metric, coec, coec_deviation, cosine, lift, shrunk_pmi, strength
    from nearkin.core.features import CO_VISITS_PRIOR, COEC_PRIOR

    counts, own = remembered.counts, remembered.visits
    visits = np.array([marginals[one] for one in remembered.candidates])
    clicks, expected, together = counts[:, Metric.CLICKS], counts[:, Metric.EXPECTED], counts[:, Metric.CO_VISITS]
    ratio, factor = coec(clicks, expected, COEC_PRIOR), np.exp(_NORMAL_95 * coec_deviation(clicks, COEC_PRIOR))
    columns = {
        "coec": ratio,
        "coec_low": ratio / factor,
        "coec_high": ratio * factor,
        "visits": visits,
        "cosine": cosine(together, own, visits),
        "lift": lift(together, own, visits, all_visits),
        "pmi": shrunk_pmi(together, own, visits, all_visits, CO_VISITS_PRIOR),
    }
    pairs = [
        Pair(
            id=candidate,
            title=titles.get(candidate, ""),
            strength=strength(row.tolist()),
            counts={metric.name.lower(): float(row[metric]) for metric in Metric if row[metric]},
            **{name: float(column[place]) for name, column in columns.items()},
        )
        for place, (candidate, row) in enumerate(zip(remembered.candidates, counts, strict=True))
    ]
    return tuple(sorted(pairs, key=lambda one: (-one.strength, one.id)))


async def _read(settings: "Settings", anchor: str, clock: str) -> tuple[Known | None, list[str]]:
    """All that is known, and what could not be asked beside the evidence itself.

    Raises:
        Unavailable: the evidence does not answer.
    """
    from nearkin.core.evidence import DAY_MS
    from nearkin.stores.evidence import connect, rules_of

    rules = rules_of(settings)
    store = connect(settings, rules)
    try:
        books = await store.read_bookkeeping(anchor)
        if books.landmark is None:
            return None, []
        at_ms = await store.read_newest() if clock == "stream" else time.time_ns() // 1_000_000
        remembered = (await store.read([anchor], [], at_ms)).anchors[anchor]
        marginals = (await store.read([], remembered.candidates, at_ms)).marginals
        all_visits = await store.read_visits(at_ms)
    finally:
        await store.close()

    problems: list[str] = []
    titles: Mapping[str, str] = {}
    guards = [Guard(source.topic_id, source.partition, offset, None) for source, offset in books.guards.items()]
    try:
        titles = await _titles(settings, [anchor, *remembered.candidates])
    except NearkinError as error:
        problems.append(f"titles cannot be told: {error}")
    try:
        guards = await _located(settings, books.guards)
    except NearkinError as error:
        problems.append(f"the topics' names and ends cannot be told: {error}")
    known = Known(
        id=anchor,
        title=titles.get(anchor, ""),
        at=_time(at_ms),
        half_life_days=rules.half_life_ms / DAY_MS,
        visits=remembered.visits,
        all_visits=all_visits,
        shard=books.shard,
        landmark=_time(books.landmark * rules.half_life_ms),
        guards=tuple(sorted(guards, key=lambda one: (one.topic, one.partition))),
        pairs=describe_pairs(remembered, marginals, all_visits, titles),
    )
    return known, problems


async def _titles(settings: "Settings", ids: Sequence[str]) -> dict[str, str]:
    from nearkin.client.lookup import LookupClient

    async with LookupClient.by_settings(settings) as lookups:
        parts = [await lookups.items(ids[start : start + 1000]) for start in range(0, len(ids), 1000)]
    return {one.id: one.title for part in parts for one in part}


async def _located(settings: "Settings", guards: "Mapping[Source, int]") -> list[Guard]:
    """The guards, each with its topic's name and end where the topic is still there."""
    from nearkin.contracts.topics import FEEDBACK, VISITS
    from nearkin.ops.read_log import Logs

    partitions = {source.partition for source in guards}
    logs = await Logs(settings.kafka_bootstrap, settings.kafka_security).describe(
        (topic.name, partition) for topic in (FEEDBACK, VISITS) for partition in partitions
    )
    ends = {(log.topic_id, partition): (topic, log.end) for (topic, partition), log in logs.items()}
    present = {log.topic_id for log in logs.values()}
    found = []
    for source, offset in guards.items():
        topic, end = ends.get((source.topic_id, source.partition), (source.topic_id, None))
        # Some brokers name an end that was, once; no guard is beyond the true one.
        end = None if end is None else max(offset, end)
        found.append(Guard(topic, source.partition, offset, end, former=source.topic_id not in present))
    return found


def _show(console: Console, known: Known, shown: int) -> None:
    console.print(printable(f"{known.id}  {known.title}"), style="bold", highlight=False)
    console.print(
        f"{known.visits:.4g} of all {known.all_visits:.4g} visits, as of {known.at}; what happened counts half after "
        f"{known.half_life_days:g} days", highlight=False,
    )  # fmt: skip
    pairs = known.pairs[:shown]
    acted = [one for one in pairs if set(one.counts) - {"co_visits"}]
    if acted:
        console.print(_actions(acted))
    visited = [one for one in pairs if "co_visits" in one.counts]
    if visited:
        console.print(_co_visits(visited))
    if len(known.pairs) > shown:
        console.print(f"… and {len(known.pairs) - shown} weaker: -n shows more, --json all", highlight=False)
    if not known.pairs:
        console.print("no pair of it is remembered")
    console.print(f"kept in shard {known.shard}, relative to {known.landmark}", style="dim", highlight=False)
    former = [guard.applied for guard in known.guards if guard.former]
    for guard in (one for one in known.guards if not one.former):
        waiting = "" if guard.end is None else f", {guard.end - guard.applied} not yet"
        console.print(
            f"{guard.topic} partition {guard.partition}: {guard.applied} offsets applied{waiting}",
            style="dim", markup=False, highlight=False,
        )  # fmt: skip
    if former:
        console.print(
            f"topics that the broker does not have any more: {sum(former)} offsets applied",
            style="dim",
            highlight=False,
        )


def _actions(pairs: Sequence[Pair]) -> Table:
    title = "What people did with what was shown beside it"
    table = Table(
        "item", "shown", "expected", "clicks", "COEC, 95%", "other actions", title=title, title_justify="left"
    )
    for one in pairs:
        counts = one.counts
        others = {name: count for name, count in counts.items() if name not in _IN_COLUMNS}
        table.add_row(
            _named(one),
            f"{counts.get('exposures', 0):.4g}",
            f"{counts.get('expected', 0):.4g}",
            f"{counts.get('clicks', 0):.4g}",
            f"{one.coec:.2f} [{one.coec_low:.2f}, {one.coec_high:.2f}]",
            ", ".join(f"{name.replace('_', ' ')} {count:.3g}" for name, count in others.items()),
        )
    return table


def _co_visits(pairs: Sequence[Pair]) -> Table:
    title = "What was seen or bought with it"
    table = Table("item", "together", "its visits", "cosine", "lift", "PMI", title=title, title_justify="left")
    for one in pairs:
        table.add_row(
            _named(one),
            f"{one.counts['co_visits']:.4g}",
            f"{one.visits:.4g}",
            f"{one.cosine:.3f}",
            f"{one.lift:.3g}",
            f"{one.pmi:.2f}",
        )
    return table


def _named(pair: Pair) -> Text:
    return printable(f"{pair.id} {pair.title}".rstrip())


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
