"""Logged answers are written and read by the same rules, and every field of one arrives."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.contracts import limits
from nearkin.contracts.lookups import decode_answered, encode_answered, read_answered
from nearkin.contracts.wire import REMEDIES
from nearkin.core.answer import LoggedAnswer, Placed
from nearkin.core.candidates import CandidateSource, Source
from nearkin.core.errors import InvalidEvent
from nearkin.core.exploration import Policy
from nearkin.core.rules import Moved, Rule

EXAMPLES = Path(__file__).parents[2] / "schemas" / "events" / "examples" / "lookups"
VALID = sorted((EXAMPLES / "valid").glob("*.json"))
INVALID = sorted((EXAMPLES / "invalid").glob("*.json"))
NOW = 1_760_000_000_000


def answer(*positions: Any, **changes: Any) -> LoggedAnswer:
    known: dict[str, Any] = {"request_id": "r", "at_ms": NOW, "anchor": "a", "k": 10, "ranking": "combined"}
    return LoggedAnswer(**{**known, "positions": positions, **changes})


class TestExamples:
    @pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
    def test_a_valid_one_is_taken(self, path: Path) -> None:
        written = json.loads(path.read_text())
        key = written["anchor"].encode() if "anchor" in written else None
        told = decode_answered(key, path.read_bytes())
        assert (told.request_id, told.at_ms, len(told.positions)) == (
            written["request_id"],
            written["occurred_at"],
            len(written["positions"]),
        )

    @pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
    def test_an_invalid_one_is_refused_for_its_reason(self, path: Path) -> None:
        example = json.loads(path.read_text())
        value = example["text"] if "text" in example else json.dumps(example["event"])
        with pytest.raises(InvalidEvent) as refusal:
            decode_answered(
                None if example["key"] is None else example["key"].encode(),
                None if value == "null" else value.encode(),
            )
        error = refusal.value
        assert (error.reason, error.field) == (example["reason"], example["field"])
        assert error.remedy == REMEDIES[error.reason]

    def test_every_policy_has_one(self) -> None:
        assert {json.loads(path.read_text())["policy"] for path in VALID} == set(Policy)

    def test_every_field_arrives(self) -> None:
        assert read_answered((EXAMPLES / "valid" / "answered.json").read_bytes()) == LoggedAnswer(
            request_id="6f1e0c5b7a4d4d0e",
            at_ms=NOW,
            anchor="mug-1",
            k=3,
            ranking="combined",
            positions=(
                Placed(
                    *("mug-2", 1, 1.62, 0.98, False),
                    (Source(CandidateSource.CONTENT, 0.83, 1), Source(CandidateSource.CO_VISITS, 0.31, 2)),
                    (0.97, 0.83, 0.12, 0.31),
                ),
                Placed(
                    *("tea-3", 2, 0.71, 0.0215, True),
                    (Source(CandidateSource.PAIRS, 4.5, 1),),
                    (0.0, 0.22, 0.4, 0.05),
                ),
                Placed(
                    *("cup-8", 3, 0.9, 0.02, True), (Source(CandidateSource.LEXICAL, 7.1, 4),), (0.6, 0.4, 0.0, 0.0)
                ),
            ),
            weights="default-1",
            feature_names=("fused", "content", "coec", "co_visits"),
            features_version=1,
            collection="nearkin-items-minilm-int8-1",
            bundle="minilm-int8-1",
            surface="product-page",
            market="GB",
            moved=(
                Moved("mug-9", Rule.NEAR_DUPLICATE, 2, None, "mug-2"),
                Moved("cup-8", Rule.DIVERSITY, 4, 3),
            ),
            policy=Policy.SHUFFLED,
            log_rate=1.0,
        )


ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12).map(lambda text: "i" + text)
numbers = st.floats(allow_nan=False, allow_infinity=False)
propensities = st.floats(0, 1, exclude_min=True)
ranks = st.integers(1, limits.MAX_RANK)
sources = st.lists(st.builds(Source, st.sampled_from(CandidateSource), numbers, ranks), max_size=3).map(tuple)
moves = st.builds(Moved, ids, st.sampled_from(Rule), ranks, st.none() | ranks, st.just("") | ids)


@st.composite
def answers(draw: st.DrawFn) -> LoggedAnswer:
    names = tuple(draw(st.lists(ids, max_size=4)))
    features = st.tuples(*[numbers] * len(names)) | st.just(())
    placed = st.builds(
        Placed, ids.map("x".__add__), st.integers(1, 200), numbers, propensities, st.booleans(), sources, features
    )
    unique = (lambda one: one.item_id, lambda one: one.position)
    return LoggedAnswer(
        request_id=draw(ids),
        at_ms=draw(st.integers(limits.MIN_OCCURRED_AT, limits.MAX_OCCURRED_AT)),
        anchor=draw(st.none() | ids),
        k=draw(st.integers(1, limits.MAX_SLATE)),
        ranking=draw(ids),
        positions=tuple(draw(st.lists(placed, max_size=5, unique_by=unique))),
        weights=draw(st.just("") | ids),
        feature_names=names,
        features_version=draw(st.integers(0, 9)),
        collection=draw(st.just("") | ids),
        bundle=draw(st.just("") | ids),
        surface=draw(st.just("") | ids),
        market=draw(st.sampled_from(["", "GB"])),
        priors_version=draw(st.just("") | ids),
        degraded=tuple(draw(st.lists(ids, max_size=3))),
        moved=tuple(draw(st.lists(moves, max_size=3))),
        policy=draw(st.sampled_from(Policy)),
        log_rate=draw(propensities),
    )


@given(answers())
def test_an_answer_is_read_as_it_was_encoded(told: LoggedAnswer) -> None:
    key, value = encode_answered(told)
    assert key == (None if told.anchor is None else told.anchor.encode())
    assert decode_answered(key, value) == told


def test_what_is_not_known_is_left_out() -> None:
    _, value = encode_answered(answer(Placed("i", 1, 0.5), anchor=None, ranking="dense"))
    event = json.loads(value)
    assert len(event.pop("event_id")) == 32
    assert event == {
        "kind": "answered",
        "occurred_at": NOW,
        "request_id": "r",
        "k": 10,
        "ranking": "dense",
        "policy": "greedy",
        "log_rate": 1.0,
        "positions": [{"item_id": "i", "position": 1, "score": 0.5, "propensity": 1.0}],
    }


def test_of_what_was_moved_the_first_are_written() -> None:
    told = answer(moved=tuple(Moved(f"i{rank}", Rule.VARIANT, rank) for rank in range(1, limits.MAX_MOVED + 6)))
    assert decode_answered(*encode_answered(told)) == replace(told, moved=told.moved[: limits.MAX_MOVED])


@pytest.mark.parametrize(
    ("told", "reason", "field"),
    [
        ("i", "wrong_type", ""),
        (answer(Placed("a", 1, 1.0)), "self_pair", "positions"),
        (answer(Placed("i", 1, 1.0), Placed("i", 2, 1.0)), "repeated", "positions"),
        (answer(Placed("i", 1, 1.0), Placed("j", 1, 1.0)), "repeated", "positions"),
        (answer(Placed("i", 1, float("nan"))), "not_finite", "positions[0]"),
        (answer(Placed("i", 1, 1.0, float("nan"))), "not_finite", "positions[0]"),
        (answer(Placed("i", 1, 1.0, 0.0)), "out_of_range", "positions[0].propensity"),
        (
            answer(Placed("i", 1, 1.0, features=(float("inf"),)), feature_names=("coec",)),
            "not_finite",
            "positions[0]",
        ),
        (answer(Placed("i", 1, 1.0, features=(1.0,))), "uneven", "positions[0].features"),
        (
            answer(Placed("i", 1, 1.0, sources=(Source(CandidateSource.PAIRS, float("inf"), 1),))),
            "not_finite",
            "positions[0]",
        ),
        (answer(request_id=""), "missing_field", "request_id"),
        (answer(request_id="\ud83d"), "surrogate", ""),
        (answer(log_rate=0.0), "out_of_range", "log_rate"),
        (answer(k=0), "out_of_range", "k"),
        (answer(*(Placed("😀" * 200 + str(n), n, 1.0) for n in range(1, 201)), degraded=("😀" * 256,) * 16,
                moved=tuple(Moved("😀" * 256, Rule.VARIANT, 1) for _ in range(200))), "too_large", ""),
    ],
)  # fmt: skip
def test_the_rules_are_those_of_reading(told: Any, reason: str, field: str) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        encode_answered(told)
    assert (refusal.value.reason, refusal.value.field) == (reason, field)
