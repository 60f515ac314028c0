"""What the feedback worker promises, on a real broker and a real Redis: every event counts once, whatever happens."""

import asyncio
import json
import random
import shutil
import signal
import time

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from kafka import KafkaAdminClient
from redis import Redis

from feedback.feedback_stage import ITEMS, PARTITIONS, USERS, FeedbackStage, as_sent, make_events
from nearkin.contracts.topics import FEEDBACK, VISITS
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


def commit(stage, offset):
    """Make the group's commit of each partition an offset, as its only member."""

    async def run():
        consumer = AIOKafkaConsumer(
            FEEDBACK.name,
            VISITS.name,
            bootstrap_servers=stage.broker.bootstrap,
            group_id=GROUP,
            enable_auto_commit=False,
        )
        await consumer.start()
        async with asyncio.timeout(60):
            while len(consumer.assignment()) < 2 * PARTITIONS:
                await consumer.getmany(timeout_ms=100)
        await consumer.commit({TopicPartition(*place): offset(end) for place, end in stage.ends.items()})
        await consumer.stop()

    asyncio.run(run())


def slate(number, **fields):
    event = {"kind": "impressions", "event_id": f"one-{number}", "occurred_at": int(time.time() * 1000)}
    event |= {"anchor": ITEMS[0], "request_id": f"r-{number}", "surface": "page"}
    event |= {"positions": [{"item_id": ITEMS[1 + number % 50], "position": 1, "visible": True}]}
    return as_sent(event | fields)


def test_counts_equal_a_recount_of_the_log_with_repeats_shuffles_late_and_bad_events(stage):
    draw = random.Random(1)
    worker = stage.worker()
    stage.publish(make_events(draw, 400))

    stage.until_applied()

    assert stage.differences() == []
    recounted = stage.recounted()
    assert worker.metric('nearkin_events_total{outcome="repeated"') == recounted.repeated > 10
    assert worker.metric('nearkin_events_total{outcome="clamped"') == recounted.clamped >= 7
    assert {(letter.topic, letter.partition) for letter in stage.dead_letters()}
    origins = {
        tuple(header[f"nearkin-origin-{name}"].decode() for name in ("topic", "partition", "offset"))
        for header in map(dict, (letter.headers for letter in stage.dead_letters()))
    }
    assert origins == {tuple(map(str, place)) for place in recounted.refused}
    assert worker.stop() == 0


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


def test_a_redis_that_is_emptied_while_the_worker_runs_is_filled_again(stage):
    worker = stage.worker()
    stage.publish(make_events(random.Random(9), 200))
    stage.until_applied()

    with Redis.from_url(stage.redis.url) as connection:
        connection.flushall()

    stage.until_applied()
    assert stage.differences() == []
    assert worker.metric("nearkin_evidence_regressions_total") > 0
    assert worker.metric("nearkin_feedback_expired_total") == 0


def test_a_dead_letter_names_nobody(stage):
    stage.worker()
    wrong = {"kind": "impressions", "anchor": ITEMS[0], "user": "ann@example.org"}
    stage.publish([(FEEDBACK.name, ITEMS[0].encode(), json.dumps(wrong).encode()), slate(1)])
    stage.until_applied()

    (letter,) = stage.dead_letters()

    assert json.loads(letter.value)["user"] == "[redacted]"
    assert dict(letter.headers)["nearkin-reason"] == b"not_a_pseudonym"


def test_a_worker_that_is_killed_again_and_again_counts_everything_once(stage):
    draw = random.Random(2)
    for round_ in range(4):
        stage.publish(make_events(draw, 300, prefix=f"round-{round_}"))
        worker = stage.worker(NEARKIN_FEEDBACK_BATCH="7")
        eventually(lambda worker=worker: worker.counts(), "it has counted something")
        time.sleep(draw.uniform(0, 0.5))
        worker.kill()
    stage.worker()

    stage.until_applied()

    assert stage.differences() == []


@pytest.mark.parametrize(
    "committed", [lambda end: end, lambda end: 0], ids=["commit_ahead_of_guards", "commit_behind_guards"]
)
def test_the_guards_and_not_the_group_say_where_to_go_on(stage, committed):
    draw = random.Random(3)
    worker = stage.worker(NEARKIN_FEEDBACK_BATCH="7")
    stage.publish(make_events(draw, 300, prefix="first"))
    eventually(worker.counts, "it has counted something")
    worker.kill()
    stage.publish(make_events(draw, 300, prefix="second"))
    commit(stage, committed)
    stage.worker()

    stage.until_applied()

    assert stage.differences() == []


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


def test_a_redis_that_comes_back_from_an_older_file_is_noticed_and_counts_again_what_it_lost(stage):
    draw = random.Random(6)
    worker = stage.worker()
    stage.publish(make_events(draw, 300, prefix="first"))
    stage.until_applied()
    copy = stage.folder / "older"
    stage.redis.kill()
    shutil.copytree(stage.redis.data, copy)
    stage.redis.start()
    stage.publish(make_events(draw, 300, prefix="second"))
    stage.until_applied()
    stage.redis.kill()
    shutil.rmtree(stage.redis.data)
    shutil.copytree(copy, stage.redis.data)
    stage.redis.start()

    stage.until_applied()  # nothing new comes: it is the guards that tell

    assert stage.differences() == []
    assert worker.metric("nearkin_evidence_regressions_total") > 0


def test_a_redis_that_is_away_is_waited_for(stage):
    draw = random.Random(7)
    worker = stage.worker().until_ready()
    stage.redis.kill()
    stage.publish(make_events(draw, 200))
    eventually(lambda: "engine" in worker.ready()[1], "it says that it waits")
    stage.redis.start()

    stage.until_applied()

    assert stage.differences() == []
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
    admin = KafkaAdminClient(bootstrap_servers=stage.broker.bootstrap)
    names = [topic.name for topic in (FEEDBACK, VISITS)]
    admin.delete_topics(names)
    admin.close()
    stage.make_topics()
    stage.ends.clear()
    stage.publish([slate(number, event_id=f"again-{number}") for number in range(20)])

    stage.until_applied()

    assert stage.exposures_of(ITEMS[0]) == pytest.approx(before + 20, rel=1e-3)


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


def test_the_age_of_an_event_is_told_for_each_stage_and_no_offset_is_skipped(stage):
    worker = stage.worker().until_ready()
    began = time.time()
    stage.publish([slate(1, user=USERS[0], occurred_at=int(began * 1000) - 60_000)])
    stage.until_applied()
    ceiling = time.time() - began + 60
    freshness = "nearkin_evidence_freshness_seconds"
    eventually(lambda: worker.metric(f'{freshness}_count{{stage="occurred_to_applied"}}'), "it is told")

    ages = [worker.metric(f'{freshness}_sum{{stage="{stage_}"}}') for stage_ in EVIDENCE_STAGES]
    counts = [worker.metric(f'{freshness}_count{{stage="{stage_}"}}') for stage_ in EVIDENCE_STAGES]

    whole = ages[EVIDENCE_STAGES.index("occurred_to_applied")]
    assert counts == [1] * len(EVIDENCE_STAGES)
    assert 60 <= whole <= ceiling
    assert sum(ages) - whole == pytest.approx(whole, abs=0.01)
    assert worker.metric("nearkin_skipped_offsets_total") == 0
