import json

import pytest

from nearkin.cli.parse_line import Outgoing, parse_line
from nearkin.contracts.events import Kind, read_item_event
from nearkin.contracts.feedback import StreamTime
from nearkin.contracts.topics import FEEDBACK, ITEMS, VISITS
from nearkin.core.errors import InvalidEvent
from nearkin.core.item import Offer, Price
from nearkin.core.pseudonym import PseudonymKey

NOW = 1_700_000_000_000


def parse(line):
    sent = parse_line(json.dumps(line).encode() + b"\n", NOW)
    event = read_item_event(sent.value)
    assert (sent.topic, sent.key) == (ITEMS, event.item_id.encode())
    return event


def test_an_item_becomes_an_upsert_whose_versions_are_the_time():
    event = parse({"id": "1", "title": "Mug", "price": {"amount": 4.5, "currency": "GBP"}, "markets": ["GB"]})
    assert event.kind is Kind.UPSERTED
    assert event.state.content.title == "Mug"
    assert event.state.offer == Offer(Price(4.5, "GBP"), markets=("GB",))
    assert event.state.versions.content == event.state.versions.offer == event.occurred_at == NOW


def test_an_item_without_offer_fields_says_nothing_of_an_offer():
    assert parse({"id": "1", "title": "Mug"}).state.offered is None


def test_an_item_may_bring_its_versions_and_its_event_id():
    event = parse({"id": "1", "title": "Mug", "content_version": 7, "event_id": "first-load-1", "tags": ["red"]})
    assert (event.state.content_version, event.event_id) == (7, "first-load-1")


def test_a_whole_event_is_sent_byte_for_byte():
    line = b'{"kind": "deleted", "event_id": "e", "occurred_at": 1700000000000, "id": "1", "version": 3, "later": 1}'
    assert parse_line(line + b"\r\n", NOW) == Outgoing(ITEMS, b"1", line)


CLICK = b'{"kind": "interaction", "event_id": "e", "occurred_at": 1700000000000, "anchor": "1", "item_id": "2", '
VISIT = b'{"kind": "visit", "event_id": "e", "occurred_at": 1700000000000, "visit_id": "v", "visit_kind": "basket", '


@pytest.mark.parametrize(
    ("line", "topic", "key"),
    [
        (CLICK + b'"action": "click"}', FEEDBACK, b"1"),
        (
            CLICK.replace(b"interaction", b"impressions") + b'"request_id": "r", "surface": "s", "positions": '
            b'[{"item_id": "2", "position": 1, "visible": true}]}',
            FEEDBACK,
            b"1",
        ),
        (VISIT + b'"items": ["1"]}', VISITS, b"v"),
        (VISIT + b'"items": ["1"], "later": 1e999}', VISITS, b"v"),
    ],
)
def test_feedback_goes_to_the_topic_of_its_kind_byte_for_byte(line, topic, key):
    assert parse_line(line, NOW) == Outgoing(topic, key, line)


def test_a_plain_user_becomes_a_pseudonym_and_the_rest_stays():
    key = PseudonymKey.parse("k1:" + "0" * 64)
    sent = parse_line(VISIT + b'"items": ["1"], "later": 5, "user": "ann"}', NOW, pseudonym_key=key)
    assert parse_line(VISIT + b'"items": ["1"]}', NOW, pseudonym_key=key).value == VISIT + b'"items": ["1"]}'
    assert json.loads(sent.value) == json.loads(VISIT + b'"items": ["1"], "later": 5}') | {"user": key.pseudonym("ann")}


@pytest.mark.parametrize("user", [b'""', b"5", b"null", b'{"name": "ann"}'])
def test_what_is_no_users_id_becomes_no_pseudonym(user):
    with pytest.raises(InvalidEvent) as refused:
        parse_line(VISIT + b'"items": ["1"], "user": ' + user + b"}", NOW, pseudonym_key=PseudonymKey("k1", b"0" * 32))
    assert (refused.value.reason, refused.value.field) == ("not_a_pseudonym", "user")


@pytest.mark.parametrize("kind", [b"5", b"null", b"[]", b"{}", b'["visit"]'])
def test_a_kind_of_another_type_is_refused_whether_users_are_plain_or_not(kind):
    line = VISIT.replace(b'"visit"', kind, 1) + b'"items": ["1"], "user": "ann"}'
    for key in (None, PseudonymKey("k1", b"0" * 32)):
        with pytest.raises(InvalidEvent) as refused:
            parse_line(line, NOW, pseudonym_key=key)
        assert (refused.value.reason, refused.value.field) == ("wrong_type", "kind")


def test_without_a_key_a_user_must_be_a_pseudonym():
    with pytest.raises(InvalidEvent) as refused:
        parse_line(VISIT + b'"items": ["1"], "user": "ann"}', NOW)
    assert (refused.value.reason, refused.value.field) == ("not_a_pseudonym", "user")


def test_feedback_is_late_by_the_clock_that_counts():
    line = VISIT + b'"items": ["1"]}'
    with pytest.raises(InvalidEvent) as refused:
        parse_line(line, NOW + 40 * 24 * 3600 * 1000)
    assert refused.value.reason == "too_late"
    assert parse_line(line, NOW + 40 * 24 * 3600 * 1000, stream=StreamTime()).topic == VISITS


@pytest.mark.parametrize(
    ("line", "reason", "field"),
    [
        (b"no json", "not_json", ""),
        (b'{"id": "1", "title": "Mug"} x', "not_json", ""),
        (b'{"id": "1"}{"id": "2"}', "not_json", ""),
        (b'{"id": "1", "numbers": {"weight": {"value": 1e999, "unit": "g"}}}', "out_of_range", ""),
        (
            b'{"kind": "deleted", "event_id": "e", "occurred_at": 1700000000000, "id": "1", "version": 1e999}',
            "out_of_range",
            "version",
        ),
        (b'{"id": "1", "title": "\\ud800"}', "surrogate", ""),
        (b'{"id": "1", "price": {"amount": NaN, "currency": "GBP"}}', "not_finite", ""),
        (b"[1]", "wrong_type", ""),
        (b'{"id": "1", "offer_version": 5}', "missing_field", "offer_version"),
        (b'{"id": "1", "titel": "Mug"}', "unknown_field", ""),
        (b'{"title": "Mug"}', "missing_field", "id"),
        (b'{"id": "1", "title": 7}', "wrong_type", "content.title"),
        (b'{"id": "1", "price": {"amount": -1, "currency": "GBP"}}', "out_of_range", "offer.price.amount"),
        (b'{"kind": "renamed", "id": "1"}', "unknown_kind", "kind"),
        (b'{"kind": 5, "id": "1"}', "wrong_type", "kind"),
        (CLICK + b'"action": "stare"}', "unknown_value", "action"),
        (CLICK + b'"action": "click", "value": 1e999}', "out_of_range", "value"),
        (VISIT + b'"items": ["\\ud800"]}', "surrogate", ""),
        (b'{"kind": "deleted", "id": "1", "version": 3}', "missing_field", "event_id"),
        (b'{"tags": ' + b"[" * 50_000, "too_deep", ""),
        (b'{"id": "1", "title": "\xff"}', "not_utf8", ""),
    ],
)
def test_a_line_that_breaks_the_contract_is_refused_with_reason_and_field(line, reason, field):
    with pytest.raises(InvalidEvent) as refused:
        parse_line(line, NOW)
    assert (refused.value.reason, refused.value.field) == (reason, field)


@pytest.mark.parametrize("line", [b"[", b"{", b'[{"id": "1"}]', b'"1"', b'{"id": "1"},'])
def test_what_spreads_over_lines_or_comes_in_an_array_is_told_that_a_line_is_one_object(line):
    with pytest.raises(InvalidEvent, match="put one whole JSON object on each line"):
        parse_line(line, NOW)
