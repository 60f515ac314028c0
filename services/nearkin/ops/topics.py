"""Makes the topics on the broker and compares those that are there with the contract.

Missing topics are made. A topic that is there but set otherwise is told, with what is, what should be and the remedy,
and is never changed behind the operator's back: a shorter retention deletes records, more partitions move keys.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError

from nearkin.contracts.topics import TOPICS, Topic
from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.ops.kafka_security import PLAINTEXT, KafkaSecurity
from nearkin.ops.reach import require_broker


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A setting of a topic that is not as the contract says.

    Attributes:
        topic: the topic's name.
        setting: what differs, as the broker calls it.
        found: what the broker has.
        wanted: what it must be.
        remedy: what the operator can do.
    """

    topic: str
    setting: str
    found: str
    wanted: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.found}, must be {self.wanted}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class TopicsReport:
    """What a check found or an apply did.

    Attributes:
        created: topics that were made.
        missing: topics that are not there.
        mismatches: settings that differ.
    """

    created: tuple[str, ...]
    missing: tuple[str, ...]
    mismatches: tuple[Mismatch, ...]

    @property
    def agrees(self) -> bool:
        """Whether the broker is now as the contract says."""
        return not self.missing and not self.mismatches

    def require(self) -> None:
        """Refuse to go on with topics that are not as they must be.

        Raises:
            Misconfigured: names every difference.
        """
        if self.agrees:
            return
        wrong = [f"{name} is missing" for name in self.missing]
        wrong += [f"{m.topic}: {m.setting} is {m.found}, must be {m.wanted}" for m in self.mismatches]
        raise Misconfigured(
            "; ".join(wrong),
            field="topics",
            remedy=self.mismatches[0].remedy if self.mismatches else "run `nearkin topics apply`",
            reason="topics",
        )


def check_topics(
    bootstrap: str, partitions: int, replication: int, timeout_s: float = 10, security: KafkaSecurity = PLAINTEXT
) -> TopicsReport:
    """Compare the broker's topics with the contract; changes nothing.

    Args:
        bootstrap: Kafka brokers, host:port separated by commas.
        partitions: how many partitions each topic must have.
        replication: how many replicas each partition must have at least.
        timeout_s: how long the broker may be out of reach.
        security: how the connection is protected.

    Raises:
        Unavailable: the broker does not answer.
    """
    return _visit(bootstrap, partitions, replication, timeout_s, security, create=False)


def apply_topics(
    bootstrap: str, partitions: int, replication: int, timeout_s: float = 10, security: KafkaSecurity = PLAINTEXT
) -> TopicsReport:
    """Make the topics that are missing and compare the others; arguments and errors as `check_topics`."""
    return _visit(bootstrap, partitions, replication, timeout_s, security, create=True)


def require_topics(
    bootstrap: str, topics: Sequence[Topic], timeout_s: float = 10, *, security: KafkaSecurity = PLAINTEXT
) -> None:
    """Refuse to publish where a topic is missing: some brokers would make one of their own.

    Raises:
        Misconfigured: names the topic.
        Unavailable: the broker does not answer.
    """
    with _connected(bootstrap, timeout_s, security) as admin:
        missing = {topic.name for topic in _missing(admin)}
    for topic in topics:
        if topic.name in missing:
            raise Misconfigured(
                "the topic is not there", field=topic.name, remedy="run `nearkin topics apply`", reason="topics"
            )


@contextlib.contextmanager
def _connected(bootstrap: str, timeout_s: float, security: KafkaSecurity) -> Iterator[Any]:
    require_broker(bootstrap, timeout_s)
    timeout_ms = int(timeout_s * 1000)
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap,
            bootstrap_timeout_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
            **security.options(),
        )
        try:
            yield admin
        finally:
            admin.close()
    except KafkaError as error:
        raise Unavailable("broker", f"{type(error).__name__} at {bootstrap}{security.hint}") from error


def _visit(
    bootstrap: str, partitions: int, replication: int, timeout_s: float, security: KafkaSecurity, *, create: bool
) -> TopicsReport:
    with _connected(bootstrap, timeout_s, security) as admin:
        missing = _missing(admin)
        created = _create(admin, missing, partitions, replication) if create else ()
        left = () if create else tuple(topic.name for topic in missing)
        present = [topic for topic in TOPICS if topic.name not in left]
        return TopicsReport(created, left, tuple(_compare(admin, present, partitions, replication)))


def _missing(admin: Any) -> list[Topic]:
    there = set(admin.list_topics())
    return [topic for topic in TOPICS if topic.name not in there]


def _settings(topic: Topic) -> dict[str, str]:
    return {
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": str(topic.max_message_bytes),
        "cleanup.policy": topic.cleanup_policy,
    }


def _create(admin: Any, topics: Sequence[Topic], partitions: int, replication: int) -> tuple[str, ...]:
    created = []
    for topic in topics:
        wanted = {"num_partitions": partitions, "replication_factor": replication, "configs": _settings(topic)}
        try:
            admin.create_topics({topic.name: wanted}, wait_for_metadata=True)
        except TopicAlreadyExistsError:
            continue  # somebody else was first: compared like any other
        created.append(topic.name)
    return tuple(created)


def _compare(admin: Any, topics: Sequence[Topic], partitions: int, replication: int) -> list[Mismatch]:
    if not topics:
        return []
    described = {topic["name"]: topic for topic in admin.describe_topics([topic.name for topic in topics])}
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    # Without "all", kafka-python leaves out what a broker marks as default, and Tansu marks everything so.
    settings = admin.describe_configs(resources, config_filter="all")["topic"]
    mismatches = []
    for topic in topics:
        layout = described[topic.name]["partitions"]
        if len(layout) != partitions:
            mismatches.append(
                Mismatch(
                    topic.name,
                    "the number of partitions",
                    str(len(layout)),
                    str(partitions),
                    f"set NEARKIN_ITEMS_PARTITIONS={len(layout)}, or "
                    + (
                        "add partitions as docs/operations.md says"
                        if len(layout) < partitions
                        else "delete the topic, apply again and publish again, as partitions cannot be taken away"
                    ),
                )
            )
        replicas = min((len(partition["replica_nodes"]) for partition in layout), default=replication)
        if replicas < replication:
            mismatches.append(
                Mismatch(
                    topic.name,
                    "the number of replicas",
                    str(replicas),
                    f"at least {replication}",
                    f"set NEARKIN_KAFKA_REPLICATION={replicas}, or move partitions with kafka-reassign-partitions",
                )
            )
        found = settings.get(topic.name, {})
        for setting, wanted in _settings(topic).items():
            value = found.get(setting, {}).get("value")
            if value != wanted:
                mismatches.append(
                    Mismatch(
                        topic.name,
                        setting,
                        "not set" if value is None else str(value),
                        wanted,
                        f"kafka-configs --alter --topic {topic.name} --add-config {setting}={wanted} "
                        "(on the embedded broker: restart `nearkin up`)",
                    )
                )
    return mismatches
