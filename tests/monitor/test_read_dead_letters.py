"""Dead letters are counted from their topics alone."""

from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

from nearkin.contracts.topics import FEEDBACK, ITEMS
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.monitor import read_dead_letters
from nearkin.monitor.read_dead_letters import ReadDeadLetters
from nearkin.monitor.read_lag import BrokerSide
from nearkin.ops.letters import LetterId, Settled, marker_headers
from nearkin.ops.topics import apply_topics

ITEMS_DLQ, FEEDBACK_DLQ = ITEMS.dead_letters.name, FEEDBACK.dead_letters.name


@pytest.fixture
def bootstrap() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, 2, 1)
        yield broker.bootstrap


def send(bootstrap: str, topic: str, *reasons: str, partition: int = 0) -> list[LetterId]:
    with KafkaProducer(bootstrap_servers=bootstrap) as producer:
        sent = [
            producer.send(topic, key=b"k", value=b"{}", partition=partition, headers=[("nearkin-reason", one.encode())])
            for one in reasons
        ]
        return [LetterId(topic, partition, each.get(timeout=30).offset) for each in sent]


def settle(bootstrap: str, letter: LetterId) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap) as producer:
        headers = marker_headers(letter, Settled.DROPPED, "test", 1_800_000_000_000)
        producer.send(letter.topic, key=b"k", headers=headers, partition=letter.partition).get(timeout=30)


async def test_letters_are_counted_by_topic_and_reason_until_they_are_settled(bootstrap):
    broker = BrokerSide(bootstrap)
    try:
        read = ReadDeadLetters(broker)
        assert await read() == {}
        first, *_ = send(bootstrap, ITEMS_DLQ, "too_long", "not_json", "too_long")
        send(bootstrap, ITEMS_DLQ, "too_long", partition=1)
        send(bootstrap, FEEDBACK_DLQ, "self_pair")
        assert await read() == {(ITEMS_DLQ, "too_long"): 3, (ITEMS_DLQ, "not_json"): 1, (FEEDBACK_DLQ, "self_pair"): 1}
        settle(bootstrap, first)
        assert (await read())[ITEMS_DLQ, "too_long"] == 2
        assert (await read())[ITEMS_DLQ, "too_long"] == 2
    finally:
        await broker.close()


async def test_letters_and_markers_that_came_as_one_batch_are_all_counted(bootstrap):
    broker = BrokerSide(bootstrap)
    reason = [("nearkin-reason", b"not_json")]
    try:
        read = ReadDeadLetters(broker)
        with KafkaProducer(bootstrap_servers=bootstrap, linger_ms=1000, batch_size=2**20) as producer:
            letters = [producer.send(ITEMS_DLQ, b"{}", b"k", headers=reason, partition=0) for _ in range(600)]
            producer.flush()
            assert await read() == {(ITEMS_DLQ, "not_json"): 600}
            for letter in letters[:400]:
                headers = marker_headers(
                    LetterId(ITEMS_DLQ, 0, letter.get(30).offset), Settled.DROPPED, "test", 1_800_000_000_000
                )
                producer.send(ITEMS_DLQ, key=b"k", headers=headers, partition=0)
            producer.flush()
        assert await read() == {(ITEMS_DLQ, "not_json"): 200}
        assert await read() == {(ITEMS_DLQ, "not_json"): 200}
        assert await ReadDeadLetters(broker)() == {(ITEMS_DLQ, "not_json"): 200}
    finally:
        await broker.close()


async def test_of_a_flood_the_newest_are_counted_and_a_reason_that_is_gone_is_told_as_none(bootstrap, monkeypatch):
    monkeypatch.setattr(read_dead_letters, "NEWEST", 20)
    broker = BrokerSide(bootstrap)
    try:
        read = ReadDeadLetters(broker)
        send(bootstrap, ITEMS_DLQ, "too_long")
        assert await read() == {(ITEMS_DLQ, "too_long"): 1}
        for _ in range(6):
            send(bootstrap, ITEMS_DLQ, *["not_json"] * 10)
        counted = await read()
        assert counted[ITEMS_DLQ, "too_long"] == 0
        assert 20 <= counted[ITEMS_DLQ, "not_json"] <= 40
    finally:
        await broker.close()
