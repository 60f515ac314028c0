"""`python -m nearkin.indexer` on a real broker and the real index: what it serves, refuses and says."""

import asyncio
import json
import os
import socket

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from nearkin.client.producer import Producer
from nearkin.contracts.topics import ITEMS, ITEMS_BULK
from nearkin.core.item import Content, Offer, Price
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.ops.settings import load_settings
from nearkin.ops.topics import apply_topics
from nearkin.stores.qdrant import connect
from ops.service_process import ServiceProcess, eventually
from stores.owner_process import OwnerProcess

SECRET = "words that must not be told"

#: One record of every kind that the contract refuses, as (key, value, reason).
POISON = [
    (b"p", b"not json " + SECRET.encode(), "not_json"),
    (b"p", b"\xff\xfe", "not_utf8"),
    (b"p", b'["no object"]', "wrong_type"),
    (b"p", b'{"a":' * 20_000, "too_deep"),
    (b"p", None, "null_value"),
    (b"p", b'{"kind":"renamed","id":"p"}', "unknown_kind"),
    (b"p", b'{"kind":"deleted","event_id":"e","occurred_at":1700000000000,"id":"p"}', "missing_field"),
    (b"p", b'{"kind":"deleted","event_id":"e","occurred_at":1700000000000,"id":"","version":1}', "empty"),
    (
        b"p",
        b'{"kind":"deleted","event_id":"e","occurred_at":1700000000000,"id":"p","version":9007199254740992}',
        "out_of_range",
    ),
    (b"other", b'{"kind":"deleted","event_id":"e","occurred_at":1700000000000,"id":"p","version":1}', "bad_key"),
    (None, b'{"kind":"deleted","event_id":"e","occurred_at":1700000000000,"id":"p","version":1}', "bad_key"),
    (
        b"p",
        b'{"kind":"upserted","event_id":"e","occurred_at":1700000000000,"id":"p","content_version":1,"content":{}}',
        "nothing_to_encode",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A broker with the topics, and the index."""
    with EmbeddedBroker() as broker, OwnerProcess(tmp_path_factory.mktemp("index") / "data") as owner:
        apply_topics(broker.bootstrap, 2, 1)
        yield {"NEARKIN_KAFKA_BOOTSTRAP": broker.bootstrap, "NEARKIN_QDRANT_URL": f"http://127.0.0.1:{owner.port}"}


def indexer(folder, stack, **environment):
    return ServiceProcess(["-m", "nearkin.indexer"], folder / "log", {**stack, **environment})


def test_what_the_contract_refuses_is_put_aside_with_its_reason_and_the_next_event_is_served(stack, tmp_path):
    with indexer(tmp_path, stack) as process:
        producer = KafkaProducer(bootstrap_servers=stack["NEARKIN_KAFKA_BOOTSTRAP"])
        for key, value, _ in POISON:
            producer.send(ITEMS.name, key=key, value=value, partition=0).get(30)
        producer.close()
        items = Producer(stack["NEARKIN_KAFKA_BOOTSTRAP"])
        items.upsert("mug", Content(title="red mug"), offer=Offer(Price(3.0, "EUR"))).result(30)
        items.close()
        process.until_ready()

        letters = dead_letters(stack, len(POISON))
        eventually(lambda: process.metric('nearkin_events_total{outcome="applied"') == 1, "the next event is served")
        assert asyncio.run(read_titles(stack, "mug")) == ["red mug"]

        assert [
            (letter.key, letter.value, dict(letter.headers)["nearkin-reason"].decode()) for letter in letters
        ] == POISON
        assert [int(dict(letter.headers)["nearkin-origin-offset"]) for letter in letters] == list(range(len(POISON)))
        assert process.metric("nearkin_dead_letters_total{") == len(POISON)
        assert process.stop() == 0
    assert SECRET not in process.log.read_text()


async def read_titles(stack, *ids):
    """What the items of these ids are called in the index that serves."""
    index = connect(load_settings(qdrant_url=stack["NEARKIN_QDRANT_URL"]))
    try:
        held = await (await index.serving()).read(ids)
    finally:
        await index.close()
    return [held[one].state.content.title for one in ids]


def dead_letters(stack, count):
    reader = KafkaConsumer(bootstrap_servers=stack["NEARKIN_KAFKA_BOOTSTRAP"], auto_offset_reset="earliest")
    reader.assign([TopicPartition(ITEMS.dead_letters.name, 0)])
    letters = []

    def read():
        for records in reader.poll(timeout_ms=200).values():
            letters.extend(records)
        return len(letters) >= count

    eventually(read, f"{count} dead letters")
    reader.close()
    return letters


def test_the_bulk_lane_serves_its_own_topic_and_steps_back_for_others(stack, tmp_path):
    with indexer(tmp_path, stack, NEARKIN_INDEXER_LANE="bulk") as process:
        items = Producer(stack["NEARKIN_KAFKA_BOOTSTRAP"])
        items.upsert("old mug", Content(title="old mug"), bulk=True).result(30)
        items.close()
        process.until_ready()
        applied = f'nearkin_events_total{{outcome="applied",topic="{ITEMS_BULK.name}"}}'

        eventually(lambda: process.metric(applied) == 1, "applied")

        assert os.getpriority(os.PRIO_PROCESS, process.process.pid) == 19
        assert process.stop() == 0


@pytest.mark.slow
def test_how_much_the_index_holds_is_told_again_and_again(stack, tmp_path):
    with indexer(tmp_path, stack) as process:
        process.until_ready()
        before = process.metric('nearkin_index_points{kind="items"')
        items = Producer(stack["NEARKIN_KAFKA_BOOTSTRAP"])
        items.upsert("counted cup", Content(title="blue cup")).result(30)
        items.close()

        eventually(lambda: process.metric('nearkin_index_points{kind="items"') == before + 1, "it is counted")


def test_a_taken_port_is_refused_with_the_setting_and_the_remedy(stack, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with indexer(tmp_path, stack, NEARKIN_METRICS_LISTEN=address) as process:
            assert process.exit() == 2

    said = json.loads(process.log.read_text().splitlines()[-1])
    assert said["level"] == "CRITICAL"
    assert "NEARKIN_METRICS_LISTEN" in said["problem"]
    assert "free host:port" in said["problem"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("NEARKIN_INDEXER_LANE", "slow"), ("NEARKIN_STALL_TIMEOUT_S", "-1"), ("NEARKIN_BUNDLE_PATH", "/no/such/bundle")],
)
def test_a_wrong_setting_is_refused_by_its_name(stack, tmp_path, name, value):
    with indexer(tmp_path, stack, **{name: value}) as process:
        assert process.exit() == 2

    said = process.log.read_text()
    assert name in said or value in said
    assert "Traceback" not in said


def test_an_index_that_is_not_there_yet_is_waited_for(stack, tmp_path):
    with indexer(tmp_path, {**stack, "NEARKIN_QDRANT_URL": "http://127.0.0.1:1"}) as process:
        eventually(lambda: "unavailable" in process.ready()[1].get("index", ""), "it says what it waits for")

        assert process.process.poll() is None
        assert process.stop() == 0
