import json
from datetime import UTC, datetime, timedelta

import pytest

from nearkin.core.errors import Misconfigured
from nearkin.learning.dataset import NO_CURRENCY, ItemLine, make_dataset, read_items
from nearkin.learning.item_to_item import (
    Evaluation,
    TransactionLog,
    Visit,
    read_evaluation,
    split_log,
    write_evaluation,
)
from nearkin.learning.truth import Truth

START = datetime(2011, 9, 1, tzinfo=UTC)
LAST = START + timedelta(days=2)


def evaluation(*visits: Visit) -> Evaluation:
    training = visits or (Visit("1", START, ("a", "b")), Visit("2", LAST, ("b", "c")))
    return Evaluation(training, Truth({"a": {"b": 1.0}}, {"warm": ["a"]}, frozenset("abcd")))


def made(*fields: dict, source: str = "items.jsonl"):
    return make_dataset(evaluation(), [ItemLine(f"{source}:{n}", one) for n, one in enumerate(fields, 1)], source)


def ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def test_an_item_is_published_at_its_first_visit_and_a_cold_one_at_the_last_of_training():
    found = {line.fields["id"]: line.fields for line in made(*({"id": one, "title": one} for one in "acd")).items}
    assert {item: fields["occurred_at"] for item, fields in found.items()} == {
        "a": ms(START),
        "c": ms(LAST),
        "d": ms(LAST),
    }


@pytest.mark.parametrize(
    ("sold", "published"),
    [("2011-08-01", datetime(2011, 8, 1, tzinfo=UTC)), ("2011-12-01", LAST)],
    ids=["before", "after the cut"],
)
def test_a_first_sale_counts_where_it_is_known_and_tells_nothing_of_the_asked_time(sold, published):
    (line,) = made({"id": "a", "text": "Red mug", "first_sold": sold}).items
    assert line.fields["occurred_at"] == ms(published)


def test_the_short_form_becomes_an_item_with_a_price_in_no_currency():
    (line,) = made({"id": "a", "text": " Red   mug", "price": 4.5, "seen": 7}).items
    assert line.fields["title"] == "Red mug"
    assert line.fields["price"] == {"amount": 4.5, "currency": NO_CURRENCY}
    assert set(line.fields) == {"id", "title", "price", "occurred_at"}


def test_a_line_that_can_be_published_stays_as_it_is():
    line = {"id": "a", "title": "Mug", "price": {"amount": 1, "currency": "EUR"}, "occurred_at": 1_300_000_000_000}
    assert made(line).items[0].fields == line


def test_items_without_a_text_are_left_out_and_named_wherever_they_are_known_from():
    found = made({"id": "a", "title": "Mug"}, {"id": "b", "text": " "}, {"id": "c", "price": {"amount": 1}})
    assert [line.fields["id"] for line in found.items] == ["a"]
    assert found.without_text == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([{"id": "a"}, {"id": "b", "text": ""}], "no item has a text"),
        ([{"title": "Mug"}], "has no id"),
        ([{"id": "a", "text": 5}], "of a wrong type"),
        ([{"id": "a", "text": "Mug", "price": "4.50"}], "of a wrong type"),
        ([{"id": "a", "text": "Mug", "first_sold": "yesterday"}], "first_sold"),
        ([{"id": "a", "title": "Mug"}, {"id": "a", "title": "Cup"}], "for the second time"),
    ],
)
def test_items_that_cannot_be_published_are_refused_with_their_place(fields, problem):
    with pytest.raises(Misconfigured, match=rf"items\.jsonl.*{problem}"):
        made(*fields)


def test_without_a_visit_before_the_cut_there_is_nothing_to_learn():
    empty = Evaluation([], Truth({"a": {"b": 1.0}}, {"warm": ["a"]}))
    with pytest.raises(Misconfigured, match="no visit is before the cut"):
        make_dataset(empty, [ItemLine("1", {"id": "a", "title": "Mug"})], "log.csv")


def test_items_are_read_with_their_places(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"id": "a"}\n\n{"id": "b"}\n')
    assert read_items(tmp_path / "items.jsonl") == [
        ItemLine(f"{tmp_path}/items.jsonl:1", {"id": "a"}),
        ItemLine(f"{tmp_path}/items.jsonl:3", {"id": "b"}),
    ]


def test_an_evaluation_that_was_written_is_read_as_it_was(tmp_path):
    visits = ["ba"] * 10 + ["ab", "cd", "ef"] * 3
    lines = [(f"v{day}", item, START + timedelta(days=day)) for day, items in enumerate(visits) for item in items]
    log = TransactionLog.of(*map(list, zip(*lines, strict=True)))
    written = split_log(log, START + timedelta(days=10))
    write_evaluation(tmp_path, written)
    assert read_evaluation(tmp_path) == written


@pytest.mark.parametrize(
    "line",
    [
        {"at": "2011-10-01", "items": ["a"]},
        {"visit": "1", "items": ["a"]},
        {"visit": "1", "at": "now", "items": ["a"]},
        {"visit": "1", "at": "2011-10-01", "items": "ab"},
    ],
)
def test_a_visit_that_is_none_is_refused_with_its_place(tmp_path, line):
    (tmp_path / "train_visits.jsonl").write_text(json.dumps(line))
    with pytest.raises(Misconfigured, match=r"train_visits\.jsonl:1"):
        read_evaluation(tmp_path)
