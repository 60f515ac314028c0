"""Find the items most similar to an anchor: candidates by meaning and by words, fused into one ranking.

The alias is resolved once, and every call of the request stays with that collection and its bundle: a content encoded
for one space is never sent to another. The searches of all anchors go to the index in one call, or, where they are
many, in a few one after the other, so that a large batch does not make others wait.

A search by an item's id that finds anything proves that the item is there, as nothing else has vectors; only an anchor
without hits is read, to tell one that is unknown from one that has no neighbours. And only where a filter starves the
approximate search (fewer hits than neighbours were asked for) is the index searched a second time, exactly.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from nearkin.core.candidates import CandidateSource, Source
from nearkin.core.errors import InvalidRequest, Misconfigured, NothingToEncode, PermanentError, UnknownItem
from nearkin.core.filters import ItemFilter
from nearkin.core.fusion import Fused, fuse
from nearkin.core.item import Content
from nearkin.core.ports import ContentEncoder, IndexedItem, ItemCollection, ItemIndex, Search
from nearkin.core.retrieval import Retrieval
from nearkin.core.vectors import Hit, VectorName, Vectors

#: How many neighbours a look-up gets that does not say.
DEFAULT_K = 10

#: How many hits one call asks of the index: an engine that serves one call at a time is held for 50 ms at most.
HITS_PER_CALL = 1_000

#: Called with the name of a stage ("resolve", "encode", "search", "fuse") and the seconds it took.
Observe = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class SimilarTo:
    """One look-up.

    Attributes:
        anchor: the id of an item in the index, or the content of an item that need not be. A hidden item may be an
            anchor (whoever holds its page may see what is like it), a deleted one may not.
        k: how many neighbours at most, from 1.
        filter: conditions on the neighbours, inside the search; the anchor need not meet them.
        retrieval: which searches the neighbours come from.
    """

    anchor: str | Content
    k: int = DEFAULT_K
    filter: ItemFilter = field(default_factory=ItemFilter)
    retrieval: Retrieval = Retrieval.FUSED


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The answer to one look-up: neighbours from best to worst, and which collection and bundle gave them."""

    neighbours: tuple[Fused, ...]
    collection: str
    bundle: str


async def find_similar(
    lookups: Sequence[SimilarTo],
    index: ItemIndex,
    encoder: ContentEncoder,
    *,
    candidates: int,
    observe: Observe,
) -> list[Neighbours | PermanentError]:
    """Answer look-ups, each with its neighbours or with what is wrong with it.

    Args:
        lookups: at least one; what is wrong with one does not touch the others.
        index: where the items are.
        encoder: for anchors that are contents.
        candidates: how many hits each search gives to fusion, or as many as neighbours where that is more.
        observe: is told how long each stage took.

    Raises:
        Unavailable: the index does not answer; all look-ups failed.
    """
    watch = _Watch(observe)
    collection = await index.serving()
    watch.finished("resolve")
    vectors = await _encode([one.anchor for one in lookups if isinstance(one.anchor, Content)], encoder, collection)
    if vectors:
        watch.finished("encode")
    encoded = iter(vectors)
    queries = [next(encoded) if isinstance(one.anchor, Content) else one.anchor for one in lookups]
    searches = [_searches(one, query, candidates) for one, query in zip(lookups, queries, strict=True)]

    found = await _search(collection, searches)
    found = await _refuse_unknown(collection, lookups, found)
    found = await _search_starved(collection, lookups, searches, found)
    watch.finished("search")

    answers = [
        hits if isinstance(hits, PermanentError) else Neighbours(_rank(one, hits), collection.name, collection.bundle)
        for one, hits in zip(lookups, found, strict=True)
    ]
    watch.finished("fuse")
    return answers


#: The searches of one look-up, and what each found; or why there are none.
_Searches = dict[VectorName, Search]
_Hits = dict[VectorName, list[Hit]]


class _Watch:
    """Tells how long it was since the stage before."""

    def __init__(self, observe: Observe) -> None:
        self._observe, self._since = observe, time.perf_counter()

    def finished(self, stage: str) -> None:
        now = time.perf_counter()
        self._observe(stage, now - self._since)
        self._since = now


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


def _searches(lookup: SimilarTo, query: str | Vectors | PermanentError, candidates: int) -> _Searches | PermanentError:
    if isinstance(query, PermanentError):
        return query
    depth = max(candidates, lookup.k) if lookup.retrieval is Retrieval.FUSED else lookup.k
    searches: _Searches = {}
    if lookup.retrieval is not Retrieval.LEXICAL:
        dense = query if isinstance(query, str) else query.content
        searches[VectorName.CONTENT] = Search(VectorName.CONTENT, dense, depth, lookup.filter)
    if lookup.retrieval is not Retrieval.DENSE:
        if isinstance(query, str):
            searches[VectorName.LEXICAL] = Search(VectorName.LEXICAL, query, depth, lookup.filter)
        elif len(query.lexical.indices):
            searches[VectorName.LEXICAL] = Search(VectorName.LEXICAL, query.lexical, depth, lookup.filter)
    if not searches:
        return InvalidRequest(
            "holds no word to search by", field="anchor.content", remedy="give it words, or ask for dense retrieval"
        )
    return searches


async def _search(
    collection: ItemCollection, searches: Sequence[_Searches | PermanentError]
) -> list[_Hits | PermanentError]:
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
    collection: ItemCollection, lookups: Sequence[SimilarTo], found: Sequence[_Hits | PermanentError]
) -> list[_Hits | PermanentError]:
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
        problem, remedy = "is not in the index", "publish it, or look up by its content"
    elif item.state.is_deleted:
        problem, remedy = "is deleted", "publish it again with a newer version, or look up by its content"
    else:
        problem, remedy = "has an offer but no content yet", "publish its content, or look up by its content"
    return UnknownItem(f"item {item_id!r} {problem}", field="anchor.item_id", remedy=remedy, reason="unknown_item")


async def _search_starved(
    collection: ItemCollection,
    lookups: Sequence[SimilarTo],
    searches: Sequence[_Searches | PermanentError],
    found: list[_Hits | PermanentError],
) -> list[_Hits | PermanentError]:
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


def _rank(lookup: SimilarTo, hits: _Hits) -> tuple[Fused, ...]:
    dense, lexical = (
        # The search leaves the anchor out; should an engine slip, the promises of an answer still hold.
        list({hit.id: hit for hit in reversed(hits.get(name, [])) if hit.id != lookup.anchor}.values())[::-1]
        for name in (VectorName.CONTENT, VectorName.LEXICAL)
    )
    if lookup.retrieval is Retrieval.FUSED:
        return tuple(fuse(dense, lexical, lookup.k))
    name = CandidateSource.CONTENT if lookup.retrieval is Retrieval.DENSE else CandidateSource.LEXICAL
    return tuple(
        Fused(hit.id, hit.score, hit.facts, (Source(name, hit.score, rank),))
        for rank, hit in enumerate((dense or lexical)[: lookup.k], 1)
    )
