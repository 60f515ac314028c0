"""The AsyncAPI document says what the topics and the dead letters are in the code."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nearkin.contracts import topics
from nearkin.core.errors import InvalidEvent
from nearkin.ops.failures import dead_letter
from nearkin.ops.letters import LetterId, Settled, marker_headers
from nearkin.ops.record import Record, Rejected

SCHEMAS = Path(__file__).parents[2] / "schemas"
DOCUMENT = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text())
CHANNELS = {channel["address"]: channel for channel in DOCUMENT["channels"].values()}
#: The kinds that each topic takes, and the field whose text is the key.
TAKEN = {
    topics.ITEMS: (["upserted", "offered", "deleted"], "id"),
    topics.ITEMS_BULK: (["upserted", "offered", "deleted"], "id"),
    topics.FEEDBACK: (["impressions", "interaction"], "anchor"),
    topics.VISITS: (["visit"], "visit_id"),
    topics.LOOKUPS: (["answered"], "anchor"),
}


def target(reference: dict[str, str]) -> Any:
    """What a reference names: in the document, or in a file beside it."""
    name, _, pointer = reference["$ref"].partition("#")
    found: Any = json.loads((SCHEMAS / name).read_text()) if name else DOCUMENT
    for step in filter(None, pointer.split("/")):
        found = found[step]
    return found


def references(part: Any) -> list[dict[str, str]]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            return [part]
        return [found for value in part.values() for found in references(value)]
    return [found for value in part for found in references(value)] if isinstance(part, list) else []


def test_it_is_asyncapi_3() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"


def test_every_reference_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert found
    for reference in found:
        assert target(reference)


def test_it_names_every_topic_and_no_other() -> None:
    assert sorted(CHANNELS) == sorted(topic.name for topic in topics.TOPICS)


@pytest.mark.parametrize("topic", topics.TOPICS, ids=lambda topic: topic.name)
def test_a_topic_has_the_settings_that_it_says(topic: topics.Topic) -> None:
    assert CHANNELS[topic.name]["bindings"]["kafka"]["topicConfiguration"] == {
        "cleanup.policy": [topic.cleanup_policy],
        "retention.ms": topic.retention_ms,
        "max.message.bytes": topic.max_message_bytes,
    }


@pytest.mark.parametrize("topic", TAKEN, ids=lambda topic: topic.name)
def test_a_topic_takes_each_kind_by_its_schema_with_an_id_as_key(topic: topics.Topic) -> None:
    messages = {name: target(message) for name, message in CHANNELS[topic.name]["messages"].items()}
    kinds, field = TAKEN[topic]
    assert list(messages) == kinds
    item_id = json.loads((SCHEMAS / "events" / "item.v1.schema.json").read_text())["$defs"]["id"]
    for name, message in messages.items():
        schema = target(message["payload"]["schema"])
        assert schema["properties"]["kind"]["enum"] == [name]
        assert schema["properties"][field]["$ref"].endswith("#/$defs/id")
        (trait,) = (target(trait) for trait in message["traits"])
        assert trait["contentType"] == "application/json"
        key = trait["bindings"]["kafka"]["key"]
        assert key == {rule: item_id[rule] for rule in ("type", "minLength", "maxLength", "pattern")}


@pytest.mark.parametrize("topic", topics.SOURCES, ids=lambda topic: topic.name)
def test_dead_letters_have_the_headers_that_it_says(topic: topics.Topic) -> None:
    messages = CHANNELS[topic.dead_letters.name]["messages"]
    assert list(messages) == ["deadLetter", "settled"]
    headers = target(messages["deadLetter"])["headers"]
    record = Record(topic.name, partition=0, offset=7, timestamp_ms=1, key=None, value=b"{")
    error = InvalidEvent("the value is not JSON", remedy="send one JSON object", reason="not_json")
    written = [name for name, _ in dead_letter(Rejected(record, error), topic.dead_letters, 2).headers]
    assert written == headers["required"]
    large = record._replace(value=b"{" * 5_000_000)
    cut = [name for name, _ in dead_letter(Rejected(large, error), topic.dead_letters, 2).headers]
    assert cut == list(headers["properties"])


def test_markers_have_the_headers_that_it_says() -> None:
    headers = target(CHANNELS["items.v1.dlq"]["messages"]["settled"])["headers"]
    written = marker_headers(LetterId("items.v1.dlq", 0, 7), Settled.DROPPED, "a test", 2)
    assert [name for name, _ in written] == headers["required"] == list(headers["properties"])
    assert headers["properties"]["nearkin-settled"]["enum"] == list(Settled)
