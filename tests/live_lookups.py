"""A look-up server over gRPC on a free port, whose index can be taken away, slowed down and filled by a test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from nearkin.client.lookup import LookupClient
from nearkin.core.answer import LoggedAnswer
from nearkin.core.candidates import ItemFacts
from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.core.evidence import EvidenceRules, Remembered
from nearkin.core.item import ItemState
from nearkin.core.ports import ContentEncoder, IndexedItem, ItemCollection, ItemWrite, Search
from nearkin.core.position_priors import PositionPriors
from nearkin.core.rules import Curation
from nearkin.core.vectors import Hits, Vectors
from nearkin.encoders.fake import HashingEncoder
from nearkin.lookup.authorise import TokenFile
from nearkin.lookup.rank_candidates import Ordering
from nearkin.lookup.server import Limits, LookupServer
from nearkin.ops.grpc_tls import ServerCertificate
from nearkin.ops.health import Health
from nearkin.ops.metrics import Metrics
from nearkin.ops.tracing import OFF, Traces
from nearkin.stores.memory import MemoryIndex
from nearkin.stores.memory_evidence import MemoryEvidence


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds that nobody announces."""
    while not condition():  # noqa: ASYNC110  # see above
        await asyncio.sleep(0.01)


@dataclass
class WatchedIndex:
    """An index that counts its searches, answers late, or not at all, as a test says."""

    index: MemoryIndex = field(default_factory=MemoryIndex)
    problem: Exception | None = None
    refuses: Callable[[Search], bool] = lambda search: False
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    searched: list[list[Search]] = field(default_factory=list)
    reads: int = 0

    def __post_init__(self) -> None:
        self.may_answer.set()

    def go_away(self) -> None:
        self.problem = Unavailable("index", "the test took it away")

    def come_back(self) -> None:
        self.problem = None

    async def prepare(self, bundle: str, dimensions: int) -> ItemCollection:
        return await self.index.prepare(bundle, dimensions)

    async def serving(self) -> ItemCollection:
        if self.problem:
            raise self.problem
        return WatchedCollection(self, await self.index.serving())

    async def close(self) -> None:
        await self.index.close()


@dataclass
class WatchedCollection:
    watched: WatchedIndex
    collection: ItemCollection

    @property
    def name(self) -> str:
        return self.collection.name

    @property
    def bundle(self) -> str:
        return self.collection.bundle

    async def read(self, ids: Sequence[str]) -> dict[str, IndexedItem]:
        self.watched.reads += 1
        await self.watched.may_answer.wait()
        return await self.collection.read(ids)

    async def read_facts(self, ids: Sequence[str]) -> dict[str, ItemFacts]:
        self.watched.reads += 1
        await self.watched.may_answer.wait()
        return await self.collection.read_facts(ids)

    async def write(self, writes: Sequence[ItemWrite]) -> frozenset[str]:
        return await self.collection.write(writes)

    async def search(self, searches: Sequence[Search]) -> list[Hits]:
        self.watched.searched.append(list(searches))
        await self.watched.may_answer.wait()
        if any(map(self.watched.refuses, searches)):
            raise Misconfigured("is not to be asked", remedy="ask the test", reason="test")
        return await self.collection.search(searches)

    async def count(self) -> object:
        return await self.collection.count()


@dataclass
class EvidenceDoor:
    """A way to the evidence that a test closes, in part or whole, or makes slow, for look-ups alone.

    Attributes:
        problem: what every question meets.
        marginals_problem: what a question for marginals meets.
        may_answer: until this is set, no question has an answer.
        asked: how often something was read: each time is one round trip.
    """

    evidence: MemoryEvidence
    problem: Exception | None = None
    marginals_problem: Exception | None = None
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def read(self, anchors: Sequence[str], marginals_of: Sequence[str], at_ms: int) -> Remembered:
        await self._pass()
        if marginals_of and self.marginals_problem:
            raise self.marginals_problem
        return await self.evidence.read(anchors, marginals_of, at_ms)

    async def read_newest(self) -> int:
        if self.problem:
            raise self.problem
        return await self.evidence.read_newest()

    async def read_visits(self, at_ms: int) -> float:
        return await self.evidence.read_visits(at_ms)

    async def read_priors(self) -> PositionPriors:
        return await self.evidence.read_priors()

    async def _pass(self) -> None:
        self.asked += 1
        await self.may_answer.wait()
        if self.problem:
            raise self.problem


@dataclass
class LiveLookups:
    """A running server, and what a test does to it."""

    index: WatchedIndex
    encoder: ContentEncoder
    evidence: MemoryEvidence
    evidence_door: EvidenceDoor
    server: LookupServer
    metrics: Metrics
    health: Health
    client: LookupClient
    address: str
    logged: list[LoggedAnswer]
    curation: Curation = field(default_factory=Curation)

    async def publish(self, *states: ItemState) -> None:
        """Write items as an indexer does: present ones with their vectors, all others without."""
        collection = await self.index.prepare(self.encoder.bundle, self.encoder.dimensions)
        held = await collection.read([state.id for state in states])
        writes = []
        for state in states:
            vectors = self.encoder.encode([state.content])[0] if state.content else None
            expected = held[state.id].state.versions if state.id in held else None
            item = IndexedItem(state, fingerprint="f" if vectors else "", indexed_at=1_700_000_000_000)
            writes.append(ItemWrite(item, expected, vectors if isinstance(vectors, Vectors) else None))
        assert await collection.write(writes) == frozenset()

    async def until_ready(self, *, ready: bool = True) -> None:
        """Wait until the server's health says so."""
        await until(lambda: bool(self.health.waiting) is not ready)


@asynccontextmanager
async def live_lookups(
    limits: Limits | None = None,
    encoder: ContentEncoder | None = None,
    ordering: Ordering | None = None,
    tokens: TokenFile | None = None,
    certificate: ServerCertificate | None = None,
    traces: Traces = OFF,
) -> AsyncIterator[LiveLookups]:
    """Start a server with an empty index and no evidence, and a client of it; stop both at the end."""
    index, encoder = WatchedIndex(), encoder or HashingEncoder()
    await index.prepare(encoder.bundle, encoder.dimensions)
    metrics = Metrics(CollectorRegistry(), "lookup")
    health = Health(metrics, "index")
    evidence = MemoryEvidence(EvidenceRules())
    door = EvidenceDoor(evidence)
    logged: list[LoggedAnswer] = []
    server = LookupServer(
        index,
        encoder,
        door,
        limits or Limits(),
        metrics,
        health,
        ordering=ordering,
        curation=lambda: live.curation,
        log_answer=logged.append,
        tokens=tokens,
        traces=traces,
    )
    address = await server.start("127.0.0.1:0", certificate)
    async with LookupClient(address) as client:
        live = LiveLookups(index, encoder, evidence, door, server, metrics, health, client, address, logged)
        try:
            await live.until_ready()
            yield live
        finally:
            index.may_answer.set()
            await server.drain(grace_s=0)
