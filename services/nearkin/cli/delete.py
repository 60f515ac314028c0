"""`nearkin delete`: say that items are gone."""

from pathlib import Path

import click

from nearkin.cli.target import data_option, target
from nearkin.client.producer import Producer, now_ms
from nearkin.contracts.topics import ITEMS
from nearkin.core.item import MAX_VERSION
from nearkin.ops.topics import require_topics


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--version",
    type=click.IntRange(0, MAX_VERSION),
    help="Ends content and offers up to this version; the time in milliseconds by default.",
)
@data_option
def delete(ids: tuple[str, ...], version: int | None, data: Path | None) -> None:
    """Publish that items are gone.

    A deletion wins over every version up to its own, whatever the order of arrival; a newer version than that stays,
    and a newer upsert brings the item back. `nearkin item` shows what became of it.
    """
    settings = target(data)
    version = now_ms() if version is None else version
    require_topics(settings.kafka_bootstrap, [ITEMS], security=settings.kafka_security)
    with Producer(settings.kafka_bootstrap, security=settings.kafka_security) as producer:
        outcomes = [(item_id, producer.delete(item_id, version)) for item_id in ids]
        for item_id, outcome in outcomes:
            place = outcome.result()
            where = f"{place.topic}[{place.partition}] offset {place.offset}"
            click.echo(f"deletion of {item_id} published, version {version} ({where})")
