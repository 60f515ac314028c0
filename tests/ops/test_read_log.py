"""What is read of a log beside the consumer that serves, on a real broker."""

import asyncio

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from nearkin.embedded.broker import EmbeddedBroker
from nearkin.ops import read_log
from nearkin.ops.read_log import Logs, NothingThere

PLACE = ("t", 0)


@pytest.fixture(scope="module")
def bootstrap():
    with EmbeddedBroker() as broker:
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.create_topics({"t": {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
        admin.close()
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
        for future in [producer.send("t", f"{number}".encode(), partition=0) for number in range(10)]:
            future.get(30)
        producer.close()
        yield broker.bootstrap


async def read(bootstrap, start, end, came):
    async for records in Logs(bootstrap).read(PLACE, start, end):
        came += [record.offset for record in records]


def test_a_stretch_is_read_from_its_first_offset_up_to_its_last(bootstrap):
    came = []

    asyncio.run(read(bootstrap, 3, 8, came))

    assert came == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("start", [4, 12], ids=["begins_in_the_log", "begins_after_the_log"])
def test_what_a_log_does_not_hold_is_not_waited_for_without_end(bootstrap, monkeypatch, start):
    monkeypatch.setattr(read_log, "STUCK_S", 2.0)
    came = []

    with pytest.raises(NothingThere):
        asyncio.run(read(bootstrap, start, 20, came))

    assert came == list(range(start, 10))


def test_a_log_is_told_by_the_id_of_its_topic_and_its_ends(bootstrap):
    found = asyncio.run(Logs(bootstrap).describe([PLACE, ("other", 0)]))

    assert set(found) == {PLACE}
    assert found[PLACE].begin == 0
    assert 0 <= found[PLACE].end <= 10
