"""What every worker promises, on a real broker: nothing is acknowledged before its effect, and nothing is lost."""

import asyncio
import signal
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalStateError
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry

from nearkin.contracts.topics import Topic
from nearkin.core.errors import InvalidEvent, Misconfigured
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.ops.failures import Stopped
from nearkin.ops.health import Health
from nearkin.ops.inbox import Inbox, Letter
from nearkin.ops.metrics import Metrics
from nearkin.ops.record import Record, Rejected
from nearkin.ops.settings import load_settings
from nearkin.ops.worker import Worker
from ops.service_process import ServiceProcess, eventually

PROGRAM = str(Path(__file__).with_name("worker_program.py"))


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as running:
        yield running


class Stage:
    """A topic of its own with its dead letters, and workers on it.

    Args:
        broker: where it is.
        folder: of what was applied, and of the logs.
        served: the worker that serves it, where there is one that serves several.
    """

    def __init__(self, broker, folder, served=None):
        self.broker, self.folder, self.served, self.partitions = broker, folder, served, 2
        self.topic = f"t-{uuid.uuid4().hex[:8]}"
        self.group = f"g-{self.topic}"
        self.away, self.held = folder / "away", folder / "held"
        self.processes = []

    def make_topics(self):
        admin = KafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        layout = {"num_partitions": self.partitions, "replication_factor": 1}
        admin.create_topics({self.topic: layout, f"{self.topic}.dlq": layout}, wait_for_metadata=True)
        admin.close()
        return self

    def worker(self, *more, **environment):
        """A worker of this topic and of those of more stages, which is not started yet."""
        process = ServiceProcess(
            [PROGRAM],
            self.folder / f"log-{len(self.processes)}",
            {
                "NEARKIN_KAFKA_BOOTSTRAP": self.broker.bootstrap,
                "TEST_GROUP": self.group,
                "TEST_TOPICS": " ".join(stage.topic for stage in (self, *more)),
                "TEST_APPLIED": str(self.folder),
                **environment,
            },
        )
        self.processes.append(process)
        for stage in more:
            stage.group, stage.served = self.group, process
        self.served = process
        return process

    def publish(self, *values, key=b"k", partition=None):
        """Send values; their offsets."""
        producer = KafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all")
        sent = [producer.send(self.topic, value, key=key, partition=partition) for value in values]
        offsets = [future.get(30).offset for future in sent]
        producer.close()
        return offsets

    def applied(self):
        path = self.folder / self.topic
        return path.read_bytes().splitlines() if path.exists() else []

    def committed(self):
        """The sum of the offsets that the group has committed."""
        reader = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, group_id=self.group)
        places = [TopicPartition(self.topic, partition) for partition in range(self.partitions)]
        total = sum(reader.committed(place) or 0 for place in places)
        reader.close(autocommit=False)
        return total

    def dead_letters(self, count):
        reader = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, auto_offset_reset="earliest")
        reader.assign([TopicPartition(f"{self.topic}.dlq", partition) for partition in range(self.partitions)])
        letters = []

        def read():
            for records in reader.poll(timeout_ms=200).values():
                letters.extend(records)
            return len(letters) >= count

        eventually(read, f"{count} dead letters")
        reader.close()
        return letters

    def log(self):
        return self.served.log.read_text()


@pytest.fixture
def stage(broker, tmp_path):
    made = Stage(broker, tmp_path).make_topics()
    yield made
    for process in made.processes:
        if hasattr(process, "process"):
            process.kill()


@pytest.fixture(scope="module")
def stages(broker, tmp_path_factory):
    """Some stages whose topics one worker serves: to join a group takes three seconds on this broker."""
    folder = tmp_path_factory.mktemp("served")
    one, *more = made = [Stage(broker, folder).make_topics() for _ in range(8)]
    with one.worker(*more) as worker:
        worker.until_ready()
        yield iter(made)


@pytest.fixture
def served(stages):
    """A stage that no other test has, with a worker that serves."""
    return next(stages)


def names(prefix, count):
    return [f"{prefix}-{number}".encode() for number in range(count)]


def test_events_are_applied_in_the_order_of_their_partition_and_committed(served):
    values = names("event", 200)
    served.publish(*values, partition=0)

    eventually(lambda: len(served.applied()) >= 200, "all applied")

    assert served.applied() == values
    assert served.served.metric("nearkin_skipped_offsets_total{") == 0
    eventually(lambda: served.committed() == 200, "all committed")


def test_a_stopped_worker_has_committed_what_it_applied_and_applies_nothing_twice(stage):
    values = names("event", 50)
    stage.publish(*values[:25])
    with stage.worker() as worker:
        eventually(lambda: len(stage.applied()) >= 25, "half applied")

        assert worker.stop() == 0

    with stage.worker() as worker:
        stage.publish(*values[25:])
        eventually(lambda: len(stage.applied()) >= 50, "the rest applied")
        assert worker.until_ready().stop(signal.SIGINT) == 0

    assert stage.applied() == values


def test_a_rejected_event_lies_among_the_dead_letters_with_its_bytes_and_where_it_came_from(served):
    served.publish(b"before", b"reject", b"after", partition=1)
    eventually(lambda: len(served.applied()) == 2, "the others applied")
    (letter,) = served.dead_letters(1)

    assert served.applied() == [b"before", b"after"]
    assert (letter.key, letter.value) == (b"k", b"reject")
    headers = dict(letter.headers)
    assert headers["nearkin-reason"] == b"asked"
    assert headers["nearkin-origin-topic"] == served.topic.encode()
    assert (headers["nearkin-origin-partition"], headers["nearkin-origin-offset"]) == (b"1", b"1")


async def test_an_event_of_nothing_but_nulls_becomes_a_dead_letter_of_nulls(served):
    async with AIOKafkaProducer(bootstrap_servers=served.broker.bootstrap) as producer:
        batch = producer.create_batch()
        batch.append(key=None, value=None, timestamp=None)
        await (await producer.send_batch(batch, served.topic, partition=0))
    served.publish(b"after", partition=0)

    (letter,) = served.dead_letters(1)
    eventually(lambda: served.applied() == [b"after"], "the next event is served")

    assert (letter.key, letter.value) == (None, None)


def test_one_event_that_fails_as_nobody_foresaw_is_put_aside_and_its_words_are_told_nowhere(served):
    served.publish(*names("before", 5), b"crash", *names("after", 5), partition=0)
    (letter,) = served.dead_letters(1)
    eventually(lambda: len(set(served.applied())) == 10, "the others applied")
    eventually(lambda: served.committed() == 11, "all committed")

    headers = dict(letter.headers)
    assert headers["nearkin-reason"] == b"internal"
    assert b"ValueError" in headers["nearkin-problem"]
    assert "a batch failed unexpectedly" in served.log()
    assert "words of the event" not in served.log()
    assert b"words of the event" not in b"".join(headers.values())


def test_a_worker_whose_every_event_fails_ends_itself_with_nothing_acknowledged(stage):
    stage.publish(*[b"crash"] * 10, partition=0)
    with stage.worker() as worker:
        assert worker.exit() == 70

    assert stage.committed() == 0


def test_a_temporary_failure_is_retried_in_place_with_nothing_acknowledged(served):
    worker = served.served
    served.away.touch()
    values = names("event", 20)
    served.publish(*values, partition=0)
    eventually(lambda: "engine" in worker.ready()[1], "it says that it waits")
    assert worker.ready()[1]["engine"] == "the index is unavailable: it is away"
    eventually(lambda: worker.metric('nearkin_retries_total{engine="index"}') >= 5, "several tries")
    assert (served.committed(), served.applied()) == (0, [])

    served.away.unlink()

    eventually(lambda: served.committed() == 20, "all committed")
    eventually(lambda: worker.ready()[0], "ready again")
    assert served.applied() == values


def test_a_worker_that_retries_stops_when_asked_and_acknowledges_nothing(stage):
    stage.away.touch()
    stage.publish(b"event")
    with stage.worker() as worker:
        eventually(lambda: "engine" in worker.ready()[1], "it retries")

        assert worker.stop() == 0

    assert stage.committed() == 0


def test_a_worker_asked_to_stop_finishes_its_batch_and_commits_it(stage):
    stage.held.touch()
    stage.publish(b"hold", partition=0)
    with stage.worker(TEST_BATCH="1") as worker:
        worker.until_ready()
        eventually(lambda: worker.metric("nearkin_batch_events_count") == 1, "it has taken the event")
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: worker.ready()[1].get("worker") == "stopping", "it has heard")

        stage.held.unlink()

        assert worker.exit() == 0
    assert stage.applied() == [b"hold"]
    assert stage.committed() == 1


def test_a_worker_that_hangs_ends_itself_so_that_another_can_go_on(stage):
    stage.publish(b"hang", partition=0)
    with stage.worker(NEARKIN_STALL_TIMEOUT_S="1") as worker:
        assert worker.exit() == 70

    assert "in flight" in stage.log() or "has waited" in stage.log()
    assert stage.committed() == 0


def test_a_worker_waits_for_a_broker_that_is_not_there_yet_and_says_so(tmp_path):
    with EmbeddedBroker() as broker:
        broker.kill()
        stage = Stage(broker, tmp_path)
        with stage.worker() as worker:
            eventually(lambda: "does not answer" in worker.ready()[1].get("broker", ""), "it says what it waits for")
            broker.start()
            eventually(lambda: "nearkin topics apply" in worker.ready()[1].get("broker", ""), "it names the remedy")
            stage.make_topics().publish(b"event")
            eventually(lambda: stage.applied() == [b"event"], "applied")


def test_a_worker_that_waits_for_its_broker_stops_when_asked(tmp_path):
    with EmbeddedBroker() as broker:
        broker.kill()
        with Stage(broker, tmp_path).worker() as worker:
            eventually(lambda: "broker" in worker.ready()[1], "it waits")

            assert worker.stop() == 0


@pytest.mark.slow
def test_a_worker_killed_again_and_again_loses_nothing(stage):
    values = names("event", 3000)
    worker = stage.worker(TEST_BATCH="8")
    worker.start()
    for stretch in range(0, 3000, 1000):
        stage.publish(*values[stretch : stretch + 1000])
        eventually(lambda: len(set(stage.applied())) > stretch + 100, "some applied")  # noqa: B023  # called at once
        worker.kill()
        worker.start()
    eventually(lambda: len(set(stage.applied())) == 3000, "all applied")
    eventually(lambda: stage.committed() == 3000, "all committed")
    worker.kill()


@pytest.mark.slow
def test_the_partitions_of_a_killed_worker_are_served_by_the_other(stage):
    with stage.worker() as one, stage.worker() as two:
        one.until_ready()
        two.until_ready()
        stage.publish(*names("first", 200), partition=0)
        stage.publish(*names("second", 200), partition=1)
        eventually(lambda: len(set(stage.applied())) == 400, "all applied")

        one.kill()
        stage.publish(*names("third", 200), partition=0)
        stage.publish(*names("fourth", 200), partition=1)

        eventually(lambda: len(set(stage.applied())) == 800, "all applied by the other")
        eventually(lambda: stage.committed() == 800, "all committed")


@pytest.mark.slow
@pytest.mark.parametrize("pause_s", [3, 12])
def test_a_broker_that_freezes_for_a_while_costs_no_event(broker, stage, pause_s):
    with stage.worker() as worker:
        worker.until_ready()
        stage.publish(*names("before", 100))
        broker.pause()
        time.sleep(pause_s)
        broker.resume()
        stage.publish(*names("after", 100))

        eventually(lambda: len(set(stage.applied())) == 200, "all applied")
        eventually(lambda: stage.committed() == 200, "all committed")
        assert worker.metric("nearkin_skipped_offsets_total{") == 0
        assert worker.process.poll() is None


async def do_nothing(records):
    return []


def make_worker(handle=do_nothing, *, topic="t", group="g", settings=None, batch=2, fetch_wait_ms=20, **parts):
    """A worker in this process that was not started; `parts` are its ledger, its letters, and what stops it."""
    metrics = Metrics(CollectorRegistry())
    return Worker(
        settings or load_settings(),
        group=group,
        topics=[Topic(topic, 3_600_000)],
        handle=handle,
        metrics=metrics,
        health=Health(metrics, "group"),
        batch=batch,
        within_s=0.005,
        fetch_wait_ms=fetch_wait_ms,
        **({"stopping": asyncio.Event()} | parts),
    )


def bare_worker(ledger):
    """A worker without a broker."""
    return make_worker(batch=4, ledger=ledger)


class Ledger:
    """One whose ticks come to what it is given."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    async def begin(self, places):
        return {}

    async def tick(self):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def test_what_is_due_each_second_may_fail_now_and_then_but_not_always():
    ledger = Ledger(*[ZeroDivisionError()] * 2, {}, *[ZeroDivisionError()] * 3)
    worker = bare_worker(ledger)

    for _ in range(5):
        await worker._tick(ledger)

    with pytest.raises(ZeroDivisionError):
        await worker._tick(ledger)


@pytest.mark.parametrize("failure", [IllegalStateError("no assignment"), TimeoutError()])
async def test_a_place_that_cannot_be_sought_yet_is_sought_at_the_next_tick(failure):
    sought, fails = [], [failure]

    class Consumer:
        async def seek_wait(self, positions):
            if fails:
                raise fails.pop()
            sought.append({(at.topic, at.partition): offset for at, offset in positions.items()})

    place = ("t", 0)
    ledger = Ledger({place: 7, ("t", 1): 9}, {}, {})
    worker = bare_worker(ledger)
    worker._app, worker._places = SimpleNamespace(consumer=Consumer()), frozenset({place})

    for _ in range(3):
        await worker._tick(ledger)

    assert sought == [{place: 7}]


async def test_what_was_fetched_before_the_consumer_was_sent_elsewhere_is_not_acknowledged():
    """Its offsets are of another log, and a commit of them would pass what is to be read now."""
    place, fails = ("t", 0), [TimeoutError()]

    class Consumer:
        async def seek_wait(self, positions):
            if fails:
                raise fails.pop()

    def letter(offset):
        return Letter(1, Record(*place, offset, 0, b"k", b"v"), worker._seeks)

    ledger = Ledger({place: 0}, {})
    worker = bare_worker(ledger)
    worker._app = SimpleNamespace(consumer=Consumer(), consumer_generation_id=1)
    worker._places, before = frozenset({place}), [letter(8), letter(9)]
    worker._acknowledge(before[:1])
    assert worker._acknowledged() == {place: 9}

    await worker._tick(ledger)
    worker._acknowledge(before)
    worker._acknowledge([letter(10)])  # the consumer was not sent there yet
    assert worker._acknowledged() == {}
    await worker._tick(ledger)
    worker._acknowledge(before)
    assert worker._acknowledged() == {}
    worker._acknowledge([letter(0)])
    assert worker._acknowledged() == {place: 1}


class SlowLetters:
    """Dead letters that the broker takes when it is let."""

    topics = ()

    def __init__(self):
        self.asked, self.let, self.sent = [], asyncio.Event(), []

    async def send(self, rejected):
        self.asked.append([each.record.offset for each in rejected])
        await self.let.wait()
        self.sent += self.asked[-1]


async def worker_with_letters(handle, letters, stopping):
    """A worker without a broker, with six events waiting."""
    place, worker = ("t", 0), make_worker(handle, stopping=stopping, letters=letters)
    worker._app, worker._places = SimpleNamespace(consumer_generation_id=1), frozenset({place})
    worker._inbox = Inbox(6)
    await worker._inbox.put(1, [Record(*place, offset, 0, b"k", b"v") for offset in range(6)])
    return worker


async def test_good_events_do_not_wait_for_dead_letters_and_nothing_is_acknowledged_before_them():
    place, applied, letters, stopping = ("t", 0), [], SlowLetters(), asyncio.Event()

    async def handle(records):
        applied.extend(record.offset for record in records)
        return [Rejected(record, InvalidEvent("bad", field="f", remedy="r")) for record in records if record.offset < 4]

    worker = await worker_with_letters(handle, letters, stopping)
    working = asyncio.create_task(worker._work())

    async def holds(that):
        await asyncio.to_thread(eventually, that, "it holds")

    await holds(lambda: applied == [0, 1, 2, 3])
    assert (letters.asked, letters.sent, worker._acknowledged()) == ([[0, 1]], [], {})
    letters.let.set()
    await holds(lambda: worker._acknowledged() == {place: 6})
    assert (letters.sent, applied) == ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5])

    letters.let.clear()
    await worker._inbox.put(1, [Record(*place, 3, 0, b"k", b"v")])
    await holds(lambda: len(letters.asked) == 3)
    stopping.set()
    await asyncio.sleep(0.05)
    assert not working.done(), "what was applied before the stop is still acknowledged after its letters"
    letters.let.set()
    await asyncio.wait_for(working, 60)
    assert letters.sent[-1] == 3


async def test_what_fails_is_told_though_dead_letters_cannot_go_out():
    letters = SlowLetters()

    async def handle(records):
        if records[0].offset:
            raise Misconfigured("no such file", field="f", remedy="r")
        return [Rejected(records[0], InvalidEvent("bad", field="f", remedy="r"))]

    worker = await worker_with_letters(handle, letters, asyncio.Event())
    with pytest.raises(Misconfigured):
        await asyncio.wait_for(worker._work(), 60)
    assert (letters.asked, worker._acknowledged()) == ([[0]], {})


async def test_a_stop_in_what_is_due_each_second_is_no_failure():
    ledger = Ledger(Stopped(), Stopped(), Stopped())
    worker = bare_worker(ledger)

    for _ in range(3):
        await worker._tick(ledger)

    assert worker._progress.in_flight_since is None


def worker_of(stage, handle, fetch_wait_ms=20, ledger=None):
    """A worker in this process, and what stops it."""
    stopping = asyncio.Event()
    worker = make_worker(
        handle,
        topic=stage.topic,
        group=f"g-{stage.topic}",
        settings=load_settings(kafka_bootstrap=stage.broker.bootstrap),
        fetch_wait_ms=fetch_wait_ms,
        stopping=stopping,
        ledger=ledger,
    )
    return worker, stopping


async def test_what_was_fetched_and_thrown_away_before_anything_was_committed_comes_again(stage):
    """In a rebalance the consumer's place is past what was thrown away, and there is no committed one to go back to."""
    stage.publish(*names("e", 6), partition=0)
    applying, applied = asyncio.Event(), []

    async def handle(records):
        applying.set()
        await asyncio.to_thread(eventually, lambda: sought, "the consumer has sought again")
        applied.extend(record.value for record in records)
        return []

    sought = []
    worker, stopping = worker_of(stage, handle)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(applying.wait(), 60)
    worker._inbox.clear()
    await worker._app.consumer.perform_seek()
    sought.append(True)
    await asyncio.to_thread(eventually, lambda: set(applied) == set(names("e", 6)), "everything is applied")
    stopping.set()
    assert await running == 0


async def test_fetches_wait_as_briefly_as_we_say_though_faust_has_no_setting_for_it(stage):
    async def handle(records):
        return []

    worker, stopping = worker_of(stage, handle, fetch_wait_ms=70)
    running = asyncio.create_task(worker.run())
    await asyncio.to_thread(eventually, lambda: not worker._health.waiting, "it serves")

    fetcher = worker._app.consumer._thread._consumer._fetcher

    assert fetcher._fetch_max_wait_ms == 70
    stopping.set()
    assert await running == 0


async def test_an_answer_that_nobody_heard_of_is_fetched_again(stage):
    """aiokafka's place is past it, and the next records would be taken for what comes next."""
    applied, published, lost = [], [], []

    async def handle(records):
        applied.extend(record.value for record in records)
        return []

    async def publish(number):
        published.append(f"e{number}".encode())
        await asyncio.to_thread(stage.publish, published[-1], partition=0)
        await asyncio.to_thread(eventually, lambda: lost or applied == published, "it comes, or is lost")

    worker, stopping = worker_of(stage, handle)
    running = asyncio.create_task(worker.run())
    await publish(0)
    consumer = worker._app.consumer
    fetch = consumer._getmany

    async def fetch_in_vain(*args, **kwargs):
        records = await fetch(*args, **kwargs)
        if records and not lost:
            lost.append(records)
            return {}
        return records

    consumer._getmany = fetch_in_vain
    while not lost:
        await publish(len(published))
    await publish(len(published))
    await asyncio.to_thread(eventually, lambda: applied == published, "everything is applied, in order")
    stopping.set()
    assert await running == 0


async def test_what_a_fetch_that_was_under_way_brings_from_elsewhere_is_acknowledged_though_nothing_follows(stage):
    """It was asked for before the consumer was sent there, so it is asked for again, and once more applied."""
    applied, place = [], (stage.topic, 0)

    async def handle(records):
        applied.extend(record.offset for record in records)
        return []

    class Elsewhere(Ledger):
        async def tick(self):
            return {place: 0} if applied == [0, 1, 2] else {}

    stage.publish(*names("e", 3), partition=0)
    worker, stopping = worker_of(stage, handle, ledger=Elsewhere())
    running = asyncio.create_task(worker.run())
    await asyncio.to_thread(eventually, lambda: len(applied) >= 6, "it is read again")
    await asyncio.to_thread(eventually, lambda: worker._acknowledged().get(place) == 3, "all is acknowledged")
    assert applied[-3:] == [0, 1, 2]
    stopping.set()
    assert await running == 0
