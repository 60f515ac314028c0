"""Events are read strictly, refused with a reason and a field, and never quoted."""

import base64
import copy
import json
import random
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.contracts import limits
from nearkin.contracts.events import (
    ItemEvent,
    Kind,
    decode_item_event,
    encode_deleted,
    encode_offered,
    encode_upserted,
    read_item_event,
)
from nearkin.contracts.wire import REMEDIES
from nearkin.core import item
from nearkin.core.errors import InvalidEvent
from nearkin.core.item import Availability, Content, Offer, Price, Quantity, Status
from odd_events import SECRET, garbled, mutated

EXAMPLES = Path(__file__).parents[2] / "schemas" / "events" / "examples" / "items"
VALID = sorted((EXAMPLES / "valid").glob("*.json"))
INVALID = sorted((EXAMPLES / "invalid").glob("*.json"))
NOW = 1_760_000_000_000

#: Reasons that no item event has.
OF_OTHERS = {"not_a_pseudonym", "self_pair", "reserved_id", "repeated", "too_late", "in_future", "uneven"}


def deletion(**changes: Any) -> dict[str, Any]:
    return {"kind": "deleted", "event_id": "e", "occurred_at": NOW, "id": "i", "version": 1, **changes}


def upsert(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "kind": "upserted",
        "event_id": "e",
        "occurred_at": NOW,
        "id": "i",
        "content_version": 1,
        "content": content,
        **changes,
    }


def as_json(event: Any) -> bytes:
    return json.dumps(event).encode()


def refusal(value: bytes | None, key: bytes | None = b"i") -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        decode_item_event(key, value)
    return caught.value


class TestExamples:
    @pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
    def test_a_valid_one_is_taken(self, path: Path) -> None:
        value = path.read_bytes()
        written = json.loads(value)
        event = decode_item_event(written["id"].encode(), value)
        assert (event.event_id, event.occurred_at) == (written["event_id"], written["occurred_at"])
        assert (event.kind, event.item_id, event.state.id) == (written["kind"], written["id"], written["id"])
        assert event.state.content_version == written.get("content_version", item.NEVER)
        assert event.state.offered_version == written.get("offer_version", item.NEVER)
        assert event.state.deleted_version == written.get("version", item.NEVER)

    @pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
    def test_an_invalid_one_is_refused_for_its_reason(self, path: Path) -> None:
        example = json.loads(path.read_text())
        key = None if example["key"] is None else example["key"].encode()
        error = refusal(value_of(example), key)
        assert (error.reason, error.field) == (example["reason"], example["field"])
        assert error.remedy == REMEDIES[error.reason]

    def test_every_reason_that_fits_a_file_has_one(self) -> None:
        shown = {json.loads(path.read_text())["reason"] for path in INVALID}
        assert shown == set(REMEDIES) - {"too_large", "too_deep", "no_time"} - OF_OTHERS

    def test_every_kind_has_one(self) -> None:
        assert {json.loads(path.read_text())["kind"] for path in VALID} == set(Kind)


def value_of(example: dict[str, Any]) -> bytes | None:
    """The record's value that an invalid example describes."""
    if "base64" in example:
        return base64.b64decode(example["base64"])
    if "text" in example:
        return str(example["text"]).encode()
    return None if example["event"] is None else as_json(example["event"])


class TestReading:
    def test_every_field_arrives(self) -> None:
        event = read_item_event((EXAMPLES / "valid" / "upserted.json").read_bytes())
        assert event.state.content == Content(
            title="Blue mug",
            description="A sturdy mug of glazed stoneware.\nFit for the dishwasher.",
            language="en-GB",
            categories=(("home", "kitchen", "mugs"), ("gifts", "for him/her")),
            tags=("ceramic", "handmade"),
            attributes={"colour": "blue", "glaze": "a=b"},
            numbers={"volume": Quantity(250, "ml"), "weight": Quantity(0.31, "kg"), "rating": Quantity(-1.5, "")},
            images=("https://shop.example/mug-1.jpg",),
            videos=("https://shop.example/mug-1.mp4",),
            maker="Potters & Co",
            variant_group="mug",
            status=Status.ACTIVE,
        )

    def test_an_upsert_with_an_offer_is_both(self) -> None:
        event = read_item_event((EXAMPLES / "valid" / "upserted-with-offer.json").read_bytes())
        assert event.state.offer == Offer(Price(7.5, "GBP"), Availability.IN_STOCK, ("United Kingdom", "EIRE"))
        assert event.state.carried_version == event.state.offered_version == NOW - 5000

    def test_of_a_field_named_twice_the_last_counts(self) -> None:
        event = read_item_event((EXAMPLES / "valid" / "title-named-twice-the-last-counts.json").read_bytes())
        assert event.state.content == Content(title="Blue mug")

    def test_minus_zero_is_zero(self) -> None:
        event = read_item_event(as_json(upsert({"numbers": {"n": {"value": -0.0, "unit": ""}}})))
        assert event.state.content
        assert str(event.state.content.numbers["n"].value) == "0.0"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ({"title": "é" * limits.MAX_TITLE, "description": "x" * limits.MAX_DESCRIPTION}, None),
            ({"description": "x" * (limits.MAX_DESCRIPTION + 1)}, "too_long"),
            ({"attributes": {str(n): "" for n in range(limits.MAX_ATTRIBUTES)}}, None),
            ({"attributes": {str(n): "" for n in range(limits.MAX_ATTRIBUTES + 1)}}, "too_many"),
            ({"numbers": {str(n): {"value": n, "unit": ""} for n in range(limits.MAX_NUMBERS + 1)}}, "too_many"),
            ({"unknown": "x" * limits.MAX_EVENT_BYTES}, "too_large"),
        ],
    )
    def test_sizes_end_at_their_limits(self, content: dict[str, Any], reason: str | None) -> None:
        if reason is None:
            decode_item_event(b"i", as_json(upsert(content)))
        else:
            assert refusal(as_json(upsert(content))).reason == reason

    @pytest.mark.parametrize("opening", ["[", '{"a":'])
    @pytest.mark.parametrize("where", ['{"kind":"deleted","unknown":', '{"kind":"upserted","content":{"unknown":'])
    def test_a_depth_bomb_is_refused(self, where: str, opening: str) -> None:
        assert refusal((where + opening * 40_000).encode()).reason == "too_deep"

    def test_an_id_in_any_script_is_its_own_key(self) -> None:
        assert decode_item_event("마그".encode(), as_json(deletion(id="마그"))).item_id == "마그"

    @pytest.mark.parametrize(
        ("event", "message"),
        [
            (upsert({"title": None}), "content.title: it is null, and must be a text; "),
            (upsert({"tags": "tea"}), "content.tags: it is a text, and must be a list; "),
            (upsert({"attributes": {"a": 5}}), "content.attributes[...]: it is a whole number, and must be a text; "),
            (upsert({"numbers": {"n": 5}}), "content.numbers[...]: it is a whole number, and must be an object; "),
            (deletion(version=1.5), "version: it is a number with a fraction, and must be a whole number; "),
            (deletion(version=True), "version: it is true or false, and must be a whole number; "),
            (deletion(kind=5), "kind: it must be a text; "),
            (upsert({}, offer_version=1, offer={"price": 4.5}), "offer.price: it is a number with a fraction, and "),
            ([deletion()], "it is a list, and must be an object: one to a record, or to a line of a file; "),
            ("deleted", "it is a text, and must be an object; "),
        ],
    )
    def test_a_wrong_type_is_told_with_the_right_one(self, event: Any, message: str) -> None:
        assert str(refusal(as_json(event))).startswith(message)

    def test_a_byte_order_mark_is_called_by_its_name(self) -> None:
        assert "byte order mark" in str(refusal(b"\xef\xbb\xbf" + as_json(deletion())))


class TestEvolution:
    @pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
    def test_an_older_consumer_reads_a_newer_event_as_if_the_new_fields_were_not_there(self, path: Path) -> None:
        event = json.loads(path.read_text())
        newer = copy.deepcopy(event)
        for part in structures(newer):
            part |= {"zz_new": {"of": ["any", {"shape": None}]}, "": 0, "zz_flag": True}
        assert read_item_event(as_json(newer)) == read_item_event(as_json(event))


def structures(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects of an event that have fields, unlike attributes, whose names are the producer's own."""
    yield event
    if content := event.get("content"):
        yield content
        yield from content.get("numbers", {}).values()
    if offer := event.get("offer"):
        yield offer
        if "price" in offer:
            yield offer["price"]


texts = st.text(max_size=30)
filled = st.text(min_size=1, max_size=20)
ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30).map(lambda text: "i" + text)
names = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="="), min_size=1, max_size=20)
versions = st.integers(0, item.MAX_VERSION)
times = st.integers(limits.MIN_OCCURRED_AT, limits.MAX_OCCURRED_AT)
finite = st.floats(allow_nan=False, allow_infinity=False)
tuples_of = lambda strategy: st.lists(strategy, max_size=4).map(tuple)  # noqa: E731  # a strategy's own name
contents = st.builds(
    Content,
    title=texts,
    description=texts,
    language=st.sampled_from(["", "en", "pt-BR", "zh-Hant-TW"]),
    categories=tuples_of(st.lists(filled, min_size=1, max_size=4).map(tuple)),
    tags=tuples_of(filled),
    attributes=st.dictionaries(names, texts, max_size=4),
    numbers=st.dictionaries(names, st.builds(Quantity, finite, texts), max_size=4),
    images=tuples_of(filled),
    videos=tuples_of(filled),
    maker=texts,
    variant_group=texts,
    status=st.sampled_from(Status),
)
offers = st.builds(
    Offer,
    price=st.none() | st.builds(Price, finite.map(abs), st.from_regex("[A-Z]{3}", fullmatch=True)),
    availability=st.sampled_from(Availability),
    markets=tuples_of(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="*"), min_size=1)),
)


class TestProducing:
    @given(ids, contents, versions, st.none() | st.tuples(offers, versions), ids, times)
    def test_what_is_encoded_is_what_is_read(
        self,
        item_id: str,
        content: Content,
        version: int,
        offer: tuple[Offer, int] | None,
        event_id: str,
        occurred_at: int,
    ) -> None:
        brought, offer_version = offer or (None, None)
        record = encode_upserted(
            item_id,
            content,
            version,
            event_id=event_id,
            occurred_at=occurred_at,
            offer=brought,
            offer_version=offer_version,
        )
        state = item.upserted(item_id, content, version, brought, item.NEVER if offer is None else offer[1])
        assert decode_item_event(*record) == ItemEvent(event_id, occurred_at, Kind.UPSERTED, item_id, state)

    @given(ids, offers, versions)
    def test_an_offer_is_read_as_encoded(self, item_id: str, offer: Offer, version: int) -> None:
        record = encode_offered(item_id, offer, version, event_id="e", occurred_at=NOW)
        assert decode_item_event(*record).state == item.offered(item_id, offer, version)

    @given(ids, versions)
    def test_a_deletion_is_read_as_encoded(self, item_id: str, version: int) -> None:
        record = encode_deleted(item_id, version, event_id="e", occurred_at=NOW)
        assert decode_item_event(*record).state == item.deleted(item_id, version)

    def test_what_is_left_empty_is_left_out(self) -> None:
        _, value = encode_upserted("i", Content(title="Mug"), 1, event_id="e", occurred_at=NOW)
        assert json.loads(value) == upsert({"title": "Mug"})

    @pytest.mark.parametrize(
        ("content", "reason", "field"),
        [
            (Content(title="x" * 1001), "too_long", "content.title"),
            (Content(title="\ud83d"), "surrogate", ""),
            (Content(title=5), "wrong_type", "content.title"),  # type: ignore[arg-type]
            (Content(title=object()), "wrong_type", "content.title"),  # type: ignore[arg-type]
            (Content(title=b"mug"), "wrong_type", "content.title"),  # type: ignore[arg-type]
            (Content(tags="tea"), "wrong_type", "content.tags"),  # type: ignore[arg-type]
            (Content(categories=("home",)), "wrong_type", "content.categories[0]"),  # type: ignore[arg-type]
            (Content(attributes=5), "wrong_type", "content.attributes"),  # type: ignore[arg-type]
            (Content(numbers={"n": 5}), "wrong_type", "content.numbers[...]"),  # type: ignore[dict-item]
            ({"title": "Mug"}, "wrong_type", "content"),
            (None, "wrong_type", "content"),
            (Content(numbers={"n": Quantity(float("nan"), "ml")}), "not_finite", "content.numbers[...].value"),
            (Content(numbers={"n": Quantity(10**400, "ml")}), "out_of_range", "content.numbers[...].value"),
            (Content(numbers={"n": Quantity(10**5000, "ml")}), "out_of_range", "content.numbers[...].value"),
            (Content(attributes={"a=b": "c"}), "bad_format", "content.attributes"),
        ],
    )
    def test_the_rules_are_those_of_reading(self, content: Content, reason: str, field: str) -> None:
        with pytest.raises(InvalidEvent) as caught:
            encode_upserted("i", content, 1, event_id="e", occurred_at=NOW)
        assert (caught.value.reason, caught.value.field) == (reason, field)

    def test_an_infinite_price_is_refused(self) -> None:
        with pytest.raises(InvalidEvent, match=r"offer\.price\.amount"):
            encode_offered("i", Offer(Price(float("inf"), "EUR")), 1, event_id="e", occurred_at=NOW)

    def test_an_offer_needs_its_version(self) -> None:
        with pytest.raises(InvalidEvent, match="offer_version"):
            encode_upserted("i", Content(), 1, event_id="e", occurred_at=NOW, offer=Offer())

    @pytest.mark.parametrize("offer", [8.0, {"price": None}, object()])
    def test_an_offer_is_an_offer(self, offer: Any) -> None:
        with pytest.raises(InvalidEvent, match=r"^offer: it is of the type \w+, and must be of the type Offer; "):
            encode_offered("i", offer, 1, event_id="e", occurred_at=NOW)

    def test_a_price_is_a_price(self) -> None:
        with pytest.raises(
            InvalidEvent, match=r"^offer\.price: it is a number with a fraction, and must be an object; "
        ):
            encode_offered("i", Offer(8.5), 1, event_id="e", occurred_at=NOW)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"item_id": 5}, "id"),
            ({"item_id": uuid.UUID(int=1)}, "id"),
            ({"version": "1"}, "version"),
            ({"version": True}, "version"),
            ({"event_id": None}, "event_id"),
            ({"occurred_at": 1.5}, "occurred_at"),
        ],
    )
    def test_a_wrong_type_names_the_field(self, changes: dict[str, Any], field: str) -> None:
        event: dict[str, Any] = {"item_id": "i", "version": 1, "event_id": "e", "occurred_at": NOW, **changes}
        with pytest.raises(InvalidEvent) as caught:
            encode_deleted(**event)
        assert (caught.value.reason, caught.value.field) == ("wrong_type", field)

    def test_an_event_that_is_too_large_is_not_made(self) -> None:
        images = tuple(str(n) + "x" * 2_000 for n in range(50))
        content = Content(
            description="é" * 20_000, images=images, videos=tuple("é" * 2_000 + one[:9] for one in images)
        )
        with pytest.raises(InvalidEvent) as caught:
            encode_upserted("i", content, 1, event_id="e", occurred_at=NOW)
        assert caught.value.reason == "too_large"

    def test_a_decimal_amount_is_a_number(self) -> None:
        price = Price(Decimal("8.50"), "EUR")  # type: ignore[arg-type]
        record = encode_offered("i", Offer(price), 1, event_id="e", occurred_at=NOW)
        assert decode_item_event(*record).state.offer == Offer(Price(8.5, "EUR"))


@pytest.mark.parametrize(
    "value", [b"\xef\xbb\xbf{}", "{}".encode("utf-16-le"), "{}".encode("utf-16-be"), "{}".encode("utf-32-le")]
)
def test_what_another_parser_would_guess_to_be_json_is_not(value: bytes) -> None:
    with pytest.raises(InvalidEvent) as caught:
        read_item_event(value)
    assert caught.value.reason == "not_json"


def outcome(value: bytes) -> ItemEvent | InvalidEvent:
    try:
        return read_item_event(value)
    except InvalidEvent as error:
        return error


@pytest.mark.parametrize("seed", range(4))
def test_nothing_makes_the_reader_raise_anything_else_or_quote_an_event(seed: int) -> None:
    draw = random.Random(seed)
    events = [json.loads(path.read_text()) for path in VALID]
    known = "".join(path.read_text() for path in EXAMPLES.parents[1].glob("*.v1.schema.json"))
    refused = []
    for _ in range(1_000):
        event = draw.choice(events)
        for _ in range(draw.randint(1, 2)):
            event = mutated(event, draw)
        value = json.dumps(event, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")
        if draw.random() < 0.3:
            value = garbled(value, draw)
        result = outcome(value)
        if isinstance(result, InvalidEvent):
            refused.append(result)
    assert 100 < len(refused) < 980
    for error in refused:
        assert error.remedy == REMEDIES[error.reason]
        assert SECRET not in str(error)
        assert error.__suppress_context__ or error.__context__ is None, "a traceback would quote the event"
        for word in error.field.replace("[", ".").split("."):
            assert not word.isidentifier() or f'"{word}"' in known
