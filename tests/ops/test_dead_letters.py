"""Dead letters on a real broker: all of them, in order, and few at a time for nobody who waits behind them."""

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from kafka import KafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from nearkin.contracts.topics import FEEDBACK, ITEMS
from nearkin.core.errors import InvalidEvent, Unavailable
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.ops.dead_letters import DeadLetters
from nearkin.ops.metrics import Metrics
from nearkin.ops.record import Record, Rejected
from nearkin.ops.topics import apply_topics

PARTITIONS = 4
WRONG = InvalidEvent("it is too long", remedy="send a shorter text", field="title", reason="too_long")


@pytest.fixture
def broker():
    """One without records."""
    with EmbeddedBroker() as running:
        apply_topics(running.bootstrap, PARTITIONS, 1)
        yield running


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry(), "test")


@pytest.fixture
async def letters(broker, metrics):
    made = DeadLetters(broker.bootstrap, (FEEDBACK, ITEMS), metrics)
    yield made
    await made.close()


@pytest.fixture
def sent_batches(monkeypatch):
    """How many records each batch has that goes to the broker."""
    sizes = []
    send = AIOKafkaProducer.send_batch

    async def counted(producer, batch, *where, **more):
        sizes.append(batch.record_count())
        return await send(producer, batch, *where, **more)

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", counted)
    return sizes


def rejected(number, size=200, topic=FEEDBACK, partitions=PARTITIONS):
    record = Record(topic.name, number % partitions, number, 1_700_000_000_000, b"%d" % number, b"x" * size)
    return Rejected(record, WRONG)


def offsets_of_origin(broker, topic, partition):
    reader = KafkaConsumer(bootstrap_servers=broker.bootstrap, max_partition_fetch_bytes=2**24)
    place = TopicPartition(topic.dead_letters.name, partition)
    reader.assign([place])
    reader.seek_to_beginning()
    (end,) = reader.end_offsets([place]).values()
    found = []
    while reader.position(place) < end:
        for batch in reader.poll(timeout_ms=500).values():
            found += [int(dict(one.headers)["nearkin-origin-offset"]) for one in batch]
    reader.close()
    return found


async def test_many_go_out_in_few_batches_each_to_its_own_partition_and_in_order(broker, letters, sent_batches):
    await letters.send([rejected(number) for number in range(2000)])

    for partition in range(PARTITIONS):
        assert offsets_of_origin(broker, FEEDBACK, partition) == [*range(partition, 2000, PARTITIONS)]
    assert sum(sent_batches) == 2000
    assert len(sent_batches) <= 3 * PARTITIONS


async def test_large_ones_among_small_ones_go_alone_and_all_arrive(broker, letters, sent_batches):
    await letters.send([rejected(number, 10 if number % 3 else 900_000, partitions=1) for number in range(9)])

    assert offsets_of_origin(broker, FEEDBACK, 0) == [*range(9)]
    assert sent_batches == [1, 2, 1, 2, 1, 2]


async def test_those_of_a_partition_that_the_dead_letters_do_not_have_go_to_the_first(broker, letters):
    await letters.send([rejected(7, partitions=8), rejected(1, topic=ITEMS)])

    assert offsets_of_origin(broker, FEEDBACK, 0) == [7]
    assert offsets_of_origin(broker, ITEMS, 1) == [1]


async def test_where_one_partition_takes_none_the_others_have_theirs_and_nothing_is_called_done(
    broker, letters, metrics, monkeypatch
):
    send = AIOKafkaProducer.send_batch

    async def refuses(producer, batch, topic, partition):
        if partition == 0:
            raise MessageSizeTooLargeError
        return await send(producer, batch, topic, partition=partition)

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", refuses)

    with pytest.raises(Unavailable, match="dead letters are not taken"):
        await letters.send([rejected(number) for number in range(40)])

    assert [len(offsets_of_origin(broker, FEEDBACK, partition)) for partition in range(PARTITIONS)] == [0, 10, 10, 10]
    told = {"topic": FEEDBACK.name, "reason": "too_long"}
    assert not metrics.registry.get_sample_value("nearkin_dead_letters_total", told)


async def test_a_refused_event_is_told_by_its_own_name_and_by_nothing_else_of_it(letters, caplog):
    values = [b'{"event_id": "e-1", "title": "words"}', b'{"event_id": "words of somebody"}', b"no json", None]

    await letters.send([Rejected(Record(ITEMS.name, 0, at, 1, b"k", value), WRONG) for at, value in enumerate(values)])

    told = [each.fields for each in caplog.records if each.getMessage() == "dead letter"]
    assert [each["event_id"] for each in told] == ["e-1", "", "", ""]
    assert "words" not in str(told)
