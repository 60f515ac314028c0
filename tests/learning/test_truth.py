import json

import pytest

from nearkin.core.errors import Misconfigured
from nearkin.learning.truth import read_truth


def test_qrels_are_one_slice_of_the_anchors_for_which_something_is_right(tmp_path):
    (tmp_path / "x.qrels").write_text("1 0 a 2\n1 0 b 0\n1 0 1 1\n2\t0\tc\t-1\n\n3 0 a 0.5\n")
    truth = read_truth(tmp_path / "x.qrels")
    assert truth.positives == {"1": {"a": 2.0}, "3": {"a": 0.5}}
    assert truth.slices == {"all": ["1", "3"]}
    assert not truth.catalogue
    assert not truth.visits


def test_json_lists_what_is_right_or_grades_it(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"1": ["a", "b"], "2": {"c": 3, "d": 0}, "3": []}))
    assert read_truth(tmp_path / "x.json").positives == {"1": {"a": 1.0, "b": 1.0}, "2": {"c": 3.0}}


def write_folder(folder, **files):
    for name, text in {"truth": '{"1": ["a"], "2": ["b"]}', "anchors": '{"warm": ["2"], "cold": []}', **files}.items():
        (folder / f"{name}.{'json' if name in ('truth', 'anchors') else 'jsonl'}").write_text(text)
    return folder


def test_a_folder_names_slices_catalogue_and_past_visits(tmp_path):
    items = '{"id": "a", "text": "red mug"}\n{"id": "b"}\n'
    visits = '{"items": ["a", "b", "a"]}\n{"visit": "7", "items": ["a"]}\n'
    truth = read_truth(write_folder(tmp_path, items=items, train_visits=visits))
    assert truth.slices == {"warm": ["2"]}
    assert truth.catalogue == {"a", "b"}
    assert (truth.visits, truth.popularity) == (2, {"a": 2, "b": 1})


def test_a_folder_need_not_know_more_than_the_truth(tmp_path):
    truth = read_truth(write_folder(tmp_path))
    assert (truth.catalogue, truth.visits) == (frozenset(), 0)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"truth": "[]"}, r"truth\.json: is no JSON object"),
        ({"truth": "1 0 a 1"}, r"truth\.json: is not JSON; qrels go into a file that is not named \.json"),
        ({"truth": '{"1": "a"}'}, r"truth\.json, '1': is no list of ids"),
        ({"truth": '{"1": {"a": "much"}}'}, r"truth\.json, '1': has a grade that is no number"),
        ({"truth": '{"1": {"a": NaN}}'}, r"truth\.json, '1': has a grade that is no number"),
        ({"truth": '{"1": {"a": true}}'}, r"truth\.json, '1': has a grade that is no number"),
        ({"anchors": '["1"]'}, r"anchors\.json: is no JSON object"),
        ({"anchors": '{"warm": ["9", "2"]}'}, r"anchors\.json, 'warm': has 1 anchors without positives, '9' first"),
        ({"anchors": '{"warm": ["2", "2"]}'}, r"anchors\.json, 'warm': names an anchor twice"),
        ({"anchors": '{"warm": []}'}, r"anchors\.json: has no anchor with an item that is right"),
        ({"items": '{"ID": "a"}'}, r"items\.jsonl:1: has no id"),
        ({"train_visits": '\n{"items": "a"}'}, r"train_visits\.jsonl:2: is no list of ids"),
    ],
)
def test_what_is_wrong_in_a_folder_is_named_with_its_file(tmp_path, files, said):
    with pytest.raises(Misconfigured, match=said):
        read_truth(write_folder(tmp_path, **files))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("1 0 a\n", "x.qrels:1: has 3 columns instead of 4"),
        ("1 0 a 1\n1 0 a 0\n", "x.qrels:2: judges an item for the second time"),
        ("1 0 a good\n", "x.qrels:1: has a grade that is no number"),
        ("1 0 a 0\n", "x.qrels: has no anchor with an item that is right"),
    ],
)
def test_what_is_wrong_in_qrels_is_named_with_its_line(tmp_path, lines, said):
    (tmp_path / "x.qrels").write_text(lines)
    with pytest.raises(Misconfigured, match=said):
        read_truth(tmp_path / "x.qrels")


def test_a_folder_without_truth_is_told(tmp_path):
    with pytest.raises(Misconfigured, match=r"truth\.json: No such file"):
        read_truth(tmp_path)
