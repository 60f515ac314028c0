"""Feedback and visits are read strictly, refused with a reason and a field, and name no person who is no pseudonym."""

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.contracts import limits
from nearkin.contracts.feedback import (
    REDACTED,
    StreamTime,
    decode_feedback,
    decode_visit,
    encode_impressions,
    encode_interaction,
    encode_visit,
    read_feedback,
    read_visit,
    require_timely,
    without_users,
)
from nearkin.contracts.wire import REMEDIES
from nearkin.core.errors import InvalidEvent
from nearkin.core.feedback import Action, Impressions, Interaction, Shown, Visit, VisitKind
from odd_events import SECRET, garbled, mutated

EXAMPLES = Path(__file__).parents[2] / "schemas" / "events" / "examples"
TOPICS: dict[str, tuple[Callable[..., Any], str]] = {
    "feedback": (decode_feedback, "anchor"),
    "visits": (decode_visit, "visit_id"),
}
NOW = 1_760_000_000_000
USER = "k1:9f86d081884c7d659a2feaa0c55ad015"

#: Stands for who must not be kept.
PERSON = "jane@example.com"


def examples(kind: str) -> list[Path]:
    return sorted(path for topic in TOPICS for path in (EXAMPLES / topic / kind).glob("*.json"))


def named(path: Path) -> str:
    return f"{path.parents[1].name}-{path.stem}"


def interaction(**changes: Any) -> Interaction:
    known: dict[str, Any] = {"event_id": "e", "occurred_at": NOW, "anchor": "a", "item_id": "i"}
    return Interaction(**{**known, "action": Action.CLICK, **changes})


def slate(*places: Any, **changes: Any) -> Impressions:
    known: dict[str, Any] = {"event_id": "e", "occurred_at": NOW, "anchor": "a", "request_id": "r", "surface": "page"}
    return Impressions(**{**known, "positions": places, **changes})


def visit(*items: Any, **changes: Any) -> Visit:
    known: dict[str, Any] = {"event_id": "e", "occurred_at": NOW, "visit_id": "v", "kind": VisitKind.BASKET}
    return Visit(**{**known, "items": items, **changes})


class TestExamples:
    @pytest.mark.parametrize("path", examples("valid"), ids=named)
    def test_a_valid_one_is_taken_and_on_time_when_it_happens(self, path: Path) -> None:
        decode, key = TOPICS[path.parents[1].name]
        written = json.loads(path.read_text())
        event = decode(written[key].encode(), path.read_bytes())
        assert (event.event_id, event.occurred_at) == (written["event_id"], written["occurred_at"])
        assert event.user == written.get("user")
        require_timely(event, event.occurred_at)

    @pytest.mark.parametrize("path", examples("invalid"), ids=named)
    def test_an_invalid_one_is_refused_for_its_reason_and_kept_without_a_person(self, path: Path) -> None:
        example = json.loads(path.read_text())
        if "base64" in example:
            value: bytes | None = base64.b64decode(example["base64"])
        elif "text" in example:
            value = example["text"].encode()
        else:
            value = None if example["event"] is None else json.dumps(example["event"]).encode()
        key = None if example["key"] is None else example["key"].encode()
        with pytest.raises(InvalidEvent) as refusal:
            TOPICS[path.parents[1].name][0](key, value)
        error = refusal.value
        assert (error.reason, error.field) == (example["reason"], example["field"])
        assert error.remedy == REMEDIES[error.reason]
        assert error.__suppress_context__ or error.__context__ is None, "a traceback would quote the event"
        assert PERSON.encode() not in (without_users(value) or b"")

    def test_every_reason_of_feedback_that_fits_a_file_has_one(self) -> None:
        shown = {json.loads(path.read_text())["reason"] for path in examples("invalid")}
        assert shown == set(REMEDIES) - {"too_large", "too_deep", "too_late", "in_future", "no_time", "uneven"}

    def test_every_action_has_one(self) -> None:
        shown = {json.loads(path.read_text()).get("action") for path in examples("valid")}
        assert set(Action) <= shown


class TestReading:
    def test_every_field_of_a_slate_arrives(self) -> None:
        event = read_feedback((EXAMPLES / "feedback" / "valid" / "impressions.json").read_bytes())
        assert event == Impressions(
            event_id="shop-41",
            occurred_at=NOW,
            anchor="mug-1",
            request_id="r-7f3a",
            surface="product-page",
            market="GB",
            positions=(
                Shown("mug-2", 1, 0.9, visible=True),
                Shown("teapot-1", 2, 0.05, visible=True),
                Shown("bowl-4", 3, None, visible=False),
            ),
            user=USER,
        )

    def test_an_action_without_a_slate_is_one_of_its_kind(self) -> None:
        event = read_feedback((EXAMPLES / "feedback" / "valid" / "interaction-without-a-slate.json").read_bytes())
        assert event == Interaction("shop-42", NOW + 4000, "mug-1", "mug-2", Action.CLICK)

    def test_an_item_that_a_visit_names_twice_counts_once(self) -> None:
        event = read_visit((EXAMPLES / "visits" / "valid" / "basket-that-names-an-item-twice.json").read_bytes())
        assert event.items == ("mug-1", "tea-3")

    def test_a_bound_that_is_not_reached_is_told_as_such(self) -> None:
        value = json.dumps(
            {"kind": "interaction", "event_id": "e", "occurred_at": NOW, "anchor": "a", "item_id": "i"}
            | {"action": "click", "value": 0}
        )
        with pytest.raises(InvalidEvent, match=r"^value: the number must be above 0"):
            read_feedback(value.encode())


ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12).map(lambda text: "i" + text)
times = st.integers(limits.MIN_OCCURRED_AT, limits.MAX_OCCURRED_AT)
users = st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,32}:[0-9a-f]{32}", fullmatch=True)
positions = st.integers(1, limits.MAX_POSITION)
propensities = st.none() | st.floats(0, 1, exclude_min=True)
slates = st.lists(
    st.builds(Shown, ids.map(lambda text: "x" + text), positions, propensities, st.booleans()),
    min_size=1,
    max_size=8,
    unique_by=(lambda place: place.item_id, lambda place: place.position),
).map(tuple)


class TestProducing:
    @given(st.builds(Impressions, ids, times, ids, ids, ids, slates, st.sampled_from(["", "GB"]), users))
    def test_a_slate_is_read_as_it_was_encoded(self, event: Impressions) -> None:
        key, value = encode_impressions(event)
        assert key == event.anchor.encode()
        assert decode_feedback(key, value) == event

    @given(
        st.builds(
            Interaction,
            *(ids, times, ids, ids.map(lambda text: "x" + text), st.sampled_from(Action)),
            st.floats(0, limits.MAX_VALUE, exclude_min=True),
            *(st.none() | ids, st.none() | positions, users, st.none() | ids, propensities),
        )
    )
    def test_an_action_is_read_as_it_was_encoded(self, event: Interaction) -> None:
        key, value = encode_interaction(event)
        assert key == event.anchor.encode()
        assert decode_feedback(key, value) == event

    @given(
        st.builds(
            Visit,
            *(ids, times, ids, st.sampled_from(VisitKind)),
            st.lists(ids, min_size=1, unique=True).map(tuple),
            users,
        )
    )
    def test_a_visit_is_read_as_it_was_encoded(self, event: Visit) -> None:
        key, value = encode_visit(event)
        assert key == event.visit_id.encode()
        assert decode_visit(key, value) == event

    def test_what_is_not_known_is_left_out(self) -> None:
        _, value = encode_interaction(interaction())
        assert json.loads(value) == {
            "kind": "interaction",
            "event_id": "e",
            "occurred_at": NOW,
            "anchor": "a",
            "item_id": "i",
            "action": "click",
            "value": 1.0,
        }

    @pytest.mark.parametrize(
        ("encode", "event", "reason", "field"),
        [
            (encode_interaction, interaction(item_id="a"), "self_pair", "item_id"),
            (encode_interaction, interaction(user=PERSON), "not_a_pseudonym", "user"),
            (encode_interaction, interaction(user=5), "not_a_pseudonym", "user"),
            (encode_interaction, interaction(value=float("nan")), "not_finite", "value"),
            (encode_interaction, interaction(value=float("inf")), "not_finite", "value"),
            (encode_interaction, interaction(value=-1), "out_of_range", "value"),
            (encode_interaction, interaction(position=0), "out_of_range", "position"),
            (encode_interaction, interaction(propensity=0.0), "out_of_range", "propensity"),
            (encode_interaction, interaction(propensity=float("nan")), "not_finite", "propensity"),
            (encode_interaction, interaction(surface=" "), "bad_format", "surface"),
            (encode_interaction, interaction(action="stare"), "unknown_value", "action"),
            (encode_interaction, interaction(item_id="\ud83d"), "surrogate", ""),
            (encode_interaction, visit("i"), "wrong_type", ""),
            (encode_impressions, slate(), "empty", "positions"),
            (encode_impressions, slate(Shown("a", 1)), "self_pair", "positions"),
            (encode_impressions, slate(Shown("i", 1), Shown("i", 2)), "repeated", "positions"),
            (encode_impressions, slate(Shown("i", 1), Shown("j", 1)), "repeated", "positions"),
            (encode_impressions, slate(Shown("i", 1, float("nan"))), "not_finite", "positions[0].propensity"),
            (encode_impressions, slate(Shown("i", 1, 1.5)), "out_of_range", "positions[0].propensity"),
            (encode_impressions, slate("i"), "wrong_type", "positions[0]"),
            (encode_impressions, slate(positions="i"), "wrong_type", "positions"),
            (encode_visit, visit(), "empty", "items"),
            (encode_visit, visit(5), "wrong_type", "items[0]"),
            (encode_visit, visit("i", kind="wishlist"), "unknown_value", "visit_kind"),
            (encode_visit, visit("i", user=PERSON), "not_a_pseudonym", "user"),
        ],
    )
    def test_the_rules_are_those_of_reading(
        self, encode: Callable[[Any], object], event: Any, reason: str, field: str
    ) -> None:
        with pytest.raises(InvalidEvent) as refusal:
            encode(event)
        assert (refusal.value.reason, refusal.value.field) == (reason, field)
        assert PERSON not in str(refusal.value)


class TestTime:
    @pytest.mark.parametrize(
        ("occurred_at", "reason"),
        [
            (NOW, None),
            (NOW + limits.MAX_AHEAD_MS, None),
            (NOW + limits.MAX_AHEAD_MS + 1, "in_future"),
            (NOW - limits.MAX_LATENESS_MS, None),
            (NOW - limits.MAX_LATENESS_MS - 1, "too_late"),
        ],
    )
    def test_an_event_is_on_time_between_the_bounds(self, occurred_at: int, reason: str | None) -> None:
        if reason is None:
            require_timely(visit("i", occurred_at=occurred_at), NOW)
            return
        with pytest.raises(InvalidEvent) as refusal:
            require_timely(visit("i", occurred_at=occurred_at), NOW)
        assert (refusal.value.reason, refusal.value.field) == (reason, "occurred_at")

    def test_a_streams_own_time_is_the_newest_that_an_event_told(self) -> None:
        clock = StreamTime()
        assert [clock.see(time) for time in (NOW, NOW - 5, NOW + 7, NOW)] == [NOW, NOW, NOW + 7, NOW + 7]


class TestRedaction:
    @pytest.mark.parametrize("path", examples("valid"), ids=named)
    def test_an_event_with_nothing_to_hide_is_kept_byte_for_byte(self, path: Path) -> None:
        assert without_users(path.read_bytes()) == path.read_bytes()

    def test_a_person_is_taken_out_whatever_else_is_wrong(self) -> None:
        event = {"kind": "interaction", "position": -1, "user": PERSON, "later": [{"user": {"mail": PERSON}}]}
        kept = without_users(json.dumps(event).encode())
        assert kept is not None
        assert json.loads(kept) == event | {"user": REDACTED, "later": [{"user": REDACTED}]}

    @pytest.mark.parametrize(
        "value",
        [
            f'{{"user": "{PERSON}", "user": "{USER}"}}'.encode(),
            f'{{"\\u0075ser": "{PERSON}"}}'.encode(),
            f'{{"user": "{PERSON}", "value": NaN}}'.encode(),
            f'{{"user": "{PERSON}"'.encode(),
            f'{{"user": "{PERSON}"}}'.encode("utf-16"),
            f'{{"user": "{PERSON}", "deep": {"[" * 50_000}'.encode(),
            f'{{"user": "{PERSON}", "value": {"9" * 5_000}}}'.encode(),
        ],
    )
    def test_no_spelling_of_the_field_keeps_a_person(self, value: bytes) -> None:
        kept = without_users(value)
        assert kept is not None
        assert b"jane" not in kept
        assert "jane".encode("utf-16-le") not in kept

    def test_a_null_value_stays_null(self) -> None:
        assert without_users(None) is None


def refusal_of(path: Path, value: bytes) -> InvalidEvent | None:
    try:
        (read_feedback if path.parents[1].name == "feedback" else read_visit)(value)
    except InvalidEvent as error:
        return error
    return None


@pytest.mark.parametrize("seed", range(3))
def test_nothing_makes_the_reader_raise_anything_else_or_quote_an_event(seed: int) -> None:
    draw = random.Random(seed)
    refused = []
    for _ in range(1_000):
        path = draw.choice(examples("valid"))
        event = json.loads(path.read_text())
        for _ in range(draw.randint(1, 2)):
            event = mutated(event, draw)
        value = json.dumps(event, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")
        if draw.random() < 0.3:
            value = garbled(value, draw)
        if error := refusal_of(path, value):
            refused.append(error)
    assert 100 < len(refused) < 980
    for error in refused:
        assert error.remedy == REMEDIES[error.reason]
        assert SECRET not in str(error)
        assert error.__suppress_context__ or error.__context__ is None, "a traceback would quote the event"
