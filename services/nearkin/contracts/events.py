"""Item events on the wire and the item states that they stand for; what breaks the contract is refused with a reason.

One msgspec decoder checks syntax, types and limits in a single pass. What it refuses is told as a short stable reason,
the field and a remedy, and never quotes the event: events may hold what must not reach a log. A producer's event is
converted to the same structs before it is encoded, so both sides apply the same rules.

Fields that are not known are ignored (a newer producer), a field that is left out has its default, and null is no
value. Where a JSON object names a field twice, the last one counts.
"""

import codecs
import json
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, NoReturn

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from nearkin.contracts import limits
from nearkin.contracts.wrong_type import field_of, is_of_a_name, wrong_type
from nearkin.core import item
from nearkin.core.errors import InvalidEvent
from nearkin.core.item import Availability, Content, ItemState, Offer, Price, Quantity, Status

#: Every reason for which an event is refused, with what its producer can do.
REMEDIES: Final = {
    "not_utf8": "encode the value as UTF-8",
    "not_json": "send one JSON object",
    "surrogate": "send text without lone surrogates",
    "not_finite": "send a finite number, or leave the field out",
    "too_deep": "send fewer levels of nesting",
    "too_large": "send a smaller event",
    "null_value": "send a deleted event to delete an item; a null value deletes nothing here",
    "wrong_type": "send that type; a field without a value is left out, not null",
    "unknown_kind": "send one of upserted, offered, deleted",
    "unknown_value": "send one of the values that the schema names",
    "missing_field": "send the field",
    "empty": "send something, or leave the field out where it is optional",
    "too_long": "send a shorter text",
    "too_many": "send fewer of them",
    "out_of_range": "send a number within the range that the schema names",
    "bad_format": "send what the schema's pattern allows",
    "bad_key": "make the record's key the item's id in UTF-8",
}


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


ItemId = Annotated[str, Meta(min_length=1, max_length=limits.MAX_ID, pattern=limits.ID_PATTERN)]
EventId = Annotated[str, Meta(min_length=1, max_length=limits.MAX_EVENT_ID, pattern=limits.ID_PATTERN)]
Time = Annotated[int, Meta(ge=limits.MIN_OCCURRED_AT, le=limits.MAX_OCCURRED_AT)]
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
_ENCODER = msgspec.json.Encoder()


def decode_item_event(key: bytes | None, value: bytes | None) -> ItemEvent:
    """Read one record of an item topic.

    Args:
        key: the record's key: the item's id in UTF-8.
        value: the record's value: the event as JSON.

    Raises:
        InvalidEvent: the record breaks the contract; names the reason and the field, quotes nothing of the event.
    """
    event = read_item_event(value)
    if key is None:
        raise _refused("bad_key", "id", "the record has no key")
    if key != event.item_id.encode():
        raise _refused("bad_key", "id", "the record's key is not the item's id")
    return event


def read_item_event(value: bytes | None) -> ItemEvent:
    """Read an event that comes without a key, as from a file.

    Raises:
        InvalidEvent: the value breaks the contract.
    """
    if value is None:
        raise _refused("null_value", "", "the record's value is null")
    _require_size(value)
    try:
        event = _DECODER.decode(value.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(error, value)
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
    _require(content, Content, "content")
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


def _require(value: object, kind: type, field: str) -> None:
    """Refuse what is no such object; conversion would take any that has the attributes, or one that has none."""
    if not isinstance(value, kind):
        problem = f"it is of the type {type(value).__name__}, and must be of the type {kind.__name__}"
        raise _refused("wrong_type", field, problem)


def _offer_fields(offer: Offer) -> dict[str, Any]:
    """The offer as the wire has it: no price is none, not null."""
    _require(offer, Offer, "offer")
    price = {} if offer.price is None else {"price": offer.price}
    return {"availability": offer.availability, "markets": offer.markets, **price}


def _record(kind: type[Upserted | Offered | Deleted], fields: dict[str, Any]) -> tuple[bytes, bytes]:
    """Make an event by the rules of reading, then encode it.

    Conversion, not a reading of what was encoded: the encoder writes more types than the contract has (bytes as
    Base64, an UUID as text), and does not say where the one is that it cannot write.
    """
    try:
        event = msgspec.convert(fields, kind, from_attributes=True)
        _require_finite(event)
        value = _ENCODER.encode(event)
        key = event.id.encode()
    except msgspec.ValidationError as error:
        raise _broken_rule(str(error)) from None
    except UnicodeEncodeError as error:
        raise _refused("surrogate", "", "a text holds a lone surrogate") from error
    _require_size(value)
    return key, value


def _require_finite(event: Upserted | Offered | Deleted) -> None:
    """Refuse what JSON cannot say: the encoder would write null."""
    if isinstance(event, Upserted) and not all(math.isfinite(one.value) for one in event.content.numbers.values()):
        raise _refused("not_finite", "content.numbers[...].value", "the number is not finite")
    offer = UNSET if isinstance(event, Deleted) else event.offer
    if offer is not UNSET and offer.price is not UNSET and not math.isfinite(offer.price.amount):
        raise _refused("not_finite", "offer.price.amount", "the number is not finite")


def _require_size(value: bytes) -> None:
    if len(value) > limits.MAX_EVENT_BYTES:
        raise _refused("too_large", "", f"the event is larger than {limits.MAX_EVENT_BYTES} bytes")


def _unpaired(missing: str) -> InvalidEvent:
    return _refused("missing_field", missing, "offer and offer_version come both or not at all")


_MISSING = re.compile(r"missing required field `(\w+)`")
_LENGTH = re.compile(r"Expected `(\w+)` of length (<=|>=) (\d+)")
_BOUND = re.compile(r"Expected `(?:int|float)` ([<>]=?) (\S+)")


def _refused(reason: str, field: str, problem: str) -> InvalidEvent:
    return InvalidEvent(problem, remedy=REMEDIES[reason], field=field, reason=reason)


def _refuse(error: Exception, value: bytes) -> NoReturn:
    """Tell why the decoder refused a value.

    The chain is cut (`from None`): the decoder's own message may quote the event.
    """
    if isinstance(error, UnicodeDecodeError):
        try:
            value.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise _refused("not_utf8", "", "the value is not UTF-8") from None
        raise _refused("surrogate", "", "a text holds a lone surrogate") from None
    if isinstance(error, RecursionError):
        raise _refused("too_deep", "", "the event is nested too deeply") from None
    if isinstance(error, msgspec.ValidationError):
        raise _broken_rule(str(error)) from None
    raise _broken_syntax(value) from None


def _broken_rule(message: str) -> InvalidEvent:
    """Translate the decoder's message, which names a type, a limit or a field, and where."""
    field = field_of(message)
    subject = "a name in it" if is_of_a_name(message) else "it"
    if missing := _MISSING.search(message):
        field = f"{field}.{missing[1]}" if field else missing[1]
        return _refused("missing_field", field, "the field is missing")
    if length := _LENGTH.search(message):
        thing, comparison, limit = length.groups()
        if comparison == ">=":
            return _refused("empty", field, f"{subject} is empty")
        if thing == "str":
            return _refused("too_long", field, f"{subject} is longer than {limit} characters")
        return _refused("too_many", field, f"it has more than {limit} entries")
    if bound := _BOUND.search(message):
        word = "at least" if bound[1].startswith(">") else "at most"
        return _refused("out_of_range", field, f"the number must be {word} {bound[2]}")
    if "out of range" in message:
        return _refused("out_of_range", field, "the number is larger than a double holds")
    if "matching regex" in message:
        return _refused("bad_format", field, f"{subject} has not the form that the schema asks for")
    if message.startswith("Invalid value"):
        return _refused("unknown_kind", "kind", "the kind is not known")
    if message.startswith("Invalid enum value"):
        return _refused("unknown_value", field, "the value is not one of those that are known")
    problem = wrong_type(message)
    if not field and "got `array`" in message:
        problem += ": one to a record, or to a line of a file"
    return _refused("wrong_type", field, problem)


def _broken_syntax(value: bytes) -> InvalidEvent:
    """Tell apart what Python's parser takes and JSON does not: NaN and lone surrogates; all else is not JSON."""
    constants: list[str] = []
    try:
        # As text: of bytes, Python would guess UTF-16 and take a byte order mark, which JSON does not have.
        json.loads(value.decode(), parse_constant=constants.append, parse_int=len, parse_float=len)
    except RecursionError:
        return _refused("too_deep", "", "the event is nested too deeply")
    except ValueError:
        if value.startswith(codecs.BOM_UTF8):
            return _refused("not_json", "", "the value begins with a byte order mark, which JSON does not have")
        return _refused("not_json", "", "the value is not JSON")
    if constants:
        return _refused("not_finite", "", "a number is NaN or infinite, which JSON does not have")
    return _refused("surrogate", "", "a text holds a lone surrogate")
