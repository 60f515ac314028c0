import subprocess
import sys
import time

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from nearkin.embedded.broker import EmbeddedBroker, broker_answers
from nearkin.embedded.programs import accepts, free_port


def test_a_record_that_was_acknowledged_can_be_read():
    with EmbeddedBroker() as broker:
        with KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all") as producer:
            placed = producer.send("letters", key=b"a", value=b"hello").get(timeout=20)
        with KafkaConsumer(bootstrap_servers=broker.bootstrap, consumer_timeout_ms=20_000) as consumer:
            partition = TopicPartition(placed.topic, placed.partition)
            consumer.assign([partition])
            consumer.seek(partition, placed.offset)
            record = next(consumer)
    assert (record.key, record.value) == (b"a", b"hello")


def test_nothing_listens_after_it_stopped():
    with EmbeddedBroker() as broker:
        assert broker_answers(broker.bootstrap)
    assert not accepts(broker.bootstrap)


def test_it_comes_back_empty_on_the_same_port():
    with EmbeddedBroker() as broker:
        with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            producer.send("letters", value=b"hello").get(timeout=20)
        broker.kill()
        broker.start()
        with KafkaConsumer(bootstrap_servers=broker.bootstrap) as consumer:
            assert consumer.topics() == set()


def test_it_dies_with_the_process_that_started_it():
    port = free_port()
    code = (
        "import os, signal; from nearkin.embedded.broker import EmbeddedBroker\n"
        f"EmbeddedBroker({port}).start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    for _ in range(500):
        if not accepts(f"127.0.0.1:{port}"):
            break
        time.sleep(0.02)
    else:
        pytest.fail("the broker outlived its parent")
    assert not [p for p in psutil.process_iter(["cmdline"]) if f":{port}" in " ".join(p.info["cmdline"] or [])]
