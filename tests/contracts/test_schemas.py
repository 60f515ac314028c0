"""The schemas that others read and the structs that decode say the same."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from nearkin.contracts import limits
from nearkin.contracts.events import Deleted, Offered, Upserted, read_item_event
from nearkin.contracts.feedback import WireImpressions, WireInteraction, WireVisit, read_feedback, read_visit
from nearkin.contracts.lookups import WireAnswered, read_answered
from nearkin.core.errors import InvalidEvent

EVENTS = Path(__file__).parents[2] / "schemas" / "events"
SCHEMAS = {path.name: json.loads(path.read_text()) for path in EVENTS.glob("*.schema.json")}
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
#: By the folder of its examples, what a topic takes: the structs of its kinds and what reads them.
TOPICS: dict[str, tuple[list[type[msgspec.Struct]], Callable[[bytes], object]]] = {
    "items": ([Upserted, Offered, Deleted], read_item_event),
    "feedback": ([WireImpressions, WireInteraction], read_feedback),
    "visits": ([WireVisit], read_visit),
    "lookups": ([WireAnswered], read_answered),
}
VALIDATORS = {topic: Draft202012Validator(SCHEMAS[f"{topic}.v1.schema.json"], registry=REGISTRY) for topic in TOPICS}
VALID = sorted((EVENTS / "examples").glob("*/valid/*.json"))
INVALID = sorted((EVENTS / "examples").glob("*/invalid/*.json"))

#: What explains a schema and refuses nothing.
NOTES = {"$schema", "title", "description", "default", "$defs"}
#: Rules that hold between fields: the structs' decoder checks them by hand.
BY_HAND = {"dependentRequired"}


def resolved(schema: Any, document: dict[str, Any]) -> Any:
    """The schema with its references put in place, and without what refuses nothing."""
    if isinstance(schema, list):
        return [resolved(part, document) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name, _, pointer = schema["$ref"].partition("#/")
        document = SCHEMAS[name] if name else document
        target: Any = document
        for step in filter(None, pointer.split("/")):
            target = target[step]
        return resolved(target, document)
    rules = {}
    for word, part in schema.items():
        if word == "properties":
            rules[word] = {name: resolved(field, document) for name, field in part.items()}
        elif word in ("required", "enum"):
            rules[word] = sorted(part)
        elif word not in NOTES | BY_HAND:
            rules[word] = resolved(part, document)
    if rules.get("required") == []:
        del rules["required"]
    if "propertyNames" in rules:
        rules["propertyNames"].pop("type", None)  # names are always strings
    return rules


def schema_of(struct: type[msgspec.Struct]) -> str:
    """The file that describes a struct."""
    return f"{struct.__name__.removeprefix('Wire').lower()}.v1.schema.json"


def named(path: Path) -> str:
    """An example as a test names it."""
    return f"{path.parents[1].name}-{path.stem}"


@pytest.mark.parametrize("struct", [struct for structs, _ in TOPICS.values() for struct in structs])
def test_a_struct_and_its_schema_have_the_same_fields_types_and_limits(struct: type[msgspec.Struct]) -> None:
    written = SCHEMAS[schema_of(struct)]
    derived = msgspec.json.schema(struct)
    assert resolved(derived, derived) == resolved(written, written)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_takes_each_kind(topic: str) -> None:
    kinds = [part["$ref"] for part in SCHEMAS[f"{topic}.v1.schema.json"]["oneOf"]]
    assert kinds == [schema_of(struct) for struct in TOPICS[topic][0]]


@pytest.mark.parametrize("topic", TOPICS)
def test_the_largest_value_is_written_down(topic: str) -> None:
    assert f"at most {limits.MAX_EVENT_BYTES} bytes" in SCHEMAS[f"{topic}.v1.schema.json"]["description"]


@pytest.mark.parametrize("path", VALID, ids=named)
def test_a_valid_example_fits(path: Path) -> None:
    VALIDATORS[path.parents[1].name].validate(json.loads(path.read_text()))


#: What is wrong before there is a JSON value, or with the record around it.
BEYOND_SCHEMAS = {"not_json", "not_utf8", "surrogate", "not_finite", "bad_key", "null_value"}
#: What a schema cannot compare: one item of a slate with another, with the anchor, and its features with their names.
BETWEEN_PLACES = {"repeated", "self_pair", "uneven"}


@pytest.mark.parametrize("path", INVALID, ids=named)
def test_an_invalid_example_does_not_fit(path: Path) -> None:
    example = json.loads(path.read_text())
    if example["reason"] in BEYOND_SCHEMAS | BETWEEN_PLACES or path.stem.endswith("-beyond-a-double"):
        return
    event = json.loads(example["text"]) if "text" in example else example["event"]
    assert not VALIDATORS[path.parents[1].name].is_valid(event)


def fits(topic: str, event: Any) -> bool:
    """Whether the reader of a topic takes an event, or refuses it for what a schema cannot say."""
    try:
        TOPICS[topic][1](json.dumps(event).encode())
    except InvalidEvent as error:
        return error.reason in BETWEEN_PLACES
    return True


def nodes(event: Any) -> list[tuple[Any, Any]]:
    """Every place in an event where a value stands: its container and its name or index there."""
    places: list[tuple[Any, Any]] = []
    entries = event.items() if isinstance(event, dict) else enumerate(event) if isinstance(event, list) else ()
    for name, part in entries:
        places += [(event, name), *nodes(part)]
    return places


scalars = st.one_of(
    *(st.none(), st.booleans(), st.just(5.5), st.text(max_size=3), st.just("x\n"), st.just(" ")),
    *(st.integers(-2, 2), st.integers(2**53 - 2, 2**53 + 2), st.just(limits.MIN_OCCURRED_AT - 1)),
    st.sampled_from([n + d for n in (3, 35, 50, 100, 128, 200, 256, 1000, 2048, 20_000) for d in (0, 1)]).map(
        lambda length: "x" * length
    ),
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.sampled_from([n + d for n in (8, 50, 64, 200, 250) for d in (0, 1)]).flatmap(
        lambda count: st.sampled_from([["x"] * count, [["x"]] * count, {str(n): "x" for n in range(count)}])
    ),
    st.dictionaries(st.sampled_from(["", "a=b", "a\n", "n", "x" * 200, "x" * 201]), scalars, max_size=2),
)


@pytest.mark.parametrize("topic", TOPICS)
@given(st.data(), st.randoms(use_true_random=False), values, st.booleans())
def test_a_changed_event_is_taken_where_it_fits_and_only_there(
    topic: str, data: st.DataObject, draw: random.Random, value: Any, leave_out: bool
) -> None:
    example = data.draw(st.sampled_from([path for path in VALID if path.parents[1].name == topic]))
    event = json.loads(example.read_text())
    container, name = draw.choice(nodes(event))
    if leave_out:
        del container[name]
    else:
        container[name] = value
    assert fits(topic, event) == VALIDATORS[topic].is_valid(event)
