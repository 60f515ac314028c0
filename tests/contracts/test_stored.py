"""What the index holds of an item gives the item back, and filter fields that say what look-ups ask for."""

from dataclasses import replace
from functools import reduce
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nearkin.contracts.events import Kind
from nearkin.contracts.stored import (
    PAYLOAD_INDEXES,
    attribute_key,
    facts_of,
    from_payload,
    to_facts,
    to_payload,
)
from nearkin.core.candidates import ItemFacts
from nearkin.core.item import (
    MAX_VERSION,
    NEVER,
    Availability,
    Content,
    ItemState,
    Offer,
    Price,
    Quantity,
    Status,
    category_key,
    deleted,
    merge,
    offered,
    upserted,
)
from nearkin.core.ports import IndexedItem

CONTENT = Content(
    title="Blue mug",
    categories=(("home", "kitchen", "mugs"), ("home", "him/her"), ("home",)),
    tags=("ceramic", "ceramic", "handmade"),
    attributes={"colour": "blue", "glaze": "a=b"},
)
FILTERS = set(PAYLOAD_INDEXES) - {"content_version", "offer_version", "deleted_version", "hidden"}


def payload(state: ItemState) -> dict[str, Any]:
    return to_payload(IndexedItem(state))


texts = st.text(max_size=20)
tuples = st.lists(texts, max_size=4).map(tuple)
finite = st.floats(allow_nan=False, allow_infinity=False)
contents = st.builds(
    Content,
    title=texts,
    description=texts,
    language=texts,
    categories=st.lists(tuples, max_size=3).map(tuple),
    tags=tuples,
    attributes=st.dictionaries(texts, texts, max_size=3),
    numbers=st.dictionaries(texts, st.builds(Quantity, finite, texts), max_size=3),
    images=tuples,
    videos=tuples,
    maker=texts,
    variant_group=texts,
    status=st.sampled_from(Status),
)
offers = st.builds(
    Offer, st.none() | st.builds(Price, finite, texts), availability=st.sampled_from(Availability), markets=tuples
)
versions = st.integers(NEVER + 1, MAX_VERSION) | st.integers(0, 3)


@st.composite
def states(draw: st.DrawFn) -> ItemState:
    """Any state that events can lead to."""
    item_id = draw(texts)
    events = []
    for kind in draw(st.lists(st.sampled_from(Kind), min_size=1, max_size=4)):
        if kind is Kind.UPSERTED:
            brought = (draw(offers), draw(versions)) if draw(st.booleans()) else (None, NEVER)
            events.append(upserted(item_id, draw(contents), draw(versions), *brought))
        elif kind is Kind.OFFERED:
            events.append(offered(item_id, draw(offers), draw(versions)))
        else:
            events.append(deleted(item_id, draw(versions)))
    return reduce(merge, events)


moments = st.integers(0, MAX_VERSION)
indexed = st.builds(IndexedItem, states(), texts, moments, moments, st.binary(max_size=32))


@given(indexed)
def test_an_item_comes_back_as_it_went(item: IndexedItem) -> None:
    back = from_payload(to_payload(item))
    assert back == item
    assert repr(back) == repr(item), "types and the order of mappings come back too"


@given(indexed)
def test_facts_say_the_same_whether_they_are_stored_or_made_from_the_item(item: IndexedItem) -> None:
    stored = to_payload(item)
    assert ("facts" in stored) == item.state.is_present
    assert to_facts(item) == (facts_of(stored["facts"]) if item.state.is_present else None)


def test_facts_are_of_the_content_and_of_the_offer_in_force() -> None:
    content = replace(CONTENT, maker="Potter", variant_group="mugs-1")
    state = merge(
        upserted("i", content, 1, Offer(Price(9.0, "EUR")), 1),
        offered("i", Offer(Price(7.5, "EUR"), Availability.PREORDER, ("DE", "FR")), 2),
    )
    assert to_facts(IndexedItem(state, "print", 5, first_seen=3, sketch=b"\x00\xff")) == ItemFacts(
        id="i",
        title="Blue mug",
        categories=("home/kitchen/mugs", "home/him%2Fher", "home"),
        price=7.5,
        currency="EUR",
        availability=Availability.PREORDER,
        markets=("DE", "FR"),
        maker="Potter",
        variant_group="mugs-1",
        first_seen=3,
        sketch=b"\x00\xff",
    )


def test_facts_of_a_newer_version_with_more_fields_are_read() -> None:
    text = to_payload(IndexedItem(upserted("i", CONTENT, 1)))["facts"]
    assert facts_of(text.removesuffix("]") + ',"new",{"more":1}]') == facts_of(text)


def test_an_item_that_was_stored_before_there_were_facts_is_read() -> None:
    old = '{"state":{"id":"i","content":{"title":"mug"},"content_version":1},"fingerprint":"f","indexed_at":5}'
    item = from_payload({"item": old})
    assert item == IndexedItem(upserted("i", Content(title="mug"), 1), "f", 5, first_seen=0, sketch=b"")
    assert to_facts(item) == ItemFacts("i", "mug")


@given(indexed)
def test_indexed_fields_have_the_type_of_their_index(item: IndexedItem) -> None:
    kinds = {"keyword": str, "integer": int, "float": float}
    stored = to_payload(item)
    for field in set(PAYLOAD_INDEXES) & set(stored):
        values = stored[field] if isinstance(stored[field], list) else [stored[field]]
        assert {type(value) for value in values} == {kinds[PAYLOAD_INDEXES[field]]}
        assert len(set(values)) == len(values)


@given(indexed)
def test_only_a_present_item_has_filter_fields(item: IndexedItem) -> None:
    stored = to_payload(item)
    assert bool(FILTERS & set(stored)) == item.state.is_present
    assert ("facts" in stored) == item.state.is_present
    assert stored.get("hidden", 0) == int(not item.state.is_visible)
    state = item.state.versions
    assert (stored["content_version"], stored["offer_version"], stored["deleted_version"]) == (
        state.content,
        state.offer,
        state.deleted,
    )


def test_categories_are_whole_paths_and_all_their_prefixes() -> None:
    stored = payload(upserted("i", CONTENT, 1))
    assert stored["categories"] == ["home/kitchen/mugs", "home/him%2Fher", "home"]
    assert stored["category_prefixes"] == ["home", "home/kitchen", "home/kitchen/mugs", "home/him%2Fher"]


def test_tags_and_attributes_are_keywords() -> None:
    stored = payload(upserted("i", CONTENT, 1))
    assert stored["tags"] == ["ceramic", "handmade"]
    assert stored["attributes"] == ["colour=blue", "glaze=a=b"]


def test_the_offer_in_force_is_what_filters_see() -> None:
    state = merge(
        upserted("i", CONTENT, 1, Offer(Price(9.0, "EUR")), 1),
        offered("i", Offer(Price(7.5, "EUR"), Availability.PREORDER, ("DE", "FR", "DE")), 2),
    )
    stored = payload(state)
    assert (stored["price"], stored["currency"], stored["availability"]) == (7.5, "EUR", "preorder")
    assert stored["markets"] == ["DE", "FR"]


def test_an_offer_without_markets_is_sold_everywhere() -> None:
    stored = payload(upserted("i", CONTENT, 1))
    assert stored["markets"] == ["*"]
    assert "price" not in stored
    assert stored["availability"] == "in_stock"


def test_a_hidden_item_is_held_and_not_visible() -> None:
    stored = payload(upserted("i", Content(status=Status.HIDDEN), 1))
    assert stored["hidden"] == 1
    assert facts_of(stored["facts"]).id == "i"


paths = st.lists(st.text(st.sampled_from("a/%2F"), min_size=1, max_size=4), min_size=1, max_size=4).map(tuple)


@given(paths, paths)
def test_two_paths_never_share_a_keyword(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (category_key(one) == category_key(other)) == (one == other)


@given(paths)
def test_prefixes_are_the_keywords_of_the_prefixes(path: tuple[str, ...]) -> None:
    stored = payload(upserted("i", Content(categories=(path,)), 1))
    assert stored["category_prefixes"] == [category_key(path[:end]) for end in range(1, len(path) + 1)]


names = st.text(st.sampled_from("ab"), min_size=1, max_size=3)
values = st.text(st.sampled_from("a=b"), max_size=3)


@given(names, values, names, values)
def test_two_attributes_never_share_a_keyword(name: str, value: str, other: str, other_value: str) -> None:
    assert (attribute_key(name, value) == attribute_key(other, other_value)) == ((name, value) == (other, other_value))
