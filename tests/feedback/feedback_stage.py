"""A broker, a Redis, and feedback workers on them; what they must come to, and what they came to."""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import MemberToRemove
from redis import Redis

from feedback.reference import Recount, find_differences, find_strange_keys, recount
from nearkin.contracts.topics import FEEDBACK, VISITS
from nearkin.core.evidence import DAY_MS, EvidenceRules, Metric, Source
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.feedback.app import GROUP
from nearkin.ops.read_log import Logs
from nearkin.ops.record import Record
from nearkin.ops.settings import load_settings
from nearkin.ops.topics import apply_topics
from nearkin.stores.evidence import connect
from ops.service_process import ServiceProcess
from stores.redis_process import RedisProcess
from waiting import until

PARTITIONS = 4
ITEMS = [f"item-{number:03}" for number in range(60)]
USERS = [f"k1:{number:032x}" for number in range(8)]

#: By what every worker here counts, whatever is the default.
EVIDENCE = EvidenceRules(half_life_ms=30 * DAY_MS)

#: A record to be: its topic's name, its key and its value.
Sent = tuple[str, bytes | None, bytes | None]


class FeedbackProcess(ServiceProcess):
    """One feedback worker."""

    def counts(self) -> bool:
        """Whether it has applied something."""
        try:
            return self.metric('nearkin_evidence_batches_total{outcome="applied"') > 0
        except OSError:
            return False


class FeedbackStage:
    """Engines of its own, and workers as processes.

    Args:
        folder: of the data and the logs.
        environment: of every worker.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.environment = folder, environment
        self.broker, self.redis = EmbeddedBroker(), RedisProcess(folder / "redis", "--appendfsync", "always")
        (folder / "redis").mkdir()
        self.processes: list[FeedbackProcess] = []
        self.ends: dict[tuple[str, int], int] = {}

    def __enter__(self):
        self.broker.start()
        self.redis.start()
        self.make_topics()
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
        self.redis.kill()
        self.broker.kill()

    def make_topics(self):
        apply_topics(self.broker.bootstrap, PARTITIONS, replication=1)

    def worker(self, **environment) -> "FeedbackProcess":
        process = FeedbackProcess(
            ["-m", "nearkin.feedback"],
            self.folder / f"feedback-{len(self.processes)}.log",
            {
                "NEARKIN_KAFKA_BOOTSTRAP": self.broker.bootstrap,
                "NEARKIN_REDIS_URL": self.redis.url,
                "NEARKIN_EVIDENCE_HALF_LIFE_DAYS": "30",
                **self.environment,
                **environment,
            },
        )
        self.processes.append(process)
        process.start()
        return process

    def kill(self, worker: "FeedbackProcess") -> None:
        """End the only worker at once, and its session, which the broker would give up after six seconds."""
        worker.kill()
        members = asyncio.run(self._members())
        with self.admin() as admin:
            admin.remove_group_members(GROUP, [MemberToRemove(member_id=member) for member in members])

    async def _members(self) -> list[str]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        await admin.start()
        try:
            ((group,),) = [answer.groups for answer in await admin.describe_consumer_groups([GROUP])]
        finally:
            await admin.close()
        return [member_id for member_id, *_ in group[5]]

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        admin = KafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        yield admin
        admin.close()

    def publish(self, sent: list[Sent]) -> None:
        producer = KafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all")
        for future in [producer.send(topic, value, key=key) for topic, key, value in sent]:
            placed = future.get(30)
            place = placed.topic, placed.partition
            self.ends[place] = max(self.ends.get(place, 0), placed.offset + 1)
        producer.close()

    def log(self) -> list[Record]:
        """Everything on both topics, partition by partition."""
        records = []
        consumer = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, enable_auto_commit=False)
        for (topic, partition), end in sorted(self.ends.items()):
            place = TopicPartition(topic, partition)
            consumer.assign([place])
            consumer.seek(place, 0)
            while consumer.position(place) < end:
                records += [
                    Record(topic, partition, found.offset, found.timestamp, found.key, found.value)
                    for found in consumer.poll(1000).get(place, [])
                ]
        consumer.close(autocommit=False)
        return records

    def dead_letters(self) -> list:
        """Those that are there by now: what was refused is put aside before a guard passes it."""
        letters = []
        consumer = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, enable_auto_commit=False)
        topics = [FEEDBACK.dead_letters.name, VISITS.dead_letters.name]
        places = [TopicPartition(topic, partition) for topic in topics for partition in range(PARTITIONS)]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < end for place, end in ends.items()):
            letters += [letter for found in consumer.poll(1000).values() for letter in found]
        consumer.close(autocommit=False)
        return letters

    def with_store(self, look, rules: EvidenceRules | None = None):
        """What a look into the evidence gives."""

        async def run():
            store = connect(load_settings(redis_url=self.redis.url), rules or EVIDENCE)
            try:
                return await look(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def guards(self) -> dict[tuple[str, int], list[int]]:
        async def read(store):
            logs = await Logs(self.broker.bootstrap).describe(self.ends)
            return {
                place: await store.read_guards(Source(logs[place].topic_id, place[1])) for place in sorted(self.ends)
            }

        return self.with_store(read)

    def until_applied(self) -> None:
        """Wait until every guard has passed everything."""

        def passed():
            for process in self.processes:
                assert process.process.poll() in (None, -9, 0), process.log.read_text()[-3000:]
            return all(min(held) >= self.ends[place] for place, held in self.guards().items())

        until(passed, f"all applied, to {self.ends}")

    def recounted(self, **how) -> Recount:
        """What the log comes to, now."""
        return recount(self.log(), int(time.time() * 1000), **how)

    def exposures_of(self, anchor: str, metric: Metric = Metric.EXPOSURES) -> float:
        """The exposures, or what else, that the evidence holds of an anchor, as of now."""
        at_ms = int(time.time() * 1000)

        async def read(store):
            held = (await store.read([anchor], [], at_ms)).anchors[anchor]
            return float(held.counts[:, metric].sum())

        return self.with_store(read)

    def expected_of(self, anchor: str) -> float:
        """What is expected of the exposures."""
        return self.exposures_of(anchor, Metric.EXPECTED)

    def differences(self, rules: EvidenceRules | None = None, at_ms: int | None = None, **how) -> list[str]:
        """Where the evidence differs from a recount of the log: sums, and keys that nothing was counted for."""
        at_ms = at_ms or int(time.time() * 1000)
        rules = rules or EVIDENCE
        recounted = recount(self.log(), at_ms, half_life_ms=rules.half_life_ms, **how)
        assert recounted.pairs, "nothing was counted"
        found = self.with_store(lambda store: find_differences(recounted, store, at_ms), rules)
        with Redis.from_url(self.redis.url) as connection:
            strange = find_strange_keys(recounted, connection.scan_iter("nk:*"))
        return found + [f"nothing was counted for {key!r}" for key in strange]


def make_events(draw: random.Random, number: int, now_ms: int | None = None, prefix: str = "e") -> list[Sent]:
    """Slates, actions and visits with repeats, shuffles, late and early ones, and some that break the contract."""
    now_ms = now_ms or int(time.time() * 1000)
    sent: list[Sent] = []
    for count in range(number):
        at = now_ms - draw.randrange(5 * 24 * 3600 * 1000)
        if draw.random() < 0.05:
            at = now_ms - 29 * 24 * 3600 * 1000
        event = {"event_id": f"{prefix}-{count}", "occurred_at": at}
        kind = draw.random()
        if kind < 0.6:
            anchor, *shown = draw.sample(ITEMS, 11)
            positions = [
                {"item_id": item, "position": place, "visible": draw.random() < 0.8}
                for place, item in enumerate(shown, 1)
            ]
            event |= {"kind": "impressions", "anchor": anchor, "request_id": f"r-{count}", "surface": "page"}
            event |= {"positions": positions}
            if draw.random() < 0.3:
                for place in positions:
                    place["propensity"] = draw.choice([1.0, 0.2, 0.05])
        elif kind < 0.85:
            anchor, item = draw.sample(ITEMS, 2)
            action = draw.choice(["click", "like", "purchase", "hide", "skip"])
            event |= {"kind": "interaction", "anchor": anchor, "item_id": item, "action": action}
            if draw.random() < 0.8:
                event |= {"request_id": f"r-{count}", "position": draw.randrange(1, 20)}
                event |= draw.choice([{}, {"surface": "page"}, {"surface": "page", "propensity": 0.2}])
        else:
            visit = f"v-{prefix}-{count}"
            event |= {"kind": "visit", "visit_id": visit, "visit_kind": "basket"}
            event |= {"items": draw.sample(ITEMS, draw.randrange(1, 12))}
        if draw.random() < 0.3:
            event |= {"user": draw.choice(USERS)}
        sent.append(as_sent(event))
    sent += draw.sample(sent, number // 20)
    for value in (b"no json", b"{}", b'{"kind":"visit","user":"Ann Other"}', None):
        sent += [(draw.choice([FEEDBACK.name, VISITS.name]), b"item-001", value)] * 2
    event = {"kind": "interaction", "event_id": f"{prefix}-old", "anchor": "item-001", "item_id": "item-002"}
    sent += [as_sent(event | {"action": "click", "occurred_at": now_ms - 40 * 24 * 3600 * 1000})]
    sent += [as_sent(event | {"action": "click", "occurred_at": now_ms + 3600 * 1000, "event_id": f"{prefix}-soon"})]
    for mended in ("old", "soon"):  # refused for its time as it stands above, so it counts under its id
        sent += [as_sent(event | {"action": "save", "occurred_at": now_ms, "event_id": f"{prefix}-{mended}"})]
    hammering = event | {"action": "click", "occurred_at": now_ms, "user": USERS[0]}
    sent += [as_sent(hammering | {"event_id": f"{prefix}-hammer-{count}"}) for count in range(12)]
    sent += [as_sent(hammering | {"event_id": f"{prefix}-hide-{count}", "action": "hide"}) for count in range(3)]
    draw.shuffle(sent)
    return sent


def as_sent(event: dict) -> Sent:
    if event["kind"] == "visit":
        return VISITS.name, event["visit_id"].encode(), json.dumps(event).encode()
    return FEEDBACK.name, event["anchor"].encode(), json.dumps(event).encode()
