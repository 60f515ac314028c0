"""Every part dies, every broker fails, workers come back from the dead: under a load of items and of feedback at once.

In the end the broker holds whatever it acknowledged, the index is the merge of the items' log and the counters the
recount of the others' (`chaos.py`). After each fault the service must be whole again by itself; how long that took is
told. What only the evidence has to fear is in `test_evidence_chaos.py`.

Kills have 10 rounds, whole ones of the other faults one; `make chaos` has 100 kills, and a tenth of that of the others.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition

from faults.chaos import Chaos, rounds, run_chaos
from faults.running_parts import PARTITIONS, Parts
from nearkin.contracts.topics import FEEDBACK, ITEMS, VISITS
from nearkin.core.ports import ContentEncoder
from nearkin.ops.topics import apply_topics
from waiting import until

KILLS = rounds(10)

#: A fault that takes longer has fewer rounds.
FEWER = max(1, KILLS // 10)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 40 * KILLS)]

#: Where groups keep what they have committed: whoever leads it coordinates every group.
OFFSETS = "__consumer_offsets"


@pytest.fixture
def chaos(
    tmp_path: Path, seed: int, request: pytest.FixtureRequest, apache_kafka: Path, encoder: ContentEncoder
) -> Iterator[Chaos]:
    """One broker, and a worker of each kind."""
    with Parts(tmp_path / "parts", apache_kafka) as parts:
        services = [parts.index, parts.live, parts.feedback, parts.lookup]
        yield from run_chaos(parts, seed, request.node.name, encoder, *services)


@pytest.fixture
def cluster_chaos(
    tmp_path: Path, seed: int, request: pytest.FixtureRequest, apache_kafka: Path, encoder: ContentEncoder
) -> Iterator[Chaos]:
    """A cluster of three brokers, and a worker of each kind."""
    with Parts(tmp_path / "parts", apache_kafka, cluster=3) as parts:
        services = [parts.index, parts.live, parts.feedback, parts.lookup]
        yield from run_chaos(parts, seed, request.node.name, encoder, *services)


def test_whatever_is_killed_at_any_moment_comes_back_and_has_lost_and_repeated_nothing(chaos: Chaos) -> None:
    parts = chaos.parts
    services = [parts.live, parts.feedback, parts.lookup, parts.monitor]
    parts.start(parts.monitor)
    every = [*services, parts.index, parts.redis, parts.broker]
    victims = (every * (KILLS // len(every) + 1))[:KILLS]
    chaos.draw.shuffle(victims)
    with chaos.load():
        for victim in victims:
            chaos.sleep(3)
            began = chaos.begin(f"kill of {victim.name}")
            victim.kill()
            parts.start(victim, ready=False)  # as whatever supervises it does
            chaos.require_recovery(began, *services)
    assert parts.monitor.stop() == 0  # with its probes
    parts.streams.look_at_ends(ITEMS)
    chaos.require_exact()


def test_brokers_of_a_cluster_restart_die_and_pass_their_partitions_on_and_nothing_is_lost_or_repeated(
    cluster_chaos: Chaos,
) -> None:
    chaos, parts = cluster_chaos, cluster_chaos.parts
    services = [parts.live, parts.feedback, parts.lookup]
    with chaos.load():
        for _ in range(FEWER):
            for broker in parts.brokers:
                began = chaos.begin(f"{broker.name} is restarted")
                broker.stop()
                parts.start(broker)
                _until_in_step(parts)
                chaos.require_recovery(began, *services)
            dead = chaos.draw.choice(parts.brokers)
            began = chaos.begin(f"{dead.name} is dead, of three")
            dead.kill()
            chaos.require_recovery(began, *services)
            chaos.sleep(3)
            parts.start(dead)
            _until_in_step(parts)
            began = chaos.begin("every partition moves to another leader")
            _move_leaders(parts, ITEMS.name, FEEDBACK.name, VISITS.name)
            chaos.require_recovery(began, *services)
            began = chaos.begin("the groups' coordinator moves")
            _move_leaders(parts, OFFSETS)
            chaos.require_recovery(began, *services)
            coordinator = parts.brokers[_partitions(parts, OFFSETS)[TopicPartition(OFFSETS, 0)]["leader_id"] - 1]
            began = chaos.begin(f"{coordinator.name}, which coordinates the groups, is killed")
            coordinator.kill()
            chaos.require_recovery(began, *services)
            parts.start(coordinator)
            _until_in_step(parts)
    chaos.require_exact()


def test_indexers_and_workers_that_hang_until_their_partitions_are_taken_write_nothing_old_when_they_wake(
    chaos: Chaos,
) -> None:
    parts, items = chaos.parts, chaos.items
    assert items is not None
    second_indexer, second_worker = parts.indexer("live", "indexer-live-2"), parts.feedback_worker("feedback-2")
    parts.start(second_indexer, second_worker)
    pairs = [(parts.live, second_indexer), (parts.feedback, second_worker)]
    services = [parts.lookup, *(part for pair in pairs for part in pair)]
    with chaos.load(), items.never_older():
        for number in range(2 * FEWER):
            for pair in pairs:
                zombie, other = pair if number % 2 else pair[::-1]
                until(lambda part=zombie: part.counted("events_total", outcome="applied"), "it works")  # type: ignore[misc]
                chaos.sleep(1)
                rebalances = other.counted("rebalances_total")
                began = chaos.begin(f"{zombie.name} hangs")
                zombie.pause()
                until(
                    lambda part=other, before=rebalances: part.counted("rebalances_total") > before,  # type: ignore[misc]
                    "the other one has its partitions",
                )
                chaos.require_recovery(began, *(part for part in services if part is not zombie))
                chaos.note(f"{zombie.name} wakes")
                zombie.resume()
                until(lambda part=zombie: part.is_ready, "it serves again")  # type: ignore[misc]
    chaos.require_exact()


def test_a_topic_of_items_that_is_made_again_is_indexed_from_its_beginning(cluster_chaos: Chaos) -> None:
    """Also where it has more events already than the former one had: whoever looked away reads on where it was."""
    chaos, parts, items = cluster_chaos, cluster_chaos.parts, cluster_chaos.items
    assert items is not None
    for meanwhile, events in (
        ("the indexer looks", 300),
        ("the indexer looks away", 40),
        ("the indexer looks away", 1200),
        ("no indexer runs", 300),
        ("no indexer runs, and one before committed late", 1200),
    ):
        items.send(200)
        # What is deleted before the indexer notices that it is another one is gone, and no fault of the next round's.
        parts.streams.until_drained_as_it_is("live")
        former = parts.streams.ends(ITEMS)
        began = chaos.begin(f"items.v1 is deleted and made again while {meanwhile}")
        if meanwhile == "the indexer looks away":
            parts.live.pause()
        elif meanwhile.startswith("no indexer runs"):
            assert parts.live.stop() == 0
        commits = parts.streams.commits("live")
        items.delete()
        apply_topics(parts.bootstrap, PARTITIONS, parts.replication).require()
        items.send(events)
        if meanwhile.endswith("committed late"):  # as who reads on in the new topic, and dies before it notices
            parts.streams.commit("live", commits)
        more = [end > before for end, before in zip(parts.streams.ends(ITEMS), former, strict=True)]
        assert all(more) if events > 1000 else events > 40 or not any(more)
        if meanwhile == "the indexer looks away":
            parts.live.resume()
        elif meanwhile.startswith("no indexer runs"):
            parts.start(parts.live)
        chaos.require_recovery(began, parts.live, parts.lookup)
    items.send(200)
    parts.streams.until_drained_as_it_is("live")
    chaos.require_exact()


def _partitions(parts: Parts, *topics: str) -> dict[TopicPartition, dict[str, Any]]:
    """What the brokers say of the partitions of topics."""
    with KafkaAdminClient(bootstrap_servers=parts.bootstrap) as admin:
        return {
            TopicPartition(topic["name"], partition["partition_index"]): partition
            for topic in admin.describe_topics(list(topics))
            for partition in topic["partitions"]
        }


def _move_leaders(parts: Parts, *topics: str) -> None:
    """Have another broker lead every partition of topics: the next of its replicas is preferred now, and elected."""
    former = _partitions(parts, *topics)
    wanted = {at: [*each["replica_nodes"][1:], each["replica_nodes"][0]] for at, each in former.items()}
    with KafkaAdminClient(bootstrap_servers=parts.bootstrap) as admin:
        assert not any(admin.alter_partition_reassignments(wanted).values())
        until(lambda: not admin.list_partition_reassignments(), "replicas stand in another order")
        admin.elect_leaders(0, {topic: [at.partition for at in former if at.topic == topic] for topic in topics})
    until(
        lambda: all(each["leader_id"] == wanted[at][0] for at, each in _partitions(parts, *topics).items()),
        "others lead",
    )


def _until_in_step(parts: Parts) -> None:
    """Wait until every replica is: with two that are not, nothing could be acknowledged."""
    topics = (ITEMS.name, FEEDBACK.name, VISITS.name, OFFSETS)
    until(
        lambda: all(
            len(each["isr_nodes"]) == len(each["replica_nodes"]) for each in _partitions(parts, *topics).values()
        ),
        "every replica is in step",
    )
