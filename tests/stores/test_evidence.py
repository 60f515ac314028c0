"""What every store of evidence does, whichever engine stands behind it."""

import asyncio
import itertools
import random
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import exceptions
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from nearkin.core.counting import Counting, count
from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.core.evidence import (
    AnchorDelta,
    Effect,
    EvidenceRules,
    Metric,
    Outcome,
    ShardBatch,
    Source,
    Tally,
)
from nearkin.core.feedback import Visit, VisitKind
from nearkin.core.ports import EvidenceStore
from nearkin.core.position_priors import Method, PositionPriors, Prior, SurfacePriors
from nearkin.ops.settings import Settings
from nearkin.stores import evidence
from nearkin.stores.evidence import RedisEvidence
from nearkin.stores.memory_evidence import MemoryEvidence
from nearkin.stores.redis_client import open_redis, translated
from nearkin.stores.shards import SHARDS, shard_of
from stores.redis_cluster import ClusterProcess
from stores.redis_process import RedisProcess

HALF_LIFE = 60_000
NOW = 1_700_000_000_000
LANDMARK = NOW // HALF_LIFE
RULES = EvidenceRules(half_life_ms=HALF_LIFE, most_pairs=8)
TOPIC = Source("topic-a", 0)

#: An anchor, the other item, what happened, when, and how much of it.
Event = tuple[str, str, Metric, int, float]
MakeStore = Callable[..., EvidenceStore]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as process:
        yield process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    with ClusterProcess(tmp_path_factory.mktemp("cluster")) as process:
        yield process


@pytest.fixture(params=["redis", "cluster", "memory"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[MakeStore]:
    """Makes empty stores."""
    if request.param == "memory":
        yield lambda rules=RULES: MemoryEvidence(rules)
        return
    client = request.getfixturevalue(request.param).client()
    yield lambda rules=RULES: RedisEvidence(client, rules, f"test-{uuid.uuid4().hex}")
    await client.aclose()


@pytest.fixture
def store(make: MakeStore) -> EvidenceStore:
    return make()


def counts(**amounts: float) -> list[float]:
    row = [0.0] * len(Metric)
    for name, amount in amounts.items():
        row[Metric[name.upper()]] = amount
    return row


def batch(
    start: int, end: int, *deltas: AnchorDelta, landmark: int = LANDMARK, source: Source = TOPIC, visits: float = 0.0
) -> ShardBatch:
    shard = shard_of(deltas[0].anchor) if deltas else shard_of("a")
    return ShardBatch(source, shard, start, end, landmark, deltas, visits)


def click(candidate: str = "x", amount: float = 1.0, anchor: str = "a") -> AnchorDelta:
    return AnchorDelta(anchor, pairs={candidate: counts(clicks=amount)})


async def clicks(store: EvidenceStore, anchor: str = "a", at: int = LANDMARK * HALF_LIFE) -> dict[str, float]:
    found = (await store.read([anchor], [], at)).anchors[anchor]
    return dict(zip(found.candidates, found.counts[:, Metric.CLICKS].tolist(), strict=True))


def batches_of(events: Sequence[Event], start: int, source: Source = TOPIC) -> list[ShardBatch]:
    """What some events of consecutive offsets add, for every shard that knows their partition."""
    tally = Tally(HALF_LIFE)
    for anchor, candidate, metric, at, amount in events:
        tally.add(anchor, candidate, metric, at, amount)
    deltas = defaultdict(list)
    for delta in tally.deltas():
        deltas[shard_of(delta.anchor)].append(delta)
    end = start + len(events)
    return [ShardBatch(source, shard, start, end, tally.landmark, found) for shard, found in deltas.items()]


async def held(store: EvidenceStore, anchors: str, at: int = NOW) -> dict[tuple[str, str, Metric], float]:
    remembered = await store.read(list(anchors), [], at)
    return {
        (anchor, candidate, metric): count
        for anchor, found in remembered.anchors.items()
        for candidate in found.candidates
        for metric, count in found.of(candidate).items()
    }


class TestGuards:
    async def test_a_batch_counts_once_however_often_it_comes(self, store: EvidenceStore) -> None:
        assert await store.apply([batch(0, 5, click())]) == [Outcome(Effect.APPLIED, 5)]
        assert await store.apply([batch(0, 5, click())]) == [Outcome(Effect.DUPLICATE, 5)]
        assert await store.apply([batch(2, 4, click())]) == [Outcome(Effect.DUPLICATE, 5)]
        assert await clicks(store) == {"x": 1}

    async def test_a_batch_that_overlaps_or_leaves_a_gap_changes_nothing(self, store: EvidenceStore) -> None:
        await store.apply([batch(0, 5, click())])
        assert await store.apply([batch(3, 8, click())]) == [Outcome(Effect.MISMATCH, 5)]
        assert await store.apply([batch(6, 8, click())]) == [Outcome(Effect.MISMATCH, 5)]
        assert await clicks(store) == {"x": 1}
        assert await store.apply([batch(5, 8, click())]) == [Outcome(Effect.APPLIED, 8)]
        assert await clicks(store) == {"x": 2}

    async def test_a_batch_without_deltas_moves_the_guard(self, store: EvidenceStore) -> None:
        assert await store.apply([batch(0, 700)]) == [Outcome(Effect.APPLIED, 700)]
        guards = await store.read_guards(TOPIC)
        assert len(guards) == SHARDS
        assert guards[shard_of("a")] == 700
        assert sum(guards) == 700
        assert await store.apply([batch(700, 701, click())]) == [Outcome(Effect.APPLIED, 701)]

    async def test_partitions_and_topics_made_again_have_guards_of_their_own(self, store: EvidenceStore) -> None:
        sources = [TOPIC, Source("topic-a", 1), Source("topic-b", 0)]
        for number, source in enumerate(sources, 1):
            assert await store.apply([batch(0, number, click(), source=source)]) == [Outcome(Effect.APPLIED, number)]
        found = [(await store.read_guards(source))[shard_of("a")] for source in sources]
        assert found == [1, 2, 3]
        assert await clicks(store) == {"x": 3}

    async def test_offsets_keep_all_their_digits(self, store: EvidenceStore) -> None:
        far = 2**53 - 2
        assert await store.apply([batch(0, far), batch(far, far + 1, click())]) == [
            Outcome(Effect.APPLIED, far),
            Outcome(Effect.APPLIED, far + 1),
        ]
        assert (await store.read_guards(TOPIC))[shard_of("a")] == far + 1

    async def test_of_two_workers_with_the_same_events_one_counts(self, store: EvidenceStore) -> None:
        for start in range(20):
            outcomes = await asyncio.gather(*(store.apply([batch(start, start + 1, click())]) for _ in range(4)))
            effects = Counter(outcome.effect for (outcome,) in outcomes)
            assert effects == {Effect.APPLIED: 1, Effect.DUPLICATE: 3}
        assert await clicks(store) == {"x": 20}

    async def test_an_anchor_of_another_shard_is_refused(self, store: EvidenceStore) -> None:
        other = next(name for name in map(str, itertools.count()) if shard_of(name) != shard_of("a"))
        with pytest.raises(ValueError, match=f"anchor '{other}' is of shard"):
            await store.apply([batch(0, 1, click(), click(anchor=other))])
        with pytest.raises(ValueError, match="no shard 64"):
            await store.apply([ShardBatch(TOPIC, 64, 0, 1, LANDMARK)])

    async def test_nothing_to_apply_is_no_error(self, store: EvidenceStore) -> None:
        assert await store.apply([]) == []


class TestCounting:
    async def test_an_anchor_that_was_never_seen_has_no_evidence(self, store: EvidenceStore) -> None:
        remembered = await store.read(["a"], ["b"], NOW)
        assert remembered.anchors["a"].visits == 0
        assert remembered.anchors["a"].candidates == ()
        assert remembered.anchors["a"].counts.shape == (0, len(Metric))
        assert remembered.anchors["a"].of("x") == {}
        assert remembered.marginals == {"b": 0}
        assert await store.read_visits(NOW) == 0

    async def test_every_metric_is_kept_apart(self, store: EvidenceStore) -> None:
        everything = [float(metric + 1) for metric in Metric]
        await store.apply([batch(0, 1, AnchorDelta("a", pairs={"x": everything}))])
        await store.apply([batch(1, 2, AnchorDelta("a", pairs={"x": counts(hides=5), "y": counts(co_visits=2)}))])
        found = (await store.read(["a"], [], LANDMARK * HALF_LIFE)).anchors["a"]
        assert set(found.candidates) == {"x", "y"}
        assert found.of("x") == {metric: metric + 1 + 5 * (metric is Metric.HIDES) for metric in Metric}
        assert found.of("y") == {Metric.CO_VISITS: 2}

    async def test_metrics_join_in_any_order(self, store: EvidenceStore) -> None:
        names = [metric.name.lower() for metric in Metric]
        random.Random(7).shuffle(names)
        for start, name in enumerate(names):
            await store.apply([batch(start, start + 1, AnchorDelta("a", pairs={"x": counts(**{name: 1.5})}))])
        found = (await store.read(["a"], [], LANDMARK * HALF_LIFE)).anchors["a"]
        assert found.of("x") == dict.fromkeys(Metric, 1.5)

    async def test_marginals_and_all_visits_are_read_beside_the_pairs(self, store: EvidenceStore) -> None:
        tallies = [Tally(HALF_LIFE) for _ in range(SHARDS)]
        for number in range(3):
            visit = Visit(f"e{number}", LANDMARK * HALF_LIFE, f"v{number}", VisitKind.BASKET, ("a", "b", f"c{number}"))
            count(visit, tallies, Counting(shard_of))
        await store.apply(
            [
                ShardBatch(TOPIC, shard, 0, 3, tally.landmark, tally.deltas(), tally.visits)
                for shard, tally in enumerate(tallies)
            ]
        )
        remembered = await store.read(["a"], ["b", "c1", "unknown"], LANDMARK * HALF_LIFE)
        assert remembered.anchors["a"].visits == 3
        assert remembered.anchors["a"].of("b") == {Metric.CO_VISITS: 3}
        assert remembered.marginals == {"b": 3, "c1": 1, "unknown": 0}
        assert await store.read_visits(LANDMARK * HALF_LIFE) == 3
        assert await store.read_visits((LANDMARK + 1) * HALF_LIFE) == 1.5

    async def test_ids_of_any_script_and_shape_are_told_apart(self, store: EvidenceStore) -> None:
        names = ["a", "a:b", "{1}", "é", "e\u0301", "商品", " ", "visits", "x" * 200]
        for start, anchor in enumerate(names):
            delta = AnchorDelta(anchor, pairs={name: counts(clicks=start + 1) for name in names[:7] if name != anchor})
            await store.apply([batch(0, 1, delta, source=Source("t", start))])
        for start, anchor in enumerate(names):
            expected = {name: start + 1 for name in names[:7] if name != anchor}
            assert await clicks(store, anchor) == expected

    async def test_one_batch_takes_more_pairs_than_an_argument_list(self, make: MakeStore) -> None:
        store = make(EvidenceRules(half_life_ms=HALF_LIFE, most_pairs=20_000))
        many = AnchorDelta("a", pairs={f"i{number}": counts(clicks=1) for number in range(9_000)})
        await store.apply([batch(0, 1, many), batch(1, 2, many)])
        assert await clicks(store) == {f"i{number}": 2 for number in range(9_000)}
        await store.apply([batch(2, 3, click("i0"), landmark=LANDMARK + 40)])
        assert len(await clicks(store)) == 9_000


class TestDecay:
    async def test_evidence_counts_half_after_a_half_life(self, store: EvidenceStore) -> None:
        await store.apply([batch(0, 1, AnchorDelta("a", 4.0, {"x": counts(clicks=8)}))])
        later = await store.read(["a"], ["a"], (LANDMARK + 3) * HALF_LIFE)
        assert later.anchors["a"].of("x") == {Metric.CLICKS: 1}
        assert later.anchors["a"].visits == later.marginals["a"] == 0.5

    @pytest.mark.parametrize("ahead", [-2000, -700, -33, -1, 0, 1, 32, 33, 500, 900])
    async def test_a_move_of_the_landmark_changes_no_other_pair(self, store: EvidenceStore, ahead: int) -> None:
        kept = AnchorDelta("a", 3.0, {"x": counts(clicks=0.3), "y": counts(exposures=3, expected=0.7)})
        await store.apply([batch(0, 1, kept)])
        before = await held(store, "a")
        await store.apply([batch(1, 2, AnchorDelta("a", 0.0, {"z": counts(clicks=1)}), landmark=LANDMARK + ahead)])
        after = await held(store, "a")
        new = after.pop(("a", "z", Metric.CLICKS), 0.0)
        assert after == before
        assert new == pytest.approx(2.0 ** (ahead - (NOW - LANDMARK * HALF_LIFE) / HALF_LIFE), rel=1e-12, abs=0)

    async def test_what_lies_two_thousand_half_lives_back_is_forgotten_and_room_is_made(
        self, store: EvidenceStore
    ) -> None:
        await store.apply([batch(0, 1, click("old"))])
        await store.apply([batch(1, 2, click("new"), landmark=LANDMARK + 2000)])
        assert await clicks(store, at=(LANDMARK + 2000) * HALF_LIFE) == {"new": 1}

    async def test_a_late_event_counts_as_if_it_had_come_in_time(self, store: EvidenceStore) -> None:
        await store.apply([batch(0, 1, click("x", 1.0))])
        await store.apply([batch(1, 2, click("x", 1.0), landmark=LANDMARK - 2)])
        assert await clicks(store) == {"x": 1.25}


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from("uvwxyz"),
        st.sampled_from(Metric),
        st.integers(NOW - 100 * HALF_LIFE, NOW),
        st.floats(0.01, 100),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(events=EVENTS, data=st.data())
async def test_counters_are_the_closed_form_whatever_the_order_the_batches_and_the_repeats(
    make: MakeStore, events: list[Event], data: st.DataObject
) -> None:
    store = make()
    order = data.draw(st.permutations(events))
    cuts = sorted({0, len(order), *data.draw(st.lists(st.integers(0, len(order)), max_size=4))})
    start_of: Counter = Counter()
    for start, end in itertools.pairwise(cuts):
        made = batches_of(order[start:end], start)
        for one in made:
            # A shard's guard is where its last batch ended: idle shards follow before they are needed.
            if start_of[one.shard] < one.start:
                idle = ShardBatch(TOPIC, one.shard, start_of[one.shard], one.start, one.landmark)
                assert (await store.apply([idle]))[0].effect is Effect.APPLIED
            start_of[one.shard] = one.end
        assert {outcome.effect for outcome in await store.apply(made)} == {Effect.APPLIED}
        if data.draw(st.booleans()):
            assert {outcome.effect for outcome in await store.apply(made)} == {Effect.DUPLICATE}
    expected: Counter = Counter()
    for anchor, candidate, metric, at, amount in events:
        expected[anchor, candidate, metric] += amount * 2.0 ** ((at - NOW) / HALF_LIFE)
    assert await held(store, "abc") == pytest.approx(dict(expected), rel=1e-9, abs=0)


class TestBounds:
    async def test_beyond_the_cap_the_weakest_go(self, store: EvidenceStore) -> None:
        strong = {f"s{number}": counts(clicks=10 + number) for number in range(8)}
        await store.apply([batch(0, 1, AnchorDelta("a", pairs=strong))])
        assert len(await clicks(store)) == 8
        await store.apply([batch(1, 2, AnchorDelta("a", pairs={"weak": counts(clicks=1, expected=99)}))])
        assert set(await clicks(store)) == {f"s{number}" for number in range(1, 8)}
        await store.apply([batch(2, 3, click("new", 5))])
        assert set(await clicks(store)) == {"new", *(f"s{number}" for number in range(1, 8))}

    async def test_old_evidence_is_weaker_than_new(self, store: EvidenceStore) -> None:
        old = {f"old{number}": counts(clicks=100) for number in range(8)}
        await store.apply([batch(0, 1, AnchorDelta("a", pairs=old))])
        for start, ahead in ((1, 20), (2, 60)):
            new = {f"new{ahead}-{number}": counts(clicks=1) for number in range(7)}
            await store.apply([batch(start, start + 1, AnchorDelta("a", pairs=new), landmark=LANDMARK + ahead)])
            assert set(await clicks(store)) == set(new)

    async def test_of_equals_the_cap_keeps_the_same_ones_everywhere(self, store: EvidenceStore) -> None:
        await store.apply([batch(0, 1, AnchorDelta("a", pairs={name: counts(clicks=1) for name in "ihgfedcbj"}))])
        assert set(await clicks(store)) == set("bcdefgh")

    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(events=st.lists(st.tuples(st.integers(0, 30), st.floats(0.1, 10)), max_size=60))
    async def test_no_anchor_ever_has_more_pairs_than_the_cap(
        self, make: MakeStore, events: list[tuple[int, float]]
    ) -> None:
        store = make()
        upper: Counter = Counter()
        for start, (candidate, amount) in enumerate(events):
            upper[str(candidate)] += amount
            await store.apply([batch(start, start + 1, click(str(candidate), amount))])
        found = await clicks(store)
        assert len(found) <= 8
        assert all(count <= upper[candidate] * (1 + 1e-12) for candidate, count in found.items())

    async def test_an_anchor_that_nothing_happens_to_is_forgotten_and_its_guard_is_not(self, make: MakeStore) -> None:
        store = make(EvidenceRules(half_life_ms=HALF_LIFE, idle_ms=1))
        await store.apply([batch(0, 1, click())])
        while await clicks(store):  # noqa: ASYNC110 - Redis tells nobody when it forgets
            await asyncio.sleep(0.01)
        assert await store.apply([batch(0, 1, click())]) == [Outcome(Effect.DUPLICATE, 1)]
        assert await store.apply([batch(1, 2, AnchorDelta("a"))]) == [Outcome(Effect.APPLIED, 2)]


class TestClock:
    async def test_the_newest_time_of_an_event_is_kept_whatever_the_order(self, store: EvidenceStore) -> None:
        assert await store.read_newest() == 0
        elsewhere = next(name for name in map(str, itertools.count()) if shard_of(name) != shard_of("a"))
        shard = shard_of("a")
        await store.apply([ShardBatch(TOPIC, shard, 0, 1, LANDMARK, newest_ms=NOW)])
        assert await store.read_newest() == NOW
        await store.apply([ShardBatch(TOPIC, shard, 1, 2, LANDMARK, newest_ms=NOW - 1)])
        await store.apply([ShardBatch(TOPIC, shard, 2, 3, LANDMARK)])
        assert await store.read_newest() == NOW
        await store.apply([ShardBatch(TOPIC, shard_of(elsewhere), 0, 1, LANDMARK, newest_ms=NOW + 1)])
        assert await store.read_newest() == NOW + 1

    async def test_a_batch_that_was_applied_before_moves_no_clock(self, store: EvidenceStore) -> None:
        await store.apply([batch(0, 1, click())])
        await store.apply([ShardBatch(TOPIC, shard_of("a"), 0, 1, LANDMARK, newest_ms=NOW)])
        assert await store.read_newest() == 0


class TestBookkeeping:
    async def test_it_tells_the_landmark_of_an_anchor_and_how_far_its_shard_is_in_each_partition(
        self, store: EvidenceStore
    ) -> None:
        again = Source("topic-made-again", 3)
        await store.apply([batch(0, 5, click()), ShardBatch(again, shard_of("a"), 0, 2, LANDMARK)])
        elsewhere = next(name for name in map(str, itertools.count()) if shard_of(name) != shard_of("a"))
        await store.apply([ShardBatch(TOPIC, shard_of(elsewhere), 0, 9, LANDMARK)])
        found = await store.read_bookkeeping("a")
        assert (found.shard, found.landmark) == (shard_of("a"), LANDMARK)
        assert found.guards == {TOPIC: 5, again: 2}

    async def test_an_anchor_of_which_nothing_is_remembered_has_no_landmark(self, store: EvidenceStore) -> None:
        found = await store.read_bookkeeping("a")
        assert (found.shard, found.landmark, found.guards) == (shard_of("a"), None, {})


DAYS = 86_400_000


class TestFormerTopics:
    """Guards of topics that are gone: forgotten late, and only where nothing moved."""

    former, present = Source("gone", 2), TOPIC
    elsewhere = next(shard for shard in range(SHARDS) if shard != shard_of("a"))

    async def forget(self, store: EvidenceStore, day: int) -> set[Source]:
        return set(await store.forget_former({self.present.topic_id}, NOW + day * DAYS, 28 * DAYS, 3))

    async def count(self, store: EvidenceStore) -> None:
        for source in (self.former, self.present):
            for shard in (shard_of("a"), self.elsewhere):
                await store.apply([ShardBatch(source, shard, 0, 5, LANDMARK)])

    async def test_they_are_kept_for_so_long_as_they_may_be_needed_and_go_then(self, store: EvidenceStore) -> None:
        await self.count(store)
        assert [await self.forget(store, day) for day in (0, 1, 27)] == [set(), set(), set()]
        assert await store.read_guards(self.former) == await store.read_guards(self.present)
        assert await self.forget(store, 28) == {self.former}
        assert not any(await store.read_guards(self.former))
        assert sum(await store.read_guards(self.present)) == 10
        assert await self.forget(store, 60) == set()

    async def test_one_that_moves_in_any_shard_begins_to_stand_still_again(self, store: EvidenceStore) -> None:
        await self.count(store)
        await self.forget(store, 0)
        await store.apply([ShardBatch(self.former, self.elsewhere, 5, 6, LANDMARK)])
        assert [await self.forget(store, day) for day in (28, 55)] == [set(), set()]
        assert sum(await store.read_guards(self.former)) == 11
        assert await self.forget(store, 56) == {self.former}

    async def test_one_that_was_there_again_meanwhile_begins_to_stand_still_again(self, store: EvidenceStore) -> None:
        await self.count(store)
        await self.forget(store, 0)
        present = {self.former.topic_id, self.present.topic_id}
        assert not await store.forget_former(present, NOW + 20 * DAYS, 28 * DAYS, 3)
        assert [await self.forget(store, day) for day in (28, 55)] == [set(), set()]
        assert await self.forget(store, 56) == {self.former}

    async def test_a_clock_that_was_ahead_forgets_nothing_sooner(self, store: EvidenceStore) -> None:
        await self.count(store)
        await self.forget(store, 100)
        assert [await self.forget(store, day) for day in (0, 27)] == [set(), set()]

    async def test_a_clock_that_jumps_ahead_forgets_nothing_before_enough_looks(self, store: EvidenceStore) -> None:
        await self.count(store)
        assert [await self.forget(store, day) for day in (0, 500)] == [set(), set()]
        assert sum(await store.read_guards(self.former)) == 10
        assert await self.forget(store, 500) == {self.former}

    async def test_one_that_moves_is_looked_at_anew(self, store: EvidenceStore) -> None:
        await self.count(store)
        for _ in range(3):
            await self.forget(store, 0)
        await store.apply([ShardBatch(self.former, self.elsewhere, 5, 6, LANDMARK)])
        assert [await self.forget(store, day) for day in (1, 500)] == [set(), set()]
        assert await self.forget(store, 500) == {self.former}


class TestPriors:
    priors = PositionPriors(
        1, NOW, {"page": SurfacePriors(Method.RANDOMISED, (Prior(0.1, 0.05, 0.2),)), "mail": SurfacePriors()}
    )

    async def test_none_are_known_at_first(self, store: EvidenceStore) -> None:
        assert await store.read_priors() == PositionPriors()

    async def test_they_are_read_as_they_were_published(self, store: EvidenceStore) -> None:
        assert await store.publish_priors(self.priors)
        assert await store.read_priors() == self.priors

    async def test_of_two_that_publish_one_version_one_is_in_force(self, store: EvidenceStore) -> None:
        offers = [replace(self.priors, at_ms=number) for number in range(4)]
        published = await asyncio.gather(*map(store.publish_priors, offers))
        assert sorted(published) == [False, False, False, True]
        assert await store.read_priors() == offers[published.index(True)]

    async def test_a_version_that_does_not_follow_is_not_put_in_force(self, store: EvidenceStore) -> None:
        assert not await store.publish_priors(replace(self.priors, version=2))
        assert not await store.publish_priors(replace(self.priors, version=0))
        assert await store.read_priors() == PositionPriors()


class TestRedis:
    """What only an engine of its own can do wrong."""

    @pytest.fixture
    async def store(self, redis: RedisProcess) -> AsyncIterator[RedisEvidence]:
        made = RedisEvidence(redis.client(), RULES, f"test-{uuid.uuid4().hex}")
        yield made
        await made.close()

    async def test_it_is_reached_by_its_setting(self, redis: RedisProcess) -> None:
        store = evidence.connect(Settings(redis_url=redis.url), RULES)
        await store.check()
        assert await store.read_visits(NOW) == 0
        await store.close()

    def test_a_setting_that_is_no_url_is_refused(self) -> None:
        with pytest.raises(Misconfigured, match="NEARKIN_REDIS_URL: it is no URL of a Redis; give redis://"):
            open_redis("localhost:6379")

    async def test_one_that_may_evict_is_refused(self, redis: RedisProcess, store: RedisEvidence) -> None:
        redis.configure(maxmemory_policy="allkeys-lru")
        with pytest.raises(Misconfigured, match="its maxmemory-policy is allkeys-lru; set maxmemory-policy to noev"):
            await store.check()
        redis.configure(maxmemory_policy="noeviction")
        await store.check()

    async def test_one_that_keeps_no_append_only_file_is_refused(
        self, redis: RedisProcess, store: RedisEvidence
    ) -> None:
        redis.configure(appendonly="no")
        with pytest.raises(Misconfigured, match=r"no append-only file.*set appendonly to yes"):
            await store.check()
        redis.configure(appendonly="yes")
        await store.check()

    async def test_another_half_life_is_refused_at_start_and_at_every_batch(
        self, redis: RedisProcess, store: RedisEvidence
    ) -> None:
        await store.apply([batch(0, 1, click())])
        other = RedisEvidence(redis.client(), EvidenceRules(half_life_ms=HALF_LIFE * 2), store._prefix)
        with pytest.raises(Misconfigured, match=r"half-life of 0\.000694444 days, not 0\.00138889"):
            await other.check()
        with pytest.raises(Misconfigured, match="use the half-life that it was begun with"):
            await other.apply([batch(1, 2, click())])
        await other.close()
        assert await store.read_guards(TOPIC) == [1 if shard == shard_of("a") else 0 for shard in range(SHARDS)]

    async def test_it_loads_its_script_again_where_redis_lost_it(
        self, redis: RedisProcess, store: RedisEvidence
    ) -> None:
        await store.apply([batch(0, 1, click())])
        client = redis.client()
        await client.script_flush()
        await client.aclose()
        assert await store.apply([batch(1, 2, click()), batch(2, 3, click())]) == [
            Outcome(Effect.APPLIED, 2),
            Outcome(Effect.APPLIED, 3),
        ]
        assert await clicks(store) == {"x": 3}

    async def test_where_redis_loses_its_scripts_again_and_again_it_is_unavailable(
        self, redis: RedisProcess, store: RedisEvidence, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.apply([batch(0, 1, click())])
        client, load = redis.client(), evidence.ask_masters

        async def load_in_vain(*arguments: object) -> list[object]:
            answers = await load(*arguments)  # type: ignore[arg-type]
            await client.script_flush()
            return answers

        monkeypatch.setattr(evidence, "ask_masters", load_in_vain)
        await client.script_flush()
        with pytest.raises(Unavailable, match="it has just lost its scripts"):
            await store.apply([batch(1, 2, click())])
        monkeypatch.undo()
        await client.aclose()
        assert await store.apply([batch(1, 2, click())]) == [Outcome(Effect.APPLIED, 2)]

    async def test_without_memory_it_is_unavailable_and_nothing_is_lost(
        self, redis: RedisProcess, store: RedisEvidence
    ) -> None:
        await store.apply([batch(0, 1, click())])
        redis.configure(maxmemory="1")
        try:
            with pytest.raises(Unavailable, match="no memory left; raise its maxmemory"):
                await store.apply([batch(1, 2, click())])
            assert await clicks(store) == {"x": 1}
        finally:
            redis.configure(maxmemory="0")
        assert await store.apply([batch(1, 2, click())]) == [Outcome(Effect.APPLIED, 2)]
        assert await clicks(store) == {"x": 2}

    @pytest.mark.parametrize(
        ("error", "meaning"),
        [
            (OutOfMemoryError("command not allowed"), "no memory left"),
            (ResponseError("MISCONF Redis is configured to save"), "cannot write to its disk"),
            (ReadOnlyError("You can't write"), "a replica, which takes no writes"),
            (BusyLoadingError("Redis is loading"), "it loads its data"),
            (ResponseError("BUSY Redis is busy"), "busy with a script"),
            (exceptions.NoScriptError("No matching script."), "it has just lost its scripts"),
            (exceptions.TimeoutError("secret"), "TimeoutError$"),
        ],
    )
    def test_what_passes_is_told_as_unavailable_in_words_of_our_own(self, error: RedisError, meaning: str) -> None:
        told = translated(error)
        assert isinstance(told, Unavailable)
        assert re.search(meaning, str(told))
        assert str(error) not in str(told)

    @pytest.mark.parametrize(
        ("error", "remedy"),
        [
            (AuthenticationError("WRONGPASS secret"), "give a user that may run scripts"),
            (NoPermissionError("this user has no permissions"), "give a user that may run scripts"),
            (ResponseError("unknown command secret"), "version 6.2 or newer"),
        ],
    )
    def test_what_stays_is_told_with_its_remedy(self, error: RedisError, remedy: str) -> None:
        told = translated(error)
        assert isinstance(told, Misconfigured)
        assert remedy in told.remedy
        assert "secret" not in str(told)

    async def test_a_script_that_fails_half_way_has_written_nothing(
        self, redis: RedisProcess, store: RedisEvidence
    ) -> None:
        neighbour = next(name for name in map(str, itertools.count()) if shard_of(name) == shard_of("a"))
        client = redis.client()
        await client.set(store._anchor_key(neighbour), "not a hash")
        with pytest.raises(Misconfigured, match="where no other program uses keys") as refused:
            await store.apply([batch(0, 1, click(), click(anchor=neighbour))])
        assert "not a hash" not in str(refused.value)
        assert await clicks(store) == {}
        assert (await store.read_guards(TOPIC))[shard_of("a")] == 0
        await client.delete(store._anchor_key(neighbour))
        assert await store.apply([batch(0, 1, click(), click(anchor=neighbour))]) == [Outcome(Effect.APPLIED, 1)]
        await client.aclose()

    async def test_priors_that_cannot_be_read_are_told_with_what_to_do(
        self, redis: RedisProcess, store: RedisEvidence
    ) -> None:
        client = redis.client()
        await client.hset(store._priors_key(), "priors", b'{"version": "two"}')
        with pytest.raises(Misconfigured, match="does not hold position priors"):
            await store.read_priors()
        await client.aclose()

    async def test_an_anchor_stays_compact_with_every_metric(self, redis: RedisProcess, store: RedisEvidence) -> None:
        everything = {str(number): [1.5] * len(Metric) for number in range(8)}
        await store.apply([batch(0, 1, AnchorDelta("a", 1.0, everything))])
        client = redis.client()
        assert await client.object("encoding", store._anchor_key("a")) in (b"ziplist", b"listpack")
        await client.aclose()

    async def test_one_that_is_not_there_is_unavailable(self, tmp_path: object) -> None:
        store = evidence.connect(Settings(redis_url="redis://127.0.0.1:1/0"), RULES)
        calls: list[Callable[[], Awaitable[object]]] = [
            store.check,
            lambda: store.apply([batch(0, 1, click())]),
            lambda: store.read(["a"], [], NOW),
            lambda: store.read_guards(TOPIC),
        ]
        for call in calls:
            with pytest.raises(Unavailable, match="the evidence is unavailable: ConnectionError"):
                await call()
        await store.close()


class TestCluster:
    """What only several servers can do wrong."""

    @pytest.fixture
    async def store(self, cluster: ClusterProcess) -> AsyncIterator[RedisEvidence]:
        made = RedisEvidence(cluster.client(), RULES, f"test-{uuid.uuid4().hex}")
        yield made
        await made.close()

    async def test_it_is_reached_by_its_setting_through_any_of_its_nodes(self, cluster: ClusterProcess) -> None:
        for node in cluster.nodes:
            url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{node.port}"
            store = evidence.connect(Settings(redis_url=url), RULES)
            await store.check()
            assert await store.read_visits(NOW) == 0
            await store.close()

    @pytest.mark.parametrize(
        "url",
        [
            "redis+cluster://",
            "redis+cluster://localhost",
            "redis+cluster://one:7000,two",
            "redis+cluster://one:7000,two:70000",
            "redis+cluster://one:7000/1",
            "http+cluster://one:7000",
        ],
    )
    def test_a_setting_that_names_no_nodes_is_refused(self, url: str) -> None:
        with pytest.raises(Misconfigured, match=r"of a cluster redis\+cluster://HOST:PORT,HOST:PORT"):
            open_redis(url)

    async def test_a_name_and_a_password_go_to_every_node(self, cluster: ClusterProcess) -> None:
        for node in cluster.nodes:
            node.ask("ACL", "SETUSER", "worker", "on", ">s3cret", "~nk:*", "+@all")
        for password, is_right in (("s3cret", True), ("guess", False)):
            url = cluster.url.replace("://", f"://worker:{password}@")
            store = evidence.connect(Settings(redis_url=url), RULES)
            if is_right:
                assert await store.read_guards(TOPIC) == [0] * SHARDS
            else:
                with pytest.raises(Misconfigured, match="Redis refuses the user or the password"):
                    await store.check()
            await store.close()

    async def test_a_node_taken_for_a_server_and_a_server_taken_for_a_node_are_refused(
        self, cluster: ClusterProcess, redis: RedisProcess
    ) -> None:
        store = evidence.connect(Settings(redis_url=cluster.nodes[0].url), RULES)
        with pytest.raises(Misconfigured, match=r"a node of a Redis Cluster; give redis\+cluster://HOST:PORT"):
            await store.check()
        await store.close()
        store = evidence.connect(Settings(redis_url=redis.url.replace("redis:", "redis+cluster:")), RULES)
        with pytest.raises(Misconfigured, match="it is no Redis Cluster; give redis://HOST:PORT"):
            await store.check()
        await store.close()

    @pytest.mark.parametrize(
        ("wrong", "right", "problem"),
        [
            ({"maxmemory_policy": "allkeys-lru"}, {"maxmemory_policy": "noeviction"}, "may evict evidence"),
            ({"appendonly": "no"}, {"appendonly": "yes"}, "keeps no append-only file"),
        ],
    )
    async def test_one_master_that_would_forget_is_refused(
        self, cluster: ClusterProcess, store: RedisEvidence, wrong: dict, right: dict, problem: str
    ) -> None:
        for master in cluster.masters:
            await store.check()
            master.configure(**wrong)
            try:
                with pytest.raises(Misconfigured, match=problem):
                    await store.check()
            finally:
                master.configure(**right)

    async def test_a_round_trip_goes_to_every_master_and_loads_the_script_where_it_is_lost(
        self, cluster: ClusterProcess, store: RedisEvidence
    ) -> None:
        anchors = {shard_of(name): name for name in map(str, range(500))}
        assert len(anchors) == SHARDS
        assert {cluster.master_of(store._shard_key(shard)).port for shard in anchors} == {
            master.port for master in cluster.masters
        }
        for start, lost in enumerate([cluster.masters[:1], cluster.masters, []]):
            for master in lost:
                master.ask("SCRIPT", "FLUSH")
            made = [batch(start, start + 1, click(anchor=anchor)) for anchor in anchors.values()]
            assert {outcome.effect for outcome in await store.apply(made)} == {Effect.APPLIED}
        found = await store.read(list(anchors.values()), [], LANDMARK * HALF_LIFE)
        assert [one.of("x") for one in found.anchors.values()] == [{Metric.CLICKS: 3}] * SHARDS
        assert await store.read_guards(TOPIC) == [3] * SHARDS

    async def test_a_shard_that_moves_is_waited_for_and_everything_counts_once(
        self, cluster: ClusterProcess, store: RedisEvidence
    ) -> None:
        await store.apply([batch(0, 1, click())])
        shard_key, anchor_key = store._shard_key(shard_of("a")), store._anchor_key("a")
        giver = cluster.master_of(shard_key)
        taker = next(master for master in cluster.masters if master is not giver)
        slot = key_slot(shard_key.encode())
        taker.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", giver.id)
        giver.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", taker.id)
        giver.ask("MIGRATE", "127.0.0.1", taker.port, shard_key, 0, 5000)
        assert (await store.read_guards(TOPIC))[shard_of("a")] == 1
        assert await clicks(store) == {"x": 1}
        with pytest.raises(Unavailable, match="the cluster moves this shard"):
            await store.apply([batch(1, 2, click())])
        giver.ask("MIGRATE", "127.0.0.1", taker.port, anchor_key, 0, 5000)
        for node in (taker, giver):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", taker.id)
        assert await store.apply([batch(0, 1, click()), batch(1, 2, click())]) == [
            Outcome(Effect.DUPLICATE, 1),
            Outcome(Effect.APPLIED, 2),
        ]
        assert await clicks(store) == {"x": 2}

    async def test_one_whose_nodes_are_all_away_is_unavailable(self) -> None:
        store = evidence.connect(Settings(redis_url="redis+cluster://127.0.0.1:1,127.0.0.1:2"), RULES)
        calls: list[Callable[[], Awaitable[object]]] = [
            store.check,
            lambda: store.apply([batch(0, 1, click())]),
            lambda: store.read(["a"], [], NOW),
        ]
        for call in calls:
            with pytest.raises(Unavailable, match="the evidence is unavailable: ConnectionError"):
                await call()
        await store.close()
