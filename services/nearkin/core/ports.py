"""The interfaces between what Nearkin does and the engines it does it with; one file per engine implements them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nearkin.core.candidates import ItemFacts
from nearkin.core.errors import NothingToEncode
from nearkin.core.evidence import Bookkeeping, Outcome, Remembered, ShardBatch, Source
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content, ItemState, Versions
from nearkin.core.position_priors import PositionPriors
from nearkin.core.vectors import Hits, SparseVector, VectorName, Vectors


class ContentEncoder(Protocol):
    """Turns contents into vectors of one space. Blocking and thread-safe: callers run it in a thread."""

    @property
    def bundle(self) -> str:
        """The id of the encoder bundle: vectors of two bundles are never compared."""

    @property
    def dimensions(self) -> int:
        """The length of a dense vector."""

    def fingerprint(self, content: Content) -> str:
        """A hash of exactly what `encode` would read of a content: equal fingerprints need no second encoding."""

    def encode(self, contents: Sequence[Content]) -> list[Vectors | NothingToEncode]:
        """Encode each content, in order; one that holds nothing to encode gets its error in its place."""


class Stored(Enum):
    """Says that a write leaves the vectors in the index as they are."""

    VECTORS = "vectors"


@dataclass(frozen=True, slots=True)
class IndexedItem:
    """What the index holds of one item: its whole state, and what it was encoded from.

    Attributes:
        state: the resolved state; the index itself is the resolved catalogue.
        fingerprint: of the content that the stored vectors were encoded from; empty where there are no vectors.
        indexed_at: milliseconds since the epoch of the write.
        first_seen: when the oldest event of the item that was applied occurred, in milliseconds since the epoch; 0
            where that is not known. A deletion does not set it anew: the minimum over all events is the same in every
            order, the minimum over those since a deletion is not, unless all are kept.
        sketch: of the stored dense vector (`core.sketch`); empty where there are no vectors.
    """

    state: ItemState
    fingerprint: str = ""
    indexed_at: int = 0
    first_seen: int = 0
    sketch: bytes = b""


@dataclass(frozen=True, slots=True)
class ItemWrite:
    """One compare-and-set of an item: applied only where the index still holds the versions that were read.

    Attributes:
        item: the new state.
        expected: the versions that were read; None where the index did not hold the item.
        vectors: the new vectors, `Stored.VECTORS` to change the payload alone, None for a point without vectors
            (a tombstone, or an offer whose item is not known yet).
    """

    item: IndexedItem
    expected: Versions | None
    vectors: Vectors | Stored | None


@dataclass(frozen=True, slots=True)
class Search:
    """One nearest-neighbour search over visible items, the query's own item excluded.

    Attributes:
        using: the named vector to search.
        query: an item's id (its stored vector is the query), a dense (dimensions,) vector or a sparse one,
            as `using` needs.
        limit: how many hits at most, from 1.
        filter: conditions inside the search.
        exact: scan every point instead of the approximate graph.
        among: search these items alone, exactly; None for all. What else must hold of a hit holds of them too, so one
            without vectors, hidden, or refused by the filter is no hit.
        hidden: whether what is hidden is found, too.
    """

    using: VectorName
    query: str | NDArray[np.float32] | SparseVector
    limit: int
    filter: ItemFilter = field(default_factory=ItemFilter)
    exact: bool = False
    among: tuple[str, ...] | None = None
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class IndexCounts:
    """How many points a collection holds: `points` with vectors, `tombstones` and pending offers without."""

    points: int
    tombstones: int


class ItemCollection(Protocol):
    """The items of one bundle in the index. Every call raises `Unavailable` when the engine does not answer."""

    @property
    def name(self) -> str:
        """The collection's own name, never the alias."""

    @property
    def bundle(self) -> str:
        """The id of the bundle whose vectors it holds."""

    async def read(self, ids: Sequence[str]) -> dict[str, IndexedItem]:
        """What is held of these ids; ids that are not held are left out."""

    async def read_facts(self, ids: Sequence[str]) -> dict[str, ItemFacts]:
        """What ranking needs of these items; those that are not held, deleted or without content yet are left out.

        A hidden item has facts too: it may be an anchor. Whether an item may be shown, a search says.
        """

    async def write(self, writes: Sequence[ItemWrite]) -> frozenset[str]:
        """Apply compare-and-set writes of distinct items; on return what was applied is visible to a search.

        Returns:
            The ids that were not applied because somebody else changed the item first: read, merge, write again.
        """

    async def search(self, searches: Sequence[Search]) -> list[Hits]:
        """Run searches together: for each, the hits from best to worst.

        A search by the id of an item that is not held, or has no vectors, gives no hits.
        """

    async def count(self) -> IndexCounts:
        """How many points are held."""


class ItemIndex(Protocol):
    """The index as a whole: collections by bundle, and the alias that says which one serves."""

    async def prepare(self, bundle: str, dimensions: int) -> ItemCollection:
        """The collection of a bundle, made if missing, with the alias set if nothing serves yet.

        Raises:
            Misconfigured: a collection of that name exists with other dimensions, distance or payload indexes.
        """

    async def serving(self) -> ItemCollection:
        """The collection that the alias names now.

        Raises:
            Unavailable: nothing serves yet, or the engine does not answer.
        """

    async def close(self) -> None:
        """Release connections."""


class EvidenceStore(Protocol):
    """What is remembered of pairs of items. Every call raises `Unavailable` when the engine does not answer."""

    async def check(self) -> None:
        """Refuse an engine that would forget.

        Raises:
            Misconfigured: it may evict what it holds, keeps no log of its writes, or counts with another half-life.
        """

    def shard_of(self, item_id: str) -> int:
        """The shard that holds an item's evidence."""

    async def read_guards(self, source: Source) -> list[int]:
        """For each shard the offset of the first event of a partition that it has not applied; 0 at first."""

    async def apply(self, batches: Sequence[ShardBatch]) -> list[Outcome]:
        """Apply batches in one round trip, each wholly and only where its shard's guard is at its start.

        After an error any of them may have been applied: send all again, what was applied is told as a duplicate.

        Returns:
            For each batch what became of it.

        Raises:
            ValueError: a delta's anchor is not of its batch's shard.
            Misconfigured: the store counts with another half-life.
        """

    async def read(self, anchors: Sequence[str], marginals_of: Sequence[str], at_ms: int) -> Remembered:
        """What is remembered of some anchors, and how often other items were visited, in one round trip.

        Args:
            anchors: whose pairs are asked for.
            marginals_of: items whose own visits are asked for, such as the candidates that are known already.
            at_ms: to when everything is decayed.
        """

    async def read_visits(self, at_ms: int) -> float:
        """All visits, decayed to a moment."""

    async def read_bookkeeping(self, anchor: str) -> Bookkeeping:
        """Where an anchor's evidence is kept, and how far its shard is, in one round trip."""

    async def forget_former(
        self, present: Collection[str], now_ms: int, still_ms: int, least_looks: int
    ) -> frozenset[Source]:
        """Forget the guards of topics that are gone, where none moved for so long and so many looks.

        What that guards against is told in `core.former_sources`.

        Args:
            present: the ids of the topics that are there.
            now_ms: the wall's time.
            still_ms: for how long a guard must not have moved; it is noted from call to call.
            least_looks: how many calls must have found that, this one included.

        Returns:
            Whose guards are forgotten now.
        """

    async def read_newest(self) -> int:
        """The newest time that an applied event told, in milliseconds; 0 before the first: a stream's own clock."""

    async def publish_priors(self, priors: PositionPriors) -> bool:
        """Put position priors in force, compare-and-set: only where the version before theirs is in force.

        Returns:
            Whether they are in force now; where not, somebody else published first.
        """

    async def read_priors(self) -> PositionPriors:
        """The position priors in force; version 0, with nothing in it, before any were published.

        Raises:
            Misconfigured: what is held is none that this version can read.
        """

    async def close(self) -> None:
        """Release connections."""
