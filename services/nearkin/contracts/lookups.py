"""Logged answers on the wire: what `core.answer` holds, written and read by the same rules as every event.

Nobody but look-up servers writes them. They are kept to learn from and to explain, and nothing is done to the world
because of one, so a record that cannot be read is passed over by its reader: there are no dead letters.
"""

import math
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from nearkin.contracts import limits
from nearkin.contracts.feedback import Position, Propensity, RequestId, Surface, Where
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
from nearkin.core.answer import LoggedAnswer, Placed
from nearkin.core.candidates import CandidateSource, Source
from nearkin.core.exploration import Policy
from nearkin.core.rules import Moved, Rule

#: A name of Nearkin's own making: a feature, a collection, a version, what is missing.
Word = Annotated[str, Meta(min_length=1, max_length=limits.MAX_WORD, pattern=limits.ID_PATTERN)]
Rank = Annotated[int, Meta(ge=1, le=limits.MAX_RANK)]
Number = Annotated[int, Meta(ge=0, le=limits.MAX_RANK)]


class WireSource(Struct, frozen=True, gc=False):
    """Who named an item."""

    name: CandidateSource
    score: float
    rank: Rank


class WirePlaced(Struct, frozen=True, gc=False, omit_defaults=True):
    """One item of an answer."""

    item_id: ItemId
    position: Position
    score: float
    propensity: Propensity
    explored: bool = False
    sources: Annotated[tuple[WireSource, ...], Meta(max_length=limits.MAX_SOURCES)] = ()
    features: Annotated[tuple[float, ...], Meta(max_length=limits.MAX_FEATURES)] = ()


class WireMoved(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a rule, a pin or diversity did to an item; without `now` it was taken out."""

    item: ItemId
    rule: Rule
    was: Number
    now: Number | UnsetType = UNSET
    because_of: ItemId | UnsetType = UNSET


class WireAnswered(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a look-up answered, and why."""

    kind: Literal["answered"]
    event_id: EventId
    occurred_at: Time
    request_id: RequestId
    k: Annotated[int, Meta(ge=1, le=limits.MAX_SLATE)]
    ranking: Word
    policy: Policy
    log_rate: Propensity
    positions: Annotated[tuple[WirePlaced, ...], Meta(max_length=limits.MAX_SLATE)]
    anchor: ItemId | UnsetType = UNSET
    surface: Surface | UnsetType = UNSET
    market: Where = ""
    weights: Word | UnsetType = UNSET
    feature_names: Annotated[tuple[Word, ...], Meta(max_length=limits.MAX_FEATURES)] = ()
    features_version: Annotated[int, Meta(ge=0)] = 0
    collection: Word | UnsetType = UNSET
    bundle: Word | UnsetType = UNSET
    priors_version: Word | UnsetType = UNSET
    degraded: Annotated[tuple[Word, ...], Meta(max_length=limits.MAX_DEGRADED)] = ()
    moved: Annotated[tuple[WireMoved, ...], Meta(max_length=limits.MAX_MOVED)] = ()


_DECODER = msgspec.json.Decoder(WireAnswered)


def decode_answered(key: bytes | None, value: bytes | None) -> LoggedAnswer:
    """Read one record of the topic of look-ups.

    Args:
        key: the record's key: the anchor's id in UTF-8; null where the anchor was a content.
        value: the record's value: the event as JSON.

    Raises:
        InvalidEvent: the record breaks the contract; names the reason and the field, quotes nothing of the event.
    """
    answer = read_answered(value)
    if answer.anchor is not None:
        require_key(key, "anchor", answer.anchor)
    elif key is not None:
        raise refused("bad_key", "anchor", "the record has a key, and its answer no anchor")
    return answer


def read_answered(value: bytes | None) -> LoggedAnswer:
    """Read an answer that comes without a key.

    Raises:
        InvalidEvent: the value breaks the contract.
    """
    wire = decode_value(_DECODER, value)
    _require_slate(wire)
    return LoggedAnswer(
        request_id=wire.request_id,
        at_ms=wire.occurred_at,
        anchor=None if wire.anchor is UNSET else wire.anchor,
        k=wire.k,
        ranking=wire.ranking,
        positions=tuple(map(_placed, wire.positions)),
        weights=wire.weights or "",
        feature_names=wire.feature_names,
        features_version=wire.features_version,
        collection=wire.collection or "",
        bundle=wire.bundle or "",
        surface=wire.surface or "",
        market=wire.market,
        priors_version=wire.priors_version or "",
        degraded=wire.degraded,
        moved=tuple(map(_moved, wire.moved)),
        policy=wire.policy,
        log_rate=wire.log_rate,
    )


def encode_answered(answer: LoggedAnswer) -> tuple[bytes | None, bytes]:
    """The record that says what was answered; of what was moved, the first `limits.MAX_MOVED`.

    Returns:
        The record's key, None where the anchor was a content, and its value.

    Raises:
        InvalidEvent: the answer breaks the contract.
    """
    require_type(answer, LoggedAnswer, "")
    for number, place in enumerate(answer.positions):
        _require_finite(place, number)
    fields = {name: value for name in answer.__slots__ if (value := getattr(answer, name)) not in ("", None, ())}
    fields |= {
        "kind": "answered",
        "event_id": answer.event_id,
        "occurred_at": answer.at_ms,
        "positions": [_placed_fields(one) for one in answer.positions],
        "moved": [_moved_fields(one) for one in answer.moved[: limits.MAX_MOVED]],
    }
    wire = converted(fields, WireAnswered)
    _require_slate(wire)
    key, value = encode_value(answer.anchor or "", wire)
    return None if answer.anchor is None else key, value


def _require_finite(place: Placed, number: int) -> None:
    """Refuse what JSON cannot say, before a bound does: NaN is neither above nor below one."""
    numbers = (place.score, place.propensity, *(source.score for source in place.sources), *place.features)
    if not all(map(math.isfinite, numbers)):
        raise refused("not_finite", f"positions[{number}]", "a number is not finite")


def _require_slate(wire: WireAnswered) -> None:
    items = {place.item_id for place in wire.positions}
    if wire.anchor in items:
        raise refused("self_pair", "positions", "the anchor is among the items that were shown")
    if len(items) < len(wire.positions):
        raise refused("repeated", "positions", "an item stands twice in the answer")
    if len({place.position for place in wire.positions}) < len(wire.positions):
        raise refused("repeated", "positions", "a position is taken twice")
    named = len(wire.feature_names)
    for number, place in enumerate(wire.positions):
        if len(place.features) not in (0, named):
            problem = f"there are {len(place.features)} features, and {named} names"
            raise refused("uneven", f"positions[{number}].features", problem)


def _placed(wire: WirePlaced) -> Placed:
    sources = tuple(Source(one.name, one.score, one.rank) for one in wire.sources)
    return Placed(wire.item_id, wire.position, wire.score, wire.propensity, wire.explored, sources, wire.features)


def _moved(wire: WireMoved) -> Moved:
    return Moved(wire.item, wire.rule, wire.was, None if wire.now is UNSET else wire.now, wire.because_of or "")


def _placed_fields(place: Placed) -> dict[str, object]:
    """A place by its fields: a source is a named tuple, which conversion would take for a list."""
    fields = {name: getattr(place, name) for name in place.__slots__}
    return fields | {"sources": [source._asdict() for source in place.sources]}


def _moved_fields(moved: Moved) -> dict[str, object]:
    fields: dict[str, object] = {"item": moved.item, "rule": moved.rule, "was": moved.was}
    if moved.now is not None:
        fields["now"] = moved.now
    if moved.because_of:
        fields["because_of"] = moved.because_of
    return fields
