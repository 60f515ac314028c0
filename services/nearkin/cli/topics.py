"""`nearkin topics`: make the topics, and compare them with the contract."""

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from nearkin.cli.target import data_option, target
from nearkin.ops.topics import TopicsReport, apply_topics, check_topics


@click.group()
def topics() -> None:
    """Make the topics on the broker, or compare them with the contract."""


@topics.command()
@data_option
def apply(data: Path | None) -> None:
    """Make the topics that are missing; one that is set otherwise is told, never changed (exit code 2)."""
    settings = target(data)
    _tell(apply_topics(settings.kafka_bootstrap, settings.items_partitions, settings.kafka_replication))


@topics.command()
@data_option
def check(data: Path | None) -> None:
    """Compare the topics with the contract and change nothing; a difference exits with 2."""
    settings = target(data)
    _tell(check_topics(settings.kafka_bootstrap, settings.items_partitions, settings.kafka_replication))


def _tell(report: TopicsReport) -> None:
    console = Console()
    if report.created:
        console.print(f"made {', '.join(report.created)}", highlight=False)
    if report.mismatches:
        table = Table("topic", "setting", "is", "must be", "remedy")
        for one in report.mismatches:
            table.add_row(one.topic, one.setting, one.found, one.wanted, one.remedy)
        console.print(table)
    report.require()
    console.print("every topic is as it must be")
