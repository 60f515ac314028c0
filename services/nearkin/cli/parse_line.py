"""Makes a checked event of a line: of a whole event of any topic as it is, of an item by completing it.

An item is what people have at hand: `{"id": "1", "title": "Mug", "price": {"amount": 4.5, "currency": "GBP"}}`. It
becomes an `upserted` event; its versions are the time in milliseconds where it does not bring them.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from nearkin.contracts.events import ItemEvent, Kind, WireContent, WireOffer, read_item_event
from nearkin.contracts.feedback import StreamTime, read_feedback, read_visit, require_timely
from nearkin.contracts.topics import FEEDBACK, ITEMS, VISITS, Topic
from nearkin.core.errors import InvalidEvent
from nearkin.core.feedback import Impressions, Interaction, Visit
from nearkin.core.pseudonym import PseudonymKey

_CONTENT = frozenset(WireContent.__struct_fields__)
_OFFER = frozenset(WireOffer.__struct_fields__)
_VERSIONS = frozenset({"content_version", "offer_version", "occurred_at", "event_id"})

#: What the contract says of a line that cannot be read, and says well.
_UNREADABLE = frozenset({"not_utf8", "surrogate", "not_finite", "too_deep", "too_large"})

_REMEDY = "put one whole JSON object on each line, and nothing after it"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A checked event on its way.

    Attributes:
        topic: where it goes.
        key: the record's key.
        value: the record's value.
    """

    topic: Topic
    key: bytes
    value: bytes


#: Each reads the events of one topic; `Outgoing.topic` of an item is its live lane.
_READERS: tuple[Callable[[bytes], ItemEvent | Impressions | Interaction | Visit], ...] = (
    read_item_event,
    read_feedback,
    read_visit,
)
_READER_OF: dict[str, Callable[[bytes], ItemEvent | Impressions | Interaction | Visit]] = {
    **{kind.value: read_item_event for kind in Kind},
    "impressions": read_feedback,
    "interaction": read_feedback,
    "visit": read_visit,
}


def parse_line(
    value: bytes, now_ms: int, *, pseudonym_key: PseudonymKey | None = None, stream: StreamTime | None = None
) -> Outgoing:
    """The record that a line stands for, and where it goes.

    Args:
        value: a whole event, or an item.
        now_ms: the time: for what an item leaves out, and by which feedback is late or early.
        pseudonym_key: makes pseudonyms of the users of feedback; without it they must be pseudonyms.
        stream: the clock that counts for feedback instead of `now_ms`; moves on with each event of it.

    Raises:
        InvalidEvent: the line is neither, or breaks the contract.
    """
    value = value.strip()
    line, read = _as_object(value)
    if line is not None and "kind" not in line:
        value = msgspec.json.encode(_completed(line, now_ms))
    elif line is not None and pseudonym_key is not None and read is not read_item_event and _is_plain(line.get("user")):
        value = msgspec.json.encode(line | {"user": pseudonym_key.pseudonym(line["user"])})
    event = read(value)
    if isinstance(event, ItemEvent):
        return Outgoing(ITEMS, event.item_id.encode(), value)
    require_timely(event, now_ms if stream is None else stream.see(event.occurred_at))
    if isinstance(event, Visit):
        return Outgoing(VISITS, event.visit_id.encode(), value)
    return Outgoing(FEEDBACK, event.anchor.encode(), value)


def _is_plain(user: object) -> bool:
    """Whether it is an id that a pseudonym can be made of; what else stands there the contract refuses."""
    return isinstance(user, str) and bool(user.strip())


def _as_object(value: bytes) -> tuple[dict[str, Any] | None, Callable[[bytes], Any]]:
    """The line as an object, and what reads its event; None where only the contract can read it.

    Raises:
        InvalidEvent: it cannot be read, is no object, or is of an unknown kind.
    """
    try:
        line = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return None, _reader_of_what_is_not_whole(value, error)
    if not isinstance(line, dict):
        raise InvalidEvent("the line is JSON, but no object", remedy=_REMEDY, reason="wrong_type")
    kind = line.get("kind")
    if isinstance(kind, str) and kind not in _READER_OF:
        raise InvalidEvent(
            "the kind is not known",
            field="kind",
            remedy=f"say one of {', '.join(_READER_OF)}; an item has no kind",
            reason="unknown_kind",
        )
    return line, _READER_OF[kind] if isinstance(kind, str) else read_item_event


def _reader_of_what_is_not_whole(value: bytes, error: Exception) -> Callable[[bytes], Any]:
    """What takes a value all the same, as where only a field that is ignored cannot be read.

    Raises:
        InvalidEvent: nothing does.
    """
    well_said = []
    for read in _READERS:
        try:
            read(value)
        except InvalidEvent as refused:
            # The contract's reading may miss `kind` before it comes to what is broken; an item need not have one.
            if refused.reason in _UNREADABLE or (refused.reason == "out_of_range" and refused.field):
                well_said.append(refused)
        else:
            return read
    raise well_said[0] if well_said else _unreadable(error) from None


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
