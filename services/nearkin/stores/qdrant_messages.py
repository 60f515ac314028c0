"""Items, searches and filters as Qdrant's gRPC messages; pure functions, so that the adapter holds calls alone."""

import functools
import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nearkin.contracts.stored import EVERYWHERE, attribute_key, to_payload
from nearkin.core.filters import ItemFilter, PriceRange
from nearkin.core.item import NEVER, Versions, category_key
from nearkin.core.ports import IndexedItem, ItemWrite, Search, Stored
from nearkin.core.vectors import SparseVector, VectorName, Vectors
from nearkin.stores.qdrant_stubs import wire

#: Point ids are UUIDv5 of item ids in this namespace: the same in every collection, for good.
NAMESPACE = uuid.UUID("5b0a3c1e-6c0f-5d7e-9b1a-2f4d8e6a7c90")

#: What tells which item a point is, and what ranking needs of it: one field costs half of what two do.
FACTS_FIELD = wire.WithPayloadSelector(include=wire.PayloadIncludeSelector(fields=["facts"]))

#: So few hits carry their facts at once: to ask for those of a new item alone would take longer.
FEW = 16

#: What a hit of many carries, as its point's version says the rest; and what is read where vectors are wanted.
NO_FIELD = wire.WithPayloadSelector(enable=False)

#: What a read carries: the whole item is one field.
ITEM_FIELD = wire.WithPayloadSelector(include=wire.PayloadIncludeSelector(fields=["item"]))

#: What tells which state of an item is held.
VERSION_FIELDS = wire.WithPayloadSelector(
    include=wire.PayloadIncludeSelector(fields=["id", "content_version", "offer_version", "deleted_version"])
)


@functools.lru_cache(maxsize=2**15)  # a write asks three times for each of its items, and look-ups name the same ones
def point_id(item_id: str) -> wire.PointId:
    """The id of an item's point; not to be changed."""
    return wire.PointId(uuid=_uuid(item_id))


def _uuid(item_id: str) -> str:
    """UUIDv5 as RFC 9562 makes it, in a third of the time that Python's `uuid` takes: a search may name hundreds."""
    named = bytearray(hashlib.sha1(NAMESPACE.bytes + item_id.encode(), usedforsecurity=False).digest()[:16])
    named[6] = named[6] & 0x0F | 0x50
    named[8] = named[8] & 0x3F | 0x80
    text = named.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def to_value(value: Any) -> wire.Value:
    """A value of a stored payload."""
    if isinstance(value, str):
        return wire.Value(string_value=value)
    if isinstance(value, int):
        return wire.Value(integer_value=value)
    if isinstance(value, float):
        return wire.Value(double_value=value)
    return wire.Value(list_value=wire.ListValue(values=[to_value(item) for item in value]))


def payload_of(item: IndexedItem) -> dict[str, wire.Value]:
    """What the index holds of an item beside its vectors."""
    return {key: to_value(value) for key, value in to_payload(item).items()}


def versions_of(payload: Mapping[str, wire.Value]) -> Versions:
    """The versions that a point is at."""
    return Versions(
        payload["content_version"].integer_value,
        payload["offer_version"].integer_value,
        payload["deleted_version"].integer_value,
    )


def operations_of(writes: Sequence[ItemWrite]) -> list[wire.PointsUpdateOperation]:
    """The compare-and-set of many items as one upsert, and one operation for each payload that changes alone.

    The upsert's filter says for each point which versions it must be at: a point that is held and named nowhere in the
    filter was expected to be missing, so it is left as it is.
    """
    points, held = [], []
    operations = []
    for write in writes:
        state, expected = write.item.state, write.expected
        identity = point_id(state.id)
        at_expected = _at(identity, expected) if expected is not None else None
        payload = payload_of(write.item)
        if isinstance(write.vectors, Stored):
            overwrite = wire.PointsUpdateOperation.OverwritePayload(
                payload=payload, points_selector=wire.PointsSelector(filter=at_expected)
            )
            operations.append(wire.PointsUpdateOperation(overwrite_payload=overwrite))
            continue
        points.append(wire.PointStruct(id=identity, payload=payload, vectors=_named(write.vectors)))
        if at_expected is not None:
            held.append(wire.Condition(filter=at_expected))
    if points:
        never = wire.Filter(must=[_version("content_version", NEVER - 1)])
        upsert = wire.PointsUpdateOperation.PointStructList(
            points=points, update_filter=wire.Filter(should=held) if held else never
        )
        operations.append(wire.PointsUpdateOperation(upsert=upsert))
    return operations


def query_of(collection: str, search: Search, query: wire.VectorInput) -> wire.QueryPoints:
    """One search as a message."""
    excluded = search.filter.exclude_ids
    if isinstance(search.query, str):
        excluded = (*excluded, search.query)
    return wire.QueryPoints(
        collection_name=collection,
        query=wire.Query(nearest=query),
        using=search.using.value,
        filter=filter_of(search.filter, excluded, search.among, hidden=search.hidden),
        params=wire.SearchParams(exact=search.exact or search.among is not None),
        limit=search.limit,
        with_payload=FACTS_FIELD if search.limit <= FEW else NO_FIELD,
    )


def query_facts(found: wire.QueryPoints, points: Iterable[str]) -> wire.QueryPoints:
    """The search that gives the facts of some points, by their UUIDs, that another search has found."""
    ids = [wire.PointId(uuid=one) for one in points]
    return wire.QueryPoints(
        collection_name=found.collection_name,
        query=found.query,
        using=found.using,
        filter=wire.Filter(must=[wire.Condition(has_id=wire.HasIdCondition(has_id=ids))]),
        params=wire.SearchParams(exact=True),
        limit=len(ids),
        with_payload=FACTS_FIELD,
    )


def vector_input(query: str | SparseVector | Any) -> wire.VectorInput:
    """A search's query as a message."""
    if isinstance(query, str):
        return wire.VectorInput(id=point_id(query))
    if isinstance(query, SparseVector):
        return wire.VectorInput(sparse=_sparse(query))
    if not np.isfinite(query).all():
        raise ValueError("the query vector holds NaN or infinity")
    return wire.VectorInput(dense=wire.DenseVector(data=query.tolist()))


def stored_input(vector: wire.VectorOutput) -> wire.VectorInput:
    """A stored vector as the query of another search; older servers answer in the deprecated fields."""
    if vector.HasField("sparse"):
        return wire.VectorInput(sparse=vector.sparse)
    if vector.HasField("indices"):
        return wire.VectorInput(sparse=wire.SparseVector(indices=vector.indices.data, values=vector.data))
    return wire.VectorInput(dense=vector.dense if vector.HasField("dense") else wire.DenseVector(data=vector.data))


def filter_of(
    asked: ItemFilter, excluded: Sequence[str], among: Iterable[str] | None = None, *, hidden: bool = False
) -> wire.Filter:
    """What a neighbour must be: visible or else `hidden`, as asked, and one of these where they are given."""
    must: list[wire.Condition] = []
    if among is not None:
        must.append(_one_of(among))
    if asked.categories_any:
        must.append(_any("categories", [category_key(path) for path in asked.categories_any]))
    must.extend(_any("categories", [category_key(path)]) for path in asked.categories_all)
    if asked.category_prefix:
        must.append(_any("category_prefixes", [category_key(asked.category_prefix)]))
    if asked.tags_any:
        must.append(_any("tags", asked.tags_any))
    must.extend(_any("tags", [tag]) for tag in asked.tags_all)
    must.extend(_any("attributes", [attribute_key(name, value)]) for name, value in asked.attributes)
    if asked.price is not None:
        must.extend(_price(asked.price))
    if asked.availability:
        must.append(_any("availability", [availability.value for availability in asked.availability]))
    if asked.market:
        must.append(_any("markets", [asked.market, EVERYWHERE]))
    must_not = [] if hidden else [_equals("hidden", 1)]
    if excluded:
        must_not.append(_one_of(excluded))
    return wire.Filter(must=must, must_not=must_not)


def _price(price: PriceRange) -> list[wire.Condition]:
    conditions = [_any("currency", [price.currency])]
    if price.low is not None or price.high is not None:
        span = wire.Range(gte=price.low, lte=price.high)
        conditions.append(wire.Condition(field=wire.FieldCondition(key="price", range=span)))
    return conditions


def _one_of(ids: Iterable[str]) -> wire.Condition:
    return wire.Condition(has_id=wire.HasIdCondition(has_id=[point_id(item_id) for item_id in ids]))


def _equals(key: str, value: int) -> wire.Condition:
    return wire.Condition(field=wire.FieldCondition(key=key, match=wire.Match(integer=value)))


def _version(key: str, value: int) -> wire.Condition:
    """A range that holds one version, which is exact as a double below 2**53, and cheaper to index than a value."""
    return wire.Condition(field=wire.FieldCondition(key=key, range=wire.Range(gte=value, lte=value)))


def _any(key: str, values: Iterable[str]) -> wire.Condition:
    match = wire.Match(keywords=wire.RepeatedStrings(strings=values))
    return wire.Condition(field=wire.FieldCondition(key=key, match=match))


def _at(identity: wire.PointId, versions: Versions) -> wire.Filter:
    return wire.Filter(
        must=[
            wire.Condition(has_id=wire.HasIdCondition(has_id=[identity])),
            _version("content_version", versions.content),
            _version("offer_version", versions.offer),
            _version("deleted_version", versions.deleted),
        ]
    )


def _named(vectors: Vectors | None) -> wire.Vectors:
    if vectors is None:
        return wire.Vectors(vectors=wire.NamedVectors())
    named = {VectorName.CONTENT.value: wire.Vector(dense=wire.DenseVector(data=vectors.content.tolist()))}
    if len(vectors.lexical.indices):
        named[VectorName.LEXICAL.value] = wire.Vector(sparse=_sparse(vectors.lexical))
    return wire.Vectors(vectors=wire.NamedVectors(vectors=named))


def _sparse(vector: SparseVector) -> wire.SparseVector:
    return wire.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
