"""The embedded stack on an Apache Kafka in place of its own broker: Java 17, Maven, and the jars of the tests."""

import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.engines.apache_kafka import apache_kafka_command, apache_kafka_jars

from benchmarks.programs import run_embedded
from nearkin.embedded.broker import broker_answers
from nearkin.embedded.programs import LOOPBACK, free_port, start, wait_until
from nearkin.embedded.stack import Stack
from nearkin.ops.settings import load_settings
from nearkin.ops.topics import apply_topics

T = TypeVar("T")

#: How long Apache Kafka may take to answer, in seconds.
PATIENCE_S = 120.0


def run_on_kafka(work: Callable[[Stack], Awaitable[T]]) -> T:
    """Do some work beside a stack of its own on an Apache Kafka; all of it is gone afterwards with its data."""
    with tempfile.TemporaryDirectory(prefix="nearkin-benchmark-") as folder, apache_kafka(Path(folder)) as kafka:
        return run_embedded(work, kafka)


@contextmanager
def apache_kafka(folder: Path) -> Iterator[str]:
    """An Apache Kafka of one broker with Nearkin's topics; its host:port."""
    address = f"{LOOPBACK}:{(port := free_port())}"
    command = apache_kafka_command(apache_kafka_jars(), folder / "kafka", port, address)
    with (folder / "kafka.log").open("wb") as log:
        process = start(command, log)
        try:
            wait_until(lambda: broker_answers(address), "Apache Kafka", process, PATIENCE_S)
            apply_topics(address, load_settings().items_partitions, replication=1).require()
            yield address
        finally:
            process.kill()
            process.wait()
