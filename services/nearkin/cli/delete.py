"""`nearkin delete`: say that items are gone."""

from pathlib import Path

import click

from nearkin.cli.target import data_option, target
from nearkin.client.producer import ItemProducer
from nearkin.core.item import MAX_VERSION
from nearkin.ops.topics import require_lanes


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

    A deletion wins over every version up to its own, whatever the order of arrival; a newer upsert brings the item
    back.
    """
    settings = target(data)
    require_lanes(settings.kafka_bootstrap)
    with ItemProducer(settings.kafka_bootstrap) as producer:
        outcomes = [(item_id, producer.delete(item_id, version)) for item_id in ids]
        for item_id, outcome in outcomes:
            place = outcome.result()
            click.echo(f"deleted {item_id} ({place.topic}[{place.partition}] offset {place.offset})")
