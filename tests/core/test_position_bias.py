"""What positions bring is found where it is known, whatever the policy that showed the items."""

import numpy as np
import pytest

from nearkin.core.counting import Counting, count, positions_anchor, sample_anchor
from nearkin.core.evidence import AnchorEvidence, Metric, Tally
from nearkin.core.feedback import Action, Impressions, Interaction, Shown
from nearkin.core.position_bias import (
    ENOUGH_CLICKS,
    ENOUGH_TO_SCALE,
    SampledPairs,
    SurfaceStatistics,
    differ,
    learn,
    read_statistics,
)
from nearkin.core.position_priors import (
    POSITIONS,
    Method,
    PositionPriors,
    Prior,
    SurfacePriors,
    default_prior,
)

PLACES, ANCHORS, CANDIDATES, EXPLORED = 8, 40, 16, 0.3
NONE = np.zeros(POSITIONS)


class World:
    """Slates of a policy that puts what attracts more further up, and draws a whole slate now and then.

    Args:
        seed: draws everything.
        slates: how many.
        decline: theta is `position ** -decline`.
    """

    def __init__(self, seed: int, slates: int, decline: float = 1.0) -> None:
        draw = np.random.default_rng(seed)
        self.theta = np.arange(1, PLACES + 1) ** -decline
        attracts = np.minimum(0.12 * np.exp(draw.normal(0, 0.7, (ANCHORS, CANDIDATES))), 1)
        # Three versions of the policy, each nearly by what attracts.
        scores = np.log(attracts) + draw.normal(0, 0.5, (3, ANCHORS, CANDIDATES))
        orders = np.argsort(-scores, axis=2)[:, :, :PLACES]
        anchor, version = draw.integers(ANCHORS, size=slates), draw.integers(3, size=slates)
        greedy = orders[version, anchor]
        drawn = np.argsort(draw.random((slates, CANDIDATES)), axis=1)[:, :PLACES]
        shown = np.where(draw.random((slates, 1)) < EXPLORED, drawn, greedy)
        self.propensity = EXPLORED / CANDIDATES + np.where(shown == greedy, 1 - EXPLORED, 0)
        rate = self.theta * attracts[anchor[:, None], shown]
        self.clicked = (draw.random((slates, PLACES)) < rate).astype(float)
        self.pair = anchor[:, None] * CANDIDATES + shown
        # By definition: scaled so that expected clicks are clicks.
        self.priors = self.theta * rate.sum() / (self.theta * slates).sum()

    def statistics(self, *, randomised: bool = True) -> SurfaceStatistics:
        weights = 1 / self.propensity if randomised else np.zeros_like(self.propensity)
        table = np.zeros((2, ANCHORS * CANDIDATES, PLACES))
        place = np.broadcast_to(np.arange(PLACES), self.pair.shape)
        np.add.at(table[0], (self.pair, place), 1.0)
        np.add.at(table[1], (self.pair, place), self.clicked)
        pair, position = np.nonzero(table[0])
        return SurfaceStatistics(
            exposures=padded(np.ones_like(weights)),
            clicks=padded(self.clicked),
            randomised=padded(np.ones_like(weights) * randomised),
            weights=padded(weights),
            weights_of_clicks=padded(weights * self.clicked),
            squares=padded(weights**2),
            squares_of_clicks=padded(weights**2 * self.clicked),
            sample=SampledPairs(pair, position, table[0][pair, position], table[1][pair, position]),
        )


def padded(columns: np.ndarray) -> np.ndarray:
    found = np.zeros(POSITIONS)
    found[:PLACES] = columns.sum(0)
    return found


def empty(**known: np.ndarray) -> SurfaceStatistics:
    nobody = SampledPairs(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0), np.zeros(0))
    names = ("exposures", "clicks", "randomised", "weights", "weights_of_clicks", "squares", "squares_of_clicks")
    return SurfaceStatistics(**{**dict.fromkeys(names, NONE), "sample": nobody, **known})  # type: ignore[arg-type]


def first(*values: float) -> np.ndarray:
    found = np.zeros(POSITIONS)
    found[: len(values)] = values
    return found


@pytest.mark.parametrize(
    ("randomised", "method"), [(True, Method.RANDOMISED), (False, Method.CLICK_MODEL)], ids=["randomised", "model"]
)
class TestRecovery:
    def test_the_intervals_hold_the_truth_about_as_often_as_they_say(self, randomised: bool, method: Method) -> None:
        held = []
        for seed in range(100):
            world = World(seed, 6_000)
            found = learn(world.statistics(randomised=randomised))
            assert found.method is method
            held += [
                prior.low <= truth <= prior.high  # type: ignore[operator]
                for prior, truth in zip(found.positions, world.priors, strict=True)
            ]
        # 800 intervals of 95%: four standard deviations of a share of 0.95 are 0.031, of one of 0.985 0.017.
        assert 0.95 - 0.031 <= np.mean(held) <= 1 - 0.002

    def test_more_clicks_come_closer(self, randomised: bool, method: Method) -> None:
        world = World(7, 100_000)
        found = learn(world.statistics(randomised=randomised))
        assert found.method is method
        assert [prior.value for prior in found.positions] == pytest.approx(world.priors, rel=0.1)
        assert all(prior.high / prior.low < 1.35 for prior in found.positions)  # type: ignore[operator]

    def test_no_decline_is_found_where_there_is_none(self, randomised: bool, method: Method) -> None:
        world = World(3, 40_000, decline=0.0)
        found = learn(world.statistics(randomised=randomised))
        relative = np.array([prior.value for prior in found.positions]) / found.positions[0].value
        assert relative == pytest.approx(np.ones(PLACES), abs=0.1)
        # What the policy put first was clicked more for what it is: by position alone it looks like a decline.
        raw = world.clicked.mean(0)
        assert raw[-1] / raw[0] < 0.75


class TestWhatIsKnown:
    def test_nothing_gives_the_default(self) -> None:
        found = learn(empty())
        assert (found.method, found.curve) == (Method.DEFAULT, PositionPriors().curve("page"))
        assert learn(empty(clicks=first(500))).method is Method.DEFAULT

    def test_few_clicks_give_the_default_without_a_scale_of_its_own(self) -> None:
        found = learn(empty(exposures=first(1000), clicks=first(ENOUGH_TO_SCALE - 1)))
        assert (found.method, found.exposures, found.clicks) == (Method.DEFAULT, 1000, ENOUGH_TO_SCALE - 1)

    def test_some_clicks_give_the_scale_alone(self) -> None:
        exposures = first(1000, 1000, 500)
        found = learn(empty(exposures=exposures, clicks=first(30)))
        assert found.method is Method.SCALED
        priors = [prior.value for prior in found.positions]
        assert [prior / priors[0] for prior in priors] == pytest.approx([default_prior(n) / 0.1 for n in (1, 2, 3)])
        assert np.dot(priors, exposures[:3]) == pytest.approx(30)
        assert all(prior.low is prior.high is None for prior in found.positions)

    def test_whatever_the_method_expected_clicks_are_clicks(self) -> None:
        for randomised in (True, False):
            statistics = World(5, 6_000).statistics(randomised=randomised)
            found = learn(statistics)
            assert statistics.exposures @ np.array(found.curve) == pytest.approx(statistics.clicks.sum())

    def test_a_position_without_a_click_is_expected_to_bring_a_little(self) -> None:
        exposures = first(5000, 5000, 200)
        weights, clicks = exposures * 10, first(300, 100, 0)
        found = learn(
            empty(
                exposures=exposures,
                clicks=clicks,
                randomised=exposures,
                weights=weights,
                weights_of_clicks=clicks * 10,
                squares=weights * 10,
                squares_of_clicks=clicks * 100,
            )
        )
        assert found.method is Method.RANDOMISED
        one, two, three = found.positions
        assert 0 < three.value < two.value < one.value
        assert three.high / three.low > 10 * one.high / one.low  # type: ignore[operator]

    @pytest.mark.parametrize(("lower", "method"), [(1, Method.RANDOMISED), (3, Method.CLICK_MODEL)])
    def test_a_share_whose_lower_positions_take_other_items_too_is_not_believed(
        self, lower: int, method: Method
    ) -> None:
        world = World(2, 20_000)
        # As if the policy could put so many times more items there, each so much more seldom.
        world.propensity[:, PLACES // 2 :] /= lower
        assert learn(world.statistics()).method is method

    def test_pairs_that_stood_at_one_position_tell_nothing(self) -> None:
        count_of = 50
        pairs = SampledPairs(
            np.arange(count_of), np.arange(count_of) % 3, np.full(count_of, 100.0), np.full(count_of, 10.0)
        )
        statistics = empty(exposures=first(2000, 2000, 1000), clicks=first(200, 200, 100), sample=pairs)
        assert pairs.clicks.sum() > ENOUGH_CLICKS
        assert learn(statistics).method is Method.SCALED

    def test_clicks_without_an_exposure_break_nothing(self) -> None:
        pairs = SampledPairs(np.zeros(3, np.intp), np.arange(3), np.array([0.0, 100, 100]), np.array([50.0, 90, 80]))
        found = learn(empty(exposures=first(0, 900, 900), clicks=first(50, 90, 80), sample=pairs))
        assert found.method is Method.CLICK_MODEL
        assert all(0 < prior < 1 for prior in found.curve)


def test_what_is_counted_is_what_is_learned_from() -> None:
    known = PositionPriors(1, 0, {"page": SurfacePriors()})
    tallies = [Tally(60_000)]
    by = Counting(lambda _: 0, known)
    rows: dict[tuple[str, int], list[float]] = {}
    draw = np.random.default_rng(4)
    for number in range(300):
        items = [f"item {one}" for one in draw.permutation(40)[:5]]
        places = tuple(Shown(item, position, 0.5) for position, item in enumerate(items, 1))
        count(Impressions(f"e{number}", 60_000_000, "a", "r", "page", places), tallies, by)
        for place in places:
            row = rows.setdefault((place.item_id, place.position), [0.0, 0.0])
            row[0] += 1
            if draw.random() < 0.2:
                row[1] += 1
                click = Interaction(
                    *(f"c{number}", 60_000_000, "a", place.item_id, Action.CLICK),
                    request_id="r",
                    position=place.position,
                    surface="page",
                    propensity=0.5,
                )
                count(click, tallies, by)
    held = {
        delta.anchor: AnchorEvidence(0, tuple(delta.pairs), np.array(list(delta.pairs.values()))[:, : len(Metric)])
        for delta in tallies[0].deltas()
    }
    found = read_statistics([held[positions_anchor("page", 0)]], [held[sample_anchor("page", 0)]])
    for column, part in ((0, found.exposures), (1, found.clicks)):
        by_hand = [sum(row[column] for (_, at), row in rows.items() if at == position) for position in range(1, 6)]
        assert part == pytest.approx(first(*by_hand))
    assert found.randomised == pytest.approx(found.exposures)
    assert found.weights == pytest.approx(found.exposures * 2)
    assert found.squares_of_clicks == pytest.approx(found.clicks * 4)
    sampled = sorted(zip(found.sample.exposures, found.sample.clicks, found.sample.position + 1, strict=True))
    assert sampled
    assert set(sampled) <= {(row[0], row[1], position) for (_, position), row in rows.items()}


class TestDifference:
    base = SurfacePriors(Method.RANDOMISED, (Prior(0.2, 0.1, 0.3), Prior(0.1, 0.05, 0.2)))

    @pytest.mark.parametrize(
        ("after", "matters"),
        [
            (base, False),
            (SurfacePriors(Method.RANDOMISED, (Prior(0.21), Prior(0.095)), 9, 9), False),
            (SurfacePriors(Method.RANDOMISED, (Prior(0.23), Prior(0.1))), True),
            (SurfacePriors(Method.RANDOMISED, (Prior(0.2), Prior(0.08))), True),
            (SurfacePriors(Method.CLICK_MODEL, base.positions), True),
        ],
    )
    def test_it_matters_beyond_a_share(self, after: SurfacePriors, matters: bool) -> None:
        assert differ(self.base, after) is matters
        assert differ(after, self.base) is matters

    def test_a_new_surface_matters(self) -> None:
        assert differ(None, self.base)
