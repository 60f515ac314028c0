"""What one event adds, and to which shard: against sums made by hand."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.counting import (
    LEAST_PROPENSITY,
    METRIC_OF,
    SAMPLED_ONE_IN,
    Counting,
    count,
    most_pairs_of,
    popular_anchor,
    positions_anchor,
    sample_anchor,
    surfaces_anchor,
)
from nearkin.core.evidence import RESERVED, Metric, Tally, decay_to
from nearkin.core.feedback import Action, Impressions, Interaction, Shown, Visit, VisitKind
from nearkin.core.position_priors import POSITIONS, Method, PositionPriors, Prior, SurfacePriors, default_prior

HALF_LIFE = 60_000
NOW = 1_700_000_000_000 // HALF_LIFE * HALF_LIFE
SHARDS = 4

#: The page is known, so statistics of its positions are kept.
KNOWN = PositionPriors(1, NOW, {"page": SurfacePriors(Method.SCALED, (Prior(0.5), Prior(0.25)))})

#: By anchor, candidate and metric.
Counts = dict[tuple[str, str, Metric], float]


def shard_of(item_id: str) -> int:
    return int(item_id.rpartition(":")[2]) if item_id.startswith(RESERVED) else sum(item_id.encode()) % SHARDS


def slate(*places: Shown, anchor: str = "a", surface: str = "page", at: int = NOW) -> Impressions:
    return Impressions("e", at, anchor, "r", surface, places)


def act(action: Action = Action.CLICK, item: str = "x", at: int = NOW, **known: object) -> Interaction:
    shown = {"request_id": "r", "position": 1, "surface": "page"}
    return Interaction("e", at, "a", item, action, **{**shown, **known})  # type: ignore[arg-type]


def basket(*items: str, visit_id: str = "v", at: int = NOW) -> Visit:
    return Visit("e", at, visit_id, VisitKind.BASKET, items)


def tallied(
    *events: Impressions | Interaction | Visit, priors: PositionPriors = KNOWN, most_partners: int = 100
) -> list[Tally]:
    tallies = [Tally(HALF_LIFE) for _ in range(SHARDS)]
    for event in events:
        count(event, tallies, Counting(shard_of, priors, most_partners))
    return tallies


def counts(tallies: list[Tally], reserved: bool = False, at: int = NOW) -> Counts:
    """What some tallies hold, decayed to a moment: of items, or of reserved anchors."""
    return {
        (delta.anchor, candidate, Metric(metric)): amount * decay_to(at, tally.landmark, HALF_LIFE)
        for tally in tallies
        for delta in tally.deltas()
        if delta.anchor.startswith(RESERVED) is reserved
        for candidate, row in delta.pairs.items()
        for metric, amount in enumerate(row)
        if amount
    }


def marginals(tallies: list[Tally]) -> dict[str, float]:
    return {delta.anchor: delta.visits for tally in tallies for delta in tally.deltas() if delta.visits}


class TestSlates:
    def test_a_visible_place_is_an_exposure_that_is_expected_to_bring_what_its_position_brings(self) -> None:
        found = counts(tallied(slate(Shown("x", 1), Shown("y", 2), Shown("z", 3, visible=False))))
        assert found == {
            ("a", "x", Metric.EXPOSURES): 1,
            ("a", "x", Metric.EXPECTED): 0.5,
            ("a", "y", Metric.EXPOSURES): 1,
            ("a", "y", Metric.EXPECTED): 0.25,
        }

    def test_what_nobody_saw_counts_nowhere(self) -> None:
        tallies = tallied(slate(Shown("x", 1, visible=False)))
        assert counts(tallies) == counts(tallies, reserved=True) == {}

    @pytest.mark.parametrize(("surface", "position"), [("elsewhere", 3), ("page", 1000), ("elsewhere", 1000)])
    def test_a_place_of_which_nothing_is_known_is_expected_to_bring_something(
        self, surface: str, position: int
    ) -> None:
        found = counts(tallied(slate(Shown("x", position), surface=surface)))
        assert found["a", "x", Metric.EXPECTED] == KNOWN.of(surface, position) > 0


class TestActions:
    @pytest.mark.parametrize("action", Action)
    def test_one_that_names_its_place_counts_once_whatever_its_value(self, action: Action) -> None:
        assert counts(tallied(act(action, value=1_000_000.0))) == {("a", "x", METRIC_OF[action]): 1}

    @pytest.mark.parametrize("missing", ["request_id", "position"])
    def test_one_that_does_not_is_kept_apart(self, missing: str) -> None:
        found = tallied(act(**{missing: None}))
        assert counts(found) == {("a", "x", Metric.UNEXPOSED): 1}
        assert {anchor for anchor, *_ in counts(found, reserved=True)} == {popular_anchor(shard_of("a"))}

    def test_each_action_has_a_metric_of_its_own(self) -> None:
        assert len(set(METRIC_OF.values())) == len(Action) == len(METRIC_OF)


class TestVisits:
    def test_each_item_counts_once_and_each_pair_in_both_directions(self) -> None:
        tallies = tallied(basket("b", "a", "c"))
        assert marginals(tallies) == {"a": 1, "b": 1, "c": 1}
        assert counts(tallies) == {
            (anchor, other, Metric.CO_VISITS): 1 for anchor in "abc" for other in "abc" if anchor != other
        }
        assert sum(tally.visits for tally in tallies) == 1

    def test_one_of_a_single_item_has_a_marginal_and_no_pairs(self) -> None:
        tallies = tallied(basket("a"))
        assert marginals(tallies) == {"a": 1}
        assert counts(tallies) == {}

    def test_the_pairs_of_a_large_one_are_bounded_and_keep_their_weight(self) -> None:
        items = [f"item {number}" for number in range(2_000)]
        found = counts(tallied(basket(*items), most_partners=10))
        assert len(found) == 20_000
        of_anchor: Counter = Counter()
        for (anchor, _, _), amount in found.items():
            of_anchor[anchor] += amount
        assert list(of_anchor.values()) == pytest.approx([1999] * 2000)

    def test_its_items_are_popular_in_their_own_shards(self) -> None:
        found = counts(tallied(basket("a", "b")), reserved=True)
        assert found == {(popular_anchor(shard_of(item)), item, Metric.CO_VISITS): 1 for item in "ab"}


class TestTheStreamAsAWhole:
    shard = shard_of("a")

    def of(self, anchor: str, *events: Impressions | Interaction, priors: PositionPriors = KNOWN) -> Counts:
        found = counts(tallied(*events, priors=priors), reserved=True)
        return {key: amount for key, amount in found.items() if key[0] == anchor}

    def test_a_surface_is_counted_before_anything_is_known_of_it_and_its_positions_are_not(self) -> None:
        events = slate(Shown("x", 1, 0.5), Shown("y", 2)), act(propensity=0.5)
        surfaces = surfaces_anchor(self.shard)
        found = counts(tallied(*events, priors=PositionPriors()), reserved=True)
        assert found == {
            (surfaces, "page", Metric.EXPOSURES): 2,
            (surfaces, "page", Metric.CLICKS): 1,
            (popular_anchor(self.shard), "x", Metric.CLICKS): 1,
        }

    def test_positions_count_exposures_and_clicks(self) -> None:
        anchor = positions_anchor("page", self.shard)
        assert self.of(anchor, slate(Shown("x", 1), Shown("y", 2)), act(position=2), act(Action.LIKE)) == {
            (anchor, "1", Metric.EXPOSURES): 1,
            (anchor, "2", Metric.EXPOSURES): 1,
            (anchor, "2", Metric.CLICKS): 1,
        }

    def test_the_randomised_share_is_weighted_by_its_propensities_and_what_was_certain_is_not_in_it(self) -> None:
        anchor = positions_anchor("page", self.shard)
        found = self.of(anchor, slate(Shown("x", 1, 0.25), Shown("y", 2, 1.0)), act(propensity=0.25))
        assert {key: amount for key, amount in found.items() if "/" in key[1]} == {
            (anchor, "1/w", Metric.EXPOSURES): 4,
            (anchor, "1/w", Metric.EXPECTED): 1,
            (anchor, "1/w", Metric.CLICKS): 4,
            (anchor, "1/v", Metric.EXPOSURES): 16,
            (anchor, "1/v", Metric.CLICKS): 16,
        }

    def test_no_propensity_makes_an_event_weigh_more_than_a_bound(self) -> None:
        anchor = positions_anchor("page", self.shard)
        found = self.of(anchor, slate(Shown("x", 1, 5e-324)), act(propensity=5e-324))
        assert max(found.values()) == pytest.approx(LEAST_PROPENSITY**-2)

    def test_positions_beyond_those_that_are_learned_are_not_counted(self) -> None:
        anchor = positions_anchor("page", self.shard)
        assert self.of(anchor, slate(Shown("x", POSITIONS + 1)), act(position=POSITIONS + 1)) == {}

    def test_one_pair_in_sixteen_is_sampled_the_same_in_every_event(self) -> None:
        anchor = sample_anchor("page", self.shard)
        pairs = [f"item {number}" for number in range(4_000)]
        shown = {item: self.of(anchor, slate(Shown(item, 3))) for item in pairs}
        sampled = [item for item in pairs if shown[item]]
        assert len(sampled) == pytest.approx(4_000 / SAMPLED_ONE_IN, rel=0.3)
        for item in random.Random(1).sample(sampled, 20):
            ((_, candidate, metric),) = shown[item]
            assert metric is Metric.EXPOSURES
            clicked = self.of(anchor, act(item=item, position=3))
            # Clicks stand where the cap's strength leaves them out.
            assert clicked == {(anchor, candidate, Metric.EXPECTED): 1}
        assert not any(self.of(anchor, act(item=item, position=3)) for item in pairs if item not in sampled)

    def test_what_is_done_with_an_item_makes_it_popular_unless_it_is_bad(self) -> None:
        found = self.of(popular_anchor(self.shard), *(act(action) for action in Action))
        assert {metric for _, _, metric in found} == {
            *(Metric.CLICKS, Metric.LONG_VIEWS, Metric.LIKES, Metric.SAVES, Metric.PURCHASES)
        }


ids = st.sampled_from("abcdefgh")
times = st.integers(NOW - 50 * HALF_LIFE, NOW)
places = st.lists(st.builds(Shown, ids, st.integers(1, 60), st.none() | st.floats(0.01, 1), st.booleans()), max_size=4)
events = st.one_of(
    st.builds(
        lambda shown, surface, at: slate(*shown, anchor="z", surface=surface, at=at),
        *(places, st.sampled_from(["page", "mail"]), times),
    ),
    st.builds(act, st.sampled_from(Action), ids.filter(lambda item: item != "a"), times, position=st.integers(1, 60)),
    st.builds(
        lambda items, visit_id, at: basket(*items, visit_id=visit_id, at=at),
        *(st.lists(ids, min_size=1, unique=True), st.sampled_from("vw"), times),
    ),
)


@given(st.lists(events, max_size=12), st.randoms())
def test_order_changes_no_count(some: list, draw: random.Random) -> None:
    shuffled = list(some)
    draw.shuffle(shuffled)
    for reserved in (False, True):
        assert counts(tallied(*shuffled), reserved) == pytest.approx(counts(tallied(*some), reserved), rel=1e-9)


@given(st.lists(events, max_size=12), st.sets(st.integers(0, SHARDS - 1)))
def test_a_shard_counts_the_same_whether_the_others_count_or_not(some: list, absent: set) -> None:
    tallies: list = [None if shard in absent else Tally(HALF_LIFE) for shard in range(SHARDS)]
    for event in some:
        count(event, tallies, Counting(shard_of, KNOWN))
    for shard, (alone, together) in enumerate(zip(tallies, tallied(*some), strict=True)):
        if alone is not None:
            assert alone.deltas() == together.deltas()
            assert (alone.visits, alone.newest_ms) == (together.visits, together.newest_ms)
            assert {shard_of(delta.anchor) for delta in alone.deltas()} <= {shard}


@given(st.lists(events, min_size=1, max_size=12))
def test_counts_are_finite_and_not_negative(some: list) -> None:
    tallies = tallied(*some)
    for reserved in (False, True):
        assert all(0 < amount < 1e9 for amount in counts(tallies, reserved).values())


@given(events, st.sampled_from([2, 100]))
def test_an_event_adds_no_more_pairs_to_a_shard_than_was_said_before(event: object, most_partners: int) -> None:
    tallies = tallied(event, most_partners=most_partners)  # type: ignore[arg-type]
    said = most_pairs_of(event, Counting(shard_of, KNOWN, most_partners))  # type: ignore[arg-type]
    for shard, tally in enumerate(tallies):
        assert tally.size() <= said.get(shard, 0)


def test_the_newest_time_is_that_of_the_newest_event_of_the_shard() -> None:
    tallies = tallied(act(at=NOW), act(at=NOW - 5))
    assert [tally.newest_ms for tally in tallies] == [NOW if shard == shard_of("a") else 0 for shard in range(SHARDS)]


class TestPriors:
    def test_the_default_falls_and_never_to_nothing(self) -> None:
        curve = [PositionPriors().of("page", position) for position in range(1, 1001)]
        assert curve[0] == 0.1
        assert all(after < before for before, after in itertools.pairwise(curve))
        assert curve[-1] > 0.01

    def test_what_is_learned_is_used_and_goes_on_as_the_default_does(self) -> None:
        assert [KNOWN.of("page", position) for position in (1, 2)] == [0.5, 0.25]
        for position in (3, POSITIONS, POSITIONS + 1, 1000):
            expected = 0.25 * default_prior(position) / default_prior(2)
            assert KNOWN.of("page", position) == pytest.approx(expected)
        assert KNOWN.of("elsewhere", 1) == 0.1
