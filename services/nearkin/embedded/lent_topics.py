"""Nearkin's topics on a Kafka that runs elsewhere, for as long as a demonstration lasts.

What a demonstration publishes must not reach an index that people use, nor what they publish reach the demonstration:
a Kafka that has any of these topics is left as it is.
"""

import contextlib
from collections.abc import Iterator

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from nearkin.contracts.topics import TOPICS
from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.ops.settings import Settings
from nearkin.ops.topics import apply_topics, check_topics


@contextlib.contextmanager
def lent_topics(settings: Settings) -> Iterator[None]:
    """Make the topics, and delete them at the end.

    Args:
        settings: which Kafka, and how many partitions and replicas.

    Raises:
        Misconfigured: it has some of them already, or cannot have them as they must be.
        Unavailable: it does not answer.
    """
    bootstrap, security = settings.kafka_bootstrap, settings.kafka_security
    partitions, replication = settings.items_partitions, settings.kafka_replication
    missing = check_topics(bootstrap, partitions, replication, security=security).missing
    names = [topic.name for topic in TOPICS]
    if found := [name for name in names if name not in missing]:
        raise Misconfigured(
            f"{bootstrap} has the topic {found[0]} already",
            field="--kafka",
            remedy="give a Kafka without Nearkin's topics: they are made, and deleted at the end",
            reason="topics",
        )
    try:
        apply_topics(bootstrap, partitions, replication, security=security).require()
        yield
    finally:
        try:
            admin = KafkaAdminClient(bootstrap_servers=bootstrap, **security.options())
            try:
                admin.delete_topics(names)
            finally:
                admin.close()
        except KafkaError as error:
            raise Unavailable("broker", f"the topics of the demonstration stay at {bootstrap}") from error
