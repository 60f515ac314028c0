"""A Redis and an index that stop without closing a connection, as a machine does that is lost: look-ups go on."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nearkin.client.lookup import LookupClient, SimilarItems
from nearkin.core import item
from nearkin.core.errors import DeadlineExceeded, Unavailable
from nearkin.core.exploration import ExplorationRules
from nearkin.core.item import Content
from nearkin.core.ports import IndexedItem, ItemWrite
from nearkin.encoders.fake import HashingEncoder
from nearkin.lookup.rank_candidates import Ordering
from nearkin.lookup.server import Limits, LookupServer
from nearkin.ops.health import Health
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import load_settings
from nearkin.stores import evidence as redis
from remembered import remember, visit
from stores.owner_process import OwnerProcess
from stores.redis_process import RedisProcess

ENCODER = HashingEncoder()


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """A process that holds its connections, and answers nothing."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.fixture
async def engines(tmp_path: Path) -> AsyncIterator[tuple[RedisProcess, OwnerProcess, LookupClient]]:
    """A Redis, the owner of an index, and look-ups over both, of which everything has been read once."""
    (tmp_path / "redis").mkdir()
    with RedisProcess(tmp_path / "redis") as remembered, OwnerProcess(tmp_path / "index") as owner:
        settings = load_settings(redis_url=remembered.url)
        evidence, index = redis.connect(settings, redis.rules_of(settings)), owner.connect("items")
        collection = await index.prepare(ENCODER.bundle, ENCODER.dimensions)
        states = [item.upserted(name, Content(title=f"{name} for tests"), 1) for name in ("mug", "tea", "hose", "lamp")]
        vectors = ENCODER.encode([state.content for state in states if state.content])
        await collection.write(
            [ItemWrite(IndexedItem(one, "f", 1), None, vector) for one, vector in zip(states, vectors, strict=True)]
        )
        await remember(evidence, *[visit("mug", "tea")] * 40, *[visit("hose", "lamp")] * 400)
        metrics = Metrics(CollectorRegistry(), "lookup")
        server = LookupServer(
            index,
            ENCODER,
            evidence,
            Limits(),
            metrics,
            Health(metrics, "index"),
            ordering=Ordering(exploration=ExplorationRules(share=0.0, new_item_share=0.0)),
        )
        address = await server.start("127.0.0.1:0")
        async with LookupClient(address) as lookups:
            await until_whole(lookups)
            yield remembered, owner, lookups
        await server.drain(0)
        await index.close()
        await evidence.close()


async def until_whole(lookups: LookupClient) -> None:
    """Wait until answers have all their parts: nobody restarts anything."""
    while True:
        try:
            answer = await lookups.similar(item_id="mug", timeout_s=5.0)
        except (Unavailable, DeadlineExceeded):
            continue
        if not answer.degraded and ids(answer)[0] == "tea":
            return


def ids(answer: SimilarItems) -> list[str]:
    return [one.id for one in answer.neighbours]


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_look_ups_go_on_by_what_still_answers_and_are_whole_again_when_both_do(
    engines: tuple[RedisProcess, OwnerProcess, LookupClient],
):
    remembered, owner, lookups = engines
    with stopped(remembered.process.pid):
        for _ in range(8):  # beyond those that open the circuit
            answer = await lookups.similar(item_id="mug", timeout_s=5.0)
            assert (len(answer.neighbours), answer.degraded) == (3, ("evidence",))
    await until_whole(lookups)
    with stopped(owner.process.pid):
        for _ in range(8):
            answer = await lookups.similar(item_id="mug", timeout_s=2.0)
            assert (ids(answer)[0], answer.degraded) == ("tea", ("index",))
        with stopped(remembered.process.pid), pytest.raises((Unavailable, DeadlineExceeded)):
            await lookups.similar(item_id="mug", timeout_s=2.0)
    await until_whole(lookups)
