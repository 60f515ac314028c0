"""Events of every topic on the wire: read strictly, written by the same rules, refused with a reason.

One msgspec decoder checks syntax, types and limits in a single pass. What it refuses is told as a short stable reason,
the field and a remedy, and never quotes the event: events may hold what must not reach a log. A producer's event is
converted to the same structs before it is encoded, so both sides apply the same rules.

Fields that are not known are ignored (a newer producer), a field that is left out has its default, and null is no
value. Where a JSON object names a field twice, the last one counts.
"""

import codecs
import json
import re
from typing import Annotated, Any, Final, NoReturn, TypeVar

import msgspec
from msgspec import Meta, Struct

from nearkin.contracts import limits
from nearkin.contracts.wrong_type import field_of, is_of_a_name, wrong_type
from nearkin.core.errors import InvalidEvent

#: Every reason for which an event is refused, with what its producer can do.
REMEDIES: Final = {
    "not_utf8": "encode the value as UTF-8",
    "not_json": "send one JSON object",
    "surrogate": "send text without lone surrogates",
    "not_finite": "send a finite number, or leave the field out",
    "too_deep": "send fewer levels of nesting",
    "too_large": "send a smaller event",
    "null_value": "send an event; a null value deletes nothing here: an item is ended by a deleted event",
    "wrong_type": "send that type; a field without a value is left out, not null",
    "unknown_kind": "send one of the kinds that the topic takes",
    "unknown_value": "send one of the values that the schema names",
    "missing_field": "send the field",
    "empty": "send something, or leave the field out where it is optional",
    "too_long": "send a shorter text",
    "too_many": "send fewer of them",
    "out_of_range": "send a number within the range that the schema names",
    "bad_format": "send what the schema's pattern allows",
    "bad_key": "make the record's key the id that the event has in that field, in UTF-8",
    "not_a_pseudonym": "send <key id>:<32 hex digits>, which the client makes of a user, or leave the field out",
    "self_pair": "leave the anchor out: an item is no neighbour of itself",
    "reserved_id": "use another id: those that begin with nearkin-probe- are the monitor's",
    "repeated": "name each item and each position of a slate once",
    "uneven": "give an item as many features as there are names, or none",
    "too_late": "send feedback within 30 days of when it happened",
    "in_future": "set the clock that occurred_at comes from; it may be ahead by 5 minutes at most",
    "no_time": "let the producer set the time of its records, or the broker (message.timestamp.type=LogAppendTime)",
}

ItemId = Annotated[str, Meta(min_length=1, max_length=limits.MAX_ID, pattern=limits.ID_PATTERN)]
EventId = Annotated[str, Meta(min_length=1, max_length=limits.MAX_EVENT_ID, pattern=limits.ID_PATTERN)]
Time = Annotated[int, Meta(ge=limits.MIN_OCCURRED_AT, le=limits.MAX_OCCURRED_AT)]

Event = TypeVar("Event", bound=Struct)

_ENCODER = msgspec.json.Encoder()


def decode_value(decoder: msgspec.json.Decoder[Event], value: bytes | None) -> Event:
    """Read a record's value.

    Raises:
        InvalidEvent: the value breaks the contract; names the reason and the field, quotes nothing of the event.
    """
    if value is None:
        raise refused("null_value", "", "the record's value is null")
    _require_size(value)
    try:
        return decoder.decode(value.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(error, value)


def converted(fields: dict[str, Any], kind: type[Event]) -> Event:
    """Make an event by the rules of reading.

    Conversion, not a reading of what was encoded: the encoder writes more types than the contract has (bytes as
    Base64, an UUID as text), and does not say where the one is that it cannot write.

    Raises:
        InvalidEvent: a field breaks the contract.
    """
    try:
        return msgspec.convert(fields, kind, from_attributes=True)
    except msgspec.ValidationError as error:
        raise _broken_rule(str(error)) from None


def encode_value(key: str, event: Struct) -> tuple[bytes, bytes]:
    """The record of an event whose numbers are finite: its key and its value.

    Raises:
        InvalidEvent: a text cannot be written, or the value is larger than an event may be.
    """
    try:
        value = _ENCODER.encode(event)
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise refused("surrogate", "", "a text holds a lone surrogate") from error
    _require_size(value)
    return encoded, value


def require_key(key: bytes | None, field: str, wanted: str) -> None:
    """Refuse a record whose key is not what its event has in `field`."""
    if key is None:
        raise refused("bad_key", field, "the record has no key")
    if key != wanted.encode():
        raise refused("bad_key", field, "the record's key is another one")


def require_type(value: object, kind: type, field: str) -> None:
    """Refuse what is no such object; conversion would take any that has the attributes, or one that has none."""
    if not isinstance(value, kind):
        problem = f"it is of the type {type(value).__name__}, and must be of the type {kind.__name__}"
        raise refused("wrong_type", field, problem)


def refused(reason: str, field: str, problem: str) -> InvalidEvent:
    """The error that refuses an event for one of the reasons of `REMEDIES`."""
    return InvalidEvent(problem, remedy=REMEDIES[reason], field=field, reason=reason)


def _require_size(value: bytes) -> None:
    if len(value) > limits.MAX_EVENT_BYTES:
        raise refused("too_large", "", f"the event is larger than {limits.MAX_EVENT_BYTES} bytes")


_MISSING = re.compile(r"missing required field `(\w+)`")
_LENGTH = re.compile(r"Expected `(\w+)` of length (<=|>=) (\d+)")
_BOUND = re.compile(r"Expected `(?:int|float)` ([<>]=?) (\S+)")
_BOUNDS = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}


def _refuse(error: Exception, value: bytes) -> NoReturn:
    """Tell why the decoder refused a value.

    The chain is cut (`from None`): the decoder's own message may quote the event.
    """
    if isinstance(error, UnicodeDecodeError):
        try:
            value.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise refused("not_utf8", "", "the value is not UTF-8") from None
        raise refused("surrogate", "", "a text holds a lone surrogate") from None
    if isinstance(error, RecursionError):
        raise refused("too_deep", "", "the event is nested too deeply") from None
    if isinstance(error, msgspec.ValidationError):
        raise _broken_rule(str(error)) from None
    raise _broken_syntax(value) from None


def _broken_rule(message: str) -> InvalidEvent:
    """Translate the decoder's message, which names a type, a limit or a field, and where."""
    field = field_of(message)
    subject = "a name in it" if is_of_a_name(message) else "it"
    if missing := _MISSING.search(message):
        field = f"{field}.{missing[1]}" if field else missing[1]
        return refused("missing_field", field, "the field is missing")
    if length := _LENGTH.search(message):
        thing, comparison, limit = length.groups()
        if comparison == ">=":
            return refused("empty", field, f"{subject} is empty")
        if thing == "str":
            return refused("too_long", field, f"{subject} is longer than {limit} characters")
        return refused("too_many", field, f"it has more than {limit} entries")
    if bound := _BOUND.search(message):
        word = _BOUNDS[bound[1]]
        return refused("out_of_range", field, f"the number must be {word} {bound[2]}")
    if "out of range" in message:
        return refused("out_of_range", field, "the number is larger than a double holds")
    if "matching regex" in message:
        return refused("bad_format", field, f"{subject} has not the form that the schema asks for")
    if message.startswith("Invalid value") or (field == "kind" and message.startswith("Invalid enum value")):
        return refused("unknown_kind", "kind", "the kind is not known")
    if message.startswith("Invalid enum value"):
        return refused("unknown_value", field, "the value is not one of those that are known")
    problem = wrong_type(message)
    if not field and "got `array`" in message:
        problem += ": one to a record, or to a line of a file"
    return refused("wrong_type", field, problem)


def _broken_syntax(value: bytes) -> InvalidEvent:
    """Tell apart what Python's parser takes and JSON does not: NaN and lone surrogates; all else is not JSON."""
    constants: list[str] = []
    try:
        # As text: of bytes, Python would guess UTF-16 and take a byte order mark, which JSON does not have.
        json.loads(value.decode(), parse_constant=constants.append, parse_int=len, parse_float=len)
    except RecursionError:
        return refused("too_deep", "", "the event is nested too deeply")
    except ValueError:
        if value.startswith(codecs.BOM_UTF8):
            return refused("not_json", "", "the value begins with a byte order mark, which JSON does not have")
        return refused("not_json", "", "the value is not JSON")
    if constants:
        return refused("not_finite", "", "a number is NaN or infinite, which JSON does not have")
    return refused("surrogate", "", "a text holds a lone surrogate")
