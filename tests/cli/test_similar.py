"""What `nearkin similar` asks and shows, against a service whose answers a test gives."""

import json

import pytest
from rich.console import Console

from canned_lookups import canned_lookups, explained_answer
from nearkin.cli.explain import moves
from nearkin.client.lookup import Moved
from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.core.features import FEATURE_NAMES


@pytest.fixture
def canned(monkeypatch):
    """A service with one explained answer, which the command finds by the environment."""
    with canned_lookups(explained_answer()) as lookups:
        monkeypatch.setenv("NEARKIN_LOOKUP_ADDRESS", lookups.address)
        yield lookups


@pytest.fixture
def narrow(nearkin, monkeypatch):
    """Runs the command on a terminal of 80 columns; gives its lines."""
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: nearkin(*arguments).output.splitlines()


def test_its_options_reach_the_service(nearkin, canned):
    arguments = ["--ranking", "content", "--surface", "mail", "--request-id", "r-1", "--no-exploration"]
    result = nearkin("similar", "mug-1", *arguments, "--pin", "a", "--pin", "b", "--popular-if-unknown")
    assert result.exit_code == 0, result.output
    (asked,) = canned.asked
    assert (asked.ranking, asked.surface, asked.request_id) == (wire.RANKING_CONTENT, "mail", "r-1")
    assert list(asked.pinned_ids) == ["a", "b"]
    assert asked.no_exploration
    assert asked.popular_if_unknown


def test_an_explanation_tells_who_named_a_neighbour_and_what_each_feature_adds_the_most_first(nearkin, canned):
    said = nearkin("similar", "mug-1", "--explain").output
    assert "score 1.5000, stands here with probability 0.95" in said
    assert "found by content #2 (0.750), co_visits #1 (0.250)" in said
    assert "found by content #9 (0.500), explored #2 (0.050)" in said
    assert "coec 2 adds +1.0000; fused 0.5 adds +0.5000; adding nothing: price -1" in said
    assert "lexical 0" not in said, "what is 0 is left out"


def test_an_explanation_tells_what_was_moved_where_from_by_what_and_because_of_whom(nearkin, canned):
    rows = [row.split("│")[1:-1] for row in nearkin("similar", "mug-1", "--explain").output.splitlines() if "│" in row]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["mug-4", "blocked_item", "1", "taken out", ""],
        ["mug-5", "near_duplicate", "4", "taken out", "mug-2"],
        ["mug-2", "diversity", "2", "1", ""],
    ]


def test_an_explanation_is_whole_on_a_narrow_terminal(narrow, canned):
    lines = narrow("similar", "mug-1", "--explain")
    assert max(map(len, lines)) <= 80
    said = " ".join(" ".join(lines).split())
    assert "adding nothing: price -1" in said
    assert "…" not in said


def test_two_long_ids_beside_each_other_are_whole_on_a_narrow_terminal(capsys):
    ids = ("first" * 10, "other" * 10)
    Console(width=80).print(moves([Moved(ids[0], "near_duplicate", 2, None, ids[1])]))
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    cells = ["".join(row[place].strip() for row in rows) for place in (0, 4)]
    assert cells == list(ids)


@pytest.mark.parametrize("arguments", [[], ["--explain"]])
def test_it_says_that_scores_are_from_before_pins_diversity_and_the_draw(nearkin, canned, arguments):
    said = nearkin("similar", "mug-1", *arguments).output
    assert "before pins, diversity and the draw, which may have moved items" in said


@pytest.mark.parametrize("arguments", [[], ["--explain"]])
def test_it_says_what_the_answer_rests_on_and_had_to_do_without(nearkin, canned, arguments):
    said = nearkin("similar", "mug-1", *arguments).output
    assert "answered without: popular" in said
    assert "ranked by weights-1; draw: new_item; request r-1" in said


def test_json_holds_all_of_an_explanation(nearkin, canned):
    said = json.loads(nearkin("similar", "mug-1", "--explain", "--json").output, parse_constant=pytest.fail)
    best = said["neighbours"][0]
    assert (best["features"]["coec"], best["contributions"]["coec"]) == (2.0, 1.0)
    assert list(best["features"]) == list(best["contributions"]) == list(FEATURE_NAMES)
    assert best["sources"][1] == {"name": "co_visits", "score": 0.25, "rank": 1}
    assert best["propensity"] == 0.95
    assert said["moved"][1] == {
        "id": "mug-5", "by": "near_duplicate", "rank_before": 4, "rank_after": None, "because_of": "mug-2"
    }  # fmt: skip
    assert (said["request_id"], said["ranking"], said["draw"]) == ("r-1", "weights-1", "new_item")


def test_json_without_an_explanation_is_short(nearkin, canned):
    said = json.loads(nearkin("similar", "mug-1", "--json").output)
    assert set(said["neighbours"][0]) == {"id", "score", "title", "propensity"}
