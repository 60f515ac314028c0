"""What `nearkin evidence` shows, of a real Redis, a real broker, and a service that tells titles."""

import asyncio
import json
import math

import pytest
from kafka import KafkaProducer

from canned_lookups import canned_lookups
from nearkin.contracts.topics import FEEDBACK, VISITS
from nearkin.core.errors import InvalidEvent
from nearkin.core.evidence import AnchorDelta, EvidenceRules, Metric, ShardBatch, Source
from nearkin.embedded.programs import free_port
from nearkin.ops.failures import dead_letter
from nearkin.ops.read_log import Logs
from nearkin.ops.record import Record, Rejected
from nearkin.ops.settings import load_settings
from nearkin.stores.evidence import connect, rules_of
from nearkin.stores.shards import shard_of
from stores.redis_process import RedisProcess

#: A moment at which one event counts 1 on the landmark: a whole number of half-lives.
LANDMARK = 217
AT = LANDMARK * EvidenceRules().half_life_ms

#: The id of a topic that another broker had.
FORMER = "01a1ffbf-0000-0000-0000-000000000000"


def counts(**amounts: float) -> list[float]:
    return [amounts.get(metric.name.lower(), 0.0) for metric in Metric]


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """A Redis that remembers pairs of the item mug: one that was clicked, one that is bought with it."""
    with RedisProcess(tmp_path_factory.mktemp("redis")) as process:
        yield process


@pytest.fixture(scope="module")
def remembered(redis, broker):
    """What was applied; gives the id of the topic of visits."""

    async def apply() -> str:
        described = await Logs(broker.bootstrap).describe([(VISITS.name, 0)])
        topic_id = described[VISITS.name, 0].topic_id
        settings = load_settings(redis_url=redis.url)
        store = connect(settings, rules_of(settings))
        mug = AnchorDelta(
            "mug",
            visits=8,
            pairs={
                "cup": counts(exposures=10, expected=3, clicks=7, purchases=2),
                "pot": counts(co_visits=4),
            },
        )
        shards = {shard_of(one): [] for one in ("mug", "pot")}
        for delta in (mug, AnchorDelta("pot", visits=6)):
            shards[shard_of(delta.anchor)].append(delta)
        source = Source(topic_id, 0)
        await store.apply(
            [ShardBatch(source, shard, 0, 5, LANDMARK, of, 8.0, newest_ms=AT) for shard, of in shards.items()]
        )
        former = [Source(FORMER, 0), Source(FORMER, 1)]
        await store.apply(
            [ShardBatch(one, shard_of("mug"), 0, end, LANDMARK) for one, end in zip(former, (24, 7), strict=True)]
        )
        await store.close()
        return topic_id

    return asyncio.run(apply())


@pytest.fixture
def at_redis(at_broker, redis, remembered, monkeypatch):
    """Runs the command where the evidence, the broker and the titles are."""
    monkeypatch.setenv("NEARKIN_REDIS_URL", redis.url)
    monkeypatch.setenv("NEARKIN_CLOCK", "stream")
    with canned_lookups(mug="Red mug", cup="Blue cup") as lookups:
        monkeypatch.setenv("NEARKIN_LOOKUP_ADDRESS", lookups.address)
        yield at_broker


def read(run, *arguments: str) -> dict:
    result = run("evidence", "mug", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_it_tells_every_pair_with_its_measures_the_strongest_first(at_redis):
    known = read(at_redis)
    assert (known["title"], known["visits"], known["half_life_days"]) == ("Red mug", 8.0, 90.0)
    cup, pot = known["pairs"]
    assert cup["counts"] == {"exposures": 10.0, "expected": 3.0, "clicks": 7.0, "purchases": 2.0}
    assert cup["title"] == "Blue cup"
    assert cup["coec"] == pytest.approx((7 + 1) / (3 + 1))
    assert math.log(cup["coec_high"] / cup["coec"]) == pytest.approx(1.96 / math.sqrt(7 + 1))
    assert cup["coec_low"] * cup["coec_high"] == pytest.approx(cup["coec"] ** 2)
    assert pot["counts"] == {"co_visits": 4.0}
    assert (pot["visits"], pot["cosine"]) == (6.0, pytest.approx(4 / math.sqrt(8 * 6)))
    assert pot["lift"] == pytest.approx(4 * known["all_visits"] / (8 * 6))
    assert pot["pmi"] == pytest.approx(math.log(pot["lift"]) * 4 / (4 + 5))


def test_counts_are_decayed_to_now_on_the_clock_in_force(at_redis):
    assert read(at_redis)["at"] == read(at_redis, "--clock", "stream")["at"]
    assert read(at_redis, "--clock", "wall")["visits"] < 8 / 1000


def test_it_tells_how_far_the_shard_is_in_each_partition(at_redis):
    known = read(at_redis)
    assert known["shard"] == shard_of("mug")
    assert known["landmark"] == known["at"]
    assert {"topic": "visits.v1", "partition": 0, "applied": 5, "end": 5, "former": False} in known["guards"]


def test_what_is_counted_of_topics_that_are_gone_is_told_in_one_line(at_redis):
    said = at_redis("evidence", "mug").output
    assert FORMER not in said
    assert "topics that the broker does not have any more: 31 offsets applied" in said
    guards = [guard for guard in read(at_redis)["guards"] if guard["former"]]
    assert [(guard["topic"], guard["applied"]) for guard in guards] == [(FORMER, 24), (FORMER, 7)]


def test_what_was_refused_of_feedback_beside_it_and_of_a_visit_is_told(at_redis, broker):
    refused = InvalidEvent("it is no pseudonym", remedy="leave it out", field="user", reason="not_a_pseudonym")
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for topic, key in ((FEEDBACK, "mug"), (VISITS, "basket-9"), (FEEDBACK, "other")):
            record = Record(topic.name, 2, 41, 1_700_000_000_000, key.encode(), b"{}")
            letter = dead_letter(Rejected(record, refused), topic.dead_letters, 1_700_000_000_001)
            producer.send(letter.topic, letter.value, key=letter.key, headers=list(letter.headers)).get(30)

    (refusal,) = read(at_redis)["refusals"]
    assert (refusal["reason"], refusal["origin"]) == ("not_a_pseudonym", "feedback.v1[2] offset 41")
    shown = " ".join(at_redis("evidence", "mug").output.split())
    assert "(not_a_pseudonym): user: it is no pseudonym; leave it out — from feedback.v1[2] offset 41" in shown
    of_the_visit = at_redis("evidence", "basket-9")
    assert of_the_visit.exit_code == 4
    assert "from visits.v1[2] offset 41" in " ".join(of_the_visit.output.split())


def test_a_person_reads_tables_that_are_whole_on_a_narrow_terminal(at_redis, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = at_redis("evidence", "mug").output.splitlines()
    assert max(map(len, lines)) <= 80
    said = "\n".join(lines)
    assert "mug  Red mug" in said
    assert "2.00 [1.00, 4.00]" in said
    assert "purchases 2" in said
    assert "visits.v1 partition 0: 5 offsets applied, 0 not yet" in said
    assert "…" not in said


def test_so_many_pairs_are_shown_as_are_asked_for(at_redis):
    said = at_redis("evidence", "mug", "-n", "1").output
    assert "What people did" in said
    assert "What was seen or bought" not in said
    assert "and 1 weaker" in said


def test_an_item_of_which_nothing_is_remembered_exits_with_4(at_redis):
    result = at_redis("evidence", "cup")
    assert result.exit_code == 4
    assert "nothing is remembered of 'cup'" in result.output


def test_without_titles_the_counts_are_told(at_redis, monkeypatch):
    monkeypatch.setenv("NEARKIN_LOOKUP_ADDRESS", f"127.0.0.1:{free_port()}")
    result = at_redis("evidence", "mug")
    assert result.exit_code == 0
    assert "titles cannot be told" in result.output
    assert "2.00 [1.00, 4.00]" in result.output


def test_a_redis_that_is_away_exits_with_3_and_says_what_to_do(nearkin, monkeypatch):
    monkeypatch.setenv("NEARKIN_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    result = nearkin("evidence", "mug")
    assert result.exit_code == 3
    assert "NEARKIN_REDIS_URL" in result.output
    assert "Traceback" not in result.output
