import gzip
import json
import os
import subprocess
import sys
import threading
import time
import types

import pytest
from kafka import KafkaProducer

from nearkin.cli.similar import MOST
from nearkin.embedded.endpoints import FORMAT, Endpoints, write_endpoints
from nearkin.embedded.owned_folder import OwnedFolder
from nearkin.embedded.programs import free_port
from nearkin.lookup.parse_request import MAX_K

START_MS = 1_700_000_000_000

ITEMS = b'{"id": "1", "title": "Red mug"}\n{"id": "2", "title": "Blue mug"}\n'


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["up"],
        ["demo"],
        ["publish"],
        ["delete"],
        ["similar"],
        ["item"],
        ["topics"],
        ["dlq"],
        ["evidence"],
        ["evaluate"],
        ["status"],
    ],
)
def test_every_command_has_help(nearkin, command):
    result = nearkin(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["publish"],
        ["publish", "--rate", "0", "-"],
        ["delete"],
        ["delete", "--version", "9007199254740992", "1"],
        ["similar"],
        ["similar", "1", "--text", "mug"],
        ["similar", "1", "-k", "0"],
        ["similar", "1", "-k", "201"],
        ["similar", "1", "--price", "cheap"],
        ["similar", "1", "--price", "GBP:5"],
        ["similar", "1", "--price", "GBP:10..5"],
        ["similar", "1", "--price", "GBP:nan.."],
        ["similar", "1", "--price", "GBP:..inf"],
        ["similar", "1", "--price", "pounds:1..2"],
        ["publish", "no-such-file.jsonl"],
        ["publish", "--on-error", "skip", "no-such-file.jsonl"],
        ["publish", "."],
        ["similar", "1", "--attribute", "red"],
        ["similar", "1", "--category", "Home > "],
        ["similar", "1", "--availability", "maybe"],
    ],
)
def test_wrong_usage_exits_with_2(nearkin, arguments):
    assert nearkin(*arguments).exit_code == 2


def test_a_look_up_may_ask_for_as_many_neighbours_as_the_service_gives():
    assert MOST == MAX_K


def test_a_wrong_setting_exits_with_2_and_is_named(nearkin, monkeypatch):
    monkeypatch.setenv("NEARKIN_ITEMS_PARTITIONS", "many")
    result = nearkin("topics", "check")
    assert result.exit_code == 2
    assert "NEARKIN_ITEMS_PARTITIONS" in result.output


def test_a_broker_out_of_reach_exits_with_3_and_says_what_to_do(nearkin, monkeypatch):
    monkeypatch.setenv("NEARKIN_KAFKA_BOOTSTRAP", f"127.0.0.1:{free_port()}")
    monkeypatch.setattr("nearkin.cli.delete.require_topics.__defaults__", (0.1,))
    result = nearkin("delete", "1")
    assert result.exit_code == 3
    assert "nearkin up" in result.output
    assert "Traceback" not in result.output


def test_look_ups_out_of_reach_exit_with_3_and_say_what_to_do(nearkin, monkeypatch):
    monkeypatch.setenv("NEARKIN_LOOKUP_ADDRESS", f"127.0.0.1:{free_port()}")
    result = nearkin("similar", "1")
    assert result.exit_code == 3
    assert "NEARKIN_LOOKUP_ADDRESS" in result.output


def test_a_folder_where_nothing_runs_exits_with_3_and_is_named(nearkin):
    result = nearkin("similar", "1", "--data", "elsewhere")
    assert result.exit_code == 3
    assert "nearkin up --data elsewhere" in result.output


def test_topics_that_are_missing_exit_with_2(nearkin, monkeypatch):
    from nearkin.embedded.broker import EmbeddedBroker

    with EmbeddedBroker() as empty:
        monkeypatch.setenv("NEARKIN_KAFKA_BOOTSTRAP", empty.bootstrap)
        for arguments in (["topics", "check"], ["delete", "1"]):
            result = nearkin(*arguments)
            assert result.exit_code == 2
            assert "nearkin topics apply" in result.output
        assert nearkin("topics", "apply").exit_code == 0
        assert (
            "items.v1, items-bulk.v1, feedback.v1, visits.v1, lookups.v1, items.v1.dlq"
            in nearkin("topics", "check").output
        )
        monkeypatch.setenv("NEARKIN_ITEMS_PARTITIONS", "8")
        mismatch = nearkin("topics", "apply")
        assert mismatch.exit_code == 2
        assert "must be 8" in " ".join(mismatch.output.split())


class TestPublish:
    def test_sends_items_of_compressed_files_and_of_standard_input(self, at_broker, records, tmp_path):
        (tmp_path / "items.jsonl.gz").write_bytes(gzip.compress(ITEMS))
        result = at_broker("publish", "items.jsonl.gz", "--bulk")
        assert result.exit_code == 0, result.output
        assert "published 2 events" in result.output
        assert {record.key for record in records("items-bulk.v1")} == {b"1", b"2"}

    def test_stop_sends_nothing_where_a_line_is_refused(self, at_broker, records, tmp_path):
        before = len(records("items.v1"))
        (tmp_path / "items.jsonl").write_bytes(ITEMS + b'{"id": "3", "titel": "Green mug"}\n4\n')
        result = at_broker("publish", "items.jsonl")
        assert result.exit_code == 4
        assert "refused items.jsonl:3" in result.output
        assert "titel" in result.output
        assert "refused items.jsonl:4" in result.output
        assert "refused 2 lines; published nothing" in result.output
        assert len(records("items.v1")) == before

    def test_skip_sends_the_others_and_names_what_it_refused(self, at_broker, records, tmp_path):
        before = len(records("items.v1"))
        (tmp_path / "items.jsonl").write_bytes(b"broken\n" + ITEMS)
        result = at_broker("publish", "--on-error", "skip", "items.jsonl", "--rate", "1000")
        assert result.exit_code == 4
        assert "items.jsonl:1" in result.output
        assert "published 2 events" in result.output
        assert len(records("items.v1")) == before + 2

    def test_a_refused_line_is_not_quoted(self, at_broker, tmp_path):
        (tmp_path / "items.jsonl").write_bytes(b'{"id": "1", "title": ["a secret"]}\n')
        result = at_broker("publish", "items.jsonl")
        assert result.exit_code == 4
        assert "content.title" in result.output
        assert "a secret" not in result.output

    def test_a_missing_file_is_named(self, at_broker):
        result = at_broker("publish", "nowhere.jsonl")
        assert result.exit_code == 2
        assert "nowhere.jsonl: No such file" in result.output

    def test_sends_feedback_and_visits_to_the_topics_of_their_kinds(self, at_broker, records, tmp_path):
        at = time.time_ns() // 1_000_000
        events = [
            {"kind": "interaction", "anchor": "fed", "item_id": "2", "action": "click"},
            {"kind": "visit", "visit_id": "seen", "visit_kind": "session", "items": ["1", "2"]},
        ]
        lines = [json.dumps(event | {"event_id": "e", "occurred_at": at}).encode() for event in events]
        (tmp_path / "mixed.jsonl").write_bytes(b"\n".join([*lines, b'{"id": "beside", "title": "Mug"}']))
        result = at_broker("publish", "--bulk", "mixed.jsonl")
        assert result.exit_code == 0, result.output
        assert "published 3 events" in result.output
        assert [one.value for one in records("feedback.v1") if one.key == b"fed"] == lines[:1]
        assert [one.value for one in records("visits.v1") if one.key == b"seen"] == lines[1:]
        assert any(one.key == b"beside" for one in records("items-bulk.v1"))

    def test_makes_pseudonyms_of_plain_users_and_refuses_them_otherwise(
        self, at_broker, records, tmp_path, monkeypatch
    ):
        visit = {"kind": "visit", "event_id": "e", "visit_kind": "basket", "items": ["1"], "user": "ann@example.com"}
        line = json.dumps(visit | {"visit_id": "hers", "occurred_at": time.time_ns() // 1_000_000})
        (tmp_path / "visits.jsonl").write_text(line)
        refused = at_broker("publish", "visits.jsonl")
        assert refused.exit_code == 4
        assert "<key id>:<32 hex digits>" in " ".join(refused.output.split())
        monkeypatch.delenv("NEARKIN_SECRETS_DIR", raising=False)
        without_key = at_broker("publish", "--users", "plain", "visits.jsonl")
        assert without_key.exit_code == 2
        assert "NEARKIN_PSEUDONYM_KEY" in without_key.output
        monkeypatch.setenv("NEARKIN_PSEUDONYM_KEY", "k1:" + "0" * 64)
        sent = at_broker("publish", "--users", "plain", "visits.jsonl")
        assert sent.exit_code == 0, sent.output
        (record,) = [one for one in records("visits.v1") if one.key == b"hers"]
        assert json.loads(record.value)["user"].startswith("k1:")
        assert b"ann" not in record.value
        assert "ann" not in refused.output + without_key.output + sent.output

    def test_replays_an_old_log_on_its_own_clock(self, at_broker, records, tmp_path):
        visit = {"kind": "visit", "visit_kind": "basket", "items": ["1"]}
        day = 24 * 3600 * 1000
        times = {"first": START_MS, "later": START_MS + 90 * day, "late": START_MS + 50 * day}
        lines = [
            json.dumps(visit | {"event_id": name, "visit_id": name, "occurred_at": at}) for name, at in times.items()
        ]
        (tmp_path / "log.jsonl").write_text("\n".join(lines))
        assert at_broker("publish", "log.jsonl").exit_code == 4
        result = at_broker("publish", "--clock", "stream", "--on-error", "skip", "log.jsonl")
        assert result.exit_code == 4
        assert "log.jsonl:3: occurred_at: it is older than feedback may be" in " ".join(result.output.split())
        assert "counts only on a stack with NEARKIN_CLOCK=stream" in " ".join(result.output.split())
        assert {one.key for one in records("visits.v1")} >= {b"first", b"later"}
        assert b"late" not in {one.key for one in records("visits.v1")}

    def test_every_refused_line_is_named_on_request(self, at_broker, tmp_path):
        (tmp_path / "items.jsonl").write_bytes(b"broken\n" * 30)
        assert at_broker("publish", "items.jsonl").output.count("refused items.jsonl:") == 20
        assert at_broker("publish", "items.jsonl", "--name-refused", "40").output.count("refused items.jsonl:") == 30

    def test_a_pipe_is_read_once_and_sent(self, at_broker, records, tmp_path):
        before = len(records("items.v1"))
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(ITEMS,))
        writer.start()
        result = at_broker("publish", str(tmp_path / "pipe"))
        writer.join()
        assert result.exit_code == 0, result.output
        assert "published 2 events" in result.output
        assert len(records("items.v1")) == before + 2

    def test_of_what_is_read_once_it_tells_what_was_sent_before_the_refused_line(self, at_broker, records, tmp_path):
        before = len(records("items.v1"))
        os.mkfifo(tmp_path / "pipe")
        lines = ITEMS + b"broken\n" + ITEMS
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(lines,))
        writer.start()
        result = at_broker("publish", str(tmp_path / "pipe"))
        writer.join()
        assert result.exit_code == 4
        assert "pipe:3" in result.output
        assert "published 2 events" in result.output
        assert "what came after it was not read" in result.output
        assert len(records("items.v1")) == before + 2

    def test_of_a_damaged_file_it_tells_what_was_sent_before_the_damage(self, at_broker, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        damaged = gzip.compress(ITEMS)[:-4]
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(damaged,))
        writer.start()
        result = at_broker("publish", str(tmp_path / "pipe"))
        writer.join()
        assert result.exit_code == 2
        assert "damaged" in result.output
        assert "published 2 events before it ended" in result.output

    def test_a_line_that_waits_for_its_turn_is_stamped_when_it_is_sent(self, at_broker, records, tmp_path, monkeypatch):
        slept: list[float] = []
        clock = types.SimpleNamespace(monotonic=lambda: 0.0, sleep=slept.append)
        monkeypatch.setattr("nearkin.cli.publish.time", clock)
        monkeypatch.setattr("nearkin.cli.publish.now_ms", lambda: START_MS + 1000 * len(slept))
        (tmp_path / "paced.jsonl").write_bytes(b'{"id": "paced-0"}\n{"id": "paced-1"}\n{"id": "paced-2"}\n')
        assert at_broker("publish", "--rate", "1", "paced.jsonl").exit_code == 0
        sent = {one.key: json.loads(one.value) for one in records("items.v1") if one.key.startswith(b"paced")}
        stamps = [sent[f"paced-{n}".encode()]["occurred_at"] for n in range(3)]
        assert slept == [1.0, 2.0]
        assert stamps == [START_MS, START_MS + 1000, START_MS + 2000]


def test_delete_publishes_a_deletion_for_each_id(at_broker, records):
    result = at_broker("delete", "a", "b", "--version", "7")
    assert result.exit_code == 0, result.output
    assert "deletion of a published, version 7" in result.output
    sent = [json.loads(record.value) for record in records("items.v1") if record.key in (b"a", b"b")]
    assert {(event["kind"], event["id"], event["version"]) for event in sent} == {
        ("deleted", "a", 7),
        ("deleted", "b", 7),
    }


def test_refusals_of_an_item_are_found_by_its_key_wherever_its_producer_put_it(broker):
    from nearkin.cli.find_refusals import find_refusals

    said = {
        "reason": "too_long",
        "field": "content.title",
        "problem": "it is longer than 1000 characters",
        "remedy": "send a shorter text",
        "origin-topic": "items.v1",
        "origin-partition": "2",
        "origin-offset": "41",
        "failed-at": "1700000000000",
    }
    headers = [(f"nearkin-{name}", value.encode()) for name, value in said.items()]
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for number in range(50):
            producer.send("items.v1.dlq", key=f"item-{number}".encode(), value=b"{}", headers=headers)
        for partition in range(4):
            producer.send("items-bulk.v1.dlq", b"{}", key=b"item-everywhere", headers=headers, partition=partition)
        producer.flush()
    (refusal,) = find_refusals(broker.bootstrap, "item-7")
    assert (refusal.reason, refusal.field, refusal.at_ms) == ("too_long", "content.title", 1_700_000_000_000)
    assert refusal.origin == "items.v1[2] offset 41"
    assert refusal.remedy == "send a shorter text"
    assert len(find_refusals(broker.bootstrap, "item-everywhere")) == 4
    assert find_refusals(broker.bootstrap, "item-x") == []


def test_refusals_of_an_anchors_feedback_and_of_a_visit_are_found_too(broker):
    from nearkin.cli.find_refusals import find_refusals

    with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for topic, key in (("feedback.v1.dlq", b"anchor-7"), ("visits.v1.dlq", b"basket-7")):
            producer.send(topic, b"{}", key=key, headers=[("nearkin-reason", b"too_late")]).get(30)

    assert [one.reason for one in find_refusals(broker.bootstrap, "anchor-7")] == ["too_late"]
    assert [one.reason for one in find_refusals(broker.bootstrap, "basket-7")] == ["too_late"]


def test_help_says_how_a_category_is_written(nearkin):
    said = nearkin("similar", "--help").output
    assert "A > B" in said
    assert "'home > kitchen > mugs'" in said


@pytest.fixture
def stack_whose_parts_are_gone(tmp_path):
    """The folder of a stack that runs and none of whose parts answers: all are being started again."""
    folder = OwnedFolder(tmp_path / ".nearkin", FORMAT)
    folder.open()
    nobody = f"127.0.0.1:{free_port()}"
    write_endpoints(tmp_path / ".nearkin", Endpoints(nobody, nobody, f"http://{nobody}", "", {}, 4))
    yield tmp_path / ".nearkin"
    folder.close()


@pytest.mark.parametrize("command", [["similar", "1"], ["delete", "1"]])
def test_where_the_stack_runs_nobody_is_told_to_start_it(nearkin, stack_whose_parts_are_gone, monkeypatch, command):
    monkeypatch.setattr("nearkin.cli.delete.require_topics.__defaults__", (0.1,))
    result = nearkin(*command)
    assert result.exit_code == 3
    assert "start `nearkin up`" not in result.output
    assert "`nearkin up` runs on .nearkin and may be starting this part again" in result.output


def test_where_the_environment_names_another_service_it_is_not_taken_for_the_stacks(
    nearkin, stack_whose_parts_are_gone, monkeypatch
):
    monkeypatch.setenv("NEARKIN_LOOKUP_ADDRESS", f"127.0.0.1:{free_port()}")
    assert "start `nearkin up`" in nearkin("similar", "1").output


def test_lines_are_not_broken_where_a_program_reads_them(at_broker, tmp_path):
    (tmp_path / "items.jsonl").write_bytes(b'{"id": "1", "a name that is no field of an item": "Green mug"}\n')
    said = at_broker("publish", "items.jsonl").output
    (refused,) = [line for line in said.splitlines() if line.startswith("refused items.jsonl:1")]
    assert "say what kind of event the line is" in refused


@pytest.mark.parametrize("arguments", [["--version"], ["similar", "--help"]])
def test_output_that_nobody_reads_is_no_defect(tmp_path, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as unread:
        done = subprocess.run(
            [sys.executable, "-m", "nearkin.cli", *arguments],
            stdout=unread, stderr=subprocess.PIPE, cwd=tmp_path, check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_table_that_nobody_reads_is_no_defect(tmp_path):
    code = "from nearkin.cli.terminal import terminal\nfor _ in range(2): terminal().print('a row')"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as unread:
        done = subprocess.run([sys.executable, "-c", code], stdout=unread, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_help_keeps_lines_that_belong_together(nearkin):
    assert (
        "\n  4 input was refused or not found, 130 interrupted, 141 nobody reads the output.\n"
        in nearkin("--help").output
    )
    assert '{"id": "1", "title": "Red mug"' in nearkin("publish", "--help").output
