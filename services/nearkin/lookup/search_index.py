"""Asks the index for the candidates of look-ups: by meaning, by words, and what it knows of those that others named.

The alias is resolved once, and every call of a request stays with that collection and its bundle: a content encoded for
one space is never sent to another. The searches of all anchors go to the index in one call, or, where they are many, in
a few one after the other, so that a large batch does not make others wait.

A search by an item's id that finds anything proves that the item is there, as nothing else has vectors; only an anchor
without hits is read, to tell one that is unknown from one that has no neighbours. And only where a filter starves the
approximate search (fewer hits than neighbours were asked for) is the index searched a second time, exactly.
"""

import asyncio
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nearkin.core.candidates import ItemFacts
from nearkin.core.errors import InvalidRequest, Misconfigured, NothingToEncode, PermanentError, UnknownItem
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content
from nearkin.core.ports import ContentEncoder, IndexedItem, ItemCollection, Search
from nearkin.core.probe import is_probe
from nearkin.core.retrieval import Ranking, Retrieval
from nearkin.core.vectors import Hits, VectorName, Vectors
from nearkin.lookup.request import SimilarTo

#: How many hits one call asks of the index: an engine that serves one call at a time is held for 50 ms at most.
HITS_PER_CALL = 1_000

#: The hits of one look-up by the vector that was searched.
FoundBy = dict[VectorName, Hits]

#: An anchor as a search takes it: the id of an item that the index holds, or vectors of a content.
Query = str | Vectors


@dataclass(frozen=True, slots=True)
class Found:
    """What the index found for one look-up.

    Attributes:
        query: the anchor as a search takes it; None where the index does not know it, and then there are no hits.
        anchor: the facts of the anchor, where they were asked for with this look-up and are there.
        hits: what each search found.
        named: of what others named, what may be shown, by its cosine.
    """

    query: Query | None
    anchor: ItemFacts | None
    hits: FoundBy
    named: Hits


async def search_index(
    lookups: Sequence[SimilarTo],
    named: Sequence[tuple[str, ...]],
    collection: ItemCollection,
    encoder: ContentEncoder,
    *,
    candidates: int,
    unknown: Collection[str] = (),
) -> list[Found | PermanentError]:
    """Search for the neighbours of some anchors, and for what others named beside each.

    Args:
        lookups: at least one; what is wrong with one does not touch the others.
        named: for each look-up the ids of items that others named.
        collection: where the items are.
        encoder: for anchors that are contents.
        candidates: how many hits each search gives, or as many as neighbours where that is more.
        unknown: anchors whose facts are wanted, too.

    Returns:
        For each look-up what was found, or what is wrong with it.

    Raises:
        Unavailable: the index does not answer; all look-ups failed.
    """
    contents = [one.anchor for one in lookups if isinstance(one.anchor, Content)]
    encoded = iter(await _encode(contents, encoder, collection))
    queries = [next(encoded) if isinstance(one.anchor, Content) else one.anchor for one in lookups]
    searches = [_searches(one, query, ids, candidates) for one, query, ids in zip(lookups, queries, named, strict=True)]
    wanted = set(unknown)
    for lookup, asked in zip(lookups, searches, strict=True):
        if isinstance(lookup.anchor, str) and lookup.anchor in wanted and not isinstance(asked, PermanentError):
            asked[_ANCHOR] = _by_id(lookup.anchor, encoder.dimensions)
            wanted.remove(lookup.anchor)
    hits = await _search(collection, searches)
    hits = await _refuse_unknown(collection, lookups, hits)
    hits = await _search_starved(collection, lookups, searches, hits)
    return [_found(one, query, some) for one, query, some in zip(lookups, queries, hits, strict=True)]


async def search_among(
    collection: ItemCollection, wanted: Sequence[tuple[SimilarTo, Query | None, tuple[str, ...]]], dimensions: int
) -> list[Hits]:
    """Score items that somebody else named, and leave out those that the filter refuses or the index does not show.

    Args:
        collection: where the items are.
        wanted: look-ups with their anchors as searches take them, and the ids of the items.
        dimensions: of a dense vector.

    Returns:
        For each look-up the hits by meaning, with cosines; where the index does not know the anchor they are NaN.
    """
    asked = []
    for lookup, query, ids in wanted:
        vector = _anywhere(dimensions) if query is None else query if isinstance(query, str) else query.content
        if ids:
            asked.append(Search(VectorName.CONTENT, vector, len(ids), lookup.filter, exact=True, among=ids))
    found = iter([hits for some in _portions(asked) for hits in await collection.search(some)] if asked else ())
    answers = [next(found) if ids else Hits() for _, _, ids in wanted]
    return [
        hits if query is not None else Hits(hits.facts, [math.nan] * len(hits))
        for (_, query, _), hits in zip(wanted, answers, strict=True)
    ]


def _by_id(item_id: str, dimensions: int) -> Search:
    """A search that finds an item, whether it may be shown or not."""
    return Search(VectorName.CONTENT, _anywhere(dimensions), 1, exact=True, among=(item_id,), hidden=True)


@cache
def _anywhere(dimensions: int) -> NDArray[np.float32]:
    """Any vector, which will do to learn what is there."""
    vector: NDArray[np.float32] = np.eye(1, dimensions, dtype=np.float32)[0]
    return vector


#: Stand for the search among what others named, and for that of the anchor itself.
_NAMED, _ANCHOR = "named", "anchor"

#: The searches of one look-up, and their hits: of its vectors, among what others named, and of the anchor itself.
_Searches = dict[str, Search]
_Found = dict[str, Hits]


async def _encode(
    contents: Sequence[Content], encoder: ContentEncoder, collection: ItemCollection
) -> list[Vectors | PermanentError]:
    if not contents:
        return []
    if encoder.bundle != collection.bundle:
        other_space = Misconfigured(
            f"this server encodes with bundle {encoder.bundle!r}, but the index serves {collection.bundle!r}",
            field="anchor.content",
            remedy="look up by item_id, or restart the look-up service with NEARKIN_BUNDLE_PATH set to the bundle that "
            "the index serves",
            reason="bundle",
        )
        return [other_space] * len(contents)
    outcomes = await asyncio.to_thread(encoder.encode, contents)
    return [_nothing_to_encode(one) if isinstance(one, NothingToEncode) else one for one in outcomes]


def _nothing_to_encode(error: NothingToEncode) -> InvalidRequest:
    refusal = InvalidRequest(
        error.problem, field="anchor.content", remedy="give a title or a description with words", reason=error.reason
    )
    refusal.__cause__ = error
    return refusal


def _searches(
    lookup: SimilarTo, query: Query | PermanentError, named: tuple[str, ...], candidates: int
) -> _Searches | PermanentError:
    if isinstance(query, PermanentError):
        return query
    probes = lookup.is_of_probes
    if isinstance(query, str) and is_probe(query) and not probes:
        return _not_there(query)
    depth = max(candidates, lookup.k) if lookup.retrieval is Retrieval.FUSED else lookup.k
    searches: _Searches = {}
    if named:
        dense = query if isinstance(query, str) else query.content
        searches[_NAMED] = Search(
            VectorName.CONTENT, dense, len(named), lookup.filter, exact=True, among=named, hidden=probes
        )
        if lookup.ranking is Ranking.EVIDENCE:
            return searches
    if lookup.retrieval is not Retrieval.LEXICAL:
        dense = query if isinstance(query, str) else query.content
        searches[VectorName.CONTENT] = Search(VectorName.CONTENT, dense, depth, lookup.filter, hidden=probes)
    if lookup.retrieval is not Retrieval.DENSE:
        if isinstance(query, str):
            searches[VectorName.LEXICAL] = Search(VectorName.LEXICAL, query, depth, lookup.filter, hidden=probes)
        elif len(query.lexical.indices):
            words = query.lexical
            searches[VectorName.LEXICAL] = Search(VectorName.LEXICAL, words, depth, lookup.filter, hidden=probes)
    if not searches:
        return InvalidRequest(
            "holds no word to search by", field="anchor.content", remedy="give it words, or ask for dense retrieval"
        )
    return searches


async def _search(
    collection: ItemCollection, searches: Sequence[_Searches | PermanentError]
) -> list[_Found | PermanentError]:
    """Run the searches of all look-ups together; only if one of them is refused, look-up by look-up."""
    together = [search for one in searches if not isinstance(one, PermanentError) for search in one.values()]
    if not together:
        return [one if isinstance(one, PermanentError) else {} for one in searches]
    try:
        hits = iter([hits for some in _portions(together) for hits in await collection.search(some)])
    except PermanentError as refusal:
        if len(searches) == 1:
            return [refusal]
        alone = await asyncio.gather(*(_search(collection, [one]) for one in searches))
        return [one for (one,) in alone]
    return [one if isinstance(one, PermanentError) else {name: next(hits) for name in one} for one in searches]


def _portions(searches: Sequence[Search]) -> Iterator[list[Search]]:
    """Cut searches into calls of bounded size, each of one search at least."""
    portion: list[Search] = []
    hits = 0
    for search in searches:
        if portion and hits + search.limit > HITS_PER_CALL:
            yield portion
            portion, hits = [], 0
        portion.append(search)
        hits += search.limit
    yield portion


async def _refuse_unknown(
    collection: ItemCollection, lookups: Sequence[SimilarTo], found: Sequence[_Found | PermanentError]
) -> list[_Found | PermanentError]:
    """Put a refusal in the place of each anchor that found nothing because it is not there."""
    doubtful = dict.fromkeys(
        lookup.anchor
        for lookup, hits in zip(lookups, found, strict=True)
        if isinstance(lookup.anchor, str) and not isinstance(hits, PermanentError) and not any(hits.values())
    )
    if not doubtful:
        return list(found)
    held = await collection.read(list(doubtful))
    refusals = {item_id: _refusal(item_id, held.get(item_id)) for item_id in doubtful}
    return [
        (isinstance(lookup.anchor, str) and refusals.get(lookup.anchor)) or hits
        for lookup, hits in zip(lookups, found, strict=True)
    ]


def _refusal(item_id: str, item: IndexedItem | None) -> UnknownItem | None:
    if item is not None and item.state.is_present:
        return None
    if item is None:
        return _not_there(item_id)
    if item.state.is_deleted:
        problem, remedy = "is deleted", "publish it again with a newer version, or look up by its content"
    else:
        problem, remedy = "has an offer but no content yet", "publish its content, or look up by its content"
    return _unknown(item_id, problem, remedy)


def _not_there(item_id: str) -> UnknownItem:
    return _unknown(item_id, "is not in the index", "publish it, or look up by its content")


def _unknown(item_id: str, problem: str, remedy: str) -> UnknownItem:
    return UnknownItem(f"item {item_id!r} {problem}", field="anchor.item_id", remedy=remedy, reason="unknown_item")


async def _search_starved(
    collection: ItemCollection,
    lookups: Sequence[SimilarTo],
    searches: Sequence[_Searches | PermanentError],
    found: list[_Found | PermanentError],
) -> list[_Found | PermanentError]:
    """Search exactly where a filter left fewer hits by meaning than neighbours were asked for.

    The graph of an approximate search is thin among the few points that a narrow filter admits. Search by words is
    exact as it is.
    """
    again: dict[int, _Searches | PermanentError] = {}
    for place, (lookup, asked, hits) in enumerate(zip(lookups, searches, found, strict=True)):
        if isinstance(asked, PermanentError) or isinstance(hits, PermanentError) or lookup.filter == ItemFilter():
            continue
        if VectorName.CONTENT in asked and len(hits[VectorName.CONTENT]) < lookup.k:
            again[place] = {VectorName.CONTENT: replace(asked[VectorName.CONTENT], exact=True)}
    if not again:
        return found
    merged = list(found)
    for place, exact in zip(again, await _search(collection, list(again.values())), strict=True):
        hits = found[place]
        merged[place] = exact if isinstance(exact, PermanentError) or isinstance(hits, PermanentError) else hits | exact
    return merged


def _found(lookup: SimilarTo, query: Query | PermanentError, hits: _Found | PermanentError) -> Found | PermanentError:
    if isinstance(hits, UnknownItem) and lookup.popular_if_unknown and lookup.is_ranked:
        return Found(None, None, {}, Hits())
    if isinstance(hits, PermanentError):
        return hits
    if isinstance(query, PermanentError):
        return query
    # The search leaves the anchor out; should an engine slip, the promises of an answer still hold.
    distinct = {name: _distinct(some, lookup.anchor) for name, some in hits.items()}
    if lookup.is_of_probes:
        distinct = {name: Hits.of(hit for hit in some if is_probe(hit.id)) for name, some in distinct.items()}
    named = distinct.pop(_NAMED, Hits())
    distinct.pop(_ANCHOR, None)
    anchor = next((hit.facts for hit in hits.get(_ANCHOR, ())), None)
    return Found(query, anchor, {VectorName(name): some for name, some in distinct.items()}, named)


def _distinct(hits: Hits, anchor: str | Content) -> Hits:
    """Each item once, at its better place, and never the anchor."""
    if len(set(hits.ids)) == len(hits) and (isinstance(anchor, Content) or anchor not in hits.ids):
        return hits
    return Hits.of(reversed({hit.id: hit for hit in reversed(hits) if hit.id != anchor}.values()))
