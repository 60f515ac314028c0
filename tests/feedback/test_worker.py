"""What the feedback worker promises, on a real broker and a real Redis: every event counts once, whatever happens."""

import json
import random
import shutil
import signal
import time

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata
from redis import Redis

from feedback.feedback_stage import ITEMS, USERS, FeedbackStage, as_sent, make_events
from nearkin.contracts.topics import FEEDBACK, VISITS
from nearkin.core.evidence import ShardBatch, Source
from nearkin.core.position_priors import Method, PositionPriors, Prior, SurfacePriors
from nearkin.feedback.app import GROUP
from nearkin.ops.metrics import EVIDENCE_STAGES
from ops.service_process import eventually

#: Priors that are learned meanwhile would change what is expected of exposures.
NO_LEARNING = {"NEARKIN_PRIORS_EVERY_S": "0"}


@pytest.fixture
def stage(tmp_path):
    with FeedbackStage(tmp_path, **NO_LEARNING) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A stage with one worker that serves whoever only publishes, and sees to it that no event comes twice.

    To join a group takes three seconds on this broker. The log grows from test to test, and the evidence must be what
    the whole of it comes to.
    """
    with FeedbackStage(tmp_path_factory.mktemp("shared"), **NO_LEARNING) as running:
        running.worker().until_ready()
        yield running


def slate(number, **fields):
    event = {"kind": "impressions", "event_id": f"one-{number}", "occurred_at": int(time.time() * 1000)}
    event |= {"anchor": ITEMS[0], "request_id": f"r-{number}", "surface": "page"}
    event |= {"positions": [{"item_id": ITEMS[1 + number % 50], "position": 1, "visible": True}]}
    return as_sent(event | fields)


def test_counts_equal_a_recount_of_the_log_with_repeats_shuffles_late_and_bad_events(shared):
    (worker,) = shared.processes
    outcomes = [f'nearkin_events_total{{outcome="{outcome}"' for outcome in ("repeated", "clamped")]
    before, told = shared.recounted(), [worker.metric(outcome) for outcome in outcomes]
    shared.publish(make_events(random.Random(1), 400, prefix="counted"))

    shared.until_applied()

    assert shared.differences() == []
    recounted = shared.recounted()
    repeated, clamped = (worker.metric(outcome) - was for outcome, was in zip(outcomes, told, strict=True))
    assert repeated == recounted.repeated - before.repeated > 10
    assert clamped == recounted.clamped - before.clamped >= 7
    origins = {
        tuple(header[f"nearkin-origin-{name}"].decode() for name in ("topic", "partition", "offset"))
        for header in map(dict, (letter.headers for letter in shared.dead_letters()))
    }
    assert origins == {tuple(map(str, place)) for place in recounted.refused}


def test_priors_that_are_in_force_count_from_the_first_event_on_and_later_ones_from_when_they_come(stage):
    def expected(factor):
        curve = {position: factor / position for position in range(1, 11)}
        priors = tuple(Prior(curve[position]) for position in sorted(curve))
        published = PositionPriors(round(factor), 1, {"page": SurfacePriors(Method.SCALED, priors)})
        assert stage.with_store(lambda store: store.publish_priors(published))
        return lambda surface, position: curve[position]

    prior = expected(1.0)
    stage.publish(make_events(random.Random(8), 300))
    worker = stage.worker()
    stage.until_applied()

    assert stage.differences(prior=prior, surfaces={"page"}) == []
    assert worker.metric("nearkin_position_priors_version") == 1

    held = stage.expected_of(ITEMS[0])
    expected(2.0)
    eventually(lambda: worker.metric("nearkin_position_priors_version") == 2, "it has found the new ones")
    stage.publish([slate(1)])
    stage.until_applied()

    assert stage.expected_of(ITEMS[0]) == pytest.approx(held + 2, rel=1e-3)


def test_a_worker_that_is_told_to_stop_in_a_long_batch_ends_in_time_and_another_goes_on(stage):
    worker = stage.worker().until_ready()
    items = [f"item-{number}" for number in range(500)]
    visit = {"kind": "visit", "visit_kind": "basket", "occurred_at": int(time.time() * 1000), "items": items}
    stage.publish([as_sent(visit | {"event_id": f"e-{number}", "visit_id": "v"}) for number in range(400)])
    eventually(worker.counts, "it has counted something")

    assert worker.stop() == 0  # and not as one that did not stop in time

    ((_, guards),) = stage.guards().items()
    assert 0 < max(guards) < 400


def test_a_redis_that_is_emptied_while_the_worker_runs_is_filled_again(shared):
    (worker,) = shared.processes
    shared.publish(make_events(random.Random(9), 200, prefix="emptied"))
    shared.until_applied()
    noticed = worker.metric("nearkin_evidence_regressions_total")

    with Redis.from_url(shared.redis.url) as connection:
        connection.flushall()

    shared.until_applied()
    assert shared.differences() == []
    assert worker.metric("nearkin_evidence_regressions_total") > noticed
    assert worker.metric("nearkin_feedback_expired_total") == 0


def test_a_dead_letter_names_nobody(shared):
    wrong = {"kind": "impressions", "anchor": "shown to ann", "user": "ann@example.org"}
    shared.publish([(FEEDBACK.name, b"shown to ann", json.dumps(wrong).encode()), slate(1)])
    shared.until_applied()

    (letter,) = [letter for letter in shared.dead_letters() if letter.key == b"shown to ann"]

    assert json.loads(letter.value)["user"] == "[redacted]"
    assert dict(letter.headers)["nearkin-reason"] == b"not_a_pseudonym"


@pytest.mark.slow
def test_a_worker_that_is_killed_again_and_again_counts_everything_once(stage):
    draw = random.Random(2)
    for round_ in range(4):
        stage.publish(make_events(draw, 300, prefix=f"round-{round_}"))
        worker = stage.worker(NEARKIN_FEEDBACK_BATCH="7")
        eventually(lambda worker=worker: worker.counts(), "it has counted something")
        time.sleep(draw.uniform(0, 0.5))
        stage.kill(worker)
    stage.worker()

    stage.until_applied()

    assert stage.differences() == []


def test_the_guards_and_not_the_group_say_where_a_killed_workers_successor_goes_on(stage):
    draw = random.Random(3)
    worker = stage.worker(NEARKIN_FEEDBACK_BATCH="7")
    stage.publish(make_events(draw, 300, prefix="first"))
    eventually(worker.counts, "it has counted something")
    stage.kill(worker)
    stage.publish(make_events(draw, 300, prefix="second"))
    # On half of the partitions of each topic, the group is far ahead of the guards, and on the others far behind.
    committed = {place: end if place[1] % 2 else 0 for place, end in stage.ends.items()}
    with stage.admin() as admin:
        offsets = {TopicPartition(*place): OffsetAndMetadata(at, "", -1) for place, at in committed.items()}
        admin.alter_group_offsets(GROUP, offsets)
        told = admin.list_group_offsets(GROUP)[GROUP]
        assert {place: told[TopicPartition(*place)].offset for place in committed} == committed
    stage.worker()

    stage.until_applied()

    assert stage.differences() == []


def test_what_was_counted_and_not_committed_is_committed_without_waiting_for_more(stage):
    worker = stage.worker()
    stage.publish(make_events(random.Random(4), 100, prefix="counted"))
    stage.until_applied()
    stage.kill(worker)
    with stage.admin() as admin:
        places = [TopicPartition(*place) for place in stage.ends]
        admin.alter_group_offsets(GROUP, {place: OffsetAndMetadata(0, "", -1) for place in places})

        stage.worker()

        def committed():
            told = admin.list_group_offsets(GROUP)[GROUP]
            return {(place.topic, place.partition): told[place].offset for place in places}

        eventually(lambda: committed() == stage.ends, "the group's offsets say what is counted")


@pytest.mark.slow
def test_a_zombie_and_its_successor_count_everything_once(stage):
    draw = random.Random(4)
    zombie = stage.worker(NEARKIN_FEEDBACK_BATCH="7")
    stage.publish(make_events(draw, 400, prefix="first"))
    eventually(zombie.counts, "it has counted something")
    zombie.process.send_signal(signal.SIGSTOP)
    assert any(min(held) < stage.ends[place] for place, held in stage.guards().items()), "it has nothing left to do"
    stage.publish(make_events(draw, 400, prefix="second"))
    stage.worker()
    stage.until_applied()
    zombie.process.send_signal(signal.SIGCONT)
    refused = [f'nearkin_evidence_batches_total{{outcome="{outcome}"' for outcome in ("duplicate", "mismatch")]
    eventually(lambda: sum(map(zombie.metric, refused)), "it goes on where it was, and the store refuses that")
    stage.publish(make_events(draw, 200, prefix="third"))

    stage.until_applied()

    assert stage.differences() == []


@pytest.mark.slow
def test_two_workers_that_come_and_go_count_everything_once(stage):
    draw = random.Random(5)
    first = stage.worker(NEARKIN_FEEDBACK_BATCH="7")
    stage.publish(make_events(draw, 300, prefix="first"))
    second = stage.worker(NEARKIN_FEEDBACK_BATCH="7").until_ready()
    stage.publish(make_events(draw, 300, prefix="second"))
    eventually(second.counts, "the second one has a share")
    assert first.stop() == 0
    stage.publish(make_events(draw, 300, prefix="third"))

    stage.until_applied()

    assert stage.differences() == []


def test_a_redis_that_comes_back_from_an_older_file_is_noticed_and_counts_again_what_it_lost(shared):
    draw = random.Random(6)
    (worker,) = shared.processes
    shared.publish(make_events(draw, 300, prefix="kept"))
    shared.until_applied()
    noticed = worker.metric("nearkin_evidence_regressions_total")
    copy = shared.folder / "older"
    shared.redis.kill()
    shutil.copytree(shared.redis.data, copy)
    shared.redis.start()
    shared.publish(make_events(draw, 300, prefix="lost"))
    shared.until_applied()
    shared.redis.kill()
    shutil.rmtree(shared.redis.data)
    shutil.copytree(copy, shared.redis.data)
    shared.redis.start()

    shared.until_applied()  # nothing new comes: it is the guards that tell

    assert shared.differences() == []
    assert worker.metric("nearkin_evidence_regressions_total") > noticed


def test_a_redis_that_is_away_is_waited_for(shared):
    (worker,) = shared.processes
    shared.redis.kill()
    shared.publish(make_events(random.Random(7), 200, prefix="waited"))
    eventually(lambda: "engine" in worker.ready()[1], "it says that it waits")
    shared.redis.start()

    shared.until_applied()

    assert shared.differences() == []
    eventually(lambda: worker.ready()[0], "it is ready again")


def test_a_redis_that_is_away_at_the_start_is_waited_for(stage):
    stage.redis.kill()
    worker = stage.worker()
    eventually(lambda: "evidence" in worker.ready()[1], "it says that it waits")
    stage.redis.start()
    stage.publish([slate(1)])

    stage.until_applied()

    assert stage.differences() == []


def test_a_redis_that_would_forget_is_refused_with_the_remedy(stage):
    stage.redis.configure(maxmemory_policy="allkeys-lru")
    worker = stage.worker()

    assert worker.exit() == 2
    assert "noeviction" in worker.log.read_text()


def test_a_topic_that_is_made_again_is_counted_from_its_first_event(stage):
    stage.worker()
    stage.publish([slate(number) for number in range(30)])
    stage.until_applied()
    before = stage.exposures_of(ITEMS[0])
    with stage.admin() as admin:
        admin.delete_topics([FEEDBACK.name, VISITS.name])
    stage.make_topics()
    stage.ends.clear()
    stage.publish([slate(number, event_id=f"again-{number}") for number in range(20)])

    stage.until_applied()

    assert stage.exposures_of(ITEMS[0]) == pytest.approx(before + 20, rel=1e-3)


def test_a_worker_notes_since_when_a_topic_is_gone_whose_guards_are_kept(stage):
    gone = ShardBatch(Source("gone", 3), 0, 0, 5, 0)
    stage.with_store(lambda store: store.apply([gone]))
    stage.publish([slate(1)])
    stage.worker()
    with Redis.from_url(stage.redis.url) as connection:
        eventually(lambda: connection.exists("nk:former"), "what is gone is noted")
        assert connection.hkeys("nk:former") == [b"gone:3"]


def test_a_replay_of_an_old_log_counts_on_the_streams_own_clock(stage):
    then = 1_300_000_000_000
    stage.worker(NEARKIN_CLOCK="stream")
    day = 24 * 3600 * 1000
    events = [slate(number, occurred_at=then + number * day) for number in range(60)]
    stage.publish([*events, slate(100, occurred_at=then), slate(101, occurred_at=4_000_000_000_000)])

    stage.until_applied()

    reasons = sorted(dict(letter.headers)["nearkin-reason"] for letter in stage.dead_letters())
    assert reasons == [b"in_future", b"too_late"]
    assert stage.differences(clock="stream", at_ms=then + 60 * day) == []


def test_the_age_of_an_event_is_told_for_each_stage_and_no_offset_is_skipped(shared):
    (worker,) = shared.processes

    def told(what):
        freshness = f"nearkin_evidence_freshness_seconds_{what}"
        return [worker.metric(f'{freshness}{{stage="{stage}"}}') for stage in EVIDENCE_STAGES]

    sums, counts = told("sum"), told("count")
    began = time.time()
    shared.publish([slate(2, user=USERS[0], occurred_at=int(began * 1000) - 60_000)])
    shared.until_applied()
    ceiling = time.time() - began + 60
    eventually(lambda: told("count") == [count + 1 for count in counts], "it is told")

    ages = [age - was for age, was in zip(told("sum"), sums, strict=True)]

    whole = ages[EVIDENCE_STAGES.index("occurred_to_applied")]
    assert 60 <= whole <= ceiling
    assert sum(ages) - whole == pytest.approx(whole, abs=0.01)
    assert worker.metric("nearkin_skipped_offsets_total") == 0
