import json

import pytest

from nearkin.core.errors import Misconfigured
from nearkin.learning.run_file import read_run, write_run

RUN = {"b": ["2", "1", "3"], "a": ["1"]}


@pytest.mark.parametrize("name", ["x.run", "x.txt", "x.jsonl"])
def test_what_was_written_is_read_again(tmp_path, name):
    write_run(tmp_path / name, RUN)
    assert read_run(tmp_path / name) == RUN


def test_a_run_stands_in_trecs_form(tmp_path):
    write_run(tmp_path / "x.run", RUN, tag="mine")
    assert (tmp_path / "x.run").read_text() == "b Q0 2 1 3 mine\nb Q0 1 2 2 mine\nb Q0 3 3 1 mine\na Q0 1 1 1 mine\n"


def test_scores_order_items_and_ranks_those_of_equal_scores(tmp_path):
    lines = "q Q0 c 3 0.5 x\nq\tQ0\ta\t9\t1e3\tx\n\nq Q0 b 2 0.5 x\nq Q0 d 4 -inf x\n"
    (tmp_path / "x.run").write_text(lines)
    assert read_run(tmp_path / "x.run") == {"q": ["a", "b", "c", "d"]}


def test_an_id_with_a_blank_needs_json_lines(tmp_path):
    run = {"red mug": ["blue mug", "ä\u00a0ö"]}
    with pytest.raises(Misconfigured, match=r"holds a blank; name the file \*.jsonl"):
        write_run(tmp_path / "x.run", run)
    write_run(tmp_path / "x.jsonl", run)
    assert read_run(tmp_path / "x.jsonl") == run


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("q Q0 a 1 x", "has 5 columns instead of 6"),
        ("q Q0 a 1 nan x", "has a score that is no number"),
        ("q Q0 a first 1 x", "has a rank that is no number"),
    ],
)
def test_a_line_that_is_not_trecs_is_named(tmp_path, line, said):
    (tmp_path / "x.run").write_text(f"q Q0 b 1 2 x\n{line}\n")
    with pytest.raises(Misconfigured, match=rf"x\.run:2: {said}"):
        read_run(tmp_path / "x.run")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "is no JSON object"),
        ("q Q0 a 1 2 x", "is no JSON object"),
        ('{"anchor": 1, "items": ["2"]}', "is no answer"),
        ('{"anchor": "1", "items": [2]}', "is no answer"),
        ('{"anchor": "q", "items": ["2"]}', "for the second time"),
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path, line, said):
    (tmp_path / "x.jsonl").write_text(json.dumps({"anchor": "q", "items": []}) + f"\n{line}\n")
    with pytest.raises(Misconfigured, match=rf"x\.jsonl:2: .*{said}"):
        read_run(tmp_path / "x.jsonl")


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x.run").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Misconfigured, match=r"x\.run: is no UTF-8 text"):
        read_run(tmp_path / "x.run")
    with pytest.raises(Misconfigured, match=r"missing\.run: No such file"):
        read_run(tmp_path / "missing.run")
