import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from live_lookups import WatchedIndex
from nearkin.core import item
from nearkin.core.candidates import CandidateSource
from nearkin.core.errors import DeadlineExceeded, InvalidRequest, Misconfigured, NearkinError, Unavailable, UnknownItem
from nearkin.core.evidence import EvidenceRules
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content, ItemState, Offer, Price, Status
from nearkin.core.ports import EvidenceStore, IndexedItem, ItemIndex, ItemWrite, Search
from nearkin.core.retrieval import Ranking, Retrieval
from nearkin.core.rules import Curation, Rules
from nearkin.core.vectors import Hits, VectorName, Vectors
from nearkin.encoders.fake import HashingEncoder
from nearkin.lookup.engines import Engine
from nearkin.lookup.find_similar import Answer, Depths, FindSimilar, Observe
from nearkin.lookup.follow_stream import Stream
from nearkin.lookup.rank_candidates import Ordering
from nearkin.lookup.recall_evidence import ANCHORS_PER_CALL, RecallEvidence
from nearkin.lookup.request import SimilarTo
from nearkin.lookup.search_index import HITS_PER_CALL
from nearkin.ops.metrics import Metrics
from nearkin.stores.memory_evidence import MemoryEvidence

ENCODER = HashingEncoder()


async def index_of(*states: ItemState) -> WatchedIndex:
    index = WatchedIndex()
    collection = await index.prepare(ENCODER.bundle, ENCODER.dimensions)
    writes = []
    for state in states:
        vectors = ENCODER.encode([state.content])[0] if state.content else None
        writes.append(ItemWrite(IndexedItem(state, "f"), None, vectors if isinstance(vectors, Vectors) else None))
    await collection.write(writes)
    return index


def product(item_id: str, title: str, **fields: object) -> ItemState:
    return item.upserted(item_id, Content(title=title, **fields), 1)


async def find(
    index: WatchedIndex,
    *lookups: SimilarTo,
    candidates: int = 100,
    encoder: HashingEncoder = ENCODER,
    ordering: Ordering = Ordering(),  # noqa: B008  # frozen
    observe: Observe = lambda stage, seconds: None,
) -> list[Answer | NearkinError]:
    """Look up where nobody has done anything yet, with nothing left to chance."""
    metrics = Metrics(CollectorRegistry())
    find_similar = finder(
        index,
        Engine("index", metrics),
        Engine("evidence", metrics),
        MemoryEvidence(EvidenceRules()),
        encoder=encoder,
        ordering=ordering,
        depths=Depths(hits=candidates),
        observe=observe,
    )
    return await find_similar([replace(one, explore=False) for one in lookups], 10.0)


def finder(
    index: ItemIndex,
    items: Engine,
    remembered: Engine,
    evidence: EvidenceStore,
    *,
    encoder: HashingEncoder = ENCODER,
    ordering: Ordering = Ordering(),  # noqa: B008  # frozen
    curation: Curation = Curation(),  # noqa: B008  # frozen
    depths: Depths = Depths(),  # noqa: B008  # frozen
    observe: Observe = lambda stage, seconds: None,
) -> FindSimilar:
    return FindSimilar(
        index,
        encoder,
        RecallEvidence(evidence),
        Stream(evidence, index, remembered, items),
        items=items,
        evidence=remembered,
        ordering=ordering,
        curation=lambda: curation,
        depths=depths,
        evidence_budget_s=1.0,
        observe=observe,
    )


def ids(answer: Answer | NearkinError) -> list[str]:
    assert isinstance(answer, Answer), answer
    return [one.item_id for one in answer.placed]


MUGS = [product(f"mug-{n}", f"red mug number {n}") for n in range(8)]


async def test_an_item_of_the_index_has_its_most_similar_items_without_itself():
    index = await index_of(product("a", "red mug"), product("b", "red mug large"), product("c", "garden hose"))
    (answer,) = await find(index, SimilarTo("a", k=2))
    assert ids(answer) == ["b", "c"]


async def test_a_content_that_is_not_published_has_neighbours_too():
    index = await index_of(product("a", "red mug"), product("b", "garden hose"))
    (answer,) = await find(index, SimilarTo(Content(title="hose for a garden"), k=1))
    assert ids(answer) == ["b"]


async def test_an_item_is_looked_up_in_one_search_together_with_its_facts():
    index = await index_of(*MUGS)
    await find(index, SimilarTo("mug-1"))
    assert (index.reads, len(index.searched)) == (0, 1)


async def test_only_anchors_without_a_hit_are_read_all_at_once():
    index = await index_of(*MUGS, product("alone", "garden hose"))
    words_alone = SimilarTo("alone", retrieval=Retrieval.LEXICAL)
    found, none, unknown, *_ = await find(
        index, SimilarTo("mug-1", k=1), words_alone, SimilarTo("none"), SimilarTo("never")
    )
    assert (len(ids(found)), ids(none)) == (1, [])
    assert isinstance(unknown, UnknownItem)
    assert (index.reads, len(index.searched)) == (1, 1)


async def test_many_anchors_are_looked_up_in_one_search():
    index = await index_of(*MUGS)
    lookups = [*(SimilarTo(f"mug-{n}", k=3) for n in range(8)), SimilarTo(Content(title="mug"), k=3)]
    answers = await find(index, *lookups, candidates=50)
    assert all(len(ids(answer)) == 3 for answer in answers)
    assert (index.reads, len(index.searched)) == (0, 1)


async def test_a_large_batch_is_cut_into_calls_of_bounded_size_and_answered_whole():
    index = await index_of(*MUGS)
    lookups = [SimilarTo(f"mug-{n % 8}", k=n % 5 + 1) for n in range(30)]
    answers = await find(index, *lookups, candidates=100)
    assert [len(ids(answer)) for answer in answers] == [lookup.k for lookup in lookups]
    hits = [sum(search.limit for search in searches) for searches in index.searched]
    assert sum(hits) == 30 * 2 * 100 + 8, "both searches of each, and each anchor's own facts once"
    assert max(hits) <= HITS_PER_CALL
    assert len(hits) == 7


async def test_what_is_wrong_with_one_anchor_does_not_touch_the_others():
    index = await index_of(*MUGS)
    found, unknown, empty, by_content = await find(
        index, SimilarTo("mug-1", k=1), SimilarTo("none"), SimilarTo(Content()), SimilarTo(Content(title="mug"), k=1)
    )
    assert isinstance(unknown, UnknownItem)
    assert isinstance(empty, InvalidRequest)
    assert len(ids(found)) == len(ids(by_content)) == 1


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (None, "not in the index"),
        (item.deleted("a", 5), "deleted"),
        (item.merge(product("a", "mug"), item.deleted("a", 5)), "deleted"),
        (item.offered("a", Offer(), 1), "no content yet"),
    ],
)
async def test_an_anchor_that_is_not_there_is_unknown_and_the_message_says_why(state: ItemState | None, says: str):
    index = await index_of(*MUGS, *([state] if state else []))
    (answer,) = await find(index, SimilarTo("a"))
    assert isinstance(answer, UnknownItem)
    assert says in str(answer)
    assert answer.field == "anchor.item_id"


async def test_a_hidden_item_may_be_an_anchor_but_never_a_neighbour():
    index = await index_of(*MUGS, product("hidden", "red mug", status=Status.HIDDEN))
    by_id, by_content = await find(index, SimilarTo("hidden", k=20), SimilarTo(Content(title="red mug"), k=20))
    assert len(ids(by_id)) == len(ids(by_content)) == 8
    assert "hidden" not in ids(by_id) + ids(by_content)


async def test_each_retrieval_names_its_own_sources():
    index = await index_of(*MUGS)
    names = {}
    for retrieval in Retrieval:
        (answer,) = await find(index, SimilarTo("mug-1", retrieval=retrieval))
        assert isinstance(answer, Answer)
        names[retrieval] = {source.name for one in answer.placed for source in one.sources}
    assert names == {
        Retrieval.FUSED: {CandidateSource.CONTENT, CandidateSource.LEXICAL},
        Retrieval.DENSE: {CandidateSource.CONTENT},
        Retrieval.LEXICAL: {CandidateSource.LEXICAL},
    }


@pytest.mark.parametrize("retrieval", Retrieval)
async def test_ranks_of_a_source_count_from_one(retrieval: Retrieval):
    index = await index_of(*MUGS)
    (answer,) = await find(index, SimilarTo("mug-1", k=7, retrieval=retrieval))
    assert isinstance(answer, Answer)
    for name in VectorName:
        ranks = sorted(source.rank for one in answer.placed for source in one.sources if source.name is name)
        assert ranks == list(range(1, len(ranks) + 1))


async def test_fusion_gets_as_many_candidates_as_set_and_at_least_k():
    index = await index_of(*MUGS)
    await find(index, SimilarTo("mug-1", k=10), candidates=50)
    await find(index, SimilarTo("mug-1", k=200), candidates=50)
    limits = [[search.limit for search in searches if not search.hidden] for searches in index.searched]
    assert limits == [[50, 50], [200, 200]]


async def test_a_filter_that_starves_the_search_is_searched_again_exactly():
    index = await index_of(*MUGS, product("only", "blue mug", tags=("rare",)))
    (answer,) = await find(index, SimilarTo("mug-1", k=3, filter=ItemFilter(tags_any=("rare",))))
    assert ids(answer) == ["only"]
    first, second = index.searched
    assert [search.exact for search in first if not search.hidden] == [False, False]
    assert [(search.using, search.exact) for search in second] == [(VectorName.CONTENT, True)]


async def test_a_search_without_a_filter_or_with_hits_enough_is_not_repeated():
    index = await index_of(*MUGS)
    await find(index, SimilarTo("mug-1", k=100))
    await find(index, SimilarTo("mug-1", k=3, filter=ItemFilter(exclude_ids=("mug-2",))))
    assert len(index.searched) == 2


async def test_the_hits_of_the_exact_search_are_those_that_count():
    class Approximate(WatchedIndex):
        """Finds by meaning only what it scans exactly, as a thin graph does at its worst."""

        async def serving(self):
            collection = await super().serving()
            search = collection.search

            async def starved(searches: Sequence[Search]) -> list[Hits]:
                found = await search(searches)
                return [
                    hits if one.exact or one.using is VectorName.LEXICAL else Hits()
                    for one, hits in zip(searches, found, strict=True)
                ]

            collection.search = starved
            return collection

    index = Approximate((await index_of(*MUGS)).index)
    many = ItemFilter(exclude_ids=("mug-2",))
    answers = await find(
        index,
        SimilarTo("mug-1", k=20, filter=many, retrieval=Retrieval.DENSE),
        SimilarTo("none", k=20, filter=many),
        SimilarTo("mug-3", k=20, filter=many, retrieval=Retrieval.DENSE),
    )
    assert len(ids(answers[0])) == len(ids(answers[2])) == 6
    assert isinstance(answers[1], UnknownItem)


async def test_a_content_is_never_compared_in_another_bundles_space():
    index = await index_of(*MUGS)
    by_content, by_id = await find(
        index, SimilarTo(Content(title="mug")), SimilarTo("mug-1", k=1), encoder=HashingEncoder(bundle="other")
    )
    assert isinstance(by_content, Misconfigured)
    assert "NEARKIN_BUNDLE_PATH" in by_content.remedy
    assert len(ids(by_id)) == 1


async def test_a_content_without_words_is_refused_where_only_words_are_searched():
    class Wordless(HashingEncoder):
        def encode(self, contents):
            empty = HashingEncoder().encode([Content(title="x")])[0].lexical
            empty = replace(empty, indices=empty.indices[:0], values=empty.values[:0])
            return [replace(one, lexical=empty) for one in super().encode(contents)]

    index = await index_of(*MUGS)
    lexical, fused = await find(
        index,
        SimilarTo(Content(title="mug"), retrieval=Retrieval.LEXICAL),
        SimilarTo(Content(title="mug")),
        encoder=Wordless(),
    )
    assert isinstance(lexical, InvalidRequest)
    assert len(ids(fused)) == 8


async def test_a_filter_that_the_index_refuses_fails_its_look_up_alone():
    class Picky(WatchedIndex):
        async def serving(self):
            collection = await super().serving()
            search = collection.search

            async def picky(searches: Sequence[Search]) -> list[Hits]:
                if any(one.filter.market for one in searches):
                    raise Misconfigured("is not indexed", field="filter.market", remedy="leave it out")
                return await search(searches)

            collection.search = picky
            return collection

    index = Picky((await index_of(*MUGS)).index)
    refused, found = await find(index, SimilarTo("mug-1", filter=ItemFilter(market="DE")), SimilarTo("mug-1", k=1))
    assert isinstance(refused, Misconfigured)
    assert len(ids(found)) == 1
    (refused,) = await find(index, SimilarTo("mug-1", filter=ItemFilter(market="DE")))
    assert isinstance(refused, Misconfigured)


async def test_an_index_that_is_away_fails_all_look_ups():
    index = await index_of(*MUGS)
    index.go_away()
    (answer,) = await find(index, SimilarTo("mug-1"))
    assert isinstance(answer, Unavailable)


async def test_every_stage_is_timed_once():
    index = await index_of(*MUGS)
    stages: list[str] = []
    lookups = [SimilarTo("mug-1"), SimilarTo(Content(title="mug"))]
    await find(index, *lookups, observe=lambda stage, seconds: stages.append(stage))
    # Nothing was visited yet, so nobody asks how often anything was.
    assert sorted(stages) == ["evidence", "rank", "search"]


WORDS = ("red", "blue", "mug", "cup", "hose", "lamp", "large", "set")
contents = st.builds(
    Content,
    title=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join),
    tags=st.lists(st.sampled_from(("new", "sale")), max_size=2, unique=True).map(tuple),
    status=st.sampled_from(Status),
)
offers = st.builds(Offer, price=st.one_of(st.none(), st.builds(Price, st.floats(0, 9), st.just("EUR"))))
filters = st.builds(
    ItemFilter,
    tags_any=st.sampled_from(((), ("new",), ("new", "sale"))),
    exclude_ids=st.lists(st.integers(0, 11).map(str), max_size=4).map(tuple),
)


@st.composite
def catalogues(draw: st.DrawFn) -> list[ItemState]:
    """Items that are active, hidden, deleted or known by an offer alone."""
    states = []
    for number in range(draw(st.integers(1, 12))):
        state = item.upserted(str(number), draw(contents), 2, draw(offers), 2)
        match draw(st.sampled_from(("present", "present", "deleted", "pending"))):
            case "deleted":
                state = item.merge(state, item.deleted(str(number), 3))
            case "pending":
                state = item.offered(str(number), Offer(), 2)
        states.append(state)
    return states


@settings(deadline=None, max_examples=60)
@given(
    catalogues(), st.integers(0, 11).map(str) | contents, st.integers(1, 15), filters, st.sampled_from(Retrieval),
    st.integers(1, 20),
)  # fmt: skip
async def test_an_answer_never_holds_the_anchor_a_hidden_or_deleted_item_or_an_item_twice(
    states: list[ItemState],
    anchor: str | Content,
    k: int,
    conditions: ItemFilter,
    retrieval: Retrieval,
    candidates: int,
):
    # Many are titled alike, and all are to be found.
    twins = Ordering(rules=Rules(near_duplicate=2.0, same_title=2.0))
    lookup = SimilarTo(anchor, k, conditions, retrieval)
    (answer,) = await find(await index_of(*states), lookup, candidates=candidates, ordering=twins)
    known = {state.id: state for state in states}
    if isinstance(anchor, str) and not (anchor in known and known[anchor].is_present):
        assert isinstance(answer, UnknownItem)
        return
    found = ids(answer)
    assert anchor not in found
    assert len(found) == len(set(found)) <= k
    assert all(known[one].is_visible for one in found)
    assert not set(found) & set(conditions.exclude_ids)
    assert all(not conditions.tags_any or set(conditions.tags_any) & set(known[one].content.tags) for one in found)
    scores = [one.score for one in answer.placed]
    assert scores == sorted(scores, reverse=True)
    if retrieval is not Retrieval.LEXICAL:
        # By meaning every item is some candidate: as many are found as there are, up to k.
        admitted = {
            one.id
            for one in states
            if one.is_visible
            and one.id != anchor
            and one.id not in conditions.exclude_ids
            and (not conditions.tags_any or set(conditions.tags_any) & set(one.content.tags))
        }
        assert len(found) == min(k, len(admitted))


class Recorded(Engine):
    """An engine that keeps how long each question to it might take."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.budgets: list[float] = []

    async def ask(self, call, budget_s):
        self.budgets.append(budget_s)
        return await super().ask(call, budget_s)


async def test_evidence_has_its_budget_once_for_each_portion_of_anchors_and_for_its_share_of_the_deadline():
    metrics = Metrics(CollectorRegistry())
    index = await index_of(*MUGS)
    remembered = Recorded("evidence", metrics)
    find_similar = finder(index, Engine("index", metrics), remembered, MemoryEvidence(EvidenceRules()))
    many = [SimilarTo(f"mug-{n}") for n in range(2 * ANCHORS_PER_CALL + 1)]
    for lookups, allowed_s, most in (([SimilarTo("mug-1")], 10.0, 1.0), (many, 60.0, 3.0), (many, 5.0, 1.5)):
        remembered.budgets.clear()
        await find_similar(lookups, allowed_s)
        assert remembered.budgets[0] == pytest.approx(most)
        assert all(later < most for later in remembered.budgets[1:]), "what the pairs took is gone"


async def test_other_work_goes_on_between_the_answers_of_a_batch():
    async def work() -> None:
        nonlocal worked
        while True:
            worked += 1
            await asyncio.sleep(0)

    worked = 0
    index = await index_of(*MUGS)
    other = asyncio.create_task(work())
    await find(index, *[SimilarTo("mug-1")] * 100)
    other.cancel()
    assert worked >= 100


async def test_an_index_that_answers_nobody_is_known_as_one_before_the_deadline_is_over():
    metrics = Metrics(CollectorRegistry())
    items = Recorded("index", metrics, failures=2, floor_s=0.01)
    index = await index_of(*MUGS)
    index.may_answer.clear()
    find_similar = finder(index, items, Engine("evidence", metrics), MemoryEvidence(EvidenceRules()))
    by_content = [SimilarTo("mug-1", ranking=Ranking.CONTENT)]
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            await find_similar(by_content, 0.05)
    assert all(one < 0.96 * 0.05 for one in items.budgets)
    searched = len(index.searched)
    with pytest.raises(Unavailable):
        await find_similar(by_content, 10.0)
    assert len(index.searched) == searched, "it is left alone"
