"""Lag and ages, by what a broker says."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaAdminClient, KafkaProducer

from engines.apache_kafka import apache_kafka_command
from nearkin.contracts.topics import FEEDBACK, GROUPS, ITEMS, VISITS
from nearkin.core.errors import Unavailable
from nearkin.embedded.broker import EmbeddedBroker, broker_answers
from nearkin.embedded.programs import free_port, leashed
from nearkin.monitor.read_lag import BrokerSide, Oldest, Waiting, read_heads, waiting_from
from nearkin.ops.topics import apply_topics
from waiting import HUNG_S, until

PARTITIONS = 2


@given(begin=st.integers(0, 50), kept=st.integers(0, 50), committed=st.integers(-1, 150))
def test_what_waits_lies_between_the_beginning_and_the_end_and_after_what_was_committed(begin, kept, committed):
    end = begin + kept
    position, count = waiting_from(begin, end, committed)
    assert begin <= position <= end
    assert position + count == end
    assert position in (begin, committed)


class TestOldest:
    @pytest.fixture(autouse=True)
    def clocks(self):
        self.monotonic, self.wall = 1000.0, 1_800_000_000.0
        self.oldest = Oldest(clock=lambda: self.monotonic, now=lambda: self.wall)

    def passes(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def live(self, position: int, count: int, partition: int = 0) -> Waiting:
        return Waiting((ITEMS.name, partition), GROUPS[ITEMS], position, count)

    def see(self, *waiting: Waiting, stamped_s_ago: float = 0.0) -> None:
        for place, position in self.oldest.see(waiting):
            self.oldest.stamp(place, position, int((self.wall - stamped_s_ago) * 1000))

    def test_the_age_is_the_records_and_grows_while_nothing_moves(self):
        self.see(self.live(7, 3), stamped_s_ago=2.0)
        assert self.oldest.ages()["live"] == pytest.approx(2.0)
        self.passes(60)
        self.see(self.live(7, 9))
        assert self.oldest.ages() == {"live": pytest.approx(62.0), "bulk": 0.0, "feedback": 0.0, "visits": 0.0}

    def test_the_oldest_of_all_partitions_counts(self):
        self.see(self.live(7, 3), stamped_s_ago=2.0)
        self.see(self.live(7, 3), self.live(1, 1, partition=1), stamped_s_ago=30.0)
        assert self.oldest.ages()["live"] == pytest.approx(30.0)

    def test_it_is_nothing_once_nothing_waits(self):
        self.see(self.live(7, 3), stamped_s_ago=2.0)
        self.see(self.live(10, 0))
        assert self.oldest.ages()["live"] == 0.0

    def test_a_record_from_the_future_or_without_a_time_grows_old_too(self):
        self.see(self.live(7, 1), stamped_s_ago=-3600.0)
        assert self.oldest.ages()["live"] == pytest.approx(0.0)
        self.passes(10)
        assert self.oldest.ages()["live"] == pytest.approx(10.0)

    def test_a_clock_that_is_set_back_makes_nothing_younger_than_it_was_seen_to_wait(self):
        self.see(self.live(7, 1), stamped_s_ago=1.0)
        self.passes(100)
        self.wall -= 5000
        assert self.oldest.ages()["live"] == pytest.approx(100.0)

    def test_the_same_offset_of_a_log_that_was_made_again_is_another_record(self):
        self.see(self.live(0, 5), stamped_s_ago=100.0)
        self.see(self.live(0, 1), stamped_s_ago=1.0)
        assert self.oldest.ages()["live"] == pytest.approx(1.0)

    def test_what_is_known_already_is_not_asked_for_again(self):
        self.see(self.live(7, 3), stamped_s_ago=1.0)
        assert self.oldest.see([self.live(7, 4)]) == []
        assert self.oldest.see([self.live(8, 3)]) == [((ITEMS.name, 0), 8)]


@pytest.fixture(scope="module")
def tansu() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, PARTITIONS, 1)
        yield broker.bootstrap


@pytest.fixture(scope="module")
def apache(apache_kafka: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    bootstrap = f"127.0.0.1:{port}"
    data = tmp_path_factory.mktemp("kafka") / "data"
    process = subprocess.Popen(
        leashed(apache_kafka_command(apache_kafka, data, port, bootstrap)),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: broker_answers(bootstrap), "Apache Kafka answers")
        apply_topics(bootstrap, PARTITIONS, 1)
        yield bootstrap
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["tansu", pytest.param("apache", marks=pytest.mark.slow)])
def bootstrap(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
async def broker(bootstrap: str) -> AsyncIterator[BrokerSide]:
    side = BrokerSide(bootstrap)
    yield side
    await side.close()


def publish(bootstrap: str, topic: str, count: int, partition: int = 0, timestamp_ms: int | None = None) -> None:
    """Some records, in one batch where the client likes."""
    with KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20) as producer:
        for _ in range(count):
            producer.send(topic, key=b"k", value=b"v", partition=partition, timestamp_ms=timestamp_ms)


async def commit(bootstrap: str, group: str, topic: str, offset: int, partition: int = 0) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(topic, partition)])
    await consumer.commit({TopicPartition(topic, partition): offset})
    await consumer.stop()


async def waiting(broker: BrokerSide, topic: str, partition: int = 0) -> Waiting:
    """What waits; a broker that has just begun makes the place of commits when it is first asked for one."""
    async with asyncio.timeout(HUNG_S):
        while True:
            for one in await broker.read_lag():
                if one.place == (topic, partition):
                    return one
            await asyncio.sleep(0.1)


async def test_what_a_group_has_not_committed_waits_and_its_oldest_record_says_since_when(bootstrap, broker):
    publish(bootstrap, ITEMS.name, 1, timestamp_ms=1_700_000_000_000)
    publish(bootstrap, ITEMS.name, 1, timestamp_ms=1_700_000_100_000)
    never = await waiting(broker, ITEMS.name)
    assert (never.position, never.count, never.lane, never.group) == (0, 2, "live", "nearkin-indexer-live")
    oldest = Oldest(now=lambda: 1_700_000_200.0)
    await read_heads(broker, oldest, oldest.see([never]))
    assert oldest.ages()["live"] == pytest.approx(200.0)
    await commit(bootstrap, GROUPS[ITEMS], ITEMS.name, 1)
    behind = await waiting(broker, ITEMS.name)
    assert (behind.position, behind.count) == (1, 1)
    await read_heads(broker, oldest, oldest.see([behind]))
    assert oldest.ages()["live"] == pytest.approx(100.0)
    await commit(bootstrap, GROUPS[ITEMS], ITEMS.name, 2)
    done = await waiting(broker, ITEMS.name)
    assert done.count == 0
    assert await waiting(broker, ITEMS.name, 1) == Waiting((ITEMS.name, 1), GROUPS[ITEMS], 0, 0)


async def test_a_group_that_has_committed_a_whole_batch_is_not_behind_where_a_broker_names_the_batchs_beginning(
    bootstrap, broker
):
    publish(bootstrap, VISITS.name, 50)
    await commit(bootstrap, GROUPS[VISITS], VISITS.name, 50)
    for _ in range(3):
        one = await waiting(broker, VISITS.name)
        assert (one.position, one.count) == (50, 0)
    publish(bootstrap, VISITS.name, 1)
    one = await waiting(broker, VISITS.name)
    assert (one.position, one.count) == (50, 1)


async def test_a_topic_that_was_made_again_waits_from_its_beginning(bootstrap, broker):
    publish(bootstrap, FEEDBACK.name, 1)
    publish(bootstrap, FEEDBACK.name, 1)
    await commit(bootstrap, GROUPS[FEEDBACK], FEEDBACK.name, 2)
    assert (await waiting(broker, FEEDBACK.name)).count == 0
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.delete_topics([FEEDBACK.name])
        until(lambda: FEEDBACK.name not in admin.list_topics(), "it is gone")
    finally:
        admin.close()
    apply_topics(bootstrap, PARTITIONS, 1)
    publish(bootstrap, FEEDBACK.name, 1)

    async def sees_one() -> bool:
        try:
            one = await waiting(broker, FEEDBACK.name)
        except Unavailable:
            return False
        return (one.position, one.count) == (0, 1)

    async with asyncio.timeout(HUNG_S):
        while not await sees_one():  # noqa: ASYNC110  # nobody announces it
            await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_nobody_waits_for_what_retention_has_taken(apache):
    publish(apache, VISITS.name, 5, partition=1)
    admin = KafkaAdminClient(bootstrap_servers=apache)
    try:
        admin.delete_records({TopicPartition(VISITS.name, 1): 5})
    finally:
        admin.close()
    broker = BrokerSide(apache)
    try:
        one = await waiting(broker, VISITS.name, 1)
        assert (one.position, one.count) == (5, 0)
    finally:
        await broker.close()


async def test_a_broker_that_ends_is_told_and_one_that_comes_back_is_asked_again():
    port = free_port()
    broker = BrokerSide(f"127.0.0.1:{port}")
    try:
        with pytest.raises(Unavailable, match="does not answer"):
            await broker.read_lag()
        for _ in range(2):
            with EmbeddedBroker(port=port) as running:
                apply_topics(running.bootstrap, PARTITIONS, 1)
                publish(running.bootstrap, ITEMS.name, 1)
                async with asyncio.timeout(HUNG_S):
                    while not (one := await waiting(broker, ITEMS.name)).count:  # noqa: ASYNC110  # as above
                        await asyncio.sleep(0.1)
                assert one.position == 0
            with pytest.raises(Unavailable):
                await broker.read_lag()
    finally:
        await broker.close()


@pytest.mark.slow
async def test_a_broker_that_hangs_is_told_and_asked_again_when_it_goes_on():
    with EmbeddedBroker() as running:
        apply_topics(running.bootstrap, PARTITIONS, 1)
        broker = BrokerSide(running.bootstrap)
        try:
            publish(running.bootstrap, ITEMS.name, 1)
            assert (await waiting(broker, ITEMS.name)).count == 1
            running.pause()
            async with asyncio.timeout(HUNG_S):
                with pytest.raises(Unavailable):
                    await broker.read_lag()
            running.resume()
            assert (await waiting(broker, ITEMS.name)).count == 1
        finally:
            running.resume()
            await broker.close()
