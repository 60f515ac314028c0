"""Item events on the wire and the item states that they stand for; what breaks the contract is refused with a reason.

`contracts.wire` reads, writes and refuses; here is what an item event is made of.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from nearkin.contracts import limits
from nearkin.contracts.wire import (
    EventId,
    ItemId,
    Time,
    converted,
    decode_value,
    encode_value,
    refused,
    require_key,
    require_type,
)
from nearkin.core import item
from nearkin.core.errors import InvalidEvent
from nearkin.core.item import Availability, Content, ItemState, Offer, Price, Quantity, Status


class Kind(StrEnum):
    """What an item event says."""

    UPSERTED = "upserted"
    OFFERED = "offered"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class ItemEvent:
    """One event of an item, checked.

    Attributes:
        event_id: the producer's name for it; a repetition has the same.
        occurred_at: when it happened, in milliseconds since the epoch.
        kind: what it says.
        item_id: the item that it is about.
        state: what this event alone says of the item: merge it with what is known.
    """

    event_id: str
    occurred_at: int
    kind: Kind
    item_id: str
    state: ItemState


Version = Annotated[int, Meta(ge=0, le=item.MAX_VERSION)]
Name = Annotated[str, Meta(min_length=1, max_length=limits.MAX_NAME, pattern=limits.NAME_PATTERN)]
Uri = Annotated[str, Meta(min_length=1, max_length=limits.MAX_URI)]
CategoryName = Annotated[str, Meta(min_length=1, max_length=limits.MAX_CATEGORY_NAME)]
Category = Annotated[tuple[CategoryName, ...], Meta(min_length=1, max_length=limits.MAX_CATEGORY_LEVELS)]
Tag = Annotated[str, Meta(min_length=1, max_length=limits.MAX_TAG)]
Market = Annotated[str, Meta(min_length=1, max_length=limits.MAX_MARKET, pattern=limits.MARKET_PATTERN)]


class WireQuantity(Struct, frozen=True, gc=False):
    """A number with its unit; the unit may be empty."""

    value: float
    unit: Annotated[str, Meta(max_length=limits.MAX_UNIT)]


class WirePrice(Struct, frozen=True, gc=False):
    """An amount in a currency's major unit."""

    amount: Annotated[float, Meta(ge=0)]
    currency: Annotated[str, Meta(pattern=limits.CURRENCY_PATTERN)]


class WireContent(Struct, frozen=True, gc=False, omit_defaults=True):
    """What an item is."""

    title: Annotated[str, Meta(max_length=limits.MAX_TITLE)] = ""
    description: Annotated[str, Meta(max_length=limits.MAX_DESCRIPTION)] = ""
    language: Annotated[str, Meta(max_length=limits.MAX_LANGUAGE, pattern=limits.LANGUAGE_PATTERN)] = ""
    categories: Annotated[tuple[Category, ...], Meta(max_length=limits.MAX_CATEGORIES)] = ()
    tags: Annotated[tuple[Tag, ...], Meta(max_length=limits.MAX_TAGS)] = ()
    attributes: Annotated[
        dict[Name, Annotated[str, Meta(max_length=limits.MAX_ATTRIBUTE_VALUE)]],
        Meta(max_length=limits.MAX_ATTRIBUTES),
    ] = {}
    numbers: Annotated[dict[Name, WireQuantity], Meta(max_length=limits.MAX_NUMBERS)] = {}
    images: Annotated[tuple[Uri, ...], Meta(max_length=limits.MAX_IMAGES)] = ()
    videos: Annotated[tuple[Uri, ...], Meta(max_length=limits.MAX_VIDEOS)] = ()
    maker: Annotated[str, Meta(max_length=limits.MAX_MAKER)] = ""
    variant_group: Annotated[str, Meta(max_length=limits.MAX_VARIANT_GROUP)] = ""
    status: Status = Status.ACTIVE


class WireOffer(Struct, frozen=True, gc=False, omit_defaults=True):
    """What an item costs and where it is sold."""

    price: WirePrice | UnsetType = UNSET
    availability: Availability = Availability.IN_STOCK
    markets: Annotated[tuple[Market, ...], Meta(max_length=limits.MAX_MARKETS)] = ()


class Upserted(Struct, frozen=True, gc=False, tag_field="kind", tag="upserted"):
    """The whole item; with an offer and its version, or with neither."""

    event_id: EventId
    occurred_at: Time
    id: ItemId
    content_version: Version
    content: WireContent
    offer_version: Version | UnsetType = UNSET
    offer: WireOffer | UnsetType = UNSET


class Offered(Struct, frozen=True, gc=False, tag_field="kind", tag="offered"):
    """Price, availability and markets alone: the frequent change."""

    event_id: EventId
    occurred_at: Time
    id: ItemId
    offer_version: Version
    offer: WireOffer


class Deleted(Struct, frozen=True, gc=False, tag_field="kind", tag="deleted"):
    """The item is gone, as far as its versions up to this one say."""

    event_id: EventId
    occurred_at: Time
    id: ItemId
    version: Version


_DECODER = msgspec.json.Decoder(Upserted | Offered | Deleted)


def decode_item_event(key: bytes | None, value: bytes | None) -> ItemEvent:
    """Read one record of an item topic.

    Args:
        key: the record's key: the item's id in UTF-8.
        value: the record's value: the event as JSON.

    Raises:
        InvalidEvent: the record breaks the contract; names the reason and the field, quotes nothing of the event.
    """
    event = read_item_event(value)
    require_key(key, "id", event.item_id)
    return event


def read_item_event(value: bytes | None) -> ItemEvent:
    """Read an event that comes without a key, as from a file.

    Raises:
        InvalidEvent: the value breaks the contract.
    """
    event = decode_value(_DECODER, value)
    if isinstance(event, Upserted):
        kind = Kind.UPSERTED
        if (event.offer is UNSET) != (event.offer_version is UNSET):
            missing = "offer" if event.offer is UNSET else "offer_version"
            raise _unpaired(missing)
        if event.offer is UNSET or event.offer_version is UNSET:
            state = item.upserted(event.id, _content(event.content), event.content_version)
        else:
            state = item.upserted(
                event.id, _content(event.content), event.content_version, _offer(event.offer), event.offer_version
            )
    elif isinstance(event, Offered):
        kind = Kind.OFFERED
        state = item.offered(event.id, _offer(event.offer), event.offer_version)
    else:
        kind = Kind.DELETED
        state = item.deleted(event.id, event.version)
    return ItemEvent(event.event_id, event.occurred_at, kind, event.id, state)


def encode_upserted(
    item_id: str,
    content: Content,
    content_version: int,
    *,
    event_id: str,
    occurred_at: int,
    offer: Offer | None = None,
    offer_version: int | None = None,
) -> tuple[bytes, bytes]:
    """The record that says what an item is, and with `offer` and `offer_version` also what it costs.

    Returns:
        The record's key and value.

    Raises:
        InvalidEvent: the event breaks the contract.
    """
    require_type(content, Content, "content")
    fields: dict[str, Any] = {"content_version": content_version, "content": content}
    if offer is not None:
        fields["offer"] = _offer_fields(offer)
    if offer_version is not None:
        fields["offer_version"] = offer_version
    if (offer is None) != (offer_version is None):
        raise _unpaired("offer" if offer is None else "offer_version")
    return _record(Upserted, {"event_id": event_id, "occurred_at": occurred_at, "id": item_id, **fields})


def encode_offered(
    item_id: str, offer: Offer, offer_version: int, *, event_id: str, occurred_at: int
) -> tuple[bytes, bytes]:
    """The record that says what an item costs and where it is sold; returns and raises as `encode_upserted`."""
    return _record(
        Offered,
        {
            "event_id": event_id,
            "occurred_at": occurred_at,
            "id": item_id,
            "offer_version": offer_version,
            "offer": _offer_fields(offer),
        },
    )


def encode_deleted(item_id: str, version: int, *, event_id: str, occurred_at: int) -> tuple[bytes, bytes]:
    """The record that ends an item; returns and raises as `encode_upserted`."""
    return _record(Deleted, {"event_id": event_id, "occurred_at": occurred_at, "id": item_id, "version": version})


def _content(wire: WireContent) -> Content:
    return Content(
        title=wire.title,
        description=wire.description,
        language=wire.language,
        categories=wire.categories,
        tags=wire.tags,
        attributes=wire.attributes,
        # Adding 0.0 turns -0.0 into 0.0: equal states are then equal as JSON too.
        numbers={name: Quantity(number.value + 0.0, number.unit) for name, number in wire.numbers.items()},
        images=wire.images,
        videos=wire.videos,
        maker=wire.maker,
        variant_group=wire.variant_group,
        status=wire.status,
    )


def _offer(wire: WireOffer) -> Offer:
    price = None if wire.price is UNSET else Price(wire.price.amount + 0.0, wire.price.currency)
    return Offer(price=price, availability=wire.availability, markets=wire.markets)


def _offer_fields(offer: Offer) -> dict[str, Any]:
    """The offer as the wire has it: no price is none, not null."""
    require_type(offer, Offer, "offer")
    price = {} if offer.price is None else {"price": offer.price}
    return {"availability": offer.availability, "markets": offer.markets, **price}


def _record(kind: type[Upserted | Offered | Deleted], fields: dict[str, Any]) -> tuple[bytes, bytes]:
    """Make an event by the rules of reading, then encode it."""
    event = converted(fields, kind)
    _require_finite(event)
    return encode_value(event.id, event)


def _require_finite(event: Upserted | Offered | Deleted) -> None:
    """Refuse what JSON cannot say: the encoder would write null."""
    if isinstance(event, Upserted) and not all(math.isfinite(one.value) for one in event.content.numbers.values()):
        raise refused("not_finite", "content.numbers[...].value", "the number is not finite")
    offer = UNSET if isinstance(event, Deleted) else event.offer
    if offer is not UNSET and offer.price is not UNSET and not math.isfinite(offer.price.amount):
        raise refused("not_finite", "offer.price.amount", "the number is not finite")


def _unpaired(missing: str) -> InvalidEvent:
    return refused("missing_field", missing, "offer and offer_version come both or not at all")
