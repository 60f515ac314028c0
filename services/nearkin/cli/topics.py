"""`nearkin topics`: make the topics, and compare them with the contract."""

from pathlib import Path

import click

from nearkin.cli.target import data_option, target
from nearkin.contracts.topics import TOPICS
from nearkin.core.errors import Misconfigured
from nearkin.ops.topics import TopicsReport, apply_topics, check_topics


@click.group()
def topics() -> None:
    """Make the topics on the broker, or check them by contract.

    They are items.v1, items-bulk.v1, feedback.v1, visits.v1, for each the .dlq that keeps what was refused, and
    lookups.v1.
    """


@topics.command()
@data_option
def apply(data: Path | None) -> None:
    """Make the topics that are missing; one that is set otherwise is told, never changed (exit code 2)."""
    settings = target(data)
    _tell(
        apply_topics(
            settings.kafka_bootstrap,
            settings.items_partitions,
            settings.kafka_replication,
            security=settings.kafka_security,
        )
    )


@topics.command()
@data_option
def check(data: Path | None) -> None:
    """Compare the topics with the contract and change nothing; a difference exits with 2."""
    settings = target(data)
    _tell(
        check_topics(
            settings.kafka_bootstrap,
            settings.items_partitions,
            settings.kafka_replication,
            security=settings.kafka_security,
        )
    )


def _tell(report: TopicsReport) -> None:
    if report.created:
        click.echo(f"made {', '.join(report.created)}")
    for name in report.missing:
        click.echo(f"{name} is missing")
    for one in report.mismatches:
        click.echo(f"{one.topic}: {one.setting} is {one.found}, must be {one.wanted}")
    if report.agrees:
        click.echo(f"every topic is as it must be: {', '.join(topic.name for topic in TOPICS)}")
        return
    remedies = dict.fromkeys(one.remedy for one in report.mismatches)
    if report.missing:
        remedies["run `nearkin topics apply`"] = None
    raise Misconfigured(
        "the broker is not as the contract says", field="topics", remedy="; ".join(remedies), reason="topics"
    )
