"""Decisions by hand come from a file that may change, and a broken one changes nothing."""

import asyncio
import os

import pytest
from prometheus_client import CollectorRegistry

from live_lookups import until
from nearkin.core.errors import Misconfigured
from nearkin.core.rules import Curation
from nearkin.lookup import curation
from nearkin.lookup.curation import CurationFile, parse_curation, read_curation
from nearkin.ops.metrics import Metrics

ONE = '{"block": "one"}\n'
TWO = '{"block": "two"}\n'


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "decisions.jsonl"
    path.write_text(ONE)
    return path


def stale(metrics):
    return metrics.registry.get_sample_value("nearkin_curation_stale_ratio")


def in_force(decisions):
    return set(decisions.current().blocked_items)


def look_until_settled(decisions):
    decisions.look()
    decisions.look()


def test_each_line_is_one_decision():
    lines = [
        b'{"block": "a"}',
        b"",
        b'{"block": "b", "beside": "c"}',
        b'{"pin": "p2", "beside": "c"}',
        b'{"pin": "p1", "beside": "c"}',
        b'{"pin": "p2", "beside": "c"}',
    ]
    assert parse_curation(lines, "file") == Curation(
        frozenset({"a"}), {"b": frozenset({"c"}), "c": frozenset({"b"})}, {"c": ("p2", "p1")}
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("block", "is no decision in JSON"),
        ('{"blocked": "a"}', "is no decision in JSON"),
        ('{"block": 7}', "is no decision in JSON"),
        ('{"block": "\\ud800"}', "is no decision in JSON"),
        ("{}", "is no decision;"),
        ('{"pin": "a"}', "is no decision;"),
        ('{"block": "a", "pin": "b", "beside": "c"}', "is no decision;"),
        ('{"block": ""}', "names an id that no item can have"),
        ('{"block": "' + "x" * 257 + '"}', "names an id that no item can have"),
        ('{"block": "a", "beside": "a"}', "pairs an item with itself"),
        ('{"pin": "a", "beside": "a"}', "pairs an item with itself"),
    ],
)
def test_a_line_that_is_no_decision_is_told_with_its_place(tmp_path, line, problem):
    path = tmp_path / "decisions.jsonl"
    path.write_text(ONE + line + "\n")
    with pytest.raises(Misconfigured, match=f"decisions.jsonl:2: {problem}"):
        read_curation(path)


def test_a_file_that_is_not_there_is_refused_at_the_start(tmp_path, metrics):
    with pytest.raises(Misconfigured, match="No such file or directory; name a file that can be read, or none"):
        CurationFile(tmp_path / "missing.jsonl", metrics)


def test_without_a_file_nothing_is_decided(metrics):
    decisions = CurationFile(None, metrics)
    decisions.look()
    assert decisions.current() == Curation()
    assert stale(metrics) == 0


def test_a_new_file_is_in_force_after_two_looks_at_it(file, metrics):
    decisions = CurationFile(file, metrics)
    assert in_force(decisions) == {"one"}
    file.write_text(ONE + TWO)
    decisions.look()
    assert in_force(decisions) == {"one"}
    decisions.look()
    assert in_force(decisions) == {"one", "two"}
    entries = metrics.registry.get_sample_value("nearkin_curation_decisions", {"kind": "blocked_items"})
    assert entries == 2


def test_a_file_that_is_still_being_written_is_not_read(file, metrics):
    decisions = CurationFile(file, metrics)
    with file.open("w") as writing:
        for number in range(10):
            writing.write(f'{{"block": "item-{number}"}}\n')
            writing.flush()
            decisions.look()
            assert in_force(decisions) == {"one"}
    look_until_settled(decisions)
    assert len(in_force(decisions)) == 10


def test_a_last_line_that_may_not_be_whole_leaves_the_old_file_in_force(file, metrics):
    decisions = CurationFile(file, metrics)
    file.write_text(ONE + TWO.strip())
    look_until_settled(decisions)
    assert in_force(decisions) == {"one"}
    assert stale(metrics) == 1


def test_a_broken_file_leaves_the_old_one_in_force_says_so_and_recovers(file, metrics, caplog):
    decisions = CurationFile(file, metrics)
    file.write_text(TWO + "broken\n")
    look_until_settled(decisions)
    assert in_force(decisions) == {"one"}
    assert stale(metrics) == 1
    (told,) = caplog.records
    assert "stay in force" in told.getMessage()
    look_until_settled(decisions)
    assert len(caplog.records) == 1, "it is told once, not at every look"
    file.write_text(TWO)
    look_until_settled(decisions)
    assert in_force(decisions) == {"two"}
    assert stale(metrics) == 0


def test_going_back_to_the_old_content_is_no_longer_stale(file, metrics):
    decisions = CurationFile(file, metrics)
    file.write_text("broken\n")
    look_until_settled(decisions)
    file.write_text(ONE)
    look_until_settled(decisions)
    assert stale(metrics) == 0


def test_a_file_that_goes_away_leaves_its_decisions_in_force(file, metrics):
    decisions = CurationFile(file, metrics)
    file.unlink()
    look_until_settled(decisions)
    assert in_force(decisions) == {"one"}
    assert stale(metrics) == 1
    file.write_text(TWO)
    look_until_settled(decisions)
    assert in_force(decisions) == {"two"}
    assert stale(metrics) == 0


def test_the_same_file_that_comes_back_is_good_again(file, metrics, caplog):
    decisions = CurationFile(file, metrics)
    aside = file.with_suffix(".aside")
    file.rename(aside)
    look_until_settled(decisions)
    assert stale(metrics) == 1
    assert len(caplog.records) == 1
    aside.rename(file)
    look_until_settled(decisions)
    assert stale(metrics) == 0


def test_a_file_of_the_same_size_that_was_renamed_into_place_is_seen(file, metrics):
    decisions = CurationFile(file, metrics)
    stamp = file.stat()
    beside = file.with_suffix(".new")
    beside.write_text(TWO)
    os.utime(beside, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    beside.rename(file)
    look_until_settled(decisions)
    assert in_force(decisions) == {"two"}


async def test_it_is_followed_in_the_background(file, metrics, monkeypatch):
    monkeypatch.setattr(curation, "EVERY_S", 0.01)
    decisions = CurationFile(file, metrics)
    following = asyncio.create_task(decisions.follow())
    try:
        file.write_text("broken\n")
        await until(lambda: stale(metrics) == 1)
        file.write_text(TWO)
        await until(lambda: in_force(decisions) == {"two"})
    finally:
        following.cancel()


def test_a_file_beyond_any_list_made_by_hand_is_refused(file, metrics, monkeypatch):
    monkeypatch.setattr(curation, "MOST_BYTES", 20)
    decisions = CurationFile(file, metrics)
    file.write_text(ONE * 2)
    look_until_settled(decisions)
    assert stale(metrics) == 1
