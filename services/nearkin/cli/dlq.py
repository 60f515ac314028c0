"""`nearkin dlq`: what was refused, shown, sent again after a fix, or dropped."""

import base64
import functools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nearkin.cli.find_letters import RECORDS, SOURCE_OF, Found, Wanted, find_letter, find_letters, read_whole
from nearkin.cli.find_refusals import told_time
from nearkin.cli.printable import printable
from nearkin.cli.replay import AgeType
from nearkin.cli.replay_letters import Replayed, replay_letters
from nearkin.cli.settle_letters import settle
from nearkin.cli.target import data_option, target
from nearkin.cli.terminal import terminal
from nearkin.client.producer import Producer
from nearkin.ops.letters import Letter, LetterId, Marker, Settled, read_letter
from nearkin.ops.record import Record

#: How many letters are listed, replayed and dropped at a time, unless more are asked for.
SHOWN, MOST = 20, 10_000

#: So many of the letters that stay are named; the others are counted.
NAMED = 20


class LetterType(click.ParamType):
    """Where a letter lies: `items.v1.dlq:2:17`."""

    name = "LETTER"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> LetterId:
        """Read it as topic, partition and offset."""
        parts = re.fullmatch(r"(.+):([0-9]{1,9}):([0-9]{1,18})", value)
        if parts is None or parts[1] not in SOURCE_OF:
            self.fail(f"{value!r} is no letter; write it as `nearkin dlq list` does: items.v1.dlq:2:17", param, context)
        return LetterId(parts[1], int(parts[2]), int(parts[3]))


class MomentType(click.ParamType):
    """How long ago, or a time: `90s`, `12h`, `2026-01-31T08:00`, which is UTC unless it says otherwise."""

    name = "AGE|TIME"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        """Read it as milliseconds since the epoch."""
        if re.fullmatch(r"[0-9]+[a-z]", value):
            return time.time_ns() // 1_000_000 - AgeType().convert(value, param, context)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither an age (90s, 30m, 12h, 2d) nor a time (2026-01-31T08:00)", param, context)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which letters are meant; the command gets them as `wanted`."""

    @functools.wraps(command)
    def filtered(
        *,
        topics: Sequence[str],
        reasons: Sequence[str],
        keys: Sequence[str],
        fields: Sequence[str],
        since_ms: int | None,
        until_ms: int | None,
        letters: Sequence[LetterId] = (),
        **others: Any,
    ) -> Any:
        wanted = Wanted(
            frozenset(f"{name.removesuffix('.dlq')}.dlq" for name in topics),
            frozenset(reasons),
            frozenset(key.encode(errors="surrogateescape") for key in keys),
            frozenset(fields),
            since_ms,
            until_ms,
            frozenset(letters),
        )
        return command(wanted=wanted, **others)

    names = [*(topic.name for topic in SOURCE_OF.values()), *SOURCE_OF]
    options = [
        click.option(
            "--topic", "topics", multiple=True, type=click.Choice(names), help="Of this topic; may be repeated."
        ),
        click.option("--reason", "reasons", multiple=True, help="Refused for this reason; may be repeated."),
        click.option(
            "--key", "keys", multiple=True, metavar="ID", help="Of this item, anchor or visit; may be repeated."
        ),
        click.option("--field", "fields", multiple=True, help="Wrong in this field or below it; may be repeated."),
        click.option(
            "--since", "since_ms", type=MomentType(), help="Refused since: 90s, 12h, 2d ago, or a time (UTC)."
        ),
        click.option("--until", "until_ms", type=MomentType(), help="Refused before; as --since."),
    ]
    for option in reversed(options):
        filtered = option(filtered)
    return filtered


_newest = click.option(
    "--newest", "records", type=click.IntRange(1), default=RECORDS, show_default=True, metavar="N",
    help="Look among so many of the newest records of the dead-letter topics.",
)  # fmt: skip
_chosen = click.argument("letters", metavar="[LETTER]...", nargs=-1, type=LetterType())
_everything = click.option("--all", "everything", is_flag=True, help="All letters, where nothing else is chosen.")
_most = click.option(
    "--limit", type=click.IntRange(1), default=MOST, show_default=True, metavar="N", help="The oldest N at most."
)


@click.group()
def dlq() -> None:
    """Show events that were refused, send them again, or drop them.

    Refused events are dead letters; they are sent again after a fix.

    A letter that was sent again or dropped stays in its topic until its time is over, and is not shown or counted any
    more. LETTER says where one lies, as `list` writes it: items.v1.dlq:2:17.
    """


@dlq.command(name="list")
@_filters
@click.option(
    "-n", "--number", type=click.IntRange(0), default=SHOWN, show_default=True, help="How many of the newest are named."
)
@_newest
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def list_letters(wanted: Wanted, number: int, records: int, as_json: bool, data: Path | None) -> None:
    """List dead letters that are not settled: how many for which reason, and the newest of them."""
    settings = target(data)
    found = find_letters(settings.kafka_bootstrap, wanted, records=records, security=settings.kafka_security)
    counts = Counter((letter.id.topic, letter.reason) for letter in found.letters).most_common()
    shown = found.letters[-number:] if number else []
    if as_json:
        told = {
            "number": len(found.letters),
            "counts": [{"topic": topic, "reason": reason, "letters": count} for (topic, reason), count in counts],
            "letters": [_told(letter) for letter in shown],
            "settled": found.settled,
            "older_not_read": found.unread,
        }
        click.echo(json.dumps(told))
        return
    console = terminal()
    _say(console, _summary(found))
    if counts:
        console.print(
            _table(("topic", "reason", "letters"), [(topic, why, str(count)) for (topic, why), count in counts])
        )
    if shown:
        rows = [
            (
                str(one.id),
                told_time(one.at_ms),
                _text(one.key),
                one.reason,
                f"{one.field}: {one.problem}" if one.field else one.problem,
            )
            for one in shown
        ]
        console.print(_table(("letter", "refused at", "key", "reason", "problem"), rows))
    if len(found.letters) > len(shown):
        _say(console, f"and {len(found.letters) - len(shown)} older ones; -n names more")


@dlq.command()
@click.argument("letter", metavar="LETTER", type=LetterType())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def show(letter: LetterId, as_json: bool, data: Path | None) -> None:
    """Show one letter whole, as it lies: why it was refused, its key, headers and value, and whether it is settled.

    The value is what was kept of the event: of feedback and visits without whoever it named. Exits with 4 where no
    letter lies there.
    """
    settings = target(data)
    found = find_letter(settings.kafka_bootstrap, letter, security=settings.kafka_security)
    if found is None:
        click.echo(f"no letter lies at {letter}: none ever did, its time is over, or it is a marker", err=True)
        raise click.exceptions.Exit(4)
    record, marker = found
    read = read_letter(record)
    assert isinstance(read, Letter)  # noqa: S101  # find_letter gives no other
    if as_json:
        click.echo(json.dumps(_told(read) | _whole(record) | {"settled": _told_marker(marker)}))
    else:
        _show(read, record, marker)


@dlq.command()
@_chosen
@_filters
@_everything
@_most
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Events a second; as fast as it goes by default.")
@click.option("--dry-run", is_flag=True, help="Check, say what would be sent, and send nothing.")
@_newest
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def replay(
    wanted: Wanted,
    everything: bool,
    limit: int,
    rate: float | None,
    dry_run: bool,
    records: int,
    as_json: bool,
    data: Path | None,
) -> None:
    """Send refused events again to the topic that they came from, each checked by the contract first.

    For after a fix that is not the events' own: a newer version of Nearkin, a mended clock. What is still wrong stays
    a letter and says why (exit code 4). An event keeps its key, headers and event_id, so that it counts once however
    often it is sent; feedback whose event_id the worker took note of gets another one that follows from it. What was
    cut, or had somebody's name taken out, cannot be sent again.
    """
    settings = target(data)
    _require_choice(wanted, everything=everything)
    found = find_letters(settings.kafka_bootstrap, wanted, records=records, security=settings.kafka_security)
    chosen = found.letters[:limit]
    total = Replayed()
    console = terminal(stderr=True)
    if chosen:
        with (
            # Its probes are the monitor's to publish, and were: one that was refused must not end this for the others.
            Producer(settings.kafka_bootstrap, security=settings.kafka_security, may_probe=True) as producer,
            _progress(console) as progress,
        ):
            task = progress.add_task("checking" if dry_run else "replaying", total=len(chosen))
            whole = read_whole(settings.kafka_bootstrap, chosen, security=settings.kafka_security)
            for done in replay_letters(producer, whole, clock=settings.clock, rate=rate, dry_run=dry_run):
                total.sent += done.sent
                total.stays += done.stays
                progress.update(task, advance=done.sent + len(done.stays))
    left = len(found.letters) - len(chosen)
    if as_json:
        stays = [_told(one.letter) | {"still": one.error.reason, "why": str(one.error)} for one in total.stays]
        click.echo(json.dumps({"sent": total.sent, "dry_run": dry_run, "stays": stays, "beyond_limit": left}))
    else:
        for one in total.stays[:NAMED]:
            _say(console, f"{one.letter.id} stays ({one.error.reason}): {one.error}", style="yellow")
        if len(total.stays) > NAMED:
            _say(console, f"… and {len(total.stays) - NAMED} more stay; --json names all", style="yellow")
        told = f"{'would send' if dry_run else 'sent'} {total.sent} again, {len(total.stays)} stay"
        _say(console, told if found.letters else "no letter matches")
        if left:
            _say(console, f"{left} newer ones are beyond --limit {limit}: run it again")
        _say_unread(console, found)
    if total.stays:
        raise click.exceptions.Exit(4)


@dlq.command()
@_chosen
@_filters
@_everything
@_most
@click.option("--because", required=True, metavar="TEXT", help="Why nobody wants them any more; kept with each.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_newest
@data_option
def drop(
    wanted: Wanted, everything: bool, limit: int, because: str, yes: bool, records: int, data: Path | None
) -> None:
    """Settle letters that nobody wants any more: they are not shown or counted from now on, and cannot be replayed.

    Their records stay in the dead-letter topic until its time is over, with your reason behind them.
    """
    settings = target(data)
    _require_choice(wanted, everything=everything)
    found = find_letters(settings.kafka_bootstrap, wanted, records=records, security=settings.kafka_security)
    chosen = found.letters[:limit]
    console = terminal(stderr=True)
    counts = Counter((letter.id.topic, letter.reason) for letter in chosen).most_common()
    for (topic, reason), count in counts:
        _say(console, f"{count} of {topic}, {reason}")
    if chosen and not yes:
        try:
            yes = click.confirm(f"Drop {_letters(len(chosen))}?", err=True)
        except click.Abort as nobody:
            raise click.UsageError("nobody answers the question: give --yes") from nobody
        if not yes:
            chosen = []
    if chosen:
        with Producer(settings.kafka_bootstrap, security=settings.kafka_security) as producer:
            settle(producer, ((letter, because) for letter in chosen), Settled.DROPPED)
    _say(console, f"dropped {_letters(len(chosen))}" if found.letters else "no letter matches")
    _say_unread(console, found)


def _require_choice(wanted: Wanted, *, everything: bool) -> None:
    if wanted == Wanted() and not everything:
        raise click.UsageError("which letters? Name some, give a filter such as --reason, or --all")


def _letters(count: int) -> str:
    return "1 letter" if count == 1 else f"{count} letters"


def _summary(found: Found) -> str:
    settled = f"; besides them {found.settled} settled" if found.settled else ""
    unread = f"; {found.unread} older records were not read (--newest reads more)" if found.unread else ""
    return f"{len(found.letters)} dead letter{'s' * (len(found.letters) != 1)}{settled}{unread}"


def _say_unread(console: Console, found: Found) -> None:
    if found.unread:
        _say(console, f"{found.unread} older records were not read (--newest reads more)", style="yellow")


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(printable(line), style=style, highlight=False)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(printable, row))
    return table


def _told(letter: Letter) -> dict[str, Any]:
    return {
        "letter": str(letter.id),
        "key": None if letter.key is None else _text(letter.key),
        "reason": letter.reason,
        "field": letter.field,
        "problem": letter.problem,
        "remedy": letter.remedy,
        "at": told_time(letter.at_ms),
        "origin": letter.origin,
        "bytes": letter.bytes,
        "whole_bytes": letter.whole_bytes,
    }


def _told_marker(marker: Marker | None) -> Mapping[str, str] | None:
    if marker is None:
        return None
    return {"as": str(marker.settled), "because": marker.because, "at": told_time(marker.at_ms)}


def _whole(record: Record) -> dict[str, Any]:
    """Key aside, what lies there: text where it is text, else base64."""
    headers = [{"name": name, "value": _text(value)} for name, value in record.headers]
    if record.value is None:
        return {"headers": headers, "value": None}
    try:
        return {"headers": headers, "value": record.value.decode()}
    except UnicodeDecodeError:
        return {"headers": headers, "value_base64": base64.b64encode(record.value).decode()}


def _show(letter: Letter, record: Record, marker: Marker | None) -> None:
    console = terminal()
    table = Table(show_header=False)
    for name, value in _told(letter).items():
        if value not in (None, ""):
            table.add_row(name.replace("_", " "), printable(str(value)))
    if marker is not None:
        table.add_row("settled", printable(f"{marker.settled} at {told_time(marker.at_ms)}: {marker.because}"))
    console.print(table)
    console.print(_table(("header", "value"), [(name, _text(value)) for name, value in record.headers]))
    if record.value is None:
        _say(console, "its value is null")
        return
    if letter.whole_bytes is not None:
        _say(console, f"its value was cut; the whole lies at {letter.origin} as long as that topic keeps it", "yellow")
    if not record.value:
        _say(console, "its value is empty" if letter.origin.startswith("items") else "nothing was kept of its value")
        return
    for line in _text(record.value).split("\n"):
        console.print(printable(line), highlight=False, soft_wrap=True)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="backslashreplace")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=not console.is_terminal,
        disable=not console.is_terminal,
    )
