"""Dead letters listed, shown, sent again and dropped by the command, on a real broker."""

import json
import time

import pytest
from kafka import KafkaProducer

from nearkin.cli import find_letters
from nearkin.contracts.events import encode_upserted
from nearkin.contracts.feedback import encode_visit, without_users
from nearkin.contracts.topics import FEEDBACK, ITEMS, ITEMS_BULK, VISITS
from nearkin.core.errors import InvalidEvent, Unavailable
from nearkin.core.feedback import Visit, VisitKind
from nearkin.core.item import Content
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.ops.failures import dead_letter
from nearkin.ops.record import Record, Rejected
from nearkin.ops.topics import apply_topics

NOW_MS = time.time_ns() // 1_000_000
UNFORESEEN = InvalidEvent("it fails", remedy="report it", reason="internal")
TOO_LONG = InvalidEvent("it is too long", remedy="send a shorter text", field="content.title", reason="too_long")


@pytest.fixture
def broker():
    """One without records."""
    with EmbeddedBroker() as running:
        apply_topics(running.bootstrap, 4, 1)
        yield running


@pytest.fixture
def refuse(broker):
    """Puts a letter where the worker puts it; gives the letter's name."""
    with KafkaProducer(bootstrap_servers=broker.bootstrap, max_request_size=2**22) as producer:

        def put(key, value, error=UNFORESEEN, topic=ITEMS, partition=2, at_ms=NOW_MS, headers=()):
            record = Record(topic.name, partition, 41, at_ms, key, value, tuple(headers))
            redact = without_users if topic in (FEEDBACK, VISITS) else None
            letter = dead_letter(Rejected(record, error), topic.dead_letters, at_ms, redact)
            sent = producer.send(
                letter.topic, letter.value, key=letter.key, headers=list(letter.headers), partition=partition
            )
            at = sent.get(30)
            return f"{at.topic}:{at.partition}:{at.offset}"

        yield put


def mug(number=1, title="Red mug"):
    event_id = f"event-{number}"
    return encode_upserted(f"mug-{number}", Content(title=title), 1, event_id=event_id, occurred_at=NOW_MS)


def visit(user=None, occurred_at=NOW_MS, event_id="visit-event-1"):
    return encode_visit(
        Visit(event_id, occurred_at, "basket-1", VisitKind.BASKET, ("a", "b"), user=user),
    )


def listed(at_broker, *options):
    result = at_broker("dlq", "list", "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def replayed(at_broker, *arguments, exit_code=0):
    result = at_broker("dlq", "replay", "--json", *arguments)
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


class TestList:
    def test_letters_are_counted_by_reason_and_the_newest_named(self, at_broker, refuse):
        for number in range(5):
            refuse(*mug(number), at_ms=NOW_MS + number)
        last = refuse(b"mug-9", b"{", TOO_LONG, at_ms=NOW_MS + 9)
        told = listed(at_broker, "-n", "2")
        assert told["number"] == 6
        assert told["counts"] == [
            {"topic": "items.v1.dlq", "reason": "internal", "letters": 5},
            {"topic": "items.v1.dlq", "reason": "too_long", "letters": 1},
        ]
        assert [one["key"] for one in told["letters"]] == ["mug-4", "mug-9"]
        shown = at_broker("dlq", "list", "-n", "2").output
        assert "6 dead letters" in shown
        assert last in shown
        assert "content.title: it is too long" in shown
        assert "and 4 older ones" in shown

    def test_each_filter_leaves_out_what_it_does_not_name(self, at_broker, refuse):
        refuse(b"mug-1", b"{", TOO_LONG, at_ms=NOW_MS - 7_200_000)
        refuse(*mug(2))
        refuse(*visit(), topic=VISITS, partition=1)

        def keys(*options):
            return {one["key"] for one in listed(at_broker, *options)["letters"]}

        assert keys() == {"mug-1", "mug-2", "basket-1"}
        assert keys("--topic", "visits.v1") == keys("--topic", "visits.v1.dlq") == {"basket-1"}
        assert keys("--reason", "too_long") == {"mug-1"}
        assert keys("--key", "mug-2", "--key", "basket-1") == {"mug-2", "basket-1"}
        assert keys("--field", "content") == keys("--field", "content.title") == {"mug-1"}
        assert keys("--field", "cont") == set()
        assert keys("--since", "1h") == {"mug-2", "basket-1"}
        assert keys("--until", "1h") == {"mug-1"}
        assert keys("--since", "2020-01-01", "--until", "2020-01-01T10:00+02:00") == set()

    def test_only_the_newest_records_are_read_and_that_is_told(self, at_broker, refuse):
        for number in range(6):
            refuse(*mug(number))
        assert (listed(at_broker, "--newest", "4")["number"], listed(at_broker, "--newest", "4")["older_not_read"]) == (
            4,
            2,
        )
        assert "2 older records were not read" in at_broker("dlq", "list", "--newest", "4").output

    def test_letters_that_came_as_one_batch_are_all_there(self, at_broker, broker):
        headers = [("nearkin-reason", b"too_long")]
        with KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=1000, batch_size=2**20) as producer:
            for number in range(2000):
                producer.send("items.v1.dlq", b"{}", key=b"%d" % number, headers=headers, partition=0)
        assert listed(at_broker)["number"] == 2000
        assert at_broker("dlq", "show", "items.v1.dlq:0:1999").exit_code == 0

    @pytest.mark.parametrize(
        "wrong", [["list", "--since", "yesterday"], ["list", "--topic", "lookups.v1"], ["show", "items.v1:2"]]
    )
    def test_wrong_usage_exits_with_2(self, at_broker, wrong):
        assert at_broker("dlq", *wrong).exit_code == 2


class TestShow:
    def test_a_letter_is_shown_whole_and_steers_no_terminal(self, at_broker, refuse):
        name = refuse(b"mug-1", b'{"a": "\x1b[31m", \n "b": "[bold]"}\xff', TOO_LONG, headers=[("trace", b"t-1")])
        shown = at_broker("dlq", "show", name).output
        for said in ("too_long", "send a shorter text", "items.v1[2] offset 41", "t-1", '"b": "[bold]"', r"\xff"):
            assert said in shown
        assert "\x1b" not in shown
        told = json.loads(at_broker("dlq", "show", "--json", name).stdout)
        assert told["value_base64"]
        assert told["settled"] is None

    def test_whom_it_named_is_not_shown(self, at_broker, refuse):
        key, value = visit(user="k1:" + "0" * 32)
        name = refuse(key, value.replace(b"k1:" + b"0" * 32, b"jo@example.org"), topic=VISITS)
        shown = at_broker("dlq", "show", name).output
        assert "[redacted]" in shown
        assert "jo@" not in shown

    def test_that_nothing_was_kept_of_a_value_is_told(self, at_broker, refuse):
        name = refuse(b"basket-1", b"\xff\xfe", topic=VISITS)
        assert "nothing was kept of its value" in at_broker("dlq", "show", name).output

    def test_where_no_letter_lies_exits_with_4(self, at_broker, refuse):
        refuse(*mug())
        assert at_broker("dlq", "drop", "--all", "--yes", "--because", "a test").exit_code == 0
        for name in ("items.v1.dlq:2:1", "items.v1.dlq:2:99", "items.v1.dlq:77:0"):
            assert at_broker("dlq", "show", name).exit_code == 4


class TestReplay:
    def test_an_event_comes_to_the_place_it_came_from_as_it_was_and_is_settled(self, at_broker, refuse, records):
        key, value = mug()
        name = refuse(key, value, headers=[("trace", b"t-1")], partition=3)
        assert replayed(at_broker, name) == {"sent": 1, "dry_run": False, "stays": [], "beyond_limit": 0}
        (record,) = records("items.v1")
        assert (record.key, record.value, record.partition) == (key, value, 3)
        assert list(record.headers) == [("trace", b"t-1")]
        told = listed(at_broker)
        assert (told["number"], told["settled"]) == (0, 1)
        settled = json.loads(at_broker("dlq", "show", "--json", name).stdout)["settled"]
        assert (settled["as"], settled["because"]) == ("replayed", "items.v1[3] offset 0")
        assert replayed(at_broker, "--all")["sent"] == 0

    def test_slow_as_it_is_asked_to_be_it_goes_on_to_the_last(self, at_broker, refuse, monkeypatch):
        monkeypatch.setattr(find_letters, "PATIENCE_S", 2.0)
        for number in range(4):
            refuse(*mug(number))
        assert replayed(at_broker, "--all", "--rate", "1")["sent"] == 4

    def test_a_probe_that_was_refused_does_not_keep_the_others(self, at_broker, refuse):
        refuse(*encode_upserted("nearkin-probe-07", Content(title="Probe"), 1, event_id="p", occurred_at=NOW_MS))
        refuse(*mug())
        assert replayed(at_broker, "--all")["sent"] == 2

    def test_what_is_settled_is_no_refusal_of_its_item_any_more(self, at_broker, refuse, broker):
        from nearkin.cli.find_refusals import find_refusals

        first, _ = refuse(*mug()), refuse(*mug(), error=TOO_LONG)
        replayed(at_broker, first)
        assert [one.reason for one in find_refusals(broker.bootstrap, "mug-1")] == ["too_long"]

    def test_what_is_still_wrong_stays_and_says_why(self, at_broker, refuse, records):
        good = refuse(*mug(), topic=ITEMS_BULK)
        bad = refuse(b"mug-2", b'{"kind": "upserted"}')
        null = refuse(b"mug-3", None)
        told = replayed(at_broker, "--all", exit_code=4)
        assert told["sent"] == 1
        assert {one["letter"]: one["still"] for one in told["stays"]} == {bad: "missing_field", null: "null_value"}
        assert [record.key for record in records("items-bulk.v1")] == [b"mug-1"]
        assert records("items.v1") == []
        assert listed(at_broker)["number"] == 2
        said = at_broker("dlq", "replay", "--all").output
        assert f"{bad} stays (missing_field)" in said
        assert good not in said

    def test_what_was_cut_stays_and_says_where_the_whole_lies(self, at_broker, refuse):
        name = refuse(b"mug-1", b"x" * 5_000_000)
        (stays,) = replayed(at_broker, name, exit_code=4)["stays"]
        assert stays["still"] == "cut"
        assert "the whole lies at items.v1[2] offset 41" in stays["why"]

    def test_a_dry_run_checks_and_sends_nothing(self, at_broker, refuse, records):
        refuse(*mug())
        refuse(b"mug-2", b"{")
        told = replayed(at_broker, "--all", "--dry-run", exit_code=4)
        assert (told["sent"], len(told["stays"]), told["dry_run"]) == (1, 1, True)
        assert records("items.v1") == []
        assert listed(at_broker)["number"] == 2

    def test_so_many_are_sent_as_are_allowed_the_oldest_first(self, at_broker, refuse, records):
        for number in range(5):
            refuse(*mug(number), at_ms=NOW_MS + number)
        told = replayed(at_broker, "--all", "--limit", "2", "--rate", "1000")
        assert (told["sent"], told["beyond_limit"]) == (2, 3)
        assert {record.key for record in records("items.v1")} == {b"mug-0", b"mug-1"}

    def test_nothing_is_sent_where_nothing_is_chosen(self, at_broker, refuse):
        refuse(*mug())
        assert at_broker("dlq", "replay").exit_code == 2

    def test_where_no_letter_matches_that_is_told(self, at_broker, refuse):
        refuse(*mug())
        for command in (["replay"], ["drop", "--because", "a test"]):
            assert "no letter matches" in at_broker("dlq", *command, "--reason", "interal").output

    def test_a_partition_that_is_gone_leaves_the_place_to_the_key(self, at_broker, refuse, records, broker):
        key, value = mug()
        record = Record(ITEMS.name, 77, 41, NOW_MS, key, value)
        letter = dead_letter(Rejected(record, UNFORESEEN), ITEMS.dead_letters, NOW_MS)
        with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            producer.send(letter.topic, letter.value, key=key, headers=list(letter.headers), partition=0).get(30)
        assert replayed(at_broker, "--all")["sent"] == 1
        assert len(records("items.v1")) == 1

    def test_whoever_ends_between_sending_and_marking_sends_the_same_event_once_more(
        self, at_broker, refuse, records, monkeypatch
    ):
        refuse(*mug())

        def ends(*_):
            raise Unavailable("broker", "it went away")

        with monkeypatch.context() as patched:
            patched.setattr("nearkin.cli.replay_letters.settle", ends)
            assert at_broker("dlq", "replay", "--all").exit_code == 3
        assert listed(at_broker)["number"] == 1
        assert replayed(at_broker, "--all")["sent"] == 1
        first, second = records("items.v1")
        assert (first.key, first.value, first.partition) == (second.key, second.value, second.partition)
        assert listed(at_broker)["number"] == 0


class TestDrop:
    def test_what_is_dropped_is_not_shown_any_more_and_keeps_the_reason(self, at_broker, refuse, records):
        name = refuse(*mug())
        other = refuse(*mug(2), error=TOO_LONG)
        result = at_broker("dlq", "drop", "--reason", "internal", "--because", "an old test", input=b"y\n")
        assert result.exit_code == 0, result.output
        assert "dropped 1 letter\n" in result.output
        assert [one["letter"] for one in listed(at_broker)["letters"]] == [other]
        settled = json.loads(at_broker("dlq", "show", "--json", name).stdout)["settled"]
        assert (settled["as"], settled["because"]) == ("dropped", "an old test")
        assert "dropped at" in at_broker("dlq", "show", name).output
        assert records("items.v1") == []

    @pytest.mark.parametrize(("answer", "status"), [(b"n\n", 0), (b"", 2)])
    def test_nothing_is_dropped_unless_somebody_says_yes(self, at_broker, refuse, answer, status):
        refuse(*mug())
        assert at_broker("dlq", "drop", "--all", "--because", "a test", input=answer).exit_code == status
        assert listed(at_broker)["number"] == 1

    def test_a_letter_without_a_key_can_be_dropped(self, at_broker, refuse):
        refuse(None, b"{}")
        assert at_broker("dlq", "drop", "--all", "--yes", "--because", "nobody's").exit_code == 0
        assert listed(at_broker)["number"] == 0
