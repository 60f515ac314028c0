"""Logs and a store in this process, for what a worker does that no broker is needed to show."""

from collections.abc import AsyncIterator, Callable, Iterable

from prometheus_client import CollectorRegistry

from feedback.feedback_stage import EVIDENCE
from nearkin.core.counting import Counting
from nearkin.feedback.apply_feedback import ApplyFeedback
from nearkin.feedback.partition import Rules
from nearkin.ops.metrics import Metrics
from nearkin.ops.read_log import Log, NothingThere
from nearkin.ops.record import Place, Record
from nearkin.stores.memory_evidence import MemoryEvidence
from nearkin.stores.shards import shard_of


class MadeLogs:
    """Partitions as lists of records; what is read comes in pieces.

    Attributes:
        logs: what the broker would say of each partition.
        records: what each holds.
        came: called before each piece.
    """

    def __init__(self, piece: int = 10) -> None:
        self.logs: dict[Place, Log] = {}
        self.records: dict[Place, list[Record]] = {}
        self.came: Callable[[], None] = lambda: None
        self._piece = piece

    def hold(self, records: Iterable[Record], begin: int = 0, topic_id: str = "topic") -> None:
        """Hold these, of which those before `begin` have expired."""
        for record in records:
            self.records.setdefault((record.topic, record.partition), []).append(record)
        for place, held in self.records.items():
            self.logs[place] = Log(topic_id, begin, held[-1].offset + 1)

    async def describe(self, places: Iterable[Place]) -> dict[Place, Log]:
        return {place: self.logs[place] for place in places if place in self.logs}

    async def read(self, place: Place, start: int, end: int) -> AsyncIterator[list[Record]]:
        if start >= end:
            return
        begin = max(start, self.logs[place].begin)
        held = [each for each in self.records.get(place, []) if begin <= each.offset < end]
        for at in range(0, len(held), self._piece):
            self.came()
            yield held[at : at + self._piece]
        if not held or held[-1].offset < end - 1:
            raise NothingThere("broker", f"gives nothing before {end}")


class NoLetters:
    """Dead letters that are kept here."""

    def __init__(self) -> None:
        self.sent = []

    async def send(self, rejected):
        self.sent += rejected


class Made:
    """A use case on logs and a store of this process.

    Attributes:
        apply: the use case.
        store: what it fills.
        logs: what it reads.
        metrics: what it counts of itself.
    """

    def __init__(self, store=None, logs=None, window: int = 40, clamp: int = 3, **more) -> None:
        self.store, self.logs = store or MemoryEvidence(EVIDENCE), logs or MadeLogs()
        self.metrics, self.letters = Metrics(CollectorRegistry(), "test"), NoLetters()
        rules = Rules(EVIDENCE.half_life_ms, window=window, clamp=clamp)
        by = Counting(shard_of)
        self.apply = ApplyFeedback(self.store, self.logs, self.letters, rules, by, self.metrics, **more)

    def counted(self, name: str, **labels: str) -> float:
        """The value of a metric."""
        return self.metrics.registry.get_sample_value(f"nearkin_{name}", labels) or 0.0
