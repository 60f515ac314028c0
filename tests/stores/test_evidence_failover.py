"""A master of a Redis Cluster dies and its replica takes over: what comes back is of one moment, shard by shard."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nearkin.core.evidence import Effect
from nearkin.core.ports import EvidenceStore
from nearkin.ops.settings import Settings
from nearkin.stores.evidence import connect
from nearkin.stores.shards import shard_of
from stores.counted_offsets import ANCHORS, RULES, check, events, publish, read_guards
from stores.redis_cluster import ClusterProcess, Node
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcess]:
    with ClusterProcess(tmp_path, replicated=True) as running:
        yield running


@pytest.fixture
async def store(cluster: ClusterProcess) -> AsyncIterator[EvidenceStore]:
    made = connect(Settings(redis_url=cluster.url), RULES)
    yield made
    await made.close()


def master_of(cluster: ClusterProcess, anchor: str) -> Node:
    return cluster.master_of(f"nk:{{{shard_of(anchor)}}}")


def until_taken_over(cluster: ClusterProcess, dead: Node) -> None:
    until(lambda: len(cluster.masters) == 3 and cluster.is_whole, f"a replica takes over from {dead.port}")


def bring_back(cluster: ClusterProcess, node: Node) -> None:
    """Start a master again that another one has taken over from."""
    node.start()
    until(lambda: node.is_in_step and cluster.is_whole, f"{node.port} is a replica")


async def test_masters_that_die_under_load_leave_guards_that_tell_their_counters(
    cluster: ClusterProcess, store: EvidenceStore
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    told: dict[str, int] = dict.fromkeys(ANCHORS, 0)
    stopped = asyncio.Event()
    publishers = [asyncio.create_task(publish(store, anchor, stopped, told)) for anchor in ANCHORS]

    async def until_all_go_on() -> None:
        before = dict(told)
        while any(told[anchor] == before[anchor] for anchor in ANCHORS):
            await asyncio.sleep(0.01)
            assert not any(publisher.done() for publisher in publishers)

    try:
        for victim in draw.sample(ANCHORS[:3], 3):
            await until_all_go_on()
            await asyncio.sleep(draw.uniform(0, 0.5))
            master = await asyncio.to_thread(master_of, cluster, victim)
            master.kill()
            await asyncio.to_thread(until_taken_over, cluster, master)
            await until_all_go_on()
            await asyncio.to_thread(bring_back, cluster, master)
    finally:
        stopped.set()
        await asyncio.gather(*publishers)
    guards = await check(store)
    assert all(guards[anchor] == told[anchor] > 0 for anchor in ANCHORS)


async def test_a_replica_that_was_behind_goes_back_in_time_and_the_difference_is_applied_again(
    cluster: ClusterProcess, store: EvidenceStore
) -> None:
    await store.check()

    async def apply(up_to: int) -> None:
        guards = await read_guards(store)
        for anchor in ANCHORS:
            for start in range(guards[anchor], up_to):
                (outcome,) = await store.apply([events(anchor, start)])
                assert (outcome.effect, outcome.guard) == (Effect.APPLIED, start + 1)

    await apply(up_to=10)
    master = master_of(cluster, "a")
    replica = cluster.replica_of(master)
    master.ask("WAIT", 1, 10_000)
    replica.process.send_signal(signal.SIGSTOP)
    master.ask("CLIENT", "KILL", "TYPE", "replica")
    await apply(up_to=25)
    master.kill()
    replica.process.send_signal(signal.SIGCONT)
    until_taken_over(cluster, master)

    lost = [anchor for anchor in ANCHORS if master_of(cluster, anchor) is replica]
    assert "a" in lost
    assert await check(store) == {anchor: 10 if anchor in lost else 25 for anchor in ANCHORS}

    await apply(up_to=30)
    # It comes back with what nobody else knows, and gives it up.
    bring_back(cluster, master)
    assert await check(store) == dict.fromkeys(ANCHORS, 30)
