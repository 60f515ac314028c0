"""What the index holds of an item beside its vectors: the whole item, its facts, and the fields that filters need.

The whole item is one JSON string under `item`, read back without loss: the index is the resolved catalogue, and a
string costs the least to move; what has its default is left out of it. The other fields are made from it at every
write, and an item is read back without them. Filter fields and facts stand on items that are present only, and say the
offer in force.

Facts are what ranking needs of a hit: one JSON array under `facts`, which a search asks for where the process does not
remember them of the point's version (`stores/remembered_facts.py`). A point that was written before there
were facts has none: whoever finds it makes them from the whole item (`to_facts`), and the next write puts them there.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from nearkin.core.candidates import ItemFacts
from nearkin.core.item import Availability, Content, ItemState, Offer, category_key
from nearkin.core.ports import IndexedItem

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Every field that has a payload index, and the kind of index; never bool, which makes an embedded index slow.
PAYLOAD_INDEXES: Final[dict[str, Literal["keyword", "integer", "float"]]] = {
    "content_version": "integer",
    "offer_version": "integer",
    "deleted_version": "integer",
    "hidden": "integer",
    "categories": "keyword",
    "category_prefixes": "keyword",
    "tags": "keyword",
    "attributes": "keyword",
    "price": "float",
    "currency": "keyword",
    "availability": "keyword",
    "markets": "keyword",
}

#: The market of an offer that is sold everywhere; no market may be called so.
EVERYWHERE: Final = "*"


class _Facts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Facts as they are stored, by place: fields may be added at the end, an older reader passes over them."""

    id: str
    title: str
    categories: tuple[str, ...]
    price: float | None
    currency: str
    availability: Availability
    markets: tuple[str, ...]
    maker: str
    variant_group: str
    first_seen: int
    sketch: bytes


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(IndexedItem)
_FACTS_DECODER = msgspec.json.Decoder(_Facts)


def _defaults(kind: "type[DataclassInstance]") -> list[tuple[str, object]]:
    """Each field and its default. A default that changes changes what is stored: it needs a new collection."""
    missing = dataclasses.MISSING
    return [
        (field.name, field.default if field.default_factory is missing else field.default_factory())
        for field in dataclasses.fields(kind)
    ]


_CONTENT, _OFFER, _STATE = _defaults(Content), _defaults(Offer), _defaults(ItemState)


def attribute_key(name: str, value: str) -> str:
    """The keyword of an attribute; names hold no "=", so no two attributes share one."""
    return f"{name}={value}"


def to_payload(item: IndexedItem) -> dict[str, Any]:
    """The payload of an item's point."""
    state = item.state
    payload: dict[str, Any] = {
        "id": state.id,
        "content_version": state.content_version,
        "offer_version": state.offered_version,
        "deleted_version": state.deleted_version,
        "item": _ENCODER.encode(_without_defaults(item)).decode(),
    }
    if not state.is_visible:
        # Said of the few that are hidden, not of the many that are visible: a scan of 20,000 points with a condition
        # that must not hold takes two thirds of the time of one with a condition that must.
        payload["hidden"] = 1
    if state.content is not None:
        payload["facts"] = _facts_text(item, state.content)
        _add_content(payload, state.content)
        _add_offer(payload, state.offer)
    return payload


def from_payload(payload: dict[str, Any]) -> IndexedItem:
    """The item that `to_payload` was given."""
    return _DECODER.decode(payload["item"])


def to_facts(item: IndexedItem) -> ItemFacts | None:
    """The facts of an item; None where it has no content."""
    return facts_of(_facts_text(item, item.state.content)) if item.state.content is not None else None


def facts_of(text: str) -> ItemFacts:
    """The facts that a stored text holds."""
    told = _FACTS_DECODER.decode(text)
    return ItemFacts(
        told.id,
        told.title,
        told.categories,
        told.price,
        told.currency,
        told.availability,
        told.markets,
        told.maker,
        told.variant_group,
        told.first_seen,
        told.sketch,
    )


def _facts_text(item: IndexedItem, content: Content) -> str:
    offer = item.state.offer
    facts = _Facts(
        id=item.state.id,
        title=content.title,
        categories=tuple(dict.fromkeys([category_key(path) for path in content.categories])),
        price=offer.price.amount if offer.price is not None else None,
        currency=offer.price.currency if offer.price is not None else "",
        availability=offer.availability,
        markets=offer.markets,
        maker=content.maker,
        variant_group=content.variant_group,
        first_seen=item.first_seen,
        sketch=item.sketch,
    )
    return _ENCODER.encode(facts).decode()


def _without_defaults(item: IndexedItem) -> dict[str, object]:
    """The item as the decoder takes it: it puts the defaults back."""
    state = _told(item.state, _STATE)
    for name, defaults in (("content", _CONTENT), ("carried", _OFFER), ("offered", _OFFER)):
        if name in state:
            state[name] = _told(state[name], defaults)
    return {
        "state": state,
        "fingerprint": item.fingerprint,
        "indexed_at": item.indexed_at,
        "first_seen": item.first_seen,
        "sketch": item.sketch,
    }


def _told(value: object, defaults: list[tuple[str, object]]) -> dict[str, object]:
    return {name: told for name, default in defaults if (told := getattr(value, name)) != default}


def _add_content(payload: dict[str, Any], content: Content) -> None:
    if content.categories:
        whole: dict[str, None] = {}
        prefixes: dict[str, None] = {}
        for path in content.categories:
            key = category_key(path)
            whole[key] = None
            # Escaped names hold no "/", so the prefixes of a key are those of its path.
            end = key.find("/")
            while end >= 0:
                prefixes[key[:end]] = None
                end = key.find("/", end + 1)
            prefixes[key] = None
        payload["categories"] = list(whole)
        payload["category_prefixes"] = list(prefixes)
    if content.tags:
        payload["tags"] = list(dict.fromkeys(content.tags))
    if content.attributes:
        payload["attributes"] = [attribute_key(name, value) for name, value in content.attributes.items()]


def _add_offer(payload: dict[str, Any], offer: Offer) -> None:
    if offer.price is not None:
        payload["price"] = offer.price.amount
        payload["currency"] = offer.price.currency
    payload["availability"] = offer.availability.value
    payload["markets"] = list(dict.fromkeys(offer.markets)) or [EVERYWHERE]
