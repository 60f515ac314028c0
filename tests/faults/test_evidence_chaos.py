"""Whatever dies, hangs, moves or comes back from the past: counters are what the log says, to a relative error of 1e-9.

The stream is as hard as `feedback_stream.py` makes it, and goes on while things fail. In the end every guard stands at
the end of its log, what the store holds is compared with `feedback/reference.py`, which recounts the log alone, and the
dead letters are of exactly the records that the recount refuses.

A worker is killed as often as NEARKIN_CHAOS_ROUNDS says (5; `make chaos`: 100).
"""

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import redis

from faults.chaos import Chaos, rounds, run_chaos
from faults.feedback_stream import ANCHORS
from faults.running_parts import PARTITIONS, Part, Parts
from nearkin.contracts.topics import FEEDBACK
from nearkin.ops.process import EXIT_MISCONFIGURED
from nearkin.ops.topics import apply_topics
from nearkin.stores.shards import shard_of
from stores.redis_cluster import ClusterProcess
from waiting import HUNG_S, until

ROUNDS = rounds(5)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 30 * ROUNDS)]


@pytest.fixture
def chaos(parts: Parts, seed: int, request: pytest.FixtureRequest) -> Iterator[Chaos]:
    """Feedback alone."""
    yield from run_chaos(parts, seed, request.node.name)


@pytest.fixture
def kafka_chaos(tmp_path: Path, seed: int, request: pytest.FixtureRequest, apache_kafka: Path) -> Iterator[Chaos]:
    """What needs Apache Kafka: the embedded broker keeps nothing over its death."""
    with Parts(tmp_path / "parts", apache_kafka) as parts:
        yield from run_chaos(parts, seed, request.node.name)


def test_a_hard_stream_is_counted_as_its_log_says(chaos: Chaos) -> None:
    """Repeats, shuffles, late events, skewed clocks, hammering and large baskets, and no fault at all."""
    chaos.parts.start(chaos.parts.feedback)
    for _ in range(4):
        chaos.feedback.send(500)
    chaos.require_exact()
    assert min(chaos.told["refused"], chaos.told["repeated"], chaos.told["clamped"]) > 20


@pytest.mark.apache_kafka
def test_a_worker_that_is_killed_again_and_again_counts_every_event_once(chaos: Chaos) -> None:
    worker = chaos.parts.feedback
    chaos.parts.start(worker, ready=False)
    with chaos.load():
        for number in range(ROUNDS):
            if chaos.draw.random() < 0.8:
                until(lambda: worker.counted("events_total", outcome="applied"), "the worker works")
            chaos.sleep(2)
            chaos.begin(f"kill {number + 1} of the worker")
            worker.kill()
            chaos.parts.start(worker, ready=False)
    chaos.require_exact()


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
def test_a_redis_that_is_killed_under_load_costs_nothing_but_time(chaos: Chaos, appendfsync: str) -> None:
    parts = chaos.parts
    parts.redis.kill()
    parts.redis.options = ("--appendfsync", appendfsync)
    parts.start(parts.redis, parts.feedback)
    with chaos.load():
        for number in range(max(3, ROUNDS // 2)):
            until(lambda: parts.feedback.counted("events_total", outcome="applied"), "the worker works")
            chaos.sleep(2)
            chaos.begin(f"kill {number + 1} of Redis")
            parts.redis.kill()
            chaos.sleep(1)
            parts.start(parts.redis)
    chaos.require_exact()


@pytest.mark.parametrize("form", ["append-only file", "snapshot"])
def test_a_redis_restored_from_an_older_file_while_the_worker_runs_gets_the_difference_again(
    chaos: Chaos, tmp_path: Path, form: str
) -> None:
    parts, copy = chaos.parts, tmp_path / "copy"
    parts.start(parts.feedback)
    chaos.feedback.send(600)
    chaos.feedback.until_counted()
    with redis.Redis.from_url(parts.redis_url) as connection:
        connection.save()
    shutil.copytree(parts.redis_folder, copy)
    chaos.feedback.send(600)
    chaos.feedback.until_counted()

    for meanwhile in ("nothing comes", "events come", "no worker runs"):
        chaos.begin(f"restored from an older {form} while {meanwhile}")
        if meanwhile == "no worker runs":
            # It has told its group how far it was, which is further than what comes back.
            assert parts.feedback.stop() == 0
        parts.redis.kill()
        shutil.rmtree(parts.redis_folder)
        shutil.copytree(copy, parts.redis_folder)
        if form == "snapshot":
            # Redis reads a snapshot only where it is told to keep no append-only file.
            for each in parts.redis_folder.glob("appendonly*"):
                shutil.rmtree(each) if each.is_dir() else each.unlink()
            parts.redis.options = ("--appendonly", "no")
        with chaos.load() if meanwhile == "events come" else nullcontext():
            parts.start(parts.redis)
            with redis.Redis.from_url(parts.redis_url) as connection:
                connection.config_set("appendonly", "yes")
            if meanwhile == "no worker runs":
                parts.start(parts.feedback)
            chaos.sleep(2)
        chaos.require_exact()
    assert parts.feedback.runs


def test_masters_of_a_cluster_that_die_under_load_cost_nothing_but_time(chaos: Chaos, tmp_path: Path) -> None:
    parts = chaos.parts
    with ClusterProcess(tmp_path / "cluster", replicated=True) as cluster:
        parts.redis_url = cluster.url
        worker = parts.feedback_worker("feedback-on-a-cluster")
        parts.start(worker)
        with chaos.load():
            for number in range(max(2, ROUNDS // 10)):
                applied = worker.counted("events_total", outcome="applied")
                until(lambda before=applied: worker.counted("events_total", outcome="applied") > before, "it works")  # type: ignore[misc]
                chaos.sleep(2)
                master = chaos.draw.choice(cluster.masters)
                chaos.begin(f"kill {number + 1} of a master, on port {master.port}")
                master.kill()
                until(lambda: len(cluster.masters) == 3 and cluster.is_whole, "a replica takes over")
                chaos.sleep(2)
                master.start()
                until(lambda node=master: node.is_in_step and cluster.is_whole, "it is a replica")  # type: ignore[misc]
        chaos.require_exact()


def test_a_broker_that_is_killed_under_load_costs_nothing_but_time(kafka_chaos: Chaos) -> None:
    chaos, parts = kafka_chaos, kafka_chaos.parts
    parts.start(parts.feedback)
    with chaos.load():
        for number in range(2):
            until(lambda: parts.feedback.counted("events_total", outcome="applied"), "the worker works")
            chaos.sleep(2)
            chaos.begin(f"kill {number + 1} of the broker")
            parts.broker.kill()
            chaos.sleep(3)
            parts.start(parts.broker)
            until(lambda: parts.feedback.is_ready, "the worker is ready again")
    chaos.require_exact()


def test_partitions_that_move_between_two_and_three_workers_are_counted_once(kafka_chaos: Chaos) -> None:
    chaos, parts = kafka_chaos, kafka_chaos.parts
    first, second, third = (parts.feedback_worker(f"feedback-{name}") for name in ("first", "second", "third"))
    parts.start(first, second)
    with chaos.load():
        for number in range(max(1, ROUNDS // 5)):
            chaos.begin(f"a third worker comes, {number + 1}")
            parts.start(third)
            until(lambda: third.counted("events_total", outcome="applied"), "the third worker works")
            chaos.sleep(2)
            chaos.note("one leaves")
            assert first.stop() == 0
            chaos.sleep(2)
            chaos.note("it comes again, and another is killed")
            parts.start(first, ready=False)
            chaos.sleep(3)
            second.kill()
            chaos.sleep(2)
            parts.start(second)
            until(lambda: second.counted("events_total", outcome="applied"), "the second worker works")
            third.kill()
    chaos.require_exact()


def test_a_worker_that_hangs_until_its_partitions_are_taken_changes_nothing_when_it_wakes(
    kafka_chaos: Chaos,
) -> None:
    chaos, parts = kafka_chaos, kafka_chaos.parts
    workers = [parts.feedback_worker(f"feedback-{name}") for name in ("first", "second")]
    parts.start(*workers)
    with chaos.load():
        for zombie, other in [workers, workers[::-1]] * max(1, ROUNDS // 10):
            _hang(chaos, zombie, other)
    chaos.require_exact()


def _hang(chaos: Chaos, zombie: Part, other: Part) -> None:
    until(lambda: zombie.counted("events_total", outcome="applied"), "it works")
    rebalances = other.counted("rebalances_total")
    chaos.begin(f"{zombie.name} hangs")
    zombie.pause()
    until(lambda: other.counted("rebalances_total") > rebalances, "the other one has its partitions")
    chaos.sleep(2)
    chaos.note(f"{zombie.name} wakes")
    zombie.resume()
    until(lambda: zombie.is_ready, "it serves again")
    chaos.sleep(3)


def test_a_topic_that_is_made_again_is_counted_from_its_beginning_beside_the_former_one(
    kafka_chaos: Chaos,
) -> None:
    """A worker that sees the topic gone, or does not run, may find more events in the new one than the former had.

    One that looks away meanwhile reads on where it was. Of fewer events nothing is there, and the topic's id tells;
    more would count twice, as docs/decisions/0005-delivery.md says. Which it is must not be left to chance.
    """
    chaos, parts = kafka_chaos, kafka_chaos.parts
    worker = parts.feedback
    parts.start(worker)
    for meanwhile, events in (("the worker looks", 600), ("the worker looks away", 40), ("no worker runs", 600)):
        chaos.feedback.send(400)
        chaos.feedback.until_counted()
        chaos.begin(f"feedback.v1 is deleted and made again while {meanwhile}")
        former = parts.streams.ends(FEEDBACK)
        rebalances = worker.counted("rebalances_total")
        if meanwhile == "the worker looks away":
            worker.pause()
        elif meanwhile == "no worker runs":
            assert worker.stop() == 0
        chaos.feedback.delete(FEEDBACK)
        if meanwhile == "the worker looks":
            until(lambda before=rebalances: worker.counted("rebalances_total") > before, "it has seen that it is gone")  # type: ignore[misc]
        apply_topics(parts.bootstrap, PARTITIONS, replication=1)
        chaos.feedback.send(events)
        has_more = any(end > before for end, before in zip(parts.streams.ends(FEEDBACK), former, strict=True))
        assert has_more == (meanwhile != "the worker looks away")
        if meanwhile == "the worker looks away":
            worker.resume()
        elif meanwhile == "no worker runs":
            parts.start(worker)
        chaos.require_exact()


def test_a_script_that_fails_half_way_has_changed_nothing_and_a_worker_that_is_started_again_goes_on(
    chaos: Chaos,
) -> None:
    parts, anchor = chaos.parts, ANCHORS[0]
    key = f"nk:{{{shard_of(anchor)}}}:{anchor}"
    with redis.Redis.from_url(parts.redis_url) as connection:
        connection.set(key, "of another program")
        parts.start(parts.feedback, ready=False)
        chaos.feedback.send(600)
        chaos.begin("a key of another program is in the way")
        assert parts.feedback.process.wait(HUNG_S) == EXIT_MISCONFIGURED
        assert connection.get(key) == b"of another program"
        connection.delete(key)
        parts.start(parts.feedback)
        with chaos.load():
            chaos.begin("Redis has no memory left")
            connection.config_set("maxmemory", "1")
            until(lambda: "no memory" in parts.feedback.waits_for("engine"), "the worker says what is wrong")
            connection.config_set("maxmemory", "0")
            until(lambda: parts.feedback.is_ready, "the worker is ready again")
    chaos.require_exact()
