"""What counts is decided by the offsets just before, and by nothing else."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.admission import BYTES_AN_OFFSET, COMPLAINTS, Admission, Verdict
from nearkin.core.counting import METRIC_OF
from nearkin.core.features import COMPLAINTS as WEIGHED
from nearkin.core.feedback import Action, Impressions, Interaction, Shown, Visit, VisitKind

NOW = 1_700_000_000_000
COUNTS, REPEATED, CLAMPED = Verdict.COUNTS, Verdict.REPEATED, Verdict.CLAMPED


def click(
    event_id: str, user: str | None = "u", item: str = "x", action: Action = Action.CLICK, anchor: str = "a"
) -> Interaction:
    return Interaction(event_id, NOW, anchor, item, action, user=user)


def slate(event_id: str, user: str | None = "u", anchor: str = "a", item: str = "x") -> Impressions:
    """One of items that blanks stand between; what begins with a dash was not visible."""
    places = [Shown(one.lstrip("-"), at, visible=one[0] != "-") for at, one in enumerate(item.split(), 1)]
    return Impressions(event_id, NOW, anchor, "r", "page", tuple(places), user=user)


def basket(event_id: str, *items: str, user: str | None = "u") -> Visit:
    return Visit(event_id, NOW, event_id, VisitKind.BASKET, items, user=user)


def decided(admission: Admission, *events: Impressions | Interaction | Visit) -> list[Verdict]:
    return [admission.admit(offset, event) for offset, event in enumerate(events)]


class TestRepeats:
    def test_an_event_counts_once_within_the_window(self) -> None:
        assert decided(Admission(10, 10), click("1"), click("2"), click("1"), click("1")) == [
            *(COUNTS, COUNTS, REPEATED, REPEATED)
        ]

    def test_a_repeat_beyond_the_window_counts(self) -> None:
        admission = Admission(3, 10)
        assert admission.admit(0, click("1")) is COUNTS
        assert admission.admit(3, click("1")) is REPEATED
        assert admission.admit(7, click("1")) is COUNTS

    def test_a_repeat_is_one_whatever_it_holds(self) -> None:
        assert decided(Admission(10, 10), click("1"), slate("1", user=None)) == [COUNTS, REPEATED]

    def test_the_window_is_of_offsets_so_those_without_a_valid_event_count_too(self) -> None:
        admission = Admission(5, 10)
        admission.admit(100, click("1"))
        assert admission.admit(105, click("1")) is REPEATED
        assert admission.admit(111, click("1")) is COUNTS


class TestClamps:
    def test_what_a_person_does_too_often_with_a_pair_does_not_count(self) -> None:
        assert decided(Admission(100, 2), *(click(str(number)) for number in range(4))) == [
            *(COUNTS, COUNTS, CLAMPED, CLAMPED)
        ]

    @pytest.mark.parametrize("action", [Action.SKIP, Action.DISLIKE, Action.HIDE, Action.REPORT])
    def test_a_complaint_of_one_person_about_a_pair_counts_once_whatever_the_clamp(self, action: Action) -> None:
        events = [click(str(number), action=action) for number in range(3)]
        others = [click("3", action=action, user="v"), click("4", action=action, item="y"), click("5")]
        assert decided(Admission(100, 5), *events, *others) == [COUNTS, CLAMPED, CLAMPED, COUNTS, COUNTS, COUNTS]

    def test_what_counts_against_a_pair_in_ranking_is_what_a_person_may_say_once(self) -> None:
        assert {METRIC_OF[action] for action in COMPLAINTS} == {metric for metric, _ in WEIGHED}

    @pytest.mark.parametrize(
        "other",
        [
            click("3", user="v"),
            click("3", user=None),
            click("3", item="y"),
            click("3", action=Action.LIKE),
            click("3", anchor="b"),
            slate("3"),
        ],
    )
    def test_another_person_pair_or_action_is_not_clamped(self, other: Interaction | Impressions) -> None:
        assert decided(Admission(100, 2), click("1"), click("2"), other)[-1] is COUNTS

    def test_a_slate_of_the_same_visible_items_is_clamped_in_any_order(self) -> None:
        events = [slate("1", item="x y"), slate("2", item="y x"), slate("3", item="x y -z"), slate("4", anchor="b")]
        assert decided(Admission(100, 2), *events) == [COUNTS, COUNTS, CLAMPED, COUNTS]

    def test_whoever_comes_back_and_is_shown_something_else_loses_no_exposure(self) -> None:
        events = [slate(str(number), item=f"x other-{number}") for number in range(50)]
        assert set(decided(Admission(100, 2), *events)) == {COUNTS}

    def test_a_slate_is_told_from_an_action_whatever_its_items_are_called(self) -> None:
        events = [click("1", item="x"), slate("2", item="x click"), slate("3", item="click")]
        assert decided(Admission(100, 1), *events) == [COUNTS, COUNTS, COUNTS]

    def test_baskets_that_differ_are_evidence_of_what_they_share(self) -> None:
        events = [basket(str(number), "a", "b", f"other-{number}") for number in range(50)]
        assert set(decided(Admission(100, 2), *events)) == {COUNTS}

    def test_a_basket_of_the_same_items_is_clamped_in_any_order(self) -> None:
        events = [basket("1", "a", "b"), basket("2", "b", "a"), basket("3", "a", "b"), basket("4", "a", "c")]
        assert decided(Admission(100, 2), *events) == [COUNTS, COUNTS, CLAMPED, COUNTS]

    def test_nobody_is_clamped_who_is_not_named(self) -> None:
        assert set(decided(Admission(100, 1), *(click(str(number), user=None) for number in range(50)))) == {COUNTS}

    def test_the_window_passes(self) -> None:
        admission = Admission(3, 1)
        assert [admission.admit(offset, click(str(offset))) for offset in (0, 2, 3, 7)] == [
            *(COUNTS, CLAMPED, CLAMPED, COUNTS)
        ]

    def test_an_id_that_comes_again_with_something_else_takes_nothing_back(self) -> None:
        events = [click("1"), slate("1"), click("2"), slate("2"), click("3")]
        assert decided(Admission(100, 2), *events) == [COUNTS, REPEATED, COUNTS, REPEATED, CLAMPED]


class TestRefusals:
    def test_what_is_refused_leaves_its_id_and_may_be_done_under_another(self) -> None:
        admission = Admission(100, 1)
        admission.admit(0, click("1"), refused=True)
        assert [admission.admit(1, click("2")), admission.admit(2, click("1"))] == [COUNTS, REPEATED]

    def test_what_the_window_has_left_and_what_never_came_is_nothing_to_take_back(self) -> None:
        admission = Admission(3, 1)
        for offset in (0, 4, 6):
            admission.admit(offset, click(str(offset), item=str(offset)))
        for offset in (0, 5, 7, 4, 4):
            admission.take_back(offset)
        assert [admission.admit(offset, click(str(offset), item=item)) for offset, item in ((7, "4"), (8, "6"))] == [
            *(COUNTS, CLAMPED)
        ]


events = st.one_of(
    st.builds(
        click,
        st.sampled_from("123456789"),
        st.sampled_from(["u", "v", None]),
        st.sampled_from("xy"),
        st.sampled_from([Action.CLICK, Action.HIDE]),
    ),
    st.builds(
        slate,
        *(st.sampled_from("123456789"), st.sampled_from(["u", None]), st.sampled_from("ab")),
        st.sampled_from(["x", "x y", "y x", "x -y"]),
    ),
    st.builds(
        lambda event_id, items: basket(event_id, *items),
        *(st.sampled_from("123456789"), st.lists(st.sampled_from("abc"), min_size=1, unique=True)),
    ),
)
logs = st.lists(st.tuples(st.integers(1, 3), events), max_size=60).map(
    lambda steps: [(sum(step for step, _ in steps[: number + 1]), event) for number, (_, event) in enumerate(steps)]
)
windows, clamps = st.integers(1, 12), st.integers(1, 3)


@given(logs, windows, clamps, st.data())
def test_whoever_reads_the_window_first_decides_as_one_who_was_there_all_the_time(
    log: list, window: int, clamp: int, data: st.DataObject
) -> None:
    continuous = Admission(window, clamp)
    verdicts = [continuous.admit(offset, event) for offset, event in log]
    begin = data.draw(st.integers(0, len(log)))
    refilled = Admission(window, clamp)
    for place, (offset, event) in enumerate(log):
        if place >= begin:
            assert refilled.admit(offset, event) is verdicts[place]
        elif begin < len(log) and offset >= log[begin][0] - window:
            refilled.admit(offset, event)


@given(logs, windows, clamps, st.data())
def test_what_is_taken_back_is_as_if_it_had_been_refused_when_it_came(
    log: list, window: int, clamp: int, data: st.DataObject
) -> None:
    refusing, taking_back = Admission(window, clamp), Admission(window, clamp)
    for offset, event in log:
        refused = data.draw(st.booleans())
        verdicts = refusing.admit(offset, event, refused=refused), taking_back.admit(offset, event)
        if refused:
            taking_back.take_back(offset)
        else:
            assert verdicts[0] is verdicts[1]


def key_of(event: Impressions | Interaction | Visit) -> tuple[object, ...]:
    match event:
        case Interaction():
            return event.user, event.anchor, event.item_id, event.action
        case Impressions():
            return event.user, event.anchor, frozenset(place.item_id for place in event.positions if place.visible)
        case Visit():
            return event.user, frozenset(event.items)


def most_of(event: Impressions | Interaction | Visit, clamp: int) -> int:
    return 1 if isinstance(event, Interaction) and event.action is Action.HIDE else clamp


@given(logs, windows, clamps)
def test_the_verdicts_are_those_of_the_definition(log: list, window: int, clamp: int) -> None:
    admission = Admission(window, clamp)
    for place, (offset, event) in enumerate(log):
        held = [before for at, before in log[:place] if at >= offset - window]
        repeated = any(before.event_id == event.event_id for before in held)
        done = sum(before.user is not None and key_of(before) == key_of(event) for before in held)
        expected = REPEATED if repeated else CLAMPED if done >= most_of(event, clamp) else COUNTS
        assert admission.admit(offset, event) is expected


@given(logs, windows, clamps)
def test_what_counts_is_at_most_the_clamp_within_any_window(log: list, window: int, clamp: int) -> None:
    admission = Admission(window, clamp)
    counted = [(offset, event) for offset, event in log if admission.admit(offset, event) is COUNTS]
    for offset, event in counted:
        near = [one for at, one in counted if offset - window <= at <= offset]
        assert sum(one.event_id == event.event_id for one in near) == 1
        if event.user is not None:
            assert sum(key_of(one) == key_of(event) for one in near) <= most_of(event, clamp)


def test_offsets_only_grow() -> None:
    admission = Admission(5, 1)
    admission.admit(4, click("1"))
    with pytest.raises(ValueError, match="offset 4 does not come after the one before"):
        admission.admit(4, click("2"))


@pytest.mark.parametrize(("window", "clamp", "name"), [(0, 1, "window"), (1, 0, "clamp")])
def test_a_window_or_a_clamp_of_nothing_is_refused(window: int, clamp: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Admission(window, clamp)


@pytest.mark.parametrize("window", [5_000, 5_500])
def test_memory_is_bounded_by_the_window_while_events_come_and_go(window: int) -> None:
    tracemalloc.start()
    try:
        admission = Admission(window, 5)
        for offset in range(3 * window):
            admission.admit(offset, click(f"event {offset}", user=f"user {offset}"))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 100 * window < held < BYTES_AN_OFFSET * window
    assert admission.admit(3 * window, click("another")) is COUNTS
