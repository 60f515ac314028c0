import pytest
from click.testing import CliRunner
from kafka import KafkaConsumer, TopicPartition

from nearkin.cli.main import main
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.ops.topics import apply_topics


@pytest.fixture
def nearkin(tmp_path, monkeypatch):
    """Runs the command in an empty folder; gives click's result."""
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP", "LOOKUP_ADDRESS", "LOOKUP_LISTEN", "UP_DATA"):
        monkeypatch.delenv(f"NEARKIN_{name}", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)  # a runner of tests may have set it, and then it is heeded

    def run(*arguments: str, input: bytes | None = None):  # noqa: A002
        return CliRunner().invoke(main, arguments, input=input)

    return run


@pytest.fixture(scope="module")
def broker():
    """A broker with the topics of the contract."""
    with EmbeddedBroker() as running:
        apply_topics(running.bootstrap, 4, 1)
        yield running


@pytest.fixture
def at_broker(nearkin, broker, monkeypatch):
    """Runs the command with the environment naming the broker."""
    monkeypatch.setenv("NEARKIN_KAFKA_BOOTSTRAP", broker.bootstrap)
    return nearkin


@pytest.fixture
def records(broker):
    """What lies in a topic of the broker."""
    return lambda topic: read_topic(broker.bootstrap, topic)


def read_topic(bootstrap: str, topic: str) -> list:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        found = []
        while any(consumer.position(one) < ends[one] for one in partitions):
            for batch in consumer.poll(timeout_ms=1000).values():
                found += batch
        return found
    finally:
        consumer.close()
