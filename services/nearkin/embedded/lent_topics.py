"""Nearkin's topics on a Kafka that runs elsewhere, for as long as a demonstration lasts.

What a demonstration publishes must not reach an index that people use, nor what they publish reach the demonstration:
a Kafka that has any of these topics is left as it is.
"""

import contextlib
import logging
from collections.abc import Iterator

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from nearkin.contracts.topics import TOPICS
from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.ops.settings import Settings
from nearkin.ops.topics import apply_topics, check_topics

log = logging.getLogger(__name__)

#: How long a broker that is away is waited for, in milliseconds.
DELETE_MS = 10_000


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
    except BaseException:
        try:
            _delete(settings, names)
        except Unavailable as left:
            log.warning("%s", left)  # beside what failed before, which is what matters
        raise
    _delete(settings, names)


def _delete(settings: Settings, names: list[str]) -> None:
    bootstrap = settings.kafka_bootstrap
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap, bootstrap_timeout_ms=DELETE_MS, **settings.kafka_security.options()
        )
        try:
            admin.delete_topics(names)
        finally:
            admin.close()
    except KafkaError as error:
        why = f"the topics of the demonstration stay at {bootstrap} ({type(error).__name__}): delete them by hand"
        raise Unavailable("broker", why) from error
