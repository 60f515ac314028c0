import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from nearkin.core.errors import Unavailable
from nearkin.ops.logs import JsonLines, TextLines, Throttle, configure, describe, fields
from nearkin.ops.settings import Settings

SECRET = "what the event says"


def record(words="dead letter", error=None, **values):
    made = logging.LogRecord("nearkin.test", logging.WARNING, __file__, 1, words, (), None)
    made.__dict__.update(fields(**values))
    if error is not None:
        made.exc_info = (type(error), error, error.__traceback__)
    return made


def raised(error):
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_line_for_a_machine_is_one_json_object():
    line = json.loads(JsonLines("indexer-live").format(record(reason="too_long", offset=12)))

    assert line["message"] == "dead letter"
    assert line["process"] == "indexer-live"
    assert line["level"] == "WARNING"
    assert (line["reason"], line["offset"]) == ("too_long", 12)


def test_a_line_for_a_person_is_one_line():
    line = TextLines("indexer-live").format(record(reason="two\nlines"))

    assert line.endswith(" WARNING indexer-live: dead letter reason=two\\nlines")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", line)


@pytest.mark.parametrize("shape", [JsonLines, TextLines])
def test_the_words_of_an_unknown_exception_are_never_shown(shape):
    line = shape("x").format(record(error=raised(ValueError(SECRET))))

    assert SECRET not in line
    assert "ValueError" in line
    assert "test_logs.py" in line


def test_an_error_of_our_own_is_shown_whole():
    assert describe(Unavailable("index", "timed out")) == "the index is unavailable: timed out"


def test_what_the_system_says_is_shown_without_names():
    error = raised(FileNotFoundError(2, "No such file or directory", SECRET))

    assert "No such file or directory" in describe(error)
    assert SECRET not in describe(error)


def test_a_flood_is_cut_and_the_next_line_says_how_many_were_left_out():
    throttle = Throttle(most=2, period_s=10)
    lines = [record() for _ in range(5)]
    for line in lines:
        line.created = 100.0
    later = record()
    later.created = 111.0

    assert [throttle.filter(line) for line in lines] == [True, True, False, False, False]
    assert throttle.filter(later)
    assert json.loads(JsonLines("x").format(later))["left_out"] == 3


def test_a_flood_before_the_clock_was_set_back_hides_nothing_afterwards():
    throttle = Throttle(most=1, period_s=10)
    flood = [record(), record(), record()]
    for line, created in zip(flood, (5_000.0, 5_000.0, 1_000.0), strict=True):
        line.created = created

    assert [throttle.filter(line) for line in flood] == [True, False, True]


def test_lines_that_differ_in_numbers_alone_are_one_flood():
    throttle = Throttle(most=1, period_s=10)

    assert throttle.filter(record("cannot reach 10.0.0.1:9092 <Client at 0x7f00aa>"))
    assert not throttle.filter(record("cannot reach 10.0.0.2:9093 <Client at 0x7f00bb>"))


def test_other_lines_pass_while_one_floods():
    throttle = Throttle(most=1, period_s=10)

    assert throttle.filter(record("one"))
    assert not throttle.filter(record("one"))
    assert throttle.filter(record("other"))


def test_one_reason_does_not_hide_another():
    throttle = Throttle(most=1, period_s=10)

    assert throttle.filter(record(reason="too_long", offset=1))
    assert not throttle.filter(record(reason="too_long", offset=2))
    assert throttle.filter(record(reason="not_json", offset=3))


@pytest.fixture
def written(monkeypatch, capsys) -> Iterator[Callable[[], list[str]]]:
    """Tells what a process wrote whose log is configured now; its loggers are put back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("nearkin")
    levels = root.level, ours.level
    monkeypatch.setattr(root, "handlers", [])

    def read() -> list[str]:
        return capsys.readouterr().err.splitlines()

    yield read
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_libraries_are_quiet_and_we_are_not(written, level):
    configure(Settings(log_format="json", log_level=level), "test")

    assert not logging.getLogger("aiokafka.consumer").isEnabledFor(logging.INFO)
    assert not logging.getLogger("hpack").isEnabledFor(logging.DEBUG)
    assert logging.getLogger("nearkin.ops").isEnabledFor(logging.INFO)
    assert logging.getLogger("nearkin.ops").isEnabledFor(logging.DEBUG) is (level == "DEBUG")


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_a_flood_of_refusals_writes_a_few_lines_of_each_reason_whatever_is_told_besides(written, level):
    configure(Settings(log_format="json", log_level=level), "test")
    log = logging.getLogger("nearkin.test")

    for number in range(3_000):
        log.warning("dead letter", extra=fields(reason=f"reason-{'abc'[number % 3]}", event_id=f"e-{number}"))

    told = [json.loads(line) for line in written()]
    assert Counter(line["reason"] for line in told) == {f"reason-{each}": 10 for each in "abc"}
    assert told[0]["event_id"] == "e-0"


def test_who_asks_for_details_has_each_of_them_up_to_what_a_process_can_write_beside_its_work(written):
    configure(Settings(log_format="json", log_level="DEBUG"), "test")
    log = logging.getLogger("nearkin.test")

    for number in range(6_000):
        log.debug("event applied", extra=fields(event_id=f"e-{number}"))

    assert len(written()) == 5_000
