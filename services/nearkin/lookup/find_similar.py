"""Find the items most similar to an anchor: candidates from evidence and from the index, ranked into one answer.

The evidence is read first, because it is quick and names candidates: the index is asked once, for its own hits and for
what it knows of those, which also says which of them may be shown. A part that does not answer within its share of the
deadline is missing from the answer, which says so: without evidence, content decides alone; without the index, what is
remembered does.

Whether an item may be shown, the index alone knows. Without it, only that is shown which the index has shown to this
server before, and has not left out since where it was asked about it; what was hidden, deleted or changed since then
is shown as it was.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np

from nearkin.core.answer import Placed
from nearkin.core.candidates import (
    AnchorContext,
    Array,
    Candidates,
    CandidateSource,
    ItemFacts,
    Source,
    SourcesOf,
    partners_by_action,
    partners_by_visits,
)
from nearkin.core.errors import DeadlineExceeded, NearkinError, PermanentError, Unavailable, UnknownItem
from nearkin.core.evidence import AnchorEvidence, Metric
from nearkin.core.exploration import Policy
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content, category_key
from nearkin.core.ports import ContentEncoder, ItemCollection, ItemIndex
from nearkin.core.ranking import RankingWeights
from nearkin.core.retrieval import Ranking
from nearkin.core.rules import Curation, Moved
from nearkin.core.vectors import Hit, Hits, VectorName
from nearkin.lookup.engines import Engine, TooSlow
from nearkin.lookup.follow_stream import Stream
from nearkin.lookup.rank_candidates import Ordering, rank_candidates
from nearkin.lookup.recall_evidence import ANCHORS_PER_CALL, RecallEvidence
from nearkin.lookup.request import SimilarTo
from nearkin.lookup.search_index import Found, FoundBy, Query, search_among, search_index

#: Which share of what is left of the deadline one engine may take: there is another one to ask, and work to do after.
INDEX_SHARE = 0.7
EVIDENCE_SHARE = 0.3

#: The same where there is no other one to ask: it ends before the deadline, so that it is known who did not answer.
ALONE_SHARE = 0.95

#: An anchor with fewer remembered pairs is thin: what is popular in its category joins its candidates.
THIN = 10
POPULAR_CANDIDATES = 20

#: How long the facts of an anchor are believed at most, in seconds: they say a category, a price, a maker.
ANCHORS_AGE_S = 60.0

#: Of so many items the facts are remembered for when the index is away; and of so many anchors.
MOST_FACTS = 100_000

#: Called with the name of a stage ("evidence", "search", "popular", "visits", "rank") and the seconds that it took.
Observe = Callable[[str, float], None]

_FROM_EVIDENCE = frozenset({CandidateSource.PAIRS, CandidateSource.CO_VISITS})

_SOURCES = {VectorName.CONTENT: CandidateSource.CONTENT, VectorName.LEXICAL: CandidateSource.LEXICAL}


@dataclass(frozen=True, slots=True)
class Depths:
    """How many candidates each source names.

    Attributes:
        hits: of each search, or as many as neighbours where that is more.
        partners: of the pairs that people chose, and of the co-visits, each.
    """

    hits: int = 100
    partners: int = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one look-up.

    Attributes:
        lookup: what was asked.
        placed: what is shown, by position.
        facts: of each item that is shown; where the index could not be asked, as they were known last.
        ranking: names what decided the order: the weights, or the one search.
        weights: that gave the scores; None for one search's own order.
        moved: what rules and diversity did.
        draw: which policy of the last draw gave the answer.
        collection: of the index that answered; empty where it could not be asked.
        bundle: of its vectors.
        degraded: what the answer had to do without.
        at_ms: when, on the clock in force.
    """

    lookup: SimilarTo
    placed: tuple[Placed, ...]
    facts: tuple[ItemFacts, ...]
    ranking: str
    weights: RankingWeights | None
    moved: tuple[Moved, ...]
    draw: Policy
    collection: str
    bundle: str
    degraded: tuple[str, ...]
    at_ms: int


@dataclass(slots=True)
class _Gathered:
    """What is known so far about one look-up.

    Attributes:
        lookup: what is asked.
        evidence: what is remembered of the anchor; None where it was not asked for, or could not be.
        degraded: what the answer has to do without.
        named: what each source beside the searches names: ids with their scores, best first.
        query: the anchor as a search takes it; None where the index does not know it, or was not asked.
        anchor: what is known of it.
        hits: what the searches found.
        scored: what the index says of what is named.
    """

    lookup: SimilarTo
    evidence: AnchorEvidence | None
    degraded: list[str]
    named: dict[CandidateSource, dict[str, float]]
    query: Query | None = None
    anchor: ItemFacts | None = None
    hits: FoundBy = field(default_factory=dict)
    scored: Hits = field(default_factory=Hits)

    def name(self, source: CandidateSource, listed: dict[str, float]) -> None:
        """Keep what a source names, but the anchor."""
        if isinstance(self.lookup.anchor, str):
            listed.pop(self.lookup.anchor, None)
        if listed:
            self.named[source] = listed

    @property
    def can_do_without_index(self) -> bool:
        """Whether what is remembered answers it."""
        if self.evidence is None or not self.scored or self.lookup.is_of_probes:
            return False
        return _judged_by_facts(self.lookup.filter)

    @property
    def named_ids(self) -> tuple[str, ...]:
        """What is named, each once."""
        return tuple(dict.fromkeys([item_id for listed in self.named.values() for item_id in listed]))


@dataclass(frozen=True, slots=True)
class _Searched:
    """What the index said."""

    collection: ItemCollection
    found: Sequence[Found | PermanentError]
    anchors: Mapping[str, ItemFacts]


class FindSimilar:
    """Answers look-ups.

    Args:
        index: where the items are.
        encoder: for anchors that are contents.
        recall: what people did.
        stream: what is known of the stream as a whole.
        items: the engine behind `index`.
        evidence: the engine behind `recall`.
        ordering: how candidates become an answer.
        curation: tells what was decided by hand, as of now.
        depths: how many candidates each source names.
        evidence_budget_s: how long the evidence may take in all, however far the deadline is; for many anchors, so long
            for each portion of them.
        observe: is told how long each stage took.
    """

    def __init__(
        self,
        index: ItemIndex,
        encoder: ContentEncoder,
        recall: RecallEvidence,
        stream: Stream,
        *,
        items: Engine,
        evidence: Engine,
        ordering: Ordering,
        curation: Callable[[], Curation],
        depths: Depths,
        evidence_budget_s: float,
        observe: Observe,
    ) -> None:
        self._index, self._encoder, self._recall, self._stream = index, encoder, recall, stream
        self._items, self._evidence = items, evidence
        self._ordering, self._curation, self._depths = ordering, curation, depths
        self._evidence_budget_s, self._observe = evidence_budget_s, observe
        self._facts: dict[str, ItemFacts] = {}
        self._anchors: dict[str, ItemFacts] = {}
        self._anchors_since = time.monotonic()

    @property
    def can_answer_alone(self) -> bool:
        """Whether any item is known well enough to be shown while the index is away."""
        return bool(self._facts)

    async def __call__(self, lookups: Sequence[SimilarTo], allowed_s: float) -> list[Answer | NearkinError]:
        """Answer look-ups, each with its neighbours or with what is wrong with it.

        Args:
            lookups: at least one; what is wrong with one does not touch the others.
            allowed_s: until the deadline.

        Raises:
            Unavailable: nothing that could answer any of them can be reached.
        """
        began = time.perf_counter()
        deadline = began + allowed_s
        at_ms = self._stream.now_ms()
        anchors = list(
            dict.fromkeys([one.anchor for one in lookups if one.wants_evidence and isinstance(one.anchor, str)])
        )
        # Granted once, for pairs and marginals together; many anchors are asked for in portions, each with its time.
        portions = max(math.ceil(len(anchors) / ANCHORS_PER_CALL), 1)
        evidence_s = min(self._evidence_budget_s * portions, allowed_s * EVIDENCE_SHARE)
        remembered = await self._pairs(anchors, at_ms, evidence_s)
        evidence_s -= time.perf_counter() - began
        begun = [self._begin(lookup, remembered) for lookup in lookups]
        searched = await self._search(begun, deadline)
        if isinstance(searched, Unavailable) and isinstance(remembered, Unavailable):
            raise Unavailable("index", f"{searched.detail}; and {remembered}")
        gathered = self._gather(begun, searched, remembered)
        whole = [one for one in gathered if isinstance(one, _Gathered)]
        collection = None if isinstance(searched, Unavailable) else searched.collection
        await self._add_popular(collection, whole, deadline)
        visits = await self._visits(whole, at_ms, min(evidence_s, (deadline - time.perf_counter()) * EVIDENCE_SHARE))
        if isinstance(visits, Unavailable):
            gathered = [_without_evidence(one, visits) for one in gathered]
            visits = {}
        answers: list[Answer | NearkinError] = []
        ranking_s = 0.0
        for each in gathered:
            if isinstance(each, _Gathered):
                began = time.perf_counter()
                answers.append(self._answer(each, visits, collection, at_ms))
                ranking_s += time.perf_counter() - began
            else:
                answers.append(each)
            if len(gathered) > 1:
                await asyncio.sleep(0)  # single look-ups go on beside a batch
        self._observe("rank", ranking_s)
        return answers

    def _begin(self, lookup: SimilarTo, remembered: Mapping[str, AnchorEvidence] | Unavailable) -> _Gathered:
        """A look-up with what evidence and pins name."""
        one = _Gathered(lookup, None, [], {})
        if lookup.wants_evidence:
            if isinstance(remembered, Unavailable):
                one.degraded.append("evidence")
            elif isinstance(lookup.anchor, str):
                one.evidence = remembered[lookup.anchor]
                one.name(CandidateSource.PAIRS, partners_by_action(one.evidence, self._depths.partners))
                one.name(CandidateSource.CO_VISITS, partners_by_visits(one.evidence, self._depths.partners))
        if lookup.is_ranked:
            pins = lookup.pinned or self._curation().pins.get(str(lookup.anchor), ())
            one.name(CandidateSource.PINNED, dict.fromkeys(pins, 1.0))
        return one

    async def _search(self, begun: Sequence[_Gathered], deadline: float) -> _Searched | Unavailable:
        began = time.perf_counter()
        lookups = [one.lookup for one in begun]

        async def search() -> _Searched:
            collection = await self._index.serving()
            names = [one.named_ids for one in begun]
            known = self._known_anchors()  # look-ups beside this one may begin to know them anew
            anchors = {one.anchor for one in lookups if isinstance(one.anchor, str) and one.is_ranked}
            found = await search_index(
                lookups,
                names,
                collection,
                self._encoder,
                candidates=self._depths.hits,
                unknown=anchors.difference(known),
            )
            known.update(
                {one.anchor.id: one.anchor for one in found if isinstance(one, Found) and one.anchor is not None}
            )
            return _Searched(collection, found, known)

        alone = not any(one.wants_evidence for one in lookups)
        try:
            return await self._items.ask(search, (deadline - began) * (ALONE_SHARE if alone else INDEX_SHARE))
        except Unavailable as problem:
            if alone:
                raise _given_up(problem) from problem
            return problem
        finally:
            self._observe("search", time.perf_counter() - began)

    def _known_anchors(self) -> dict[str, ItemFacts]:
        """The facts of anchors that are remembered."""
        if time.monotonic() - self._anchors_since > ANCHORS_AGE_S or len(self._anchors) > MOST_FACTS:
            self._anchors, self._anchors_since = {}, time.monotonic()
        return self._anchors

    async def _pairs(
        self, anchors: Sequence[str], at_ms: int, budget_s: float
    ) -> Mapping[str, AnchorEvidence] | Unavailable:
        if not anchors:
            return {}
        began = time.perf_counter()
        try:
            return await self._evidence.ask_or_do_without(lambda: self._recall.pairs(anchors, at_ms), budget_s)
        finally:
            self._observe("evidence", time.perf_counter() - began)

    def _gather(
        self,
        begun: Sequence[_Gathered],
        searched: _Searched | Unavailable,
        remembered: Mapping[str, AnchorEvidence] | Unavailable,
    ) -> list[_Gathered | NearkinError]:
        """What both said of each look-up, or why it cannot be answered."""
        gathered: list[_Gathered | NearkinError] = []
        for place, one in enumerate(begun):
            if one.lookup.ranking is Ranking.EVIDENCE and isinstance(remembered, Unavailable):
                gathered.append(remembered)
            elif isinstance(searched, Unavailable):
                one.scored = self._recalled(one.named_ids)
                if not one.can_do_without_index:
                    gathered.append(_given_up(searched))
                    continue
                one.degraded.append("index")
                one.anchor = self._facts.get(str(one.lookup.anchor))
                gathered.append(one)
            elif isinstance(found := searched.found[place], PermanentError):
                if isinstance(found, UnknownItem):
                    self._facts.pop(str(one.lookup.anchor), None)
                gathered.append(found)
            else:
                one.query, one.hits, one.scored = found.query, found.hits, found.named
                one.anchor = _anchor(one.lookup, searched.anchors)
                if one.lookup.is_of_probes:
                    gathered.append(one)
                    continue  # nobody else may be shown what it found
                for hits in found.hits.values():
                    self._remember(hits)
                if one.query is not None:
                    self._learn(one.lookup, one.named_ids, found.named)
                gathered.append(one)
        return gathered

    async def _add_popular(
        self, collection: ItemCollection | None, whole: Sequence[_Gathered], deadline: float
    ) -> None:
        """Name what is popular beside an anchor of which little is remembered, and ask the index about it."""
        wanted = []
        for one in whole:
            # While the evidence is away, anchors are not thin: content is there, and the index has enough to do.
            read = one.lookup.wants_evidence and "evidence" not in one.degraded
            thin = read and (one.evidence is None or len(one.evidence.candidates) < THIN)
            unknown = one.query is None and collection is not None
            if not (one.lookup.is_ranked and (thin or unknown)) or one.lookup.is_of_probes:
                continue
            popular = self._stream.popular(one.anchor.categories if one.anchor else (), POPULAR_CANDIDATES)
            # Of an anchor that it does not know, the index was asked nothing, not even what others named.
            known = () if unknown else {*one.named_ids}.union(*[hits.ids for hits in one.hits.values()])
            one.name(CandidateSource.POPULAR, {item_id: 1.0 / rank for rank, item_id in enumerate(popular, 1)})
            asked_about = one.named_ids if unknown else popular
            if rest := tuple([each for each in asked_about if each not in known and each != one.lookup.anchor]):
                wanted.append((one, rest))
        if not wanted:
            return
        if collection is None:
            for one, rest in wanted:
                one.scored = Hits.of([*one.scored, *self._recalled(rest)])
            return
        began = time.perf_counter()
        asked = [(one.lookup, one.query, rest) for one, rest in wanted]
        try:
            found = await self._items.ask(
                lambda: search_among(collection, asked, self._encoder.dimensions), (deadline - began) * INDEX_SHARE
            )
        except NearkinError:
            for one, _ in wanted:
                one.degraded.append("popular")
            return
        finally:
            self._observe("popular", time.perf_counter() - began)
        for (one, rest), hits in zip(wanted, found, strict=True):
            one.scored = Hits.of([*one.scored, *hits])
            self._learn(one.lookup, rest, hits)

    async def _visits(
        self, whole: Sequence[_Gathered], at_ms: int, budget_s: float
    ) -> Mapping[str, float] | Unavailable:
        """The marginals of all that may become candidates; none where nothing was visited yet at all."""
        wanted: dict[str, None] = {}
        at_least: dict[str, float] = {}
        for one in whole if self._stream.all_visits else ():
            if not one.lookup.wants_evidence or "evidence" in one.degraded:
                continue
            for hits in (*one.hits.values(), one.scored):
                wanted.update(dict.fromkeys(hits.ids))
            if one.evidence is not None:
                together = one.evidence.counts[:, Metric.CO_VISITS].tolist()
                at_least.update(zip(one.evidence.candidates, together, strict=True))
        if not wanted:
            return {}
        at_least = {item_id: least for item_id, least in at_least.items() if least and item_id in wanted}
        began = time.perf_counter()
        try:
            return await self._evidence.ask_or_do_without(
                lambda: self._recall.visits(wanted, at_ms, at_least), budget_s
            )
        finally:
            self._observe("visits", time.perf_counter() - began)

    def _answer(
        self, one: _Gathered, visits: Mapping[str, float], collection: ItemCollection | None, at_ms: int
    ) -> Answer:
        lookup = one.lookup
        where = (collection.name, collection.bundle) if collection else ("", "")
        degraded = tuple(one.degraded)
        if not lookup.is_ranked:
            placed, facts, moved = _as_searched(lookup, one.hits, self._curation())
            return Answer(
                lookup, placed, facts, lookup.retrieval.value, None, moved, Policy.GREEDY, *where, degraded, at_ms
            )
        candidates = _assemble(one, visits)
        context = AnchorContext(
            one.anchor, one.evidence.visits if one.evidence else 0.0, self._stream.all_visits, at_ms
        )
        ranked = rank_candidates(lookup, context, candidates, self._ordering, self._curation())
        return Answer(
            lookup,
            ranked.placed,
            ranked.facts,
            ranked.weights.id,
            ranked.weights,
            ranked.moved,
            ranked.policy,
            *where,
            degraded,
            at_ms,
        )

    def _remember(self, hits: Hits) -> None:
        """Keep facts for when the index is away; the half that was kept first goes when there are too many."""
        facts = self._facts
        facts.update(zip(hits.ids, hits.facts, strict=True))
        if len(facts) > MOST_FACTS:
            for item_id in list(facts)[: MOST_FACTS // 2]:
                del facts[item_id]

    def _learn(self, lookup: SimilarTo, asked: Collection[str], shown: Hits) -> None:
        """Keep the facts of what the index shows, and forget what it was asked about and does not show (any more).

        Under a filter the index leaves out what is there, too: then nothing is forgotten.
        """
        if len(shown) < len(asked) and lookup.filter == ItemFilter():
            for item_id in {*asked}.difference(shown.ids):
                self._facts.pop(item_id, None)
        self._remember(shown)

    def _recalled(self, item_ids: Iterable[str]) -> Hits:
        """Those of some items that the index showed, as they were then: for when it is away."""
        facts = [self._facts[item_id] for item_id in item_ids if item_id in self._facts]
        return Hits(facts, [math.nan] * len(facts))


def _given_up(problem: Unavailable) -> NearkinError:
    """What a caller is told of an engine without which there is no answer."""
    if isinstance(problem, TooSlow):
        return DeadlineExceeded(f"{problem}; set a later deadline (NEARKIN_LOOKUP_TIMEOUT_S bounds it), or try again")
    return problem


def _without_evidence(one: _Gathered | NearkinError, problem: Unavailable) -> _Gathered | NearkinError:
    """A look-up by content alone, once the evidence fails half-way.

    Pairs without marginals would mislead: beside an item that nobody seems to visit, every visit shared is a wonder.
    """
    if not isinstance(one, _Gathered) or not one.lookup.wants_evidence or "evidence" in one.degraded:
        return one
    if one.lookup.ranking is Ranking.EVIDENCE or "index" in one.degraded:
        return problem
    one.degraded.append("evidence")
    one.evidence = None
    one.named = {source: listed for source, listed in one.named.items() if source not in _FROM_EVIDENCE}
    kept = frozenset(one.named_ids)
    one.scored = Hits.of(hit for hit in one.scored if hit.id in kept)
    return one


def _judged_by_facts(asked: ItemFilter) -> bool:
    """Whether the facts of an item say if a filter admits it."""
    return not (asked.tags_any or asked.tags_all or asked.attributes)


def _anchor(lookup: SimilarTo, anchors: Mapping[str, ItemFacts]) -> ItemFacts | None:
    if isinstance(lookup.anchor, Content):
        content = lookup.anchor
        return ItemFacts(
            "",
            content.title,
            tuple(category_key(path) for path in content.categories),
            maker=content.maker,
            variant_group=content.variant_group,
        )
    return anchors.get(lookup.anchor)


def _as_searched(
    lookup: SimilarTo, hits: FoundBy, curation: Curation
) -> tuple[tuple[Placed, ...], tuple[ItemFacts, ...], tuple[Moved, ...]]:
    """One search's own order, with its own scores; what is blocked by hand is shown nowhere, so not there either."""
    (name, found), *_ = hits.items()
    anchor_id = lookup.anchor if isinstance(lookup.anchor, str) else ""
    shown: list[Hit] = []
    moved: list[Moved] = []
    for rank, hit in enumerate(found[: lookup.k], 1):
        if block := curation.block(anchor_id, hit.id):
            moved.append(Moved(hit.id, block, rank))
        else:
            shown.append(hit)
    placed = tuple(
        Placed(hit.id, rank, hit.score, sources=(Source(_SOURCES[name], hit.score, rank),))
        for rank, hit in enumerate(shown, 1)
    )
    return placed, tuple(hit.facts for hit in shown), tuple(moved)


def _assemble(one: _Gathered, visits: Mapping[str, float]) -> Candidates:
    """The candidates of a look-up as columns: what the searches found, then what was named besides."""
    facts: dict[str, ItemFacts] = {}
    named = {_SOURCES[vector]: dict(zip(hits.ids, hits.scores, strict=True)) for vector, hits in one.hits.items()}
    for hits in (*one.hits.values(), one.scored):
        facts.update(zip(hits.ids, hits.facts, strict=True))
    if one.lookup.ranking is Ranking.EVIDENCE and one.query is not None:
        wanted = frozenset(one.named_ids)
        facts = {item_id: some for item_id, some in facts.items() if item_id in wanted}
    cosines = named.get(CandidateSource.CONTENT, {}) | dict(zip(one.scored.ids, one.scored.scores, strict=True))
    ids = list(facts)
    counts: Array = np.zeros((len(ids), len(Metric)))
    if one.evidence is not None and one.evidence.candidates:
        rows = {item_id: row for row, item_id in enumerate(one.evidence.candidates)}
        of = np.fromiter(map(rows.get, ids, repeat(-1)), np.intp, len(ids))
        counts[:] = one.evidence.counts[of]
        counts[of < 0] = 0.0
    return Candidates(
        tuple(facts.values()),
        SourcesOf(ids, named | one.named),
        _column(cosines, ids, math.nan),
        _column(named.get(CandidateSource.LEXICAL, {}), ids, 0.0),
        counts,
        _column(visits if one.lookup.wants_evidence else {}, ids, 0.0),
    )


def _column(values: Mapping[str, float], ids: Sequence[str], missing: float) -> Array:
    return np.fromiter(map(values.get, ids, repeat(missing)), float, len(ids))
