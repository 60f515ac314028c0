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
    """The line as an object; None where the contract's own reading says better what is wrong."""
    try:
        line = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return line if isinstance(line, dict) else None


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
    if offer or "offer_version" in item:
        event |= {"offer": offer, "offer_version": item.get("offer_version", now_ms)}
    return event
