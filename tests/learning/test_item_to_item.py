import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.errors import Misconfigured
from nearkin.learning import item_to_item
from nearkin.learning.item_to_item import TransactionLog, find_positives, read_log, split_log, write_evaluation
from nearkin.learning.truth import read_truth

CUT = datetime(2011, 10, 1, tzinfo=UTC)


def log_of(visits, start=CUT, step=timedelta(minutes=1)):
    lines = [(str(n), item, start + n * step) for n, visit in enumerate(visits) for item in visit]
    return TransactionLog.of(*([line[column] for line in lines] for column in range(3)))


def named(log):
    return {log.items[one]: [log.items[other] for other in found] for one, found in find_positives(log).items()}


def test_items_are_right_for_each_other_where_they_come_together_often_and_not_by_chance():
    # a and b: 3 of 12 visits together, 3 each, lift 4; e and f: 2 together alone.
    visits = [("a", "b")] * 3 + [("c", "d")] * 3 + [("e", "f")] * 2 + [("c", "d", "g")] * 3 + [("e", "h")]
    assert named(log_of(visits)) == {"a": ["b"], "b": ["a"]}


def test_lift_reaches_the_bound_by_being_equal_to_it():
    visits = [("a", "b")] * 3 + [("c", "d")] * 6
    assert "a" in named(log_of(visits))
    assert "c" not in named(log_of(visits))


def test_a_visit_of_one_item_or_of_very_many_counts_nowhere():
    many = tuple(f"m{n:02}" for n in range(51))
    pairs = [("a", "b")] * 3 + [("c", "d")] * 6
    assert named(log_of(pairs + [many] * 3 + [("z",)] * 90)) == named(log_of(pairs))
    assert len(named(log_of(pairs * 9 + [many[:50]] * 3))["m00"]) == 49


visits = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), max_size=60)


@given(visits, st.integers(1, 40))
def test_positives_are_those_of_the_definition_whatever_is_counted_at_once(visits, at_once):
    counted = [set(visit) for visit in visits if len(set(visit)) >= 2]
    held = Counter(item for visit in counted for item in visit)
    together = Counter(pair for visit in counted for pair in combinations(sorted(visit), 2))
    expected = {}
    for (one, other), count in together.items():
        if count >= 3 and count * len(counted) / (held[one] * held[other]) >= 3:
            expected.setdefault(one, set()).add(other)
            expected.setdefault(other, set()).add(one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_to_item, "_PAIRS_AT_ONCE", at_once)
        assert {one: set(found) for one, found in named(log_of(visits)).items()} == expected


def log_around_the_cut():
    before = log_of([("a", "b")] * 9 + [("a", "f"), ("b", "f")] + [("e",)] * 9, CUT - timedelta(days=1))
    after = log_of([("a", "b")] * 3 + [("c", "d")] * 3 + [("e", "f")] * 3 + [("x", "y")], CUT)
    lines = [
        (log.visits[visit] + suffix, log.items[item], datetime.fromtimestamp(time / 1e6, UTC))
        for log, suffix in ((before, "-"), (after, "+"))
        for visit, item, time in zip(log.visit, log.item, log.time, strict=True)
    ]
    return TransactionLog.of(*([line[column] for line in lines] for column in range(3)))


def test_anchors_are_warm_where_they_were_bought_ten_times_before_and_cold_where_never():
    evaluation = split_log(log_around_the_cut(), CUT)
    assert evaluation.truth.slices == {"warm": ["a", "b"], "cold": ["c", "d"]}
    assert evaluation.truth.positives["e"] == {"f": 1.0}
    assert evaluation.truth.popularity == {"a": 10, "b": 10, "e": 9, "f": 2}
    assert evaluation.truth.visits == len(evaluation.training) == 20
    assert evaluation.truth.catalogue == set("abcdefxy")
    assert evaluation.training[0].items == ("a", "b")
    assert all(visit.at < CUT for visit in evaluation.training)


def test_what_comes_after_the_end_is_as_if_it_were_not_there():
    with pytest.raises(Misconfigured, match="cut: no item that is warm or cold"):
        split_log(log_around_the_cut(), CUT, CUT + timedelta(minutes=2))
    truth = split_log(log_around_the_cut(), CUT, CUT + timedelta(minutes=9)).truth
    assert not {"x", "y"} & truth.catalogue


def test_of_many_anchors_some_are_drawn_the_same_every_time(monkeypatch):
    monkeypatch.setattr(item_to_item, "SAMPLE", 4)
    log = log_of([(f"{n:02}a", f"{n:02}b") for n in range(9) for _ in range(3)])
    cold = split_log(log, CUT).truth.slices["cold"]
    assert cold == split_log(log, CUT).truth.slices["cold"] == sorted(cold)
    assert len(cold) == 4


def test_an_evaluation_is_read_from_its_folder_as_it_was_split(tmp_path):
    evaluation = split_log(log_around_the_cut(), CUT)
    write_evaluation(tmp_path / "new" / "folder", evaluation)
    assert read_truth(tmp_path / "new" / "folder") == evaluation.truth
    first = json.loads((tmp_path / "new/folder/train_visits.jsonl").read_text().splitlines()[0])
    assert first == {"visit": "0-", "at": "2011-09-30T00:00:00+00:00", "items": ["a", "b"]}


def test_a_log_is_read_whatever_else_stands_in_it(tmp_path):
    (tmp_path / "log.csv").write_text(
        'time,price,visit,item\n2011-10-01,1,v2,"a, b"\n2011-10-01T02:00:00+02:00,2,v1,c\n2011-09-30 23:59:59.5,,v1,c\n'
    )
    log = read_log(tmp_path / "log.csv")
    assert (log.items, log.visits) == (["a, b", "c"], ["v1", "v2"])
    assert log.visit.tolist() == [1, 0, 0]
    assert (log.time - log.time[0]).tolist() == [0, 0, -500_000]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("visit,item\n1,a\n", "log.csv: has no column time"),
        ("", "log.csv: has no column visit, item, time"),
        ("visit,item,time\n1,,2011-10-01\n", "log.csv:2: lacks the visit or the item"),
        ("visit,item,time\n1,a,2011-10-01\n1\n", "log.csv:3: lacks the visit or the item"),
        ("visit,item,time\n1,a,yesterday\n", "log.csv:2: has a time that is not ISO 8601"),
        ("visit,item,time\n1,a\n", "log.csv:2: has a time that is not ISO 8601"),
        (b"visit,item,time\n\xff", "log.csv: is no CSV file in UTF-8"),
    ],
)
def test_what_is_no_log_is_named(tmp_path, text, said):
    (tmp_path / "log.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Misconfigured, match=said):
        read_log(tmp_path / "log.csv")


def test_a_log_of_nothing_has_nothing_to_ask(tmp_path):
    (tmp_path / "log.csv").write_text("visit,item,time\n")
    with pytest.raises(Misconfigured, match="no item that is warm or cold"):
        split_log(read_log(tmp_path / "log.csv"), CUT)
