"""What of a partition counts, and for which shard: a function of the log and the guards alone."""

import asyncio
import logging
import random
import time
import tracemalloc

import pytest

from feedback.feedback_stage import EVIDENCE, ITEMS, USERS, as_sent, make_events
from feedback.reference import find_differences, recount
from nearkin.contracts.topics import FEEDBACK, VISITS
from nearkin.core.admission import Verdict
from nearkin.core.counting import Counting
from nearkin.core.evidence import DAY_MS, Source
from nearkin.feedback import partition as module
from nearkin.feedback.partition import Partition, Rules
from nearkin.ops.record import Record
from nearkin.stores.memory_evidence import MemoryEvidence
from nearkin.stores.shards import SHARDS, shard_of

NOW = int(time.time() * 1000)
RULES = Rules(EVIDENCE.half_life_ms, window=40, clamp=3)
SOURCE = Source("topic", 0)
BY = Counting(shard_of)


def log_of(sent):
    records = [each for each in sent if each[0] == FEEDBACK.name]
    return [Record(FEEDBACK.name, 0, offset, NOW, key, value) for offset, (_, key, value) in enumerate(records)]


def begin(guards=(0,) * SHARDS, position=0, rules=RULES):
    return Partition((FEEDBACK.name, 0), SOURCE, guards, position, rules, lambda: NOW)


def continued(log, guards, rules=RULES):
    position = min(guards)
    partition = begin(guards, position, rules)
    for record in log[max(0, position - rules.reach) : position]:
        partition.see(record)
    return partition


async def apply(partition, store):
    while partition.waiting:
        batches = partition.batches(BY)
        outcomes = await store.apply(batches)
        assert partition.settle([*zip(batches, outcomes, strict=True)]) is not None
    partition.refused.clear()  # their dead letters are sent
    if batches := partition.idle_batches():
        partition.settle([*zip(batches, await store.apply(batches), strict=True)])


def click(number, **fields):
    event = {"kind": "interaction", "event_id": f"click-{number}", "occurred_at": NOW, "anchor": ITEMS[0]}
    return as_sent(event | {"item_id": ITEMS[1], "action": "click"} | fields)


@pytest.mark.parametrize("seed", range(5))
def test_ends_at_any_moment_with_batches_half_applied_count_everything_once(seed):
    draw = random.Random(seed)
    log = log_of(make_events(draw, 300, NOW))
    store = MemoryEvidence(EVIDENCE)

    async def run():
        while True:
            partition = continued(log, await store.read_guards(SOURCE))
            ends_after = draw.randrange(1, 4)
            while partition.position < len(log):
                for record in log[partition.position : partition.position + draw.randrange(1, 40)]:
                    partition.take(record)
                ends_after -= 1
                if not ends_after:
                    batches = partition.batches(BY)
                    await store.apply(draw.sample(batches, draw.randrange(len(batches) + 1)))
                    break
                await apply(partition, store)
            else:
                return await find_differences(
                    recount(log, NOW, window=40, clamp=3, half_life_ms=EVIDENCE.half_life_ms), store, NOW
                )

    assert asyncio.run(run()) == []


def test_a_zombie_that_applies_what_its_successor_has_applied_changes_nothing():
    log = log_of(make_events(random.Random(1), 100, NOW))
    store = MemoryEvidence(EVIDENCE)

    async def run():
        zombie, successor = begin(), begin()
        for record in log[:50]:
            zombie.take(record)
        for record in log:
            successor.take(record)
        await apply(successor, store)
        await apply(zombie, store)
        return await find_differences(
            recount(log, NOW, window=40, clamp=3, half_life_ms=EVIDENCE.half_life_ms), store, NOW
        )

    assert asyncio.run(run()) == []


def test_a_guard_before_the_last_known_one_tells_of_a_store_that_has_forgotten():
    log = log_of([click(number) for number in range(4)])

    async def run():
        partition = begin()
        for record in log[:2]:
            partition.take(record)
        await apply(partition, MemoryEvidence(EVIDENCE))
        for record in log[2:]:
            partition.take(record)
        batches = partition.batches(BY)
        outcomes = await MemoryEvidence(EVIDENCE).apply(batches)
        return partition.settle([*zip(batches, outcomes, strict=True)])

    assert asyncio.run(run()) is None


def test_an_event_that_cannot_be_counted_is_refused_and_the_others_count(monkeypatch):
    counted = module.count

    def fails(event, tallies, by):
        counted(event, tallies, by)
        if event.event_id == "click-2":
            raise ZeroDivisionError

    monkeypatch.setattr(module, "count", fails)
    partition = begin()
    for record in log_of([click(number, item_id=ITEMS[1 + number]) for number in range(5)]):
        partition.take(record)

    batches = partition.batches(BY)

    (refused,) = partition.refused
    assert (refused.record.offset, refused.error.reason) == (2, "internal")
    (delta,) = [delta for batch in batches for delta in batch.deltas if delta.anchor == ITEMS[0]]
    assert set(delta.pairs) == {ITEMS[1], ITEMS[2], ITEMS[4], ITEMS[5]}


def test_events_that_all_fail_are_no_fault_of_the_events(monkeypatch):
    def fails(event, tallies, by):
        raise ZeroDivisionError

    monkeypatch.setattr(module, "count", fails)
    partition = begin()
    for record in log_of([click(number) for number in range(10)]):
        partition.take(record)

    with pytest.raises(ZeroDivisionError):
        partition.batches(BY)


def test_no_script_call_holds_more_pairs_than_redis_may_be_held_up_by(monkeypatch):
    monkeypatch.setattr(module, "MOST_PAIRS", 20)
    log = log_of([click(number, item_id=f"other-{number}") for number in range(200)])
    store = MemoryEvidence(EVIDENCE)
    calls = []

    async def run():
        partition = begin()
        for record in log:
            partition.take(record)
        while partition.waiting:
            batches = partition.batches(BY)
            calls.extend(sum(len(delta.pairs) for delta in batch.deltas) for batch in batches)
            partition.settle([*zip(batches, await store.apply(batches), strict=True)])
        return await find_differences(recount(log, NOW, half_life_ms=EVIDENCE.half_life_ms), store, NOW)

    assert asyncio.run(run()) == []
    assert max(calls) <= 20


def test_hundreds_of_the_largest_visits_are_added_up_one_by_one():
    draw = random.Random(3)
    visited = (VISITS.name, 0)
    partition = Partition(visited, SOURCE, (0,) * SHARDS, 0, RULES, lambda: NOW)
    for offset in range(200):
        visit = {"kind": "visit", "event_id": f"visit-{offset}", "visit_id": f"v-{offset}", "occurred_at": NOW}
        items = [f"item-{number}" for number in draw.sample(range(100_000), 2000)]
        _, key, value = as_sent(visit | {"visit_kind": "basket", "items": items})
        partition.take(Record(*visited, offset, NOW, key, value))

    tracemalloc.start()
    try:
        batches = partition.batches(Counting(shard_of, most_partners=100))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert {batch.end for batch in batches} == {1}
    assert sum(len(delta.pairs) for batch in batches for delta in batch.deltas) > 200_000
    assert most < 400 * 201_000, "more than one visit's pairs"


@pytest.mark.parametrize("bound", [15, 60, 1500])
def test_batches_hold_as_many_events_as_a_call_may_hold_pairs(monkeypatch, bound):
    monkeypatch.setattr(module, "MOST_PAIRS", bound)
    log = log_of(make_events(random.Random(4), 300, NOW))
    store, sizes = MemoryEvidence(EVIDENCE), []

    async def run():
        partition = begin()
        for record in log:
            partition.take(record)
        while waiting := len(partition.waiting):
            batches = partition.batches(BY)
            outcomes = await store.apply(batches)
            partition.settle([*zip(batches, outcomes, strict=True)])
            pairs = max(sum(len(delta.pairs) for delta in batch.deltas) for batch in batches)
            sizes.append((pairs, waiting - len(partition.waiting)))
        return await find_differences(
            recount(log, NOW, window=40, clamp=3, half_life_ms=EVIDENCE.half_life_ms), store, NOW
        )

    assert asyncio.run(run()) == []
    assert all(pairs <= bound for pairs, _ in sizes)
    fullest = max(pairs for pairs, _ in sizes[:-1]) if len(sizes) > 1 else bound
    assert fullest > bound / 2, f"batches are smaller than they need be: {sizes}"


def test_one_user_counts_only_so_often_and_a_repeat_not_at_all():
    partition = begin()
    for record in log_of([click(number, user=USERS[0]) for number in range(6)] + [click(0)]):
        partition.take(record)

    assert [each.record.offset for each in partition.waiting] == [0, 1, 2]
    assert {verdict.value: number for verdict, number in partition.outcomes.items()} == {"clamped": 3, "repeated": 1}


@pytest.mark.parametrize(("of_the_event", "reason"), [(50, "in_future"), (5, "too_late"), (0, "too_late")])
def test_a_record_that_claims_to_be_from_the_future_takes_no_event_with_it(of_the_event, reason):
    partition = begin()
    year = 365 * DAY_MS
    (record,) = log_of([click(0, occurred_at=NOW + of_the_event * year)])

    partition.take(record._replace(timestamp_ms=NOW + 50 * year))

    (refused,) = partition.refused
    assert refused.error.reason == reason
    if reason == "too_late":  # by its own stamp
        assert "the clock of its record (the producer's or the broker's) is ahead" in refused.error.remedy
    assert not partition.waiting


HOUR = 3_600_000
OF_THE_WALL, OF_THE_STREAM = RULES, Rules(EVIDENCE.half_life_ms, window=40, clamp=3, clock="stream")


@pytest.mark.parametrize(
    ("reason", "rules", "age", "stamped"),
    [
        ("in_future", OF_THE_WALL, -HOUR, None),
        ("in_future", OF_THE_STREAM, -HOUR, None),
        ("too_late", OF_THE_WALL, 40 * DAY_MS, None),
        ("no_time", OF_THE_WALL, 0, 0),
        ("no_time", OF_THE_STREAM, 0, -1),
    ],
)
def test_what_its_records_time_refuses_counts_once_it_comes_again_mended(reason, rules, age, stamped):
    stamped = NOW if stamped is None else stamped
    first, again, repeated = log_of([click(0, occurred_at=NOW - age), click(0), click(0)])
    there_all_the_time, successor = begin(rules=rules), begin(position=1, rules=rules)
    there_all_the_time.take(first._replace(timestamp_ms=stamped))
    successor.see(first._replace(timestamp_ms=stamped))

    for partition in (there_all_the_time, successor):
        partition.take(again)
        partition.take(repeated)

    (refused,) = there_all_the_time.refused
    assert refused.error.reason == reason
    assert "new event_id" not in refused.error.remedy
    for partition in (there_all_the_time, successor):
        assert [each.record.offset for each in partition.waiting] == [1]


def test_one_that_only_an_earlier_reader_holds_to_be_early_is_remembered_by_every_reader():
    first, again = log_of([click(0, occurred_at=NOW + HOUR), click(0)])
    ahead = first._replace(timestamp_ms=NOW + HOUR)
    now, later = begin(), Partition((FEEDBACK.name, 0), SOURCE, (0,) * SHARDS, 0, RULES, lambda: NOW + HOUR)

    for partition in (now, later):
        partition.take(ahead)
        partition.take(again)

    (refused,) = now.refused
    assert refused.error.reason == "in_future"
    assert "under a new event_id" in refused.error.remedy
    assert not now.waiting
    assert [each.record.offset for each in later.waiting] == [0]


def report(number, **fields):
    return click(number, action="report", user=USERS[0], **fields)


def test_a_complaint_that_only_an_earlier_reader_holds_to_be_early_counts_after_the_window_and_is_told_so():
    clicks = [click(number) for number in range(2, 43)]
    log = log_of([report(0, occurred_at=NOW + HOUR), report(1), *clicks, report(43)])
    log[0] = log[0]._replace(timestamp_ms=NOW + HOUR)
    now, later = begin(), Partition((FEEDBACK.name, 0), SOURCE, (0,) * SHARDS, 0, RULES, lambda: NOW + HOUR)

    for record in log:
        now.take(record)
        later.take(record)

    (refused,) = now.refused
    assert refused.error.reason == "in_future"
    assert "under a new event_id" in refused.error.remedy
    assert "counts only after NEARKIN_FEEDBACK_WINDOW offsets" in refused.error.remedy
    for partition, counted in ((now, {43}), (later, {0, 43})):
        assert {each.record.offset for each in partition.waiting} - {*range(2, 43)} == counted
        assert partition.outcomes == {Verdict.CLAMPED: 1}


@pytest.mark.parametrize("fields", [{}, {"user": USERS[0]}, {"action": "report"}])
def test_nothing_is_told_of_the_window_where_it_does_not_bar_what_comes_again(fields):
    partition = begin()
    first, again = log_of([click(0, occurred_at=NOW + HOUR, **fields), click(1, **fields)])
    partition.take(first._replace(timestamp_ms=NOW + HOUR))
    partition.take(again)

    (refused,) = partition.refused
    assert "WINDOW" not in refused.error.remedy
    assert [each.record.offset for each in partition.waiting] == [1]


@pytest.mark.parametrize(
    ("reason", "rules", "age"),
    [("too_late", OF_THE_STREAM, 40 * DAY_MS), ("internal", OF_THE_WALL, 0), ("internal", OF_THE_STREAM, 0)],
)
def test_a_complaint_that_was_refused_counts_under_a_new_id(reason, rules, age, monkeypatch):
    counted = module.count

    def fails(event, tallies, by):
        if reason == "internal" and event.event_id == "click-1":
            raise ZeroDivisionError
        counted(event, tallies, by)

    monkeypatch.setattr(module, "count", fails)
    log = log_of([click(0), report(1, occurred_at=NOW - age), report(2), report(3), report(1)])
    partition = begin(rules=rules)
    for record in log[:2]:
        partition.take(record)
    partition.batches(BY)
    for record in log[2:]:
        partition.take(record)

    (refused,) = partition.refused
    assert (refused.record.offset, refused.error.reason) == (1, reason)
    assert "under a new event_id" in refused.error.remedy
    assert [each.record.offset for each in partition.waiting] == [0, 2]
    assert partition.outcomes == {Verdict.CLAMPED: 1, Verdict.REPEATED: 1}


@pytest.mark.parametrize("seed", range(3))
def test_by_the_streams_own_time_who_begins_later_decides_as_one_who_was_there_all_the_time(seed):
    draw = random.Random(seed)
    rules = Rules(EVIDENCE.half_life_ms, window=10, clamp=2, clock="stream")
    log = log_of(
        click(
            draw.choice([number, number, number - 3]),
            action=draw.choice(["report", "click"]),
            user=draw.choice(USERS[:3]),
            occurred_at=NOW - draw.randrange(60) * DAY_MS,
        )
        for number in range(300)
    )
    there_all_the_time = begin(rules=rules)
    for record in log:
        there_all_the_time.take(record)
    counted = [each.record.offset for each in there_all_the_time.waiting]

    for position in range(len(log)):
        successor = continued(log, (position,) * SHARDS, rules)
        for record in log[position : position + 30]:
            successor.take(record)
        here = [offset for offset in counted if position <= offset < position + 30]
        assert [each.record.offset for each in successor.waiting] == here
    wanted = recount(log, NOW, window=10, clamp=2, half_life_ms=EVIDENCE.half_life_ms, clock="stream")
    assert {each.record.offset for each in there_all_the_time.refused} == {offset for *_, offset in wanted.refused}
    assert there_all_the_time.outcomes == {Verdict.REPEATED: wanted.repeated, Verdict.CLAMPED: wanted.clamped}
    assert min(len(counted), len(wanted.refused), wanted.repeated, wanted.clamped) > 10


def test_one_that_is_late_by_the_streams_own_time_is_told_to_come_under_a_new_id():
    partition = begin(rules=OF_THE_STREAM)
    for record in log_of([click(0), click(1, occurred_at=NOW - 40 * DAY_MS), click(1)]):
        partition.take(record)

    (refused,) = partition.refused
    assert (refused.record.offset, refused.error.reason) == (1, "too_late")
    assert "under a new event_id" in refused.error.remedy
    assert [each.record.offset for each in partition.waiting] == [0]


@pytest.mark.parametrize("clock", ["wall", "stream"])
@pytest.mark.parametrize("nothing", [0, -1])
def test_a_record_without_a_time_is_refused_for_that(clock, nothing):
    partition = begin(rules=Rules(EVIDENCE.half_life_ms, window=40, clamp=3, clock=clock))
    log = log_of([click(0), click(1)])

    partition.take(log[0]._replace(timestamp_ms=nothing))
    partition.take(log[1])

    (refused,) = partition.refused
    assert (refused.record.offset, refused.error.reason) == (0, "no_time")
    assert [each.record.offset for each in partition.waiting] == [1]


def test_a_slate_of_which_nothing_was_visible_leaves_no_anchor():
    hidden = {"kind": "impressions", "event_id": "e", "occurred_at": NOW, "anchor": ITEMS[0], "request_id": "r"}
    hidden |= {"surface": "page", "positions": [{"item_id": ITEMS[1], "position": 1, "visible": False}]}
    partition = begin()
    for record in log_of([as_sent(hidden), click(1, anchor=ITEMS[2])]):
        partition.take(record)

    anchors = {delta.anchor for batch in partition.batches(BY) for delta in batch.deltas}

    assert ITEMS[0] not in anchors
    assert ITEMS[2] in anchors


def test_an_event_that_does_not_count_is_told_by_its_name_to_whoever_wants_to_know_of_every_one(caplog):
    partition = begin()

    with caplog.at_level(logging.DEBUG, "nearkin"):
        for record in log_of([click(1), click(1), *(click(number, user=USERS[0]) for number in range(2, 6))]):
            partition.take(record)

    told = [(each.getMessage(), each.fields["event_id"]) for each in caplog.records]
    assert told == [("event repeated", "click-1"), ("event clamped", "click-5")]
