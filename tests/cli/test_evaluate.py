"""`nearkin evaluate`, on a made shop: what is bought together there has nothing to do with what looks alike."""

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.test_stack import ENVIRONMENT, NEARKIN, start_up, stop
from cli.test_stack import nearkin as run_nearkin

COLOURS = ["red", "blue", "green", "black", "white", "pink"]
#: Mugs look like mugs and saucers like saucers, and each colour is bought together.
PAIRS = [(f"mug-{colour}", f"saucer-{colour}") for colour in COLOURS]
#: Comes after the cut, and is bought with a mug, whose name it has.
NEW = ("mug-new", "mug-red")


def visits() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Visits as (id, time, items): ten of each pair before the cut, three after it."""
    for month, times in (("2011-09", 10), ("2011-10", 3)):
        for number in range(times):
            for pair in [*PAIRS, *([NEW] if month == "2011-10" else [])]:
                yield f"{month}-{number}-{pair[0]}", f"{month}-{number + 1:02d}T12:00:00", pair


@pytest.fixture
def shop(tmp_path) -> Path:
    """A folder with a log, and with what its items are."""
    with (tmp_path / "log.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["visit", "item", "time"])
        lines.writerows((visit, item, time) for visit, time, items in visits() for item in items)
    items = {item for pair in [*PAIRS, NEW] for item in pair}
    described = [{"id": item, "title": item.replace("-", " ")} for item in sorted(items)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in described))
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_evaluation_goes_through_the_pipeline_and_its_runs_score_as_it_says(shop):
    run_nearkin(shop, "split", "log.csv", "split", "--cut", "2011-10-01")
    evaluated = json.loads(
        run_nearkin(shop, "evaluate", "split", "--items", "items.jsonl", "-k", "3", "--json", "--out", "runs").stdout
    )
    assert (evaluated["items"], evaluated["visits"]) == (13, 60)
    assert json.loads((shop / "runs" / "scores.json").read_text()) == evaluated
    assert set(evaluated["seconds"]) == {"items", "visits", "look-ups"}
    assert set(evaluated["scores"]) == {"content", "evidence", "combined"}

    def mean(ranking: str, slice: str, metric: str) -> float:  # noqa: A002
        (found,) = [one for one in evaluated["scores"][ranking] if (one["slice"], one["metric"]) == (slice, metric)]
        return found["value"]["mean"]

    assert mean("evidence", "warm", "MRR@3") == 1.0
    assert mean("content", "warm", "Recall@3") < 1.0
    assert mean("evidence", "cold", "Recall@3") == 0.0
    assert mean("combined", "cold", "Recall@3") == mean("content", "cold", "Recall@3") > 0.0
    again = run_nearkin(
        shop, "score", "runs/combined.jsonl", "--truth", "split", "--against", "runs/content.jsonl", "-k", "3", "--json"
    )
    assert json.loads(again.stdout) == evaluated["scores"]["combined"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_running_stack_is_used_on_request_and_must_have_the_logs_own_clock(shop):
    arguments = ["evaluate", "log.csv", "--cut", "2011-10-01", "--items", "items.jsonl", "--running"]
    up = start_up(shop)
    try:
        refused = run_nearkin(shop, *arguments, check=2)
        assert "NEARKIN_CLOCK: the feedback worker refused the visits" in refused.stderr
    finally:
        assert stop(up) == 0
    up = start_up(shop, NEARKIN_CLOCK="stream")
    try:
        said = run_nearkin(shop, *arguments, "--ranking", "evidence").stdout
        assert "gain over content" in said
        assert "combined" not in said
        assert "13 items, 60 visits before the cut" in said
    finally:
        assert stop(up) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["log.csv"], "--cut, and --items"),
        (["log.csv", "--cut", "2011-10-01"], "--cut, and --items"),
        ([".", "--cut", "2011-10-01"], "split already"),
        (["online-retail", "--items", "items.jsonl"], "leave out --items"),
        (["log.csv", "--data", "."], "--running"),
        (["nowhere.csv", "--cut", "2011-10-01", "--items", "items.jsonl"], "nowhere.csv"),
        (["log.csv", "--cut", "2011-10-01", "--items", "bad.jsonl"], "bad.jsonl:1: offer.price.amount"),
        (["log.csv", "--cut", "2011-10-01", "--items", "empty.jsonl"], "no item has a text"),
        (["log.csv", "--cut", "2010-10-01", "--items", "items.jsonl"], "no visit is before the cut"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_starts(nearkin, shop, monkeypatch, arguments, said):
    monkeypatch.setenv("NEARKIN_REDIS_TIMEOUT_S", "never")  # with which nothing starts, and this would be said instead
    (shop / "bad.jsonl").write_text('{"id": "mug-red", "title": "Red mug", "price": {"amount": -1, "currency": "EUR"}}')
    (shop / "empty.jsonl").write_text('{"id": "mug-red"}')
    result = nearkin("evaluate", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_items_without_a_text_are_named_before_anything_starts(shop):
    items = (shop / "items.jsonl").read_text().splitlines()
    (shop / "items.jsonl").write_text("\n".join(items[1:]))
    # A folder for temporary files that is none ends it where its stack would start.
    done = subprocess.run(
        [*NEARKIN, "evaluate", "log.csv", "--cut", "2011-10-01", "--items", "items.jsonl"],
        cwd=shop, env=ENVIRONMENT | {"NEARKIN_REDIS_TIMEOUT_S": "never"}, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "1 items have no text, mug-black first" in done.stderr
