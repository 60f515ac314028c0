"""Feedback and visits on the wire; what breaks the contract is refused with a reason, as `contracts.wire` does it.

Two rules are about more than one event's shape. A field that names a user holds a pseudonym or is refused, and
`without_users` takes it out of what is kept of a refused event. And feedback is late or early by a clock that is an
input (`require_timely`): the wall clock where events are live, the stream's own time where a log is replayed.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from nearkin.contracts import limits
from nearkin.contracts.wire import (
    Event,
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
from nearkin.core.errors import InvalidEvent
from nearkin.core.feedback import Action, Impressions, Interaction, Shown, Visit, VisitKind
from nearkin.core.probe import is_probe

RequestId = Annotated[str, Meta(min_length=1, max_length=limits.MAX_REQUEST_ID, pattern=limits.ID_PATTERN)]
Surface = Annotated[str, Meta(min_length=1, max_length=limits.MAX_SURFACE, pattern=limits.ID_PATTERN)]
Where = Annotated[str, Meta(max_length=limits.MAX_MARKET, pattern=limits.MARKET_PATTERN)]
Position = Annotated[int, Meta(ge=1, le=limits.MAX_POSITION)]
Propensity = Annotated[float, Meta(gt=0, le=1)]
Value = Annotated[float, Meta(gt=0, le=limits.MAX_VALUE)]
User = Annotated[str, Meta(pattern=limits.USER_PATTERN)]

Known = TypeVar("Known")


class WireShown(Struct, frozen=True, gc=False):
    """One place of a slate."""

    item_id: ItemId
    position: Position
    visible: bool
    propensity: Propensity | UnsetType = UNSET


class WireImpressions(Struct, frozen=True, gc=False, tag_field="kind", tag="impressions", omit_defaults=True):
    """One slate, sent once its visibility is known."""

    event_id: EventId
    occurred_at: Time
    anchor: ItemId
    request_id: RequestId
    surface: Surface
    positions: Annotated[tuple[WireShown, ...], Meta(min_length=1, max_length=limits.MAX_SLATE)]
    market: Where = ""
    user: User | UnsetType = UNSET


class WireInteraction(Struct, frozen=True, gc=False, tag_field="kind", tag="interaction", omit_defaults=True):
    """One thing that somebody did with an item."""

    event_id: EventId
    occurred_at: Time
    anchor: ItemId
    item_id: ItemId
    action: Action
    value: Value = 1.0
    request_id: RequestId | UnsetType = UNSET
    position: Position | UnsetType = UNSET
    user: User | UnsetType = UNSET
    surface: Surface | UnsetType = UNSET
    propensity: Propensity | UnsetType = UNSET


class WireVisit(Struct, frozen=True, gc=False):
    """Items that were seen or bought together."""

    # A field, not a tag: the tag of a struct that stands alone may be left out.
    kind: Literal["visit"]
    event_id: EventId
    occurred_at: Time
    visit_id: ItemId
    visit_kind: VisitKind
    items: Annotated[tuple[ItemId, ...], Meta(min_length=1, max_length=limits.MAX_VISIT_ITEMS)]
    user: User | UnsetType = UNSET


_FEEDBACK = msgspec.json.Decoder(WireImpressions | WireInteraction)
_VISITS = msgspec.json.Decoder(WireVisit)


def decode_feedback(key: bytes | None, value: bytes | None) -> Impressions | Interaction:
    """Read one record of the feedback topic.

    Args:
        key: the record's key: the anchor's id in UTF-8.
        value: the record's value: the event as JSON.

    Raises:
        InvalidEvent: the record breaks the contract; names the reason and the field, quotes nothing of the event.
    """
    event = read_feedback(value)
    require_key(key, "anchor", event.anchor)
    return event


def read_feedback(value: bytes | None) -> Impressions | Interaction:
    """Read feedback that comes without a key, as from a file.

    Raises:
        InvalidEvent: the value breaks the contract.
    """
    wire = _read(_FEEDBACK, value)
    return _impressions(wire) if isinstance(wire, WireImpressions) else _interaction(wire)


def decode_visit(key: bytes | None, value: bytes | None) -> Visit:
    """Read one record of the topic of visits, whose key is the visit's id; otherwise as `decode_feedback`."""
    event = read_visit(value)
    require_key(key, "visit_id", event.visit_id)
    return event


def read_visit(value: bytes | None) -> Visit:
    """Read a visit that comes without a key, as from a file.

    Raises:
        InvalidEvent: the value breaks the contract.
    """
    return _visit(_read(_VISITS, value))


def encode_impressions(event: Impressions) -> tuple[bytes, bytes]:
    """The record that says what was shown.

    Returns:
        The record's key and value.

    Raises:
        InvalidEvent: the event breaks the contract.
    """
    require_type(event, Impressions, "")
    require_type(event.positions, tuple, "positions")
    fields = _fields(event)
    fields["positions"] = [_shown_fields(place, number) for number, place in enumerate(event.positions)]
    wire = _converted(fields, WireImpressions)
    _require_slate(wire)
    return encode_value(wire.anchor, wire)


def encode_interaction(event: Interaction) -> tuple[bytes, bytes]:
    """The record that says what somebody did; returns and raises as `encode_impressions`."""
    require_type(event, Interaction, "")
    _require_finite(event.value, "value")
    _require_finite(event.propensity, "propensity")
    wire = _converted(_fields(event), WireInteraction)
    _require_pair(wire)
    return encode_value(wire.anchor, wire)


def encode_visit(event: Visit) -> tuple[bytes, bytes]:
    """The record that says what was seen or bought together; returns and raises as `encode_impressions`."""
    require_type(event, Visit, "")
    fields = _fields(event)
    fields |= {"kind": "visit", "visit_kind": event.kind}
    wire = _converted(fields, WireVisit)
    _require_items("items", *wire.items)
    return encode_value(wire.visit_id, wire)


def require_timely(event: Impressions | Interaction | Visit, now_ms: int) -> None:
    """Refuse an event that is older than the contract's lateness, or that has not happened yet.

    Args:
        event: the event.
        now_ms: the clock in force, in milliseconds: the wall clock live, the stream's own time in a replay.

    Raises:
        InvalidEvent: it is too late, or in the future.
    """
    if event.occurred_at > now_ms + limits.MAX_AHEAD_MS:
        raise refused("in_future", "occurred_at", "it is in the future")
    if event.occurred_at < now_ms - limits.MAX_LATENESS_MS:
        raise refused("too_late", "occurred_at", "it is older than feedback may be")


@dataclass(slots=True)
class StreamTime:
    """The stream's own time, where a log is replayed: the newest time that an event of it has told.

    Attributes:
        now_ms: that time, in milliseconds; the first event's before any came.
    """

    now_ms: int = limits.MIN_OCCURRED_AT

    def see(self, occurred_at: int) -> int:
        """Move on with an event's time; an older one leaves it where it is."""
        self.now_ms = max(self.now_ms, occurred_at)
        return self.now_ms


#: Stands in what is kept for a user that was no pseudonym.
REDACTED: Final = "[redacted]"

_PSEUDONYM = re.compile(limits.USER_PATTERN)


def without_users(value: bytes | None) -> bytes | None:
    """What may be kept of a refused event: the same bytes where every user in it is a pseudonym.

    A user that is none is replaced, wherever it stands: an event may be refused for something else, and name a person
    all the same. What cannot be read as JSON cannot be searched for one, so nothing of it is kept.
    """
    if value is None:
        return None
    found = False

    def clean(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        kept = {}
        for name, part in pairs:
            if name == "user" and not (isinstance(part, str) and _PSEUDONYM.match(part)):
                found, part = True, REDACTED
            kept[name] = part
        return kept

    try:
        event = json.loads(value.decode(), object_pairs_hook=clean)
        return json.dumps(event).encode() if found else value
    except (ValueError, RecursionError):
        return b""


def _read(decoder: msgspec.json.Decoder[Event], value: bytes | None) -> Event:
    try:
        return decode_value(decoder, value)
    except InvalidEvent as error:
        raise _told(error) from None


def _converted(fields: dict[str, Any], kind: type[Event]) -> Event:
    try:
        return converted(fields, kind)
    except InvalidEvent as error:
        raise _told(error) from None


def _told(error: InvalidEvent) -> InvalidEvent:
    """A user of any other form or type is one mistake with one remedy."""
    return refused("not_a_pseudonym", "user", "it is no pseudonym") if error.field == "user" else error


def _fields(event: Impressions | Interaction | Visit) -> dict[str, Any]:
    """The event's fields as the wire has them: what is not known is left out, not null."""
    return {name: value for name in event.__slots__ if (value := getattr(event, name)) is not None}


def _shown_fields(place: Shown, number: int) -> dict[str, Any]:
    require_type(place, Shown, f"positions[{number}]")
    fields: dict[str, Any] = {"item_id": place.item_id, "position": place.position, "visible": place.visible}
    if place.propensity is not None:
        _require_finite(place.propensity, f"positions[{number}].propensity")
        fields["propensity"] = place.propensity
    return fields


def _require_finite(number: object, field: str) -> None:
    """Refuse what JSON cannot say, before a bound does: NaN is neither above nor below one."""
    if isinstance(number, float) and not math.isfinite(number):
        raise refused("not_finite", field, "the number is not finite")


def _require_items(field: str, *item_ids: str) -> None:
    """Refuse what is said of probes: nobody was shown one, and nobody may be."""
    if any(map(is_probe, item_ids)):
        raise refused("reserved_id", field, "it is the id of a probe")


def _require_slate(wire: WireImpressions) -> None:
    items = {place.item_id for place in wire.positions}
    _require_items("anchor", wire.anchor)
    _require_items("positions", *items)
    if wire.anchor in items:
        raise refused("self_pair", "positions", "the anchor is among the items that were shown")
    if len(items) < len(wire.positions):
        raise refused("repeated", "positions", "an item stands twice in the slate")
    if len({place.position for place in wire.positions}) < len(wire.positions):
        raise refused("repeated", "positions", "a position is taken twice")


def _require_pair(wire: WireInteraction) -> None:
    _require_items("anchor", wire.anchor)
    _require_items("item_id", wire.item_id)
    if wire.item_id == wire.anchor:
        raise refused("self_pair", "item_id", "it is the anchor")


def _impressions(wire: WireImpressions) -> Impressions:
    _require_slate(wire)
    positions = tuple(
        Shown(place.item_id, place.position, _known(place.propensity), place.visible) for place in wire.positions
    )
    return Impressions(
        event_id=wire.event_id,
        occurred_at=wire.occurred_at,
        anchor=wire.anchor,
        request_id=wire.request_id,
        surface=wire.surface,
        positions=positions,
        market=wire.market,
        user=_known(wire.user),
    )


def _interaction(wire: WireInteraction) -> Interaction:
    _require_pair(wire)
    return Interaction(
        event_id=wire.event_id,
        occurred_at=wire.occurred_at,
        anchor=wire.anchor,
        item_id=wire.item_id,
        action=wire.action,
        value=wire.value,
        request_id=_known(wire.request_id),
        position=_known(wire.position),
        user=_known(wire.user),
        surface=_known(wire.surface),
        propensity=_known(wire.propensity),
    )


def _visit(wire: WireVisit) -> Visit:
    _require_items("items", *wire.items)
    return Visit(
        event_id=wire.event_id,
        occurred_at=wire.occurred_at,
        visit_id=wire.visit_id,
        kind=wire.visit_kind,
        items=tuple(dict.fromkeys(wire.items)),
        user=_known(wire.user),
    )


def _known(value: Known | UnsetType) -> Known | None:
    return None if value is UNSET else value
