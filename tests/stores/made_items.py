"""Items, vectors and writes that tests of an index make."""

import numpy as np

from nearkin.core.item import NEVER, Content, ItemState, Offer, Versions, deleted, merge, offered, upserted
from nearkin.core.ports import IndexedItem, ItemWrite, Stored
from nearkin.core.vectors import SparseVector, Vectors

DIMENSIONS = 8


def dense(*values: float) -> np.ndarray:
    """A unit vector that starts with these values."""
    vector = np.zeros(DIMENSIONS, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def lexical(**weights: float) -> SparseVector:
    """A sparse vector: t7=1.5 is the term 7 with the weight 1.5."""
    terms = sorted((int(name[1:]), weight) for name, weight in weights.items())
    return SparseVector(
        np.array([term for term, _ in terms], np.uint32), np.array([weight for _, weight in terms], np.float32)
    )


def vectors(*values: float, **weights: float) -> Vectors:
    return Vectors(dense(*values), lexical(**weights))


def random_vectors(seed: int) -> Vectors:
    values = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return Vectors(values / np.linalg.norm(values), lexical(t1=1.0))


def indexed(state: ItemState) -> IndexedItem:
    return IndexedItem(state, fingerprint="print" if state.is_present else "", indexed_at=1_700_000_000_000)


def insert(
    item_id: str, made: Vectors, version: int = 1, content: Content | None = None, offer: Offer | None = None
) -> ItemWrite:
    """The first write of an item."""
    content = content or Content(title=f"title of {item_id}")
    state = upserted(item_id, content, version, offer, version if offer else NEVER)
    return ItemWrite(indexed(state), expected=None, vectors=made)


def insert_offer(item_id: str, version: int = 1) -> ItemWrite:
    """The first write of an item of which only an offer is known."""
    return ItemWrite(indexed(offered(item_id, Offer(), version)), expected=None, vectors=None)


def delete(held: ItemState, version: int) -> ItemWrite:
    return ItemWrite(indexed(merge(held, deleted(held.id, version))), expected=held.versions, vectors=None)


def reoffer(held: ItemState, offer: Offer, version: int, expected: Versions | None = None) -> ItemWrite:
    """A change of the payload alone."""
    state = merge(held, offered(held.id, offer, version))
    return ItemWrite(indexed(state), expected=expected or held.versions, vectors=Stored.VECTORS)
