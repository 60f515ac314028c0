"""Makes a checked event of a line: of a whole event as it is, of an item by completing it.

An item is what people have at hand: `{"id": "1", "title": "Mug", "price": {"amount": 4.5, "currency": "GBP"}}`. It
becomes an `upserted` event; its versions are the time in milliseconds where it does not bring them.
"""

import uuid
from typing import Any

import msgspec

from nearkin.contracts.events import WireContent, WireOffer, read_item_event
from nearkin.core.errors import InvalidEvent

_CONTENT = frozenset(WireContent.__struct_fields__)
_OFFER = frozenset(WireOffer.__struct_fields__)
_VERSIONS = frozenset({"content_version", "offer_version", "occurred_at", "event_id"})

#: What the contract says of a line that cannot be read, and says well.
_UNREADABLE = frozenset({"not_utf8", "surrogate", "not_finite", "too_deep", "too_large"})

_REMEDY = "put one whole JSON object on each line, and nothing after it"


def parse_line(value: bytes, now_ms: int) -> tuple[bytes, bytes]:
    """The record that a line stands for.

    Args:
        value: a whole event, or an item.
        now_ms: the time, for what an item leaves out.

    Returns:
        The record's key and value.

    Raises:
        InvalidEvent: the line is neither, or breaks the contract.
    """
    value = value.strip()
    line = _as_object(value)
    if line is not None and "kind" not in line:
        value = msgspec.json.encode(_completed(line, now_ms))
    event = read_item_event(value)
    return event.item_id.encode(), value


def _as_object(value: bytes) -> dict[str, Any] | None:
    """The line as an object; None where it cannot be read whole and is an event that the contract takes even so.

    Raises:
        InvalidEvent: it cannot be read, or is no object.
    """
    try:
        line = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        try:
            read_item_event(value)
        except InvalidEvent as refused:
            # The contract's reading may miss `kind` before it comes to what is broken; an item need not have one.
            well_said = refused.reason in _UNREADABLE or (refused.reason == "out_of_range" and refused.field)
            raise refused if well_said else _unreadable(error) from None
        return None
    if not isinstance(line, dict):
        raise InvalidEvent("the line is JSON, but no object", remedy=_REMEDY, reason="wrong_type")
    return line


def _unreadable(error: Exception) -> InvalidEvent:
    if isinstance(error, msgspec.ValidationError):
        problem = "a number is larger than a double holds"
        return InvalidEvent(problem, remedy="send a smaller one", reason="out_of_range")
    follows = "trailing characters" in str(error)
    problem = "something follows the line's JSON value" if follows else "the line is not JSON"
    return InvalidEvent(problem, remedy=_REMEDY, reason="not_json")


def _completed(item: dict[str, Any], now_ms: int) -> dict[str, Any]:
    unknown = item.keys() - _CONTENT - _OFFER - _VERSIONS - {"id"}
    if unknown:
        name = min(unknown)
        raise InvalidEvent(
            f"an item has no field {name[:40]!r}",
            field="",
            remedy="correct its name, or say what kind of event the line is",
            reason="unknown_field",
        )
    event: dict[str, Any] = {
        "kind": "upserted",
        "event_id": item.get("event_id", str(uuid.uuid4())),
        "occurred_at": item.get("occurred_at", now_ms),
        "content_version": item.get("content_version", now_ms),
        "content": {name: value for name, value in item.items() if name in _CONTENT},
    }
    if "id" in item:
        event["id"] = item["id"]
    offer = {name: value for name, value in item.items() if name in _OFFER}
    if not offer and "offer_version" in item:
        raise InvalidEvent(
            "it comes without an offer",
            field="offer_version",
            remedy="say price, availability or markets too, or leave it out",
            reason="missing_field",
        )
    if offer:
        event |= {"offer": offer, "offer_version": item.get("offer_version", now_ms)}
    return event
