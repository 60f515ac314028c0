"""`nearkin replay` finds a logged answer and tells why it was given, or why it may not be there."""

import json
import time

import numpy as np
import pytest
from kafka import KafkaProducer

from nearkin.contracts.lookups import encode_answered
from nearkin.contracts.topics import LOOKUPS
from nearkin.contracts.weights import encode_weights
from nearkin.core.answer import LoggedAnswer, Placed
from nearkin.core.candidates import CandidateSource, Source
from nearkin.core.exploration import Policy
from nearkin.core.features import FEATURE_NAMES, FEATURE_VERSION
from nearkin.core.ranking import DEFAULT_WEIGHTS, RankingWeights, contributions
from nearkin.core.retrieval import Ranking
from nearkin.core.rules import Moved, Rule
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.programs import free_port
from nearkin.ops.topics import apply_topics

#: Two features that weigh something, and 0.5 of each.
WEIGHED = sorted((name for name, weight in DEFAULT_WEIGHTS.features.items() if weight > 0), reverse=True)[:2]
FEATURES = tuple(float(name in WEIGHED) / 2 for name in FEATURE_NAMES)
ADDED = {name: DEFAULT_WEIGHTS.features[name] / 2 for name in WEIGHED}
SCORE = sum(ADDED.values())
NOW = time.time_ns() // 1_000_000


def answer(request_id, **changes):
    known = {
        "at_ms": NOW,
        "anchor": "mug-1",
        "k": 2,
        "ranking": "combined",
        "positions": (
            Placed(
                *("mug-2", 1, SCORE, 0.98),
                sources=(Source(CandidateSource.CONTENT, 0.83, 1), Source(CandidateSource.CO_VISITS, 0.3, 4)),
                features=FEATURES,
            ),
            Placed(
                *("tea-3", 2, SCORE, 0.02),
                explored=True,
                sources=(Source(CandidateSource.EXPLORED, 0.02, 2),),
                features=FEATURES,
            ),
        ),
        "weights": DEFAULT_WEIGHTS.id,
        "feature_names": FEATURE_NAMES,
        "features_version": FEATURE_VERSION,
        "collection": "items-1",
        "bundle": "fake-1",
        "surface": "product-page",
        "moved": (Moved("mug-9", Rule.NEAR_DUPLICATE, 2, None, "mug-2"), Moved("tea-3", Rule.DIVERSITY, 5, 3)),
        "policy": Policy.SHUFFLED,
    }
    return LoggedAnswer(request_id, **{**known, **changes})


def write(bootstrap, *answers):
    """Log answers as a look-up server does; bytes as they are."""
    with KafkaProducer(bootstrap_servers=bootstrap) as producer:
        for one in answers:
            key, value, at_ms = (b"mug-1", one, NOW) if isinstance(one, bytes) else (*encode_answered(one), one.at_ms)
            producer.send(LOOKUPS.name, key=key, value=value, timestamp_ms=at_ms).get(timeout=30)


@pytest.fixture
def log(broker):
    return lambda *answers: write(broker.bootstrap, *answers)


def test_it_tells_who_named_an_item_what_it_was_ranked_by_and_what_was_moved_and_drawn(at_broker, log):
    log(answer("r-shown"))
    result = at_broker("replay", "r-shown")
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    for part in (
        "request 'r-shown': 2 neighbours of item 'mug-1', surface 'product-page'",
        f"1 mug-2 score {SCORE:.4f}, stands here with probability 0.98",
        "found by content #1 (0.830), co_visits #4 (0.300)",
        *(f"{name} 0.5 adds {adds:+.4f}" for name, adds in ADDED.items()),
        f"2 tea-3 score {SCORE:.4f}, stands here with probability 0.02",
        "found by explored #2 (0.020)",
        "mug-9 │ near_duplicate │ 2 │ taken out │ mug-2",
        "tea-3 │ diversity │ 5 │ 3",
        f"ranking combined with weights {DEFAULT_WEIGHTS.id}, features version {FEATURE_VERSION}; draw: shuffled",
        "collection items-1, bundle fake-1",
        "such an answer is logged with probability 1",
    ):
        assert part in shown


def test_json_has_the_whole_of_it(at_broker, log):
    told = answer("r-json", priors_version="p-3", degraded=("popular",), log_rate=0.5)
    log(told)
    said = json.loads(at_broker("replay", "r-json", "--json").output)
    assert (said["request_id"], said["priors_version"], said["degraded"]) == ("r-json", "p-3", ["popular"])
    assert (said["policy"], said["log_rate"], said["anchor"]) == ("shuffled", 0.5, "mug-1")
    first = said["positions"][0]
    assert first["features"] == dict(zip(FEATURE_NAMES, FEATURES, strict=True))
    assert {name: adds for name, adds in first["contributions"].items() if adds} == ADDED
    assert first["sources"][1] == {"name": "co_visits", "score": 0.3, "rank": 4}
    assert said["moved"][0]["because_of"] == "mug-2"


def test_with_the_anchor_only_its_partition_is_read(at_broker, log, broker):
    log(answer("r-one"), *(answer(f"r-other-{number}", anchor=f"cup-{number}") for number in range(40)))
    said = json.loads(at_broker("replay", "r-one", "--anchor", "mug-1", "--json").output)
    assert said["anchor"] == "mug-1"
    refused = at_broker("replay", "r-other-1", "--anchor", "mug-1")
    assert refused.exit_code == 4
    assert "the look-up of another anchor" in refused.output
    assert json.loads(at_broker("replay", "r-other-1", "--anchor", "cup-1", "--json").output)["anchor"] == "cup-1"


def test_an_answer_to_a_content_is_found_and_has_no_anchor(at_broker, log):
    log(answer("r-content", anchor=None, weights="", feature_names=(), features_version=0, ranking="dense",
               positions=(Placed("mug-2", 1, 0.9),)))  # fmt: skip
    result = at_broker("replay", "r-content")
    assert "neighbours of a content, which is not logged" in result.output
    assert "ranking dense; draw: shuffled" in result.output


@pytest.mark.parametrize("request_id", ['r-"quoted"', "r-\\back\\", "r-Ünï/cødé ☕", "r- '"])
def test_a_request_id_of_any_characters_is_found(at_broker, log, request_id):
    log(answer(request_id))
    assert json.loads(at_broker("replay", request_id, "--json").output)["request_id"] == request_id


def test_an_id_that_stands_elsewhere_in_a_record_is_not_taken_for_it(at_broker, log):
    log(answer("r-bears", weights="r-worn"))
    assert at_broker("replay", "r-worn").exit_code == 4


def test_the_answer_that_was_logged_first_counts(at_broker, log):
    log(answer("r-twice", k=7), answer("r-twice", k=8))
    assert json.loads(at_broker("replay", "r-twice", "--json").output)["k"] == 7


def test_of_several_answers_under_one_request_id_the_first_is_shown_and_the_others_are_named(at_broker, log):
    others = [answer("r-shared", anchor=f"cup-{n}", at_ms=NOW + n) for n in range(1, 8)]
    mail, content = answer("r-shared", at_ms=NOW + 8, surface="mail"), answer("r-shared", at_ms=NOW + 9, anchor=None)
    log(*others, answer("r-shared"), mail, content)
    said = " ".join(at_broker("replay", "r-shared").output.split())
    assert "neighbours of item 'mug-1', surface 'product-page'" in said
    assert "10 answers have this request id, and this one was given first" in said
    assert "--anchor shows that of another item: 'cup-1', 'cup-2', 'cup-3', 'cup-4', 'cup-5' and 2 more" in said
    told = json.loads(at_broker("replay", "r-shared", "--json").output)["others"]
    assert len(told) == 9
    assert {"anchor": "mug-1", "surface": "mail", "ranking": "combined"}.items() <= told[7].items()
    assert [one["anchor"] for one in told] == [*(f"cup-{n}" for n in range(1, 8)), "mug-1", None]


def test_of_very_many_answers_under_one_request_id_a_part_is_named_and_the_others_are_counted(
    at_broker, log, monkeypatch
):
    monkeypatch.setattr("nearkin.cli.find_answer.MOST_OTHERS", 3)
    log(*(answer("r-many", anchor=f"cup-{n}", at_ms=NOW + n) for n in range(1, 8)), answer("r-many"))
    told = json.loads(at_broker("replay", "r-many", "--json").output)
    assert (told["anchor"], len(told["others"]), told["others_not_named"]) == ("mug-1", 3, 4)
    assert {one["anchor"] for one in told["others"]} < {f"cup-{n}" for n in range(1, 8)}
    said = " ".join(at_broker("replay", "r-many").output.split())
    assert "8 answers have this request id, and this one was given first; --json names 3 of the others" in said


def test_the_anchor_chooses_among_the_answers_under_one_request_id(at_broker, log):
    log(answer("r-two"), answer("r-two", anchor="cup-1"))
    for anchor in ("mug-1", "cup-1"):
        said = at_broker("replay", "r-two", "--anchor", anchor).output
        assert f"neighbours of item '{anchor}'" in said
        assert "answers have this request id" not in said


def test_a_look_up_that_was_logged_twice_is_one_answer(at_broker, log):
    log(answer("r-again"), answer("r-again"))
    assert "answers have this request id" not in at_broker("replay", "r-again").output
    assert json.loads(at_broker("replay", "r-again", "--json").output)["others"] == []


def test_weights_that_are_not_known_here_leave_the_features(at_broker, log):
    log(answer("r-fitted", weights="fitted-77"))
    result = at_broker("replay", "r-fitted")
    assert f"{WEIGHED[0]} 0.5" in result.output
    assert "adds" not in result.output
    assert "What each feature added is not told" in result.output


@pytest.fixture
def weights_file(tmp_path, monkeypatch):
    """Twice the shipped weights, in the file that the environment names."""
    path = tmp_path / "weights.json"
    monkeypatch.setenv("NEARKIN_RANKING_WEIGHTS", str(path))

    def write_weights(weights_id):
        twice = {name: 2 * weight for name, weight in DEFAULT_WEIGHTS.features.items()}
        path.write_bytes(encode_weights(RankingWeights(weights_id, twice)))

    return write_weights


def scored(request_id, weights_id, score):
    return answer(request_id, weights=weights_id, positions=(Placed("mug-2", 1, score, features=FEATURES),))


@pytest.mark.parametrize("ranking", Ranking)
def test_weights_of_the_file_that_the_settings_name_are_known(at_broker, log, weights_file, ranking):
    weights_file("mine")
    weights = RankingWeights("mine", {name: 2 * weight for name, weight in DEFAULT_WEIGHTS.features.items()})
    adds = contributions(np.array(FEATURES), weights.only(ranking))
    log(scored(f"r-mine-{ranking}", weights.only(ranking).id, float(adds.sum())))
    (shown,) = json.loads(at_broker("replay", f"r-mine-{ranking}", "--json").output)["positions"]
    assert list(shown["contributions"].values()) == adds.tolist()


def test_of_weights_with_the_same_id_those_are_believed_that_give_the_logged_score(at_broker, log, weights_file):
    weights_file(DEFAULT_WEIGHTS.id)
    log(*(scored(f"r-times-{times}", DEFAULT_WEIGHTS.id, times * SCORE) for times in (1, 2, 3)))
    told = [json.loads(at_broker("replay", f"r-times-{times}", "--json").output) for times in (1, 2, 3)]
    added = [sum(one["positions"][0]["contributions"].values()) for one in told]
    assert added == pytest.approx([SCORE, 2 * SCORE, 0])


def test_a_file_of_weights_that_cannot_be_used_is_refused(at_broker, log, monkeypatch):
    log(answer("r-no-file"))
    monkeypatch.setenv("NEARKIN_RANKING_WEIGHTS", "nowhere.json")
    result = at_broker("replay", "r-no-file")
    assert result.exit_code == 2
    assert "nowhere.json" in result.output


def test_features_of_another_version_are_shown_without_what_they_added(at_broker, log):
    log(answer("r-later", features_version=FEATURE_VERSION + 1))
    assert "adds" not in at_broker("replay", "r-later").output


def test_what_cannot_be_read_is_passed_over(at_broker, log):
    log(b'{"request_id":"r-behind"', answer("r-behind"))
    assert at_broker("replay", "r-behind").exit_code == 0


def test_an_answer_without_neighbours_says_so(at_broker, log):
    log(answer("r-empty", positions=(), moved=()))
    assert "nothing was found" in at_broker("replay", "r-empty").output


def test_what_is_not_there_exits_with_4_and_tells_why_that_may_be(at_broker, log, monkeypatch):
    log(answer("r-there"))
    monkeypatch.setenv("NEARKIN_LOOKUP_LOG_RATE", "0")
    result = at_broker("replay", "r-not-there")
    assert result.exit_code == 4
    assert "no answer to request 'r-not-there' is among the" in result.output
    for reason in ("give a longer --since", "it was not sampled", "nearkin_lookups_unlogged_total"):
        assert reason in result.output
    assert "another anchor" not in result.output


def test_an_answer_that_is_older_than_asked_for_is_not_looked_at(nearkin, monkeypatch):
    with EmbeddedBroker() as fresh:
        apply_topics(fresh.bootstrap, 4, 1)
        monkeypatch.setenv("NEARKIN_KAFKA_BOOTSTRAP", fresh.bootstrap)
        write(fresh.bootstrap, answer("r-old", at_ms=NOW - 7_200_000), answer("r-new"))
        assert nearkin("replay", "r-old", "--since", "3h").exit_code == 0
        assert nearkin("replay", "r-new", "--since", "1h").exit_code == 0
        refused = nearkin("replay", "r-old", "--since", "1h")
    assert refused.exit_code == 4
    assert "is among the 1 answers since" in refused.output


def test_beyond_the_retention_the_message_says_so(at_broker):
    assert "older than the 14 days" in at_broker("replay", "r-ancient", "--since", "30d").output


@pytest.mark.parametrize("age", ["1", "h", "1w", "-1h", "1.5h", ""])
def test_an_age_that_is_none_is_refused_with_how_to_write_it(nearkin, age):
    result = nearkin("replay", "r", "--since", age)
    assert result.exit_code == 2
    assert "write it as 90s, 30m, 12h or 2d" in result.output


def test_without_a_broker_it_says_so(nearkin, monkeypatch):
    monkeypatch.setenv("NEARKIN_KAFKA_BOOTSTRAP", f"127.0.0.1:{free_port()}")
    result = nearkin("replay", "r")
    assert result.exit_code == 3
    assert "the broker is unavailable" in result.output


def test_without_the_topic_it_says_how_to_make_it(nearkin, monkeypatch):
    with EmbeddedBroker() as empty:
        monkeypatch.setenv("NEARKIN_KAFKA_BOOTSTRAP", empty.bootstrap)
        result = nearkin("replay", "r")
    assert result.exit_code == 2
    assert "lookups.v1: the broker has no such topic; run `nearkin topics apply`" in result.output
