import contextlib

from prometheus_client import CollectorRegistry

from nearkin.ops import watchdog
from nearkin.ops.metrics import Metrics
from nearkin.ops.watchdog import Judge, Progress, Watchdog

HERE = ("items.v1", 0)


def test_an_idle_worker_has_not_stalled():
    judge = Judge(10)

    assert [judge.verdict(now, Progress({HERE: 5}), {HERE: 5}) for now in (0, 100, 1000)] == ["", "", ""]


def test_work_that_waits_too_long_is_a_stall_and_names_the_place():
    judge, progress = Judge(10), Progress({HERE: 5})

    assert judge.verdict(0, progress, {HERE: 7}) == ""
    assert judge.verdict(9, progress, {HERE: 7}) == ""
    assert judge.verdict(11, progress, {HERE: 7}) == "items.v1[0] has waited at offset 5 of 7 for 11 s"


def test_a_slow_worker_that_advances_has_not_stalled():
    judge = Judge(10)

    verdicts = [judge.verdict(now, Progress({HERE: now}), {HERE: 1000}) for now in range(0, 100, 9)]

    assert set(verdicts) == {""}


def test_one_partition_that_waits_is_a_stall_though_another_advances():
    judge, stuck = Judge(10), ("items.v1", 1)

    verdicts = [judge.verdict(now, Progress({HERE: now, stuck: 3}), {HERE: 1000, stuck: 4}) for now in (0, 6, 12)]

    assert verdicts[:2] == ["", ""]
    assert "items.v1[1]" in verdicts[2]


def test_a_batch_in_flight_for_too_long_is_a_stall_even_if_the_broker_does_not_answer():
    assert Judge(10).verdict(20, Progress(in_flight_since=5), None) == "one batch has been in flight for 15 s"


def test_a_worker_that_retries_a_temporary_failure_is_alive():
    judge = Judge(10)
    judge.verdict(0, Progress({HERE: 5}), {HERE: 7})

    assert judge.verdict(20, Progress({HERE: 5}, in_flight_since=1, retried_at=15), {HERE: 7}) == ""


def test_a_long_batch_whose_handler_gets_on_is_no_stall_nor_are_the_partitions_that_wait_behind_it():
    judge, progress = Judge(10), Progress({HERE: 5}, in_flight_since=1)

    for now in range(2, 200, 6):
        progress.advanced_at = now
        assert judge.verdict(now, progress, {HERE: 7}) == ""


def test_a_long_batch_whose_handler_stands_still_is_a_stall():
    judge, progress = Judge(10), Progress({HERE: 5}, in_flight_since=1, advanced_at=20)

    assert judge.verdict(25, progress, {HERE: 7}) == ""
    assert judge.verdict(31, progress, {HERE: 7}) == "one batch has been in flight for 30 s"


def test_a_partition_that_nobody_fetches_is_a_stall_though_batches_of_another_get_on():
    judge, stuck = Judge(10), ("items.v1", 1)

    def look(now):
        progress = Progress({HERE: now, stuck: 3}, in_flight_since=now - 0.1, advanced_at=now)
        return judge.verdict(now, progress, {HERE: 1000, stuck: 4})

    verdicts = [look(now) for now in (0, 6, 12)]

    assert verdicts[:2] == ["", ""]
    assert "items.v1[1]" in verdicts[2]


def test_a_partition_that_waits_behind_a_busy_worker_is_no_stall_for_ten_times_as_long():
    judge, behind = Judge(10), ("items.v1", 1)

    def look(now):
        # All the time one batch or another of the first partition is in flight.
        progress = Progress({HERE: now, behind: 3}, in_flight_since=now - 0.1, busy_s=now - 0.1, advanced_at=now)
        return judge.verdict(now, progress, {HERE: 1000, behind: 4})

    verdicts = [look(now) for now in range(0, 106, 5)]

    assert set(verdicts[:-1]) == {""}
    assert verdicts[-1] == "items.v1[1] has waited at offset 3 of 4 for 105 s"


def test_what_is_in_flight_is_told_as_busy_once_it_ends():
    progress = Progress()
    began = progress.begin()
    assert progress.in_flight_since == began
    progress.end()
    assert progress.in_flight_since is None
    assert progress.busy_s > 0
    busy_s = progress.busy_s
    progress.end()
    assert progress.busy_s == busy_s


def test_time_without_a_broker_is_not_held_against_the_worker():
    judge, progress = Judge(10), Progress({HERE: 5})
    judge.verdict(0, progress, {HERE: 7})
    judge.verdict(9, progress, None)

    assert judge.verdict(15, progress, {HERE: 7}) == ""
    assert judge.verdict(26, progress, {HERE: 7}) != ""


async def test_what_retention_has_removed_is_no_work_that_waits(monkeypatch):
    emptied = ("items.v1", 1)

    class Asker:
        async def beginning_offsets(self, partitions):
            return {one: 0 if one == HERE else 9 for one in partitions}

        async def end_offsets(self, partitions):
            return dict.fromkeys(partitions, 9)

    @contextlib.asynccontextmanager
    async def ask_broker(bootstrap, timeout_s, security):
        yield Asker()

    monkeypatch.setattr(watchdog, "ask_broker", ask_broker)
    watching = Watchdog("b:9092", 10, Progress(), frozenset, Metrics(CollectorRegistry()), lambda _: None)

    ends = await watching._ends(frozenset({HERE, emptied}))

    assert ends == {HERE: 9, emptied: 0}
    judge = Judge(10)
    assert [judge.verdict(now, Progress(), {emptied: ends[emptied]}) for now in (0, 100)] == ["", ""]
