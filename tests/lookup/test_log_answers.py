"""Answers reach lookups.v1 whatever happens to the broker, none waits for it, and each is accounted for."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from nearkin.contracts.lookups import decode_answered
from nearkin.contracts.topics import LOOKUPS
from nearkin.core.answer import LoggedAnswer, Placed, is_sampled
from nearkin.core.candidates import CandidateSource, Source
from nearkin.core.exploration import Policy
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.lookup import log_answers
from nearkin.lookup.log_answers import AnswerLog, make_request_id
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import Settings
from nearkin.ops.topics import apply_topics

NOW = 1_760_000_000_000


@pytest.fixture(scope="module")
def shared_broker():
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def broker(shared_broker):
    """A broker with the topics of the contract, and nothing in them."""
    shared_broker.resume()
    restart(shared_broker)
    return shared_broker


def restart(broker):
    broker.kill()
    broker.start()
    apply_topics(broker.bootstrap, 2, 1)


def answer(request_id="r", *, anchor="a", items=3, **changes):
    positions = tuple(
        Placed(f"i{place}", place, 1.0 / place, 0.5, False, (Source(CandidateSource.PAIRS, 2.0, place),), (0.25, -1.0))
        for place in range(1, items + 1)
    )
    known = {
        "k": 10,
        "ranking": "combined",
        "feature_names": ("coec", "price"),
        "features_version": 1,
        "surface": "page",
    }
    return LoggedAnswer(request_id, NOW, anchor, positions=positions, **{**known, **changes})


class Accounts:
    """An answer log, and what it counted."""

    def __init__(self, bootstrap, **changes):
        settings = {"retry_initial_ms": 20, "retry_max_ms": 100, **changes}
        self.registry = CollectorRegistry()
        self.log = AnswerLog(Settings(kafka_bootstrap=bootstrap, **settings), Metrics(self.registry))
        self.offered = 0

    def offer(self, *answers):
        for one in answers:
            self.offered += 1
            self.log.offer(one)

    def count(self, name, **labels):
        return self.registry.get_sample_value(f"nearkin_{name}", labels) or 0

    @property
    def logged(self):
        return self.count("lookups_logged_total")

    @property
    def unlogged(self):
        reasons = ("not_sampled", "repeated", "buffer_full", "unwritable", "unsent")
        return {reason: count for reason in reasons if (count := self.count("lookups_unlogged_total", reason=reason))}

    @property
    def waiting(self):
        return self.count("lookup_log_waiting_items")

    async def until_logged(self, count):
        async with asyncio.timeout(60):
            while self.logged < count:  # noqa: ASYNC110  # a counter tells nobody
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def answer_log(bootstrap, *, grace_s=30.0, **changes):
    """A log that is drained at the end; every answer that was offered must then be accounted for, once."""
    accounts = Accounts(bootstrap, **changes)
    await accounts.log.start()
    try:
        yield accounts
    finally:
        await accounts.log.drain(grace_s)
    assert accounts.logged + sum(accounts.unlogged.values()) == accounts.offered
    assert accounts.waiting == 0


async def read(broker):
    """What lies in the topic: records by partition and offset."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap)
    await consumer.start()
    try:
        partitions = [TopicPartition(LOOKUPS.name, number) for number in range(2)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        records = []
        while len(records) < sum(ends.values()):
            for batch in (await consumer.getmany(timeout_ms=1000)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


async def answers_in(broker):
    return {(told := decode_answered(one.key, one.value)).event_id: told for one in await read(broker)}


async def test_what_is_offered_is_read_back_equal(broker):
    told = [
        answer("one", moved=(), market="GB", weights="default-1", policy=Policy.SHUFFLED),
        answer("two", anchor=None, collection="c", bundle="b", degraded=("evidence",)),
        answer("three", items=0),
    ]
    async with answer_log(broker.bootstrap) as accounts:
        accounts.offer(*told)
        await accounts.until_logged(3)
    assert await answers_in(broker) == {one.event_id: one for one in told}
    assert {record.timestamp for record in await read(broker)} == {NOW}


async def test_answers_of_one_anchor_lie_in_one_partition(broker):
    async with answer_log(broker.bootstrap) as accounts:
        accounts.offer(*(answer(f"{anchor}{number}", anchor=anchor) for anchor in "abcdef" for number in range(3)))
    partitions = {}
    for record in await read(broker):
        partitions.setdefault(record.key, set()).add(record.partition)
    assert len(partitions) == 6
    assert all(len(places) == 1 for places in partitions.values())


async def test_while_the_broker_is_away_the_buffer_fills_and_what_is_beyond_is_dropped(broker):
    broker.kill()
    async with answer_log(broker.bootstrap, lookup_log_buffer=10) as accounts:
        accounts.offer(*(answer(f"r{number}") for number in range(5)))
        assert accounts.unlogged == {"buffer_full": 2}
        assert accounts.waiting == 9
        accounts.offer(answer("small", items=1))
        assert accounts.waiting == 10
        await asyncio.sleep(0.3)  # some tries that fail
        restart(broker)
        await accounts.until_logged(4)
        accounts.offer(answer("afterwards"))
    assert {one.request_id for one in (await answers_in(broker)).values()} == {"r0", "r1", "r2", "small", "afterwards"}


async def test_an_answer_that_was_dropped_is_taken_when_it_comes_again(broker):
    broker.kill()
    async with answer_log(broker.bootstrap, lookup_log_buffer=3) as accounts:
        accounts.offer(answer("one"), answer("two"))
        restart(broker)
        await accounts.until_logged(1)
        accounts.offer(answer("two"))
    assert accounts.unlogged == {"buffer_full": 1}
    assert len(await read(broker)) == 2


async def test_a_broker_that_comes_back_gets_what_waits_without_a_restart(broker):
    async with answer_log(broker.bootstrap) as accounts:
        accounts.offer(answer("before"))
        await accounts.until_logged(1)
        broker.kill()
        accounts.offer(*(answer(f"r{number}") for number in range(600)))
        await asyncio.sleep(0.3)
        restart(broker)
        await accounts.until_logged(601)
    assert {one.request_id for one in (await answers_in(broker)).values()} == {f"r{number}" for number in range(600)}


async def test_a_pause_of_the_broker_loses_nothing(broker):
    async with answer_log(broker.bootstrap) as accounts:
        accounts.offer(answer("before"))
        await accounts.until_logged(1)
        broker.pause()
        accounts.offer(*(answer(f"r{number}") for number in range(20)))
        await asyncio.sleep(1)
        assert accounts.logged == 1
        broker.resume()
        await accounts.until_logged(21)
    assert len(await answers_in(broker)) == 21


async def test_what_is_not_acknowledged_in_time_is_sent_again_and_counted_once(broker, monkeypatch):
    monkeypatch.setattr(log_answers, "_REQUEST_TIMEOUT_MS", 300)
    async with answer_log(broker.bootstrap) as accounts:
        accounts.offer(answer("before"))
        await accounts.until_logged(1)
        broker.pause()
        accounts.offer(*(answer(f"r{number}") for number in range(20)))
        async with asyncio.timeout(60):
            while accounts.count("retries_total", engine="broker") == 0:  # noqa: ASYNC110  # a counter tells nobody
                await asyncio.sleep(0.01)
        broker.resume()
        await accounts.until_logged(21)
    assert accounts.logged == 21
    assert len(await answers_in(broker)) == 21


async def test_a_topic_that_is_made_late_gets_what_waits(shared_broker):
    shared_broker.kill()
    shared_broker.start()
    async with answer_log(shared_broker.bootstrap) as accounts:
        accounts.offer(answer())
        await asyncio.sleep(0.3)
        apply_topics(shared_broker.bootstrap, 2, 1)
        await accounts.until_logged(1)


async def test_a_look_up_that_is_sent_again_is_logged_once(broker):
    async with answer_log(broker.bootstrap) as accounts:
        accounts.offer(answer(), answer(), answer(items=2))
        await accounts.until_logged(1)
        accounts.offer(answer())
        accounts.offer(answer(anchor="b"), answer(surface="cart"))
    assert accounts.unlogged == {"repeated": 3}
    assert len(await read(broker)) == 3


async def test_only_the_look_ups_that_were_taken_last_are_known_again(broker, monkeypatch):
    monkeypatch.setattr(log_answers, "REMEMBERED", 5)
    async with answer_log(broker.bootstrap) as accounts:
        accounts.offer(*(answer(f"r{number}") for number in range(6)))
        accounts.offer(answer("r1"), answer("r0"))
    assert accounts.unlogged == {"repeated": 1}
    assert len(await read(broker)) == 7


async def test_a_share_is_sampled_by_the_hash_of_the_request_id_and_explored_answers_always(broker):
    plain = [answer(f"r{number}", items=1) for number in range(300)]
    explored = [answer(f"x{number}", items=1, policy=Policy.NEW_ITEM) for number in range(50)]
    async with answer_log(broker.bootstrap, lookup_log_rate=0.3) as accounts:
        accounts.offer(*plain, *explored)
    sampled = [replace(one, log_rate=0.3) for one in plain if is_sampled(one.request_id, 0.3)]
    assert 0 < len(sampled) < 300
    assert await answers_in(broker) == {one.event_id: one for one in (*sampled, *explored)}
    assert accounts.unlogged == {"not_sampled": 300 - len(sampled)}


async def test_a_stop_sends_what_waits_and_takes_nothing_more(broker):
    async with answer_log(broker.bootstrap) as accounts:
        accounts.offer(*(answer(f"r{number}") for number in range(400)))
        await accounts.log.drain(30)
        assert accounts.logged == 400
        accounts.offer(answer("late"))
    assert accounts.unlogged == {"unsent": 1}
    assert len(await read(broker)) == 400


async def test_a_stop_without_a_broker_ends_within_its_grace_and_tells_what_was_not_sent(broker):
    broker.kill()
    async with answer_log(broker.bootstrap, grace_s=1) as accounts:
        accounts.offer(*(answer(f"r{number}") for number in range(300)))
        async with asyncio.timeout(30):
            await accounts.log.drain(1)
        assert accounts.unlogged == {"unsent": 300}


async def test_a_stop_while_the_broker_is_frozen_ends_within_its_grace(broker):
    async with answer_log(broker.bootstrap, grace_s=0.5) as accounts:
        accounts.offer(answer("before"))
        await accounts.until_logged(1)
        broker.pause()
        accounts.offer(*(answer(f"r{number}") for number in range(300)))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(30):
            await accounts.log.drain(0.5)
        assert accounts.unlogged == {"unsent": 300}
    broker.resume()


@pytest.mark.parametrize(
    "broken",
    [
        answer("\ud83d"),
        answer("x", log_rate=7.0, k=0),
        answer("x", feature_names=("coec",)),
        answer("x", ranking=None),
        replace(answer("x"), positions=("no place",)),
    ],
    ids=["surrogate", "bound", "uneven", "none", "type"],
)
async def test_an_answer_that_cannot_be_written_is_counted_and_the_next_is_logged(broker, broken):
    async with answer_log(broker.bootstrap) as accounts:
        accounts.offer(broken, answer("next"))
        await accounts.until_logged(1)
    assert accounts.unlogged == {"unwritable": 1}
    assert [told.request_id for told in (await answers_in(broker)).values()] == ["next"]


def test_the_ids_that_the_server_makes_are_distinct_and_fit_the_contract():
    assert len({make_request_id() for _ in range(1000)}) == 1000
    assert len(make_request_id()) == 32
