"""Which letters may be sent again, as what; and that an event that comes twice counts once."""

import json
import time

import pytest

from nearkin.cli.replay_letters import check_letter
from nearkin.contracts.events import encode_upserted
from nearkin.contracts.feedback import encode_interaction, encode_visit, without_users
from nearkin.contracts.topics import FEEDBACK, ITEMS, VISITS
from nearkin.core.admission import Verdict
from nearkin.core.errors import InvalidEvent
from nearkin.core.evidence import Source
from nearkin.core.feedback import Action, Interaction, Visit, VisitKind
from nearkin.core.item import Content
from nearkin.feedback.partition import Partition, Rules
from nearkin.ops.failures import dead_letter, unforeseen
from nearkin.ops.letters import read_letter
from nearkin.ops.record import Record, Rejected

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
PSEUDONYM = "k1:" + "0" * 32


def refuse(topic, key, value, error, headers=()):
    """The letter of an event, as it lies, and what it says."""
    record = Record(topic.name, 0, 41, NOW_MS, key, value, tuple(headers))
    redact = None if topic is ITEMS else without_users
    made = dead_letter(Rejected(record, error), topic.dead_letters, NOW_MS, redact)
    lies = Record(made.topic, 0, 0, NOW_MS, made.key, made.value, made.headers)
    return read_letter(lies), lies


def too_long(field="user"):
    return InvalidEvent("it is too long", remedy="send less", field=field, reason="too_long")


def interaction(**changes):
    said = {"event_id": "event-1", "occurred_at": NOW_MS, "anchor": "mug", "item_id": "cup", "action": Action.CLICK}
    return encode_interaction(Interaction(**said | changes))


def again(letter, at_ms=NOW_MS, clock="wall"):
    return check_letter(*letter, clock, at_ms)


def test_an_item_event_keeps_key_value_and_its_own_headers():
    key, value = encode_upserted("mug", Content(title="mug"), 1, event_id="e", occurred_at=NOW_MS)
    sent = again(refuse(ITEMS, key, value, too_long(), headers=[("trace", b"t"), ("nearkin-odd", b"x")]))
    assert (sent.topic, sent.key, sent.value, sent.headers) == (ITEMS, key, value, (("trace", b"t"),))


@pytest.mark.parametrize("user", [None, PSEUDONYM])
def test_feedback_that_names_nobody_or_a_pseudonym_is_sent_as_it_was(user):
    key, value = interaction(user=user)
    assert again(refuse(FEEDBACK, key, value, too_long())).value == value


def test_feedback_whose_user_was_taken_out_stays_and_says_so():
    key, value = interaction(user=PSEUDONYM)
    with pytest.raises(InvalidEvent, match=r"whom it named was no pseudonym and is not kept; .* with a pseudonym"):
        again(refuse(FEEDBACK, key, value.replace(PSEUDONYM.encode(), b"jo@example.org"), too_long()))


def test_feedback_of_which_nothing_was_kept_stays_and_says_so():
    with pytest.raises(InvalidEvent, match="nothing was kept of it"):
        again(refuse(FEEDBACK, b"mug", b"{user: jo}", too_long()))


@pytest.mark.parametrize(
    ("at_ms", "reason"), [(NOW_MS + 31 * DAY_MS, "too_late"), (NOW_MS - DAY_MS, "in_future"), (NOW_MS + DAY_MS, None)]
)
def test_feedback_is_late_or_early_by_the_time_of_the_replay(at_ms, reason):
    letter = refuse(FEEDBACK, *interaction(), too_long())
    if reason is None:
        assert again(letter, at_ms)
        return
    with pytest.raises(InvalidEvent) as refusal:
        again(letter, at_ms)
    assert refusal.value.reason == reason


def test_by_the_streams_own_time_an_old_log_may_be_sent():
    assert again(refuse(FEEDBACK, *interaction(), too_long()), NOW_MS + 99 * DAY_MS, clock="stream")


def test_feedback_whose_id_was_taken_note_of_gets_another_one_always_the_same():
    record = Record(FEEDBACK.name, 0, 41, NOW_MS, *interaction())
    letter = refuse(FEEDBACK, record.key, record.value, unforeseen(record, RuntimeError("odd"), 1).error)
    first, second = again(letter), again(letter)
    assert first == second
    sent, was = json.loads(first.value), json.loads(record.value)
    assert sent.pop("event_id") != was.pop("event_id")
    assert sent == was


def test_an_item_that_fails_as_nobody_foresaw_keeps_its_id():
    key, value = encode_upserted("mug", Content(title="mug"), 1, event_id="e", occurred_at=NOW_MS)
    record = Record(ITEMS.name, 0, 41, NOW_MS, key, value)
    assert again(refuse(ITEMS, key, value, unforeseen(record, RuntimeError("odd"), 1).error)).value == value


def partition():
    rules = Rules(half_life_ms=30 * DAY_MS, window=1000, clamp=3)
    return Partition((VISITS.name, 0), Source("visits", 0), [0], 0, rules, lambda: time.time_ns() // 1_000_000)


def test_a_visit_that_a_killed_replay_sent_twice_counts_once():
    now_ms = time.time_ns() // 1_000_000
    key, value = encode_visit(Visit("event-1", now_ms, "basket-1", VisitKind.BASKET, ("a", "b")))
    sent = again(refuse(VISITS, key, value, too_long()), now_ms)
    worker = partition()
    for offset in range(2):
        worker.take(Record(VISITS.name, 0, offset, now_ms, sent.key, sent.value))
    assert (len(worker.waiting), worker.outcomes[Verdict.REPEATED]) == (1, 1)
    assert not worker.refused


def test_what_failed_as_nobody_foresaw_counts_once_it_is_replayed_however_often(monkeypatch):
    now_ms = time.time_ns() // 1_000_000
    key, value = encode_visit(Visit("event-1", now_ms, "basket-1", VisitKind.BASKET, ("a", "b")))
    worker = partition()
    first = Record(VISITS.name, 0, 0, now_ms, key, value)
    with monkeypatch.context() as broken:

        def fails(*_):
            raise RuntimeError("a defect")

        broken.setattr("nearkin.feedback.partition._require_timely_now", fails)
        worker.take(first)
    (rejected,) = worker.refused
    sent = again(refuse(VISITS, key, value, rejected.error), now_ms)
    for offset in (1, 2):
        worker.take(Record(VISITS.name, 0, offset, now_ms, sent.key, sent.value))
    assert [each.record.offset for each in worker.waiting] == [1]
