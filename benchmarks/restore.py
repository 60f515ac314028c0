"""How long it takes to come back from backups after index and Redis are lost, and what is lost with them.

`python -m benchmarks.restore [--items 20000] [--slates 20000] [--json FILE]` runs a broker, an index, a Redis, an
indexer and a feedback worker, fills them, and takes backups as docs/operations.md says: the indexer's positions, then a
copy of the index's folder (the embedded index is stopped for it; a Qdrant server makes a snapshot while it serves),
then Redis's dump. After the backups a quarter as many new items come, as many new versions of items that the backup
holds, and a quarter as much feedback. Then index and Redis are killed and their folders deleted; the backups are put
back, the indexer's positions too, and the services started. What is lost is what index and Redis held before and do not
hold at the end. An anchor with too many pairs is cut down to seven eighths of the cap, when depends on how its feedback
falls into batches: so a few pairs more may be there at the end.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import redis
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from benchmarks.catalogue import vary_catalogue
from benchmarks.feedback import make_messages
from benchmarks.publishing import content_of, offer_of
from benchmarks.report import Bar, conclude
from nearkin.client.producer import Producer
from nearkin.contracts.topics import FEEDBACK, GROUPS, ITEMS, Topic
from nearkin.core.item import ItemState
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.programs import LOOPBACK, accepts, free_port, start
from nearkin.embedded.redis import redis_answers, redis_binary, redis_command
from nearkin.ops.settings import load_settings
from nearkin.ops.topics import apply_topics
from nearkin.stores.qdrant import connect

PARTITIONS = 4

#: Whoever waits so long, waits for nothing.
HUNG_S = 900

_PAGE = 500


class Machine:
    """The programs of the measurement, and their folders.

    Args:
        folder: holds everything.
        bootstrap: of the broker.
    """

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.index, self.redis = folder / "index", folder / "redis"
        self._folder = folder
        self._index_address, self._redis_port = f"{LOOPBACK}:{free_port()}", free_port()
        os.environ |= {
            "NEARKIN_KAFKA_BOOTSTRAP": bootstrap,
            "NEARKIN_QDRANT_URL": f"http://{self._index_address}",
            "NEARKIN_REDIS_URL": f"redis://{LOOPBACK}:{self._redis_port}/0",
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start_index(self) -> None:
        """Start the index, and wait until it serves."""
        owner = ["-m", "nearkin.embedded.index_owner", "--data", str(self.index), "--listen", self._index_address]
        self._start("index", [sys.executable, *owner], lambda: accepts(self._index_address))

    def start_redis(self, *options: str) -> None:
        """Start Redis, and wait until it has loaded what it holds."""
        binary = redis_binary()
        assert binary is not None, "there is no redis-server"
        self.redis.mkdir(exist_ok=True)
        command = [*redis_command(binary, self._redis_port, self.redis), *options]
        self._start("redis", command, lambda: redis_answers(self._redis_port))

    def start_services(self) -> None:
        """Start the indexer and the feedback worker; they serve some seconds later."""
        for name in ("indexer", "feedback"):
            self._start(name, [sys.executable, "-m", f"nearkin.{name}"], lambda: True)

    def stop(self, *names: str, kill: bool = False) -> None:
        """End programs."""
        for name in names or tuple(self._running):
            process = self._running.pop(name)
            process.kill() if kill else process.terminate()
            process.wait(60)

    def connection(self) -> "redis.Redis":
        """A connection to Redis."""
        return redis.Redis(LOOPBACK, self._redis_port)

    def pairs(self) -> int:
        """How many pairs Redis remembers."""
        with self.connection() as connection:
            hashes = connection.scan_iter("nk:*", count=1000, _type="hash")
            return sum(int(connection.hlen(key)) for key in hashes)

    def states(self, ids: Sequence[str]) -> dict[str, ItemState]:
        """What the index holds of items."""

        async def read() -> dict[str, ItemState]:
            index = connect(load_settings())
            try:
                items = await index.serving()
                pages = [ids[first : first + _PAGE] for first in range(0, len(ids), _PAGE)]
                found = [await items.read(page) for page in pages]
                return {item_id: item.state for page in found for item_id, item in page.items()}
            finally:
                await index.close()

        return asyncio.run(read())

    def _start(self, name: str, command: Sequence[str], answers: Callable[[], bool]) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            process = self._running[name] = start(command, log)

        def ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended: {(self._folder / f'{name}.log').read_text()[-2000:]}")
            return answers()

        until(ready, f"{name} answers", every_s=0.02)


def main(arguments: list[str] | None = None) -> int:
    """Measure, show, and leave JSON where it is asked for."""
    parser = argparse.ArgumentParser("benchmarks.restore", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=20_000, help="items before the backups")
    parser.add_argument("--slates", type=int, default=20_000, help="events of feedback before the backups")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nearkin-restore-") as folder:
        figures = measure(chosen.items, chosen.slates, Path(folder))
    for what, value in figures.items():
        print(f"  {what.replace('_', ' '):<40} {value:12,.2f}")
    back = figures["index_put_back_s"] + figures["redis_put_back_s"] + figures["caught_up_s"]
    bars = [
        Bar(what="recovery time, all in all", measured=back, unit="s"),
        Bar(what="recovery point: items older than before or gone", measured=figures["items_lost"], must=0),
        Bar(what="recovery point: pairs gone", measured=figures["pairs_lost"], must=0),
    ]
    return conclude(figures, bars, chosen.json)


def measure(items: int, slates: int, folder: Path) -> dict[str, float]:
    """Fill, back up, go on, lose and restore; the figures."""
    figures: dict[str, float] = {}
    catalogue = vary_catalogue(items + items // 4)
    ids = [one.id for one in catalogue]
    with EmbeddedBroker() as broker, ExitStack() as stack:
        apply_topics(broker.bootstrap, PARTITIONS, replication=1)
        machine = Machine(folder, broker.bootstrap)
        stack.callback(machine.stop)
        machine.start_index()
        machine.start_redis()
        machine.start_services()
        messages = list(make_messages(slates + slates // 4))
        with Producer(bootstrap=broker.bootstrap, linger_ms=20) as producer:
            publish_items(producer, catalogue[:items])
            publish_feedback(broker.bootstrap, messages[:slates])
            drain(broker.bootstrap, {ITEMS: items, FEEDBACK: slates})

            began = time.monotonic()
            positions = committed(broker.bootstrap, ITEMS)
            machine.stop("indexer", "index")
            shutil.copytree(machine.index, folder / "backup" / "index")
            machine.start_index()
            figures["index_backup_s"], began = time.monotonic() - began, time.monotonic()
            dump(machine, folder / "backup" / "dump.rdb")
            figures["redis_backup_s"] = time.monotonic() - began
            machine.stop("feedback")
            machine.start_services()

            # Half of what comes later are new items, and half are new versions of items that the backup holds.
            later = [*catalogue[items:], *catalogue[: items // 4]]
            publish_items(producer, later)
            publish_feedback(broker.bootstrap, messages[slates:])
            drain(broker.bootstrap, {ITEMS: items + len(later), FEEDBACK: len(messages)})
        held, pairs = machine.states(ids), machine.pairs()

        machine.stop("index", "redis", kill=True)
        machine.stop("indexer", "feedback")
        for lost in (machine.index, machine.redis):
            shutil.rmtree(lost)

        began = time.monotonic()
        shutil.copytree(folder / "backup" / "index", machine.index)
        machine.start_index()
        figures["index_put_back_s"], began = time.monotonic() - began, time.monotonic()
        put_back(machine, folder / "backup" / "dump.rdb")
        figures["redis_put_back_s"], began = time.monotonic() - began, time.monotonic()
        commit(broker.bootstrap, ITEMS, positions)
        machine.start_services()
        until(lambda: machine.pairs() >= pairs and committed_sum(broker.bootstrap, ITEMS) == items + len(later), "all")
        figures["caught_up_s"] = time.monotonic() - began

        now = machine.states(ids)
        figures["items_lost"] = sum(now.get(item_id) != state for item_id, state in held.items())
        figures["pairs_lost"] = pairs - machine.pairs()
        figures |= {"items": len(held), "pairs": pairs, "items_after_the_backup": len(later)}
        figures["index_backup_mb"] = size(folder / "backup" / "index") / 1e6
        figures["redis_backup_mb"] = (folder / "backup" / "dump.rdb").stat().st_size / 1e6
    return figures


def publish_items(producer: Producer, items: Iterable[object]) -> None:
    """Send items, and wait until the broker has them."""
    sent = [producer.upsert(one.id, content_of(one), offer=offer_of(one)) for one in items]  # type: ignore[attr-defined, arg-type]
    for each in sent:
        each.result(timeout=HUNG_S)


def publish_feedback(bootstrap: str, messages: Iterable[tuple[bytes, bytes]]) -> None:
    """Send feedback, and wait until the broker has it."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, acks="all")
    for key, value in messages:
        producer.send(FEEDBACK.name, value, key=key)
    producer.flush()
    producer.close()


def dump(machine: Machine, kept: Path) -> None:
    """Have Redis write all that it holds to one file, and keep that."""
    with machine.connection() as connection:
        before = connection.lastsave()
        time.sleep(1)  # its time of the last dump counts whole seconds
        connection.bgsave()
        until(lambda: connection.lastsave() != before, "Redis has written its dump", every_s=0.05)
    shutil.copy(machine.redis / "dump.rdb", kept)


def put_back(machine: Machine, kept: Path) -> None:
    """Have Redis load a dump, and write its append-only file anew: with one, it would not look at the dump."""
    machine.redis.mkdir()
    shutil.copy(kept, machine.redis / "dump.rdb")
    machine.start_redis("--appendonly", "no")
    with machine.connection() as connection:
        connection.config_set("appendonly", "yes")

        def written() -> bool:
            told = connection.info("persistence")
            return told["aof_enabled"] == 1 and not told["aof_rewrite_in_progress"]

        until(written, "the append-only file is written", every_s=0.05)


def places(topic: Topic) -> list[TopicPartition]:
    return [TopicPartition(topic.name, partition) for partition in range(PARTITIONS)]


def committed(bootstrap: str, topic: Topic) -> dict[TopicPartition, int]:
    """How far a topic's group has come."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=GROUPS[topic], enable_auto_commit=False)
    try:
        return {place: consumer.committed(place) or 0 for place in places(topic)}
    finally:
        consumer.close(autocommit=False)


def committed_sum(bootstrap: str, topic: Topic) -> int:
    return sum(committed(bootstrap, topic).values())


def commit(bootstrap: str, topic: Topic, positions: dict[TopicPartition, int]) -> None:
    """Put a topic's group back to where it was."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=GROUPS[topic], enable_auto_commit=False)
    try:
        consumer.assign(list(positions))
        consumer.commit({place: OffsetAndMetadata(offset, "", -1) for place, offset in positions.items()})
    finally:
        consumer.close(autocommit=False)


def drain(bootstrap: str, published: dict[Topic, int]) -> None:
    """Wait until everything that was published to topics is acknowledged; all of them begin at offset 0."""
    for topic, events in published.items():
        until(lambda t=topic, n=events: committed_sum(bootstrap, t) == n, f"{topic.name} is drained", every_s=0.5)  # type: ignore[misc]


def until(holds: Callable[[], bool], what: str, every_s: float = 0.2) -> None:
    deadline = time.monotonic() + HUNG_S
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {HUNG_S} s in vain: {what}")
        time.sleep(every_s)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
