"""What the use case does with what befalls it, on logs and a store of this process."""

import asyncio
import time

import pytest
from prometheus_client import generate_latest

from feedback.feedback_stage import EVIDENCE, as_sent
from feedback.made_logs import Made
from nearkin.contracts.topics import FEEDBACK, VISITS
from nearkin.core.errors import Unavailable
from nearkin.core.evidence import Source
from nearkin.feedback import apply_feedback
from nearkin.feedback import partition as module
from nearkin.ops.failures import Stopped
from nearkin.ops.read_log import Log
from nearkin.ops.record import Record
from nearkin.ops.watchdog import Judge, Progress
from nearkin.stores.memory_evidence import MemoryEvidence

NOW = int(time.time() * 1000)
VISITED = (VISITS.name, 0)
SOURCE = Source("topic", 0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Logs are looked at in every tick."""
    monkeypatch.setattr(apply_feedback, "DESCRIBE_EVERY_S", 0)


def basket(offset, *items, **fields):
    event = {"kind": "visit", "event_id": f"visit-{offset}", "visit_id": f"v-{offset}", "visit_kind": "basket"}
    _, key, value = as_sent(event | {"occurred_at": NOW, "items": items} | fields)
    return Record(VISITS.name, 0, offset, NOW, key, value)


def baskets(begin, end):
    return [basket(offset, f"one-{offset}", f"other-{offset}") for offset in range(begin, end)]


async def visits(store):
    """How many visits a store has counted; all happen now, so none has decayed."""
    return round(await store.read_visits(NOW), 6)


def large_basket(offset, size=30):
    return basket(offset, *(f"item-{offset}-{number}" for number in range(size)))


async def having_counted(number):
    """A worker that holds the partition and has counted all of its baskets."""
    made = Made()
    made.logs.hold(baskets(0, number))
    await made.apply.begin(frozenset({VISITED}))
    await made.apply(baskets(0, number))
    return made


async def test_a_batch_of_large_baskets_on_a_slow_store_is_no_stall_however_long_it_takes(monkeypatch):
    monkeypatch.setattr(module, "MOST_PAIRS", 40)
    clock, verdicts = [100.0], []
    progress, judge = Progress(in_flight_since=100.0), Judge(timeout_s=5)

    class SlowStore(MemoryEvidence):
        async def apply(self, batches):
            clock[0] += 4
            verdicts.append(judge.verdict(clock[0], progress, {VISITED: 20}))
            return await super().apply(batches)

    def advance():
        progress.advanced_at = clock[0]

    made = Made(SlowStore(EVIDENCE), advance=advance)
    records = [large_basket(offset) for offset in range(20)]
    made.logs.hold(records)
    await made.apply.begin(frozenset({VISITED}))

    await made.apply(records)

    assert len(verdicts) > 5
    assert set(verdicts) == {""}
    assert made.counted("events_total", topic=VISITS.name, outcome="applied") == 20


async def test_of_a_thousand_partitions_few_are_served_at_a_time():
    at_once, most = 0, 0

    class CountedStore(MemoryEvidence):
        async def counted(self, call, *arguments):
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            try:
                return await call(*arguments)
            finally:
                at_once -= 1

        async def read_guards(self, source):
            return await self.counted(super().read_guards, source)

        async def apply(self, batches):
            return await self.counted(super().apply, batches)

    made = Made(CountedStore(EVIDENCE))
    records = [basket(0, "one", "other")._replace(partition=number) for number in range(1_000)]
    made.logs.hold(records)
    await made.apply.begin(frozenset(made.logs.logs))

    await made.apply(records)
    await made.apply.tick()

    assert 1 < most <= 32
    assert made.counted("events_total", topic=VISITS.name, outcome="applied") == 1_000


async def test_a_log_that_is_shorter_than_what_was_counted_of_it_is_not_waited_for_and_told():
    made = await having_counted(30)
    await made.apply.tick()
    made.logs.records[VISITED] = baskets(0, 20)
    made.logs.logs[VISITED] = Log("topic", 0, 20)

    successor = Made(made.store, made.logs)
    begins = await successor.apply.begin(frozenset({VISITED}))
    await successor.apply(baskets(20, 40))
    await successor.apply.tick()

    assert begins == {VISITED: 30}
    assert successor.counted("guards_ahead_offsets_total", topic=VISITS.name) == 10
    assert await visits(made.store) == 40  # of the new ones, those up to 30 were taken for counted
    assert set(await made.store.read_guards(SOURCE)) == {40}


async def test_an_end_that_the_broker_names_late_is_no_shorter_log():
    made = await having_counted(30)
    await made.apply.tick()
    made.logs.logs[VISITED] = Log("topic", 0, 20)

    successor = Made(made.store, made.logs)
    await successor.apply.begin(frozenset({VISITED}))
    await successor.apply([basket(30, "one", "other", event_id="visit-29")])

    assert successor.counted("guards_ahead_offsets_total", topic=VISITS.name) == 0
    assert successor.counted("events_total", topic=VISITS.name, outcome="repeated") == 1


async def test_a_store_that_comes_back_empty_beside_a_log_whose_end_is_named_late_is_filled_again():
    made = await having_counted(30)
    await made.apply.tick()
    made.logs.logs[VISITED] = Log("topic", 0, 20)
    made.store.__init__(EVIDENCE)

    await made.apply.tick()

    assert await visits(made.store) == 30


async def test_a_store_that_comes_back_empty_beside_a_log_that_is_shorter_counts_what_comes_there():
    made = await having_counted(30)
    await made.apply.tick()
    made.logs.records[VISITED] = baskets(0, 20)
    made.logs.logs[VISITED] = Log("topic", 0, 20)
    made.store.__init__(EVIDENCE)

    await made.apply.tick()
    await made.apply(baskets(20, 40))

    assert await visits(made.store) == 40


async def test_a_broker_that_gives_nothing_of_what_it_says_it_has_is_asked_again():
    made = await having_counted(30)
    await made.apply.tick()
    made.logs.records[VISITED] = baskets(0, 20)

    with pytest.raises(Unavailable, match="gives nothing"):
        await Made(made.store, made.logs).apply.begin(frozenset({VISITED}))


async def test_a_long_way_back_ends_with_the_partition_and_the_guards_say_how_far_it_came():
    made = Made()
    made.logs.hold(baskets(0, 100))
    await made.apply.begin(frozenset({VISITED}))
    pieces = []

    def came():
        pieces.append(1)
        if len(pieces) == 3:
            made.apply._assigned = frozenset()

    made.logs.came = came

    await made.apply([basket(100, "a", "b")])

    assert await visits(made.store) == 30


async def test_a_long_way_back_ends_when_the_worker_is_told_to_stop():
    stopping = asyncio.Event()
    made = Made(stopping=stopping)
    made.logs.hold(baskets(0, 100))
    await made.apply.begin(frozenset({VISITED}))
    made.logs.came = stopping.set

    with pytest.raises(Stopped):
        await made.apply([basket(100, "a", "b")])

    assert await visits(made.store) == 10
    assert max(await made.store.read_guards(SOURCE)) == 10


async def test_a_batch_of_many_rounds_ends_when_the_worker_is_told_to_stop(monkeypatch):
    monkeypatch.setattr(module, "MOST_PAIRS", 2)
    stopping = asyncio.Event()
    made = Made(stopping=stopping, advance=stopping.set)
    made.logs.hold(baskets(0, 100))
    await made.apply.begin(frozenset({VISITED}))

    with pytest.raises(Stopped):
        await made.apply(baskets(0, 100))

    assert 0 < await visits(made.store) < 100


async def test_what_expired_before_it_was_counted_is_passed_and_told():
    made = Made()
    made.logs.hold(baskets(0, 50))
    await made.apply.begin(frozenset({VISITED}))
    await made.apply(baskets(0, 10))
    await made.apply.tick()
    made.logs.logs[VISITED] = Log("topic", 25, 50)

    successor = Made(made.store, made.logs)
    begins = await successor.apply.begin(frozenset({VISITED}))
    await successor.apply(baskets(25, 50))

    assert begins == {VISITED: 25}
    assert successor.counted("feedback_expired_total", topic=VISITS.name) == 15
    assert await visits(made.store) == 10 + 25


async def test_a_new_store_has_missed_nothing_that_expired_before_it():
    made = Made()
    made.logs.hold(baskets(0, 50), begin=25)

    await made.apply.begin(frozenset({VISITED}))
    await made.apply(baskets(25, 50))

    assert made.counted("feedback_expired_total", topic=VISITS.name) == 0
    assert await visits(made.store) == 25


async def test_a_store_that_comes_back_empty_is_told_what_is_counted_again_and_what_is_lost_for_good():
    made = await having_counted(50)
    await made.apply.tick()
    made.logs.logs[VISITED] = Log("topic", 20, 50)
    made.store.__init__(EVIDENCE)

    await made.apply.tick()

    assert await visits(made.store) == 30
    assert min(await made.store.read_guards(SOURCE)) >= 20
    assert made.counted("evidence_regressions_total") == 1
    assert made.counted("feedback_expired_total", topic=VISITS.name) == 20


@pytest.mark.parametrize("away_at", [1, 2, 3])
async def test_a_way_back_that_fails_half_way_passes_nothing_that_is_not_counted(away_at):
    class AwayStore(MemoryEvidence):
        calls = -1000

        async def apply(self, batches):
            self.calls += 1
            if self.calls == away_at:
                raise Unavailable("evidence", "it is away")
            return await super().apply(batches)

    made = Made(AwayStore(EVIDENCE))
    bad = Record(VISITS.name, 0, 29, NOW, b"v", b"no json")
    records = [*baskets(0, 29), bad]
    made.logs.hold(records)
    await made.apply.begin(frozenset({VISITED}))
    await made.apply(records)
    await made.apply.tick()
    made.letters.sent.clear()
    made.store.__init__(EVIDENCE)
    made.store.calls = 0

    with pytest.raises(Unavailable):
        await made.apply.tick()
    await made.apply.tick()

    assert await visits(made.store) == 29
    assert set(await made.store.read_guards(SOURCE)) == {30}
    assert {each.record.offset for each in made.letters.sent} == {29}


async def test_a_batch_that_is_tried_again_did_not_come_again_and_is_as_old_as_it_is():
    class AwayStore(MemoryEvidence):
        away = 3

        async def apply(self, batches):
            self.away -= 1
            if self.away >= 0:
                raise Unavailable("evidence", "it is away")
            return await super().apply(batches)

    clock = [NOW / 1000]
    made = Made(AwayStore(EVIDENCE), now=lambda: clock[0])
    made.logs.hold(baskets(0, 10))
    await made.apply.begin(frozenset({VISITED}))
    for _ in range(3):
        with pytest.raises(Unavailable):
            await made.apply(baskets(0, 10))
        clock[0] += 100
    await made.apply(baskets(0, 10))
    await made.apply(baskets(4, 10))

    assert made.counted("events_total", topic=VISITS.name, outcome="applied") == 10
    assert made.counted("events_total", topic=VISITS.name, outcome="superseded") == 6
    assert made.counted("evidence_freshness_seconds_sum", stage="consumed_to_applied") == pytest.approx(3000)


async def test_the_lag_of_a_partition_that_moved_away_is_not_told_any_more():
    made, other = Made(), (VISITS.name, 1)
    made.logs.hold([*baskets(0, 10), *(each._replace(partition=1) for each in baskets(0, 10))])
    await made.apply.begin(frozenset({VISITED, other}))
    await made.apply.tick()
    lag = [made.counted("guard_lag_events", topic=VISITS.name, partition=number) for number in "01"]

    await made.apply.begin(frozenset({VISITED}))
    await made.apply.tick()

    assert lag == [10, 10]
    assert "guard_lag_events{" in (text := generate_latest(made.metrics.registry).decode())
    assert 'partition="1"' not in text


async def test_one_partition_that_cannot_be_tended_holds_the_others_up_no_more():
    made, other = Made(), (VISITS.name, 1)
    made.logs.hold([*baskets(0, 10), *(each._replace(partition=1) for each in baskets(0, 10))])

    async def read_guards(source):
        if source.partition == 0 and broken:
            raise Unavailable("evidence", "it is away")
        return await MemoryEvidence.read_guards(made.store, source)

    broken = False
    await made.apply.begin(frozenset({VISITED, other}))
    broken = True
    made.store.read_guards = read_guards

    with pytest.raises(Unavailable):
        await made.apply.tick()

    assert made.counted("guard_lag_events", topic=VISITS.name, partition="1") == 10


async def test_a_store_that_does_not_answer_is_waited_for_by_all_partitions_at_once():
    """One after the other they would wait longer than a worker may take that has not stalled."""
    made, places = Made(), [(VISITS.name, number) for number in range(8)]
    made.logs.hold([each._replace(partition=number) for _, number in places for each in baskets(0, 10)])
    await made.apply.begin(frozenset(places))
    all_wait = asyncio.Barrier(len(places))

    async def read_guards(source):
        async with asyncio.timeout(5):
            await all_wait.wait()
        raise Unavailable("evidence", "no answer in time")

    made.store.read_guards = read_guards

    with pytest.raises(Unavailable, match="no answer in time"):
        await made.apply.tick()


async def test_actions_that_name_no_slate_are_counted_as_such():
    made, place = Made(), (FEEDBACK.name, 0)
    click = {"kind": "interaction", "occurred_at": NOW, "anchor": "a", "item_id": "b", "action": "click"}
    known = [{}, {"request_id": "r"}, {"request_id": "r", "position": 1}]
    records = [
        Record(FEEDBACK.name, 0, offset, NOW, *as_sent({**click, "event_id": f"click-{offset}", **fields})[1:])
        for offset, fields in enumerate(known)
    ]
    made.logs.hold(records)
    await made.apply.begin(frozenset({place}))

    await made.apply(records)

    assert made.counted("unexposed_actions_total") == 2
