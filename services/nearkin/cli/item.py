"""`nearkin item`: what is known of one item, and why an event of it was refused."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from nearkin.cli.find_refusals import find_refusals, refusals_as_json, show_refusals
from nearkin.cli.printable import printable
from nearkin.cli.target import data_option, target
from nearkin.cli.terminal import terminal
from nearkin.core.errors import Unavailable
from nearkin.ops.letters import Letter

_MEANING = {
    "visible": "look-ups return it",
    "hidden": "in the index; its status is hidden",
    "deleted": "a deletion is the last word on it",
    "pending": "only an offer was seen so far",
    "unknown": "the index holds nothing of it",
}


@click.command()
@click.argument("item_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def item(item_id: str, as_json: bool, data: Path | None) -> None:
    """Show what the index holds of an item, and what was refused.

    Tells whether it is indexed, at which versions, with which bundle and when.

    Refusals are looked for among the newest records of the dead-letter topics: of events of the item, of feedback whose
    anchor it is, and of a visit with that ID. Exits with 4 where the index holds nothing of the item.
    """
    from nearkin.client.lookup import BlockingLookupClient

    settings = target(data)
    with BlockingLookupClient.by_settings(settings) as lookups:
        (record,) = lookups.items([item_id])
    problem = ""
    refusals: list[Letter] = []
    try:
        refusals = find_refusals(settings.kafka_bootstrap, item_id, security=settings.kafka_security)
    except Unavailable as error:
        problem = f"refusals could not be looked for: {error}"
    known = record.status.value != "unknown"
    said: dict[str, Any] = {
        "id": item_id,
        "status": record.status.value,
        "title": record.title,
        "content_version": record.content_version,
        "offer_version": record.offer_version,
        "deleted_version": record.deleted_version,
        "indexed_at": _time(record.indexed_at_ms) if record.indexed_at_ms else None,
        "bundle": record.bundle if known else None,
        "refusals": refusals_as_json(refusals),
    }
    if as_json:
        click.echo(json.dumps(said))
    else:
        _show(said, refusals, problem)
    if not known:
        raise click.exceptions.Exit(4)


def _show(said: dict[str, Any], refusals: Sequence[Letter], problem: str) -> None:
    console = terminal()
    table = Table(show_header=False)
    for name, value in said.items():
        if name == "refusals" or value in (None, ""):
            continue
        shown = f"{value}: {_MEANING[value]}" if name == "status" else str(value)
        table.add_row(name.replace("_", " "), printable(shown))
    console.print(table)
    show_refusals(console, refusals)
    if said["status"] == "unknown" and not refusals and not problem:
        console.print(
            "nothing was refused of it lately: it was not published, or waits for the indexer; or it was published to "
            "an embedded broker that ended since, and with it what waited and what was refused"
        )
    if problem:
        console.print(problem, style="yellow", markup=False)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
