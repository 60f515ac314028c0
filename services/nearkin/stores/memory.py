"""The index in this process's memory: what tests and examples use, with the meaning of the real one and exact search.

It passes the suite that the real engines pass (`tests/stores`); nothing of it survives the process.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nearkin.contracts.stored import to_facts
from nearkin.core.candidates import ItemFacts
from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.core.filters import ItemFilter
from nearkin.core.item import CategoryPath
from nearkin.core.ports import IndexCounts, IndexedItem, ItemWrite, Search, Stored
from nearkin.core.vectors import Hit, Hits, SparseVector, VectorName, Vectors
from nearkin.stores.checks import check_writes


@dataclass(frozen=True, slots=True)
class _Point:
    item: IndexedItem
    vectors: Vectors | None


@dataclass
class MemoryCollection:
    """The items of one bundle."""

    name: str
    bundle: str
    dimensions: int
    _points: dict[str, _Point] = field(default_factory=dict)

    async def read(self, ids: Sequence[str]) -> dict[str, IndexedItem]:
        """What is held of these ids; ids that are not held are left out."""
        return {item_id: self._points[item_id].item for item_id in ids if item_id in self._points}

    async def read_facts(self, ids: Sequence[str]) -> dict[str, ItemFacts]:
        """What ranking needs of these items; those that are not held or have no content are left out."""
        held = await self.read(ids)
        return {item_id: facts for item_id, item in held.items() if (facts := to_facts(item)) is not None}

    async def write(self, writes: Sequence[ItemWrite]) -> frozenset[str]:
        """Apply compare-and-set writes of distinct items; returns the ids that were not applied."""
        check_writes(writes)
        for write in writes:
            state = write.item.state
            held = self._points.get(state.id)
            if held is not None and held.item.state.versions != write.expected:
                continue
            if not isinstance(write.vectors, Stored):
                self._points[state.id] = _Point(write.item, write.vectors)
            elif held is not None:
                self._points[state.id] = _Point(write.item, held.vectors)
        meant = {write.item.state.id: write.item.state.versions for write in writes}
        lost = [item_id for item_id, versions in meant.items() if not self._is_at(item_id, versions)]
        return frozenset(lost)

    async def search(self, searches: Sequence[Search]) -> list[Hits]:
        """For each search the hits from best to worst, by exact search."""
        return [self._search(search) for search in searches]

    async def count(self) -> IndexCounts:
        """How many points are held."""
        points = sum(point.vectors is not None for point in self._points.values())
        return IndexCounts(points=points, tombstones=len(self._points) - points)

    def _is_at(self, item_id: str, versions: object) -> bool:
        return item_id in self._points and self._points[item_id].item.state.versions == versions

    def _search(self, search: Search) -> Hits:
        query = search.query
        own = query if isinstance(query, str) else None
        if isinstance(query, str):
            anchor = self._points.get(query)
            if anchor is None or anchor.vectors is None:
                return Hits()
            query = anchor.vectors.content if search.using is VectorName.CONTENT else anchor.vectors.lexical
        candidates = [
            point
            for item_id, point in self._points.items()
            if item_id != own
            and (search.among is None or item_id in search.among)
            and point.vectors is not None
            and _matches(point.item, search.filter, hidden=search.hidden)
        ]
        scores = self._idf_scores(query, candidates) if isinstance(query, SparseVector) else _cosines(query, candidates)
        best = sorted(zip(scores, candidates, strict=True), key=lambda scored: -scored[0])[: search.limit]
        return Hits.of(
            Hit(facts.id, score, facts)
            for score, point in best
            if (score > 0 or search.using is VectorName.CONTENT) and (facts := to_facts(point.item)) is not None
        )

    def _idf_scores(self, query: SparseVector, candidates: Sequence[_Point]) -> list[float]:
        documents = [
            set(point.vectors.lexical.indices.tolist())
            for point in self._points.values()
            if point.vectors is not None and len(point.vectors.lexical.indices)
        ]
        weights = {}
        for term, weight in zip(query.indices.tolist(), query.values.tolist(), strict=True):
            holding = sum(term in document for document in documents)
            weights[term] = weight * np.log((len(documents) - holding + 0.5) / (holding + 0.5) + 1)
        return [
            float(
                sum(
                    weights.get(term, 0.0) * value
                    for term, value in zip(
                        point.vectors.lexical.indices.tolist(), point.vectors.lexical.values.tolist(), strict=True
                    )
                )
            )
            if point.vectors is not None
            else 0.0
            for point in candidates
        ]


@dataclass
class MemoryIndex:
    """Collections by bundle; the first one prepared serves.

    Attributes:
        alias: the prefix of every collection's name.
        serving_name: the collection that serves; empty while none does.
    """

    alias: str = "nearkin-items"
    serving_name: str = ""
    _collections: dict[str, MemoryCollection] = field(default_factory=dict)

    async def prepare(self, bundle: str, dimensions: int) -> MemoryCollection:
        """The collection of a bundle, made if missing, with the alias set if nothing serves yet."""
        name = f"{self.alias}-{bundle}"
        collection = self._collections.setdefault(name, MemoryCollection(name, bundle, dimensions))
        if collection.dimensions != dimensions:
            raise Misconfigured(
                f"the collection holds vectors of {collection.dimensions} dimensions, the bundle makes {dimensions}",
                field=name,
                remedy="use another alias, and publish the items again",
                reason="collection",
            )
        self.serving_name = self.serving_name or name
        return collection

    async def serving(self) -> MemoryCollection:
        """The collection that serves now."""
        if not self.serving_name:
            raise Unavailable("index", f"no collection serves under the alias {self.alias} yet")
        return self._collections[self.serving_name]

    async def close(self) -> None:
        """Nothing to release."""


def _cosines(query: NDArray[np.float32], candidates: Sequence[_Point]) -> list[float]:
    unit = query / np.linalg.norm(query)
    return [
        float(unit @ point.vectors.content / np.linalg.norm(point.vectors.content))
        for point in candidates
        if point.vectors is not None
    ]


def _starts_with(path: CategoryPath, prefix: CategoryPath) -> bool:
    return path[: len(prefix)] == prefix


def _matches(item: IndexedItem, asked: ItemFilter, *, hidden: bool) -> bool:
    state = item.state
    content, offer = state.content, state.offer
    if content is None or not (state.is_visible or (hidden and state.is_present)) or state.id in asked.exclude_ids:
        return False
    paths, tags = set(content.categories), set(content.tags)
    price, span = offer.price, asked.price
    return (
        (not asked.categories_any or not paths.isdisjoint(asked.categories_any))
        and paths.issuperset(asked.categories_all)
        and (not asked.category_prefix or any(_starts_with(path, asked.category_prefix) for path in paths))
        and (not asked.tags_any or not tags.isdisjoint(asked.tags_any))
        and tags.issuperset(asked.tags_all)
        and all(content.attributes.get(name) == value for name, value in asked.attributes)
        and (not asked.availability or offer.availability in asked.availability)
        and (not asked.market or not offer.markets or asked.market in offer.markets)
        and (
            span is None
            or (
                price is not None
                and price.currency == span.currency
                and (span.low is None or price.amount >= span.low)
                and (span.high is None or price.amount <= span.high)
            )
        )
    )
