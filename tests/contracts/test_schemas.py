"""The schemas that others read and the structs that decode say the same."""

import json
import random
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
from nearkin.core.errors import InvalidEvent

EVENTS = Path(__file__).parents[2] / "schemas" / "events"
SCHEMAS = {path.name: json.loads(path.read_text()) for path in EVENTS.glob("*.schema.json")}
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
ITEMS = Draft202012Validator(SCHEMAS["items.v1.schema.json"], registry=REGISTRY)
VALID = sorted((EVENTS / "examples" / "valid").glob("*.json"))
INVALID = sorted((EVENTS / "examples" / "invalid").glob("*.json"))

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


@pytest.mark.parametrize("struct", [Upserted, Offered, Deleted])
def test_a_struct_and_its_schema_have_the_same_fields_types_and_limits(struct: type[msgspec.Struct]) -> None:
    written = SCHEMAS[f"{struct.__name__.lower()}.v1.schema.json"]
    derived = msgspec.json.schema(struct)
    assert resolved(derived, derived) == resolved(written, written)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


def test_a_topic_takes_each_kind() -> None:
    kinds = [part["$ref"] for part in SCHEMAS["items.v1.schema.json"]["oneOf"]]
    assert kinds == [f"{struct.__name__.lower()}.v1.schema.json" for struct in (Upserted, Offered, Deleted)]


def test_the_largest_value_is_written_down() -> None:
    assert f"at most {limits.MAX_EVENT_BYTES} bytes" in SCHEMAS["items.v1.schema.json"]["description"]


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_example_fits(path: Path) -> None:
    ITEMS.validate(json.loads(path.read_text()))


#: What is wrong before there is a JSON value, or with the record around it.
BEYOND_SCHEMAS = {"not_json", "not_utf8", "surrogate", "not_finite", "bad_key", "null_value"}


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_example_does_not_fit(path: Path) -> None:
    example = json.loads(path.read_text())
    if example["reason"] in BEYOND_SCHEMAS or path.stem == "price-beyond-a-double":
        return
    assert not ITEMS.is_valid(json.loads(example["text"]) if "text" in example else example["event"])


def is_taken(event: Any) -> bool:
    try:
        read_item_event(json.dumps(event).encode())
    except InvalidEvent:
        return False
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


@given(st.sampled_from([path.read_text() for path in VALID]), st.randoms(use_true_random=False), values, st.booleans())
def test_a_changed_event_is_taken_where_it_fits_and_only_there(
    text: str, draw: random.Random, value: Any, leave_out: bool
) -> None:
    event = json.loads(text)
    container, name = draw.choice(nodes(event))
    if leave_out:
        del container[name]
    else:
        container[name] = value
    assert is_taken(event) == ITEMS.is_valid(event)
