"""Answers as messages of the look-up contract."""

import numpy as np

from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.core.answer import LoggedAnswer, hash_content
from nearkin.core.features import FEATURE_NAMES, FEATURE_VERSION
from nearkin.core.item import NEVER
from nearkin.core.ports import IndexedItem
from nearkin.core.ranking import contributions
from nearkin.lookup.find_similar import Answer


def encode_answer(answer: Answer, *, explain: bool) -> wire.FindSimilarResponse:
    """The answer to one look-up; with all that decided it where it is to explain."""
    response = wire.FindSimilarResponse(
        neighbours=[
            wire.Neighbour(item_id=one.item_id, score=one.score, title=facts.title, propensity=one.propensity)
            for one, facts in zip(answer.placed, answer.facts, strict=True)
        ],
        collection=answer.collection,
        bundle=answer.bundle,
        request_id=answer.lookup.request_id,
        degraded=answer.degraded,
        ranking=answer.ranking,
        draw=answer.draw.value,
    )
    if explain:
        _explain(response, answer)
    return response


def _explain(response: wire.FindSimilarResponse, answer: Answer) -> None:
    for neighbour, one in zip(response.neighbours, answer.placed, strict=True):
        neighbour.sources.extend(
            [wire.Source(name=source.name.value, score=source.score, rank=source.rank) for source in one.sources]
        )
        if answer.weights is not None:
            neighbour.features.extend(one.features)
            neighbour.contributions.extend(contributions(np.array(one.features), answer.weights))
    if answer.weights is not None:
        response.feature_names.extend(FEATURE_NAMES)
    response.moved.extend(
        # `from` is a word of Python's.
        [
            wire.Moved(
                item_id=one.item, by=one.rule.value, to=one.now or 0, because_of=one.because_of, **{"from": one.was}
            )
            for one in answer.moved
        ]
    )


def logged(answer: Answer, priors_version: str, now_ms: int) -> LoggedAnswer:
    """The answer as it is logged.

    Args:
        answer: to one look-up.
        priors_version: of the position priors in force.
        now_ms: the server's clock.
    """
    lookup = answer.lookup
    ranked = answer.weights is not None
    return LoggedAnswer(
        lookup.request_id,
        now_ms,
        lookup.anchor if isinstance(lookup.anchor, str) else None,
        lookup.k,
        lookup.ranking.value if ranked else lookup.retrieval.value,
        answer.placed,
        weights=answer.ranking if ranked else "",
        feature_names=FEATURE_NAMES if ranked else (),
        features_version=FEATURE_VERSION if ranked else 0,
        collection=answer.collection,
        bundle=answer.bundle,
        surface=lookup.surface,
        market=lookup.filter.market,
        priors_version=priors_version,
        degraded=answer.degraded,
        moved=answer.moved,
        policy=answer.draw,
        content_hash="" if isinstance(lookup.anchor, str) else hash_content(lookup.anchor),
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
