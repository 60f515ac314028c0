import asyncio
from itertools import islice

import pytest

import nearkin
from nearkin.contracts.topics import ITEMS, VISITS, Topic
from nearkin.core.errors import InvalidEvent, TemporaryError, Unavailable
from nearkin.ops.failures import Stopped, dead_letter, patiently, pauses
from nearkin.ops.record import Record, Rejected
from nearkin.ops.settings import Settings

QUICK = Settings(retry_initial_ms=1, retry_max_ms=2)
ERROR = InvalidEvent("the title is too long", field="content.title", remedy="send a shorter text", reason="too_long")


def test_pauses_double_up_to_the_longest():
    waits = pauses(Settings(retry_initial_ms=100, retry_max_ms=500), draw=lambda: 0.0)

    assert list(islice(waits, 5)) == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


def test_pauses_are_cut_at_random_so_that_workers_do_not_knock_together():
    waits = pauses(Settings(retry_initial_ms=100, retry_max_ms=500), draw=lambda: 1.0)

    assert next(waits) == pytest.approx(0.05)


async def test_a_temporary_failure_is_tried_again_until_it_succeeds():
    outcomes = [Unavailable("index", "no"), TemporaryError("not yet"), "done"]
    failures = []

    async def attempt():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    result = await patiently(attempt, settings=QUICK, stopping=asyncio.Event(), failed=failures.append)

    assert result == "done"
    assert [type(failure) for failure in failures] == [Unavailable, TemporaryError]


async def test_a_permanent_failure_is_not_tried_again():
    async def attempt():
        raise ERROR

    with pytest.raises(InvalidEvent):
        await patiently(attempt, settings=QUICK, stopping=asyncio.Event(), failed=pytest.fail)


async def test_stopping_ends_the_wait_at_once():
    stopping = asyncio.Event()

    async def attempt():
        raise Unavailable("index", "no")

    patient = Settings(retry_initial_ms=3_600_000, retry_max_ms=3_600_000)
    with pytest.raises(Stopped):
        await patiently(attempt, settings=patient, stopping=stopping, failed=lambda _: stopping.set())


def test_a_dead_letter_holds_the_bytes_and_says_what_was_wrong_where_and_when():
    record = Record("items.v1", 3, 42, 1_700_000_000_000, b"k", b"\xff\x00", (("trace", b"1"),))

    letter = dead_letter(Rejected(record, ERROR), ITEMS.dead_letters, 1_700_000_000_123)

    assert (letter.topic, letter.key, letter.value) == ("items.v1.dlq", b"k", b"\xff\x00")
    assert dict(letter.headers) == {
        "trace": b"1",
        "nearkin-reason": b"too_long",
        "nearkin-field": b"content.title",
        "nearkin-problem": b"the title is too long",
        "nearkin-remedy": b"send a shorter text",
        "nearkin-origin-topic": b"items.v1",
        "nearkin-origin-partition": b"3",
        "nearkin-origin-offset": b"42",
        "nearkin-origin-timestamp": b"1700000000000",
        "nearkin-failed-at": b"1700000000123",
        "nearkin-version": nearkin.__version__.encode(),
    }


def test_where_a_value_may_name_people_nothing_of_the_sources_headers_is_carried_over():
    record = Record("visits.v1", 0, 0, 0, b"k", b"ann", (("x-user", b"ann"), ("trace", b"1")))

    letter = dead_letter(Rejected(record, ERROR), VISITS.dead_letters, 0, lambda value: b"[redacted]")

    assert letter.value == b"[redacted]"
    assert all(name.startswith("nearkin-") for name, _ in letter.headers)
    assert b"ann" not in b"".join(held for _, held in letter.headers)


def test_null_stays_null():
    letter = dead_letter(Rejected(Record("items.v1", 0, 0, 0, None, None), ERROR), ITEMS.dead_letters, 0)

    assert (letter.key, letter.value) == (None, None)


def test_a_source_cannot_pretend_to_be_our_headers():
    record = Record("items.v1", 0, 0, 0, None, None, (("nearkin-reason", b"forged"),))

    headers = [
        value
        for name, value in dead_letter(Rejected(record, ERROR), ITEMS.dead_letters, 0).headers
        if name.endswith("reason")
    ]

    assert headers == [b"too_long"]


@pytest.mark.parametrize(
    "record",
    [
        Record("t", 0, 7, 0, b"k", b"x" * 5_000_000),
        Record("t", 0, 7, 0, b"k" * 5_000_000, b"x" * 5_000_000),
        Record("t", 0, 7, 0, b"k" * 5_000_000, None),
        Record("t", 0, 7, 0, None, b"x", (("trace", b"t" * 5_000_000),)),
    ],
)
def test_a_letter_larger_than_its_topic_takes_is_cut_so_that_it_can_be_sent_and_says_so(record):
    topic = Topic("t", 1).dead_letters

    letter = dead_letter(Rejected(record, ERROR), topic, 0)

    headers = dict(letter.headers)
    parts = [letter.key or b"", letter.value or b"", *headers.values(), *(name.encode() for name in headers)]
    assert sum(map(len, parts)) < topic.max_message_bytes - 1024
    assert headers["nearkin-whole-bytes"] == str(len(record.value or b"")).encode()
    assert (headers["nearkin-origin-topic"], headers["nearkin-origin-offset"]) == (b"t", b"7")
    assert "trace" not in headers
    assert (record.key or b"").startswith(letter.key or b"")
    assert (record.value or b"").startswith(letter.value or b"")
    assert (letter.value is None) == (record.value is None)
