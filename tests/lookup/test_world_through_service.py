"""What another policy would earn, estimated from what a server drew and logged, in a world whose truth is known."""

import asyncio
import zlib

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from nearkin.client.lookup import LookupClient
from nearkin.contracts.lookups import decode_answered
from nearkin.contracts.topics import LOOKUPS
from nearkin.core import item
from nearkin.core.answer import LoggedAnswer
from nearkin.core.evidence import EvidenceRules
from nearkin.core.exploration import ExplorationRules, Policy
from nearkin.core.item import Content
from nearkin.core.ports import IndexedItem, ItemWrite
from nearkin.core.vectors import Vectors
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.encoders.fake import HashingEncoder
from nearkin.learning.counterfactual import LoggedPlaces, snips
from nearkin.lookup.log_answers import AnswerLog
from nearkin.lookup.rank_candidates import Ordering
from nearkin.lookup.server import Limits, LookupServer
from nearkin.ops.health import Health
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import load_settings
from nearkin.ops.topics import apply_topics
from nearkin.stores.memory import MemoryIndex
from nearkin.stores.memory_evidence import MemoryEvidence

KINDS = ("mug", "hose", "lamp", "sofa")
ANCHORS = [f"{kind}-0" for kind in KINDS]
PLACES, POOL, LOOKUPS_AN_ANCHOR = 4, 8, 900
EXPLORATION = ExplorationRules(share=0.5, pool=POOL, new_item_share=0.0)
#: With which probability a position is looked at.
EXAMINED = np.array([1.0, 0.6, 0.4, 0.3])


def attraction(anchor: str, item_id: str) -> float:
    """With which probability an item is clicked once it is looked at: the world's secret."""
    return 0.1 + 0.8 * (zlib.crc32(f"{anchor}/{item_id}".encode()) % 1000) / 1000


async def catalogue(encoder: HashingEncoder) -> MemoryIndex:
    index = MemoryIndex()
    collection = await index.prepare(encoder.bundle, encoder.dimensions)
    for kind in KINDS:
        for number in range(12):
            content = Content(title=f"{kind} number {number}")
            (vectors,) = encoder.encode([content])
            assert isinstance(vectors, Vectors)
            state = item.upserted(f"{kind}-{number}", content, 1)
            await collection.write([ItemWrite(IndexedItem(state, "f"), None, vectors)])
    return index


async def look_up_and_log(broker: EmbeddedBroker) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, float]]]]:
    """Look all anchors up many times; the order of each, and what each request was shown, with propensities."""
    settings = load_settings(kafka_bootstrap=broker.bootstrap)
    metrics, encoder = Metrics(CollectorRegistry(), "lookup"), HashingEncoder()
    answers = AnswerLog(settings, metrics)
    server = LookupServer(
        await catalogue(encoder),
        encoder,
        MemoryEvidence(EvidenceRules()),
        Limits(concurrency=64),
        metrics,
        Health(metrics, "index"),
        ordering=Ordering(exploration=EXPLORATION),
        log_answer=answers.offer,
    )
    await answers.start()
    address = await server.start("127.0.0.1:0")
    orders, shown = {}, {}
    async with LookupClient(address) as client:

        async def look_up(anchor: str, numbers: range) -> None:
            for number in numbers:
                answer = await client.similar(item_id=anchor, k=PLACES, request_id=f"{anchor}/{number}", surface="page")
                shown[f"{anchor}/{number}"] = [(one.id, one.propensity) for one in answer.neighbours]

        for anchor in ANCHORS:
            best = await client.similar(item_id=anchor, k=POOL, no_exploration=True, request_id=f"{anchor}/best")
            orders[anchor] = [one.id for one in best.neighbours]
        await asyncio.gather(
            *(look_up(anchor, range(start, LOOKUPS_AN_ANCHOR, 4)) for anchor in ANCHORS for start in range(4))
        )
    await server.drain(5)
    await answers.drain(30)
    return orders, shown


async def read_log(broker: EmbeddedBroker) -> list[LoggedAnswer]:
    """All that lookups.v1 holds of the surface."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(LOOKUPS.name, number) for number in range(2)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        logged: dict[str, LoggedAnswer] = {}
        while any([await consumer.position(one) < ends[one] for one in partitions]):
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    answer = decode_answered(record.key, record.value)
                    logged[answer.event_id] = answer
        return [one for one in logged.values() if one.surface == "page"]
    finally:
        await consumer.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_what_a_better_policy_would_earn_is_estimated_from_the_log_of_a_real_server():
    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, 2, 1)
        orders, shown = await look_up_and_log(broker)
        logged = await read_log(broker)

    assert {one.request_id: [(place.item_id, place.propensity) for place in one.positions] for one in logged} == shown
    drawn = [one.policy for one in logged]
    assert 0.45 < drawn.count(Policy.SHUFFLED) / len(drawn) < 0.55

    better = {
        anchor: sorted(order, key=lambda one: -attraction(anchor, one))[:PLACES] for anchor, order in orders.items()
    }
    truth = float(np.mean([EXAMINED @ [attraction(anchor, one) for one in items] for anchor, items in better.items()]))
    served = float(
        np.mean([EXAMINED @ [attraction(anchor, one) for one in orders[anchor][:PLACES]] for anchor in ANCHORS])
    )
    clicks = np.random.default_rng(1)
    rows = [
        (
            number,
            place.position,
            place.propensity,
            float(better[answer.anchor][place.position - 1] == place.item_id),
            float(clicks.random() < EXAMINED[place.position - 1] * attraction(answer.anchor, place.item_id)),
        )
        for number, answer in enumerate(sorted(logged, key=lambda one: one.request_id))
        for place in answer.positions
        if answer.anchor is not None
    ]
    slate, position, propensity, target, reward = (np.array(column) for column in zip(*rows, strict=True))
    log = LoggedPlaces(slate, position, propensity, target, reward, np.array([one.log_rate for one in logged]))
    estimate = snips(log)
    print(
        f"SNIPS {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}], effective {estimate.effective:.0f} of "
        f"{estimate.slates}; the truth {truth:.3f}, what was served {served:.3f}"
    )
    assert estimate.low <= truth <= estimate.high
    # It tells the two policies apart: the interval is no excuse.
    assert estimate.low > served
    assert estimate.effective > 100
