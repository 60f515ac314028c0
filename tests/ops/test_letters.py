"""What a dead-letter topic says, read record by record."""

from datetime import UTC, datetime

import pytest

from nearkin.contracts.topics import FEEDBACK, ITEMS
from nearkin.core.errors import InvalidEvent
from nearkin.ops.failures import dead_letter
from nearkin.ops.letters import Letter, LetterId, Marker, OpenLetters, Settled, marker_headers, read_letter
from nearkin.ops.record import Record, Rejected

WRONG = InvalidEvent("it is too long", remedy="send a shorter text", field="content.title", reason="too_long")


def letter(offset, partition=0, topic=ITEMS, value=b"{}"):
    record = Record(topic.name, 2, 41, 1_700_000_000_000, b"mug", value, (("trace", b"t"),))
    made = dead_letter(Rejected(record, WRONG), topic.dead_letters, 1_700_000_000_500)
    return Record(made.topic, partition, offset, 1_700_000_000_600, made.key, made.value, made.headers)


def marker(offset, of, partition=0, topic=ITEMS, settled=Settled.DROPPED):
    place = LetterId(topic.dead_letters.name, partition, of)
    headers = marker_headers(place, settled, "published again by hand", 1_700_000_001_000)
    return Record(topic.dead_letters.name, partition, offset, 1_700_000_001_000, b"mug", b"", tuple(headers))


def open_letters(*records, **how):
    found = OpenLetters(**how)
    for record in records:
        found.take(record)
    return found


def test_a_letter_says_what_was_wrong_where_and_when():
    assert read_letter(letter(7)) == Letter(
        id=LetterId("items.v1.dlq", 0, 7),
        key=b"mug",
        reason="too_long",
        field="content.title",
        problem="it is too long",
        remedy="send a shorter text",
        at_ms=1_700_000_000_500,
        origin="items.v1[2] offset 41",
        origin_partition=2,
        bytes=2,
        whole_bytes=None,
    )


def test_a_cut_letter_says_how_large_the_whole_was():
    read = read_letter(letter(7, value=b"x" * 5_000_000))
    assert isinstance(read, Letter)
    assert read.whole_bytes == 5_000_000 > read.bytes


def test_a_marker_says_which_letter_is_settled_and_why():
    read = read_letter(marker(8, of=7))
    place = LetterId("items.v1.dlq", 0, 7)
    assert read == Marker(place, Settled.DROPPED, "published again by hand", 1_700_000_001_000)


def test_what_is_settled_is_open_no_more_and_what_lies_beside_it_still_is():
    found = open_letters(letter(0), letter(1), letter(0, partition=1), letter(0, topic=FEEDBACK), marker(2, of=0))
    assert [str(one.id) for one in found] == ["items.v1.dlq:0:1", "items.v1.dlq:1:0", "feedback.v1.dlq:0:0"]
    assert (len(found), found.settled) == (3, 1)


def test_two_markers_of_a_letter_settle_it_once():
    assert open_letters(letter(0), marker(1, of=0), marker(2, of=0)).settled == 1


def test_only_what_is_wanted_is_kept_and_counted_as_settled():
    found = open_letters(letter(0), letter(1), marker(2, of=0), wanted=lambda one: one.id.offset == 1)
    assert (len(found), found.settled) == (1, 0)


@pytest.mark.parametrize(
    ("name", "value"), [("settled", b"eaten"), ("settled-offset", b"x"), ("settled-offset", b"9" * 5_000)]
)
def test_a_marker_that_nobody_can_follow_settles_nothing_and_is_no_letter(name, value):
    told = marker(1, of=0)
    changed = [(n, value if n == f"nearkin-{name}" else v) for n, v in told.headers]
    assert len(open_letters(letter(0), told._replace(headers=tuple(changed)))) == 1


def test_a_time_that_is_none_is_the_records_own():
    odd = Record("items.v1.dlq", 0, 0, 5, None, None, (("nearkin-failed-at", b"9" * 30),))
    read = read_letter(odd)
    assert isinstance(read, Letter)
    assert (read.at_ms, read.reason, read.bytes) == (5, "unknown", 0)


@pytest.mark.parametrize("stamped_ms", [-1, 2**62])
def test_a_time_that_no_calendar_has_can_still_be_shown(stamped_ms):
    read = read_letter(Record("items.v1.dlq", 0, 0, stamped_ms, None, None))
    assert isinstance(read, Letter)
    datetime.fromtimestamp(read.at_ms / 1000, UTC)


@pytest.mark.parametrize("name", ["failed-at", "origin-partition", "whole-bytes"])
@pytest.mark.parametrize("held", [b"9" * 5_000, b"-1", b"two"])
def test_a_number_that_is_none_or_too_long_leaves_the_rest_of_a_letter_readable(name, held):
    made = letter(7)
    read = read_letter(made._replace(headers=(*made.headers, (f"nearkin-{name}", held))))
    assert isinstance(read, Letter)
    assert (read.reason, read.key, read.whole_bytes) == ("too_long", b"mug", None)
