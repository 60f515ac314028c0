"""Answers as messages of the look-up contract."""

from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.core.item import NEVER
from nearkin.core.ports import IndexedItem
from nearkin.lookup.find_similar import Neighbours


def encode_neighbours(answer: Neighbours, *, explain: bool) -> wire.FindSimilarResponse:
    """The answer to one look-up; with the source of each neighbour where it is to explain."""
    return wire.FindSimilarResponse(
        neighbours=[
            wire.Neighbour(
                item_id=one.id,
                score=one.score,
                title=one.facts.title,
                sources=[wire.Source(name=source.name, score=source.score, rank=source.rank) for source in one.sources]
                if explain
                else (),
            )
            for one in answer.neighbours
        ],
        collection=answer.collection,
        bundle=answer.bundle,
    )


def encode_item(item_id: str, item: IndexedItem | None) -> wire.IndexedItem:
    """What the index holds of an item; None where it holds nothing."""
    if item is None:
        return wire.IndexedItem(item_id=item_id, status=wire.ITEM_STATUS_UNKNOWN)
    state = item.state
    encoded = wire.IndexedItem(
        item_id=item_id,
        status=_status(item),
        title=state.content.title if state.content else "",
        indexed_at_ms=item.indexed_at,
    )
    if state.content_version > NEVER:
        encoded.content_version = state.content_version
    if state.offered_version > NEVER:
        encoded.offer_version = state.offered_version
    if state.deleted_version > NEVER:
        encoded.deleted_version = state.deleted_version
    return encoded


def _status(item: IndexedItem) -> wire.ItemStatus:
    if item.state.is_visible:
        return wire.ITEM_STATUS_VISIBLE
    if item.state.is_present:
        return wire.ITEM_STATUS_HIDDEN
    return wire.ITEM_STATUS_DELETED if item.state.is_deleted else wire.ITEM_STATUS_PENDING
