"""Look-ups over gRPC that rank by what people did, and go on without what is away."""

import struct
from collections.abc import AsyncIterator

import grpc
import pytest

from live_lookups import LiveLookups, live_lookups, until
from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.contracts.v1.lookup_pb2_grpc import LookupServiceStub
from nearkin.core import item
from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.core.exploration import ExplorationRules
from nearkin.core.feedback import Action, Impressions, Interaction, Visit
from nearkin.core.item import Content, Status
from nearkin.core.rules import Curation
from nearkin.lookup import follow_stream
from nearkin.lookup.rank_candidates import Ordering
from nearkin.lookup.server import Limits
from remembered import acted, remember, slate, visit

MUGS = [
    item.upserted(f"mug-{n}", Content(title=f"red mug number {n}", categories=(("kitchen", "mugs"),)), 1)
    for n in range(6)
]
TEA = item.upserted("tea", Content(title="green tea leaves", categories=(("kitchen", "tea"),)), 1)
HOSE = item.upserted("hose", Content(title="garden hose", categories=(("garden",),)), 1)

#: Nothing is left to chance.
STEADY = Ordering(exploration=ExplorationRules(share=0.0, new_item_share=0.0))


@pytest.fixture
async def live() -> AsyncIterator[LiveLookups]:
    async with live_lookups(Limits(evidence_budget_s=0.2), ordering=STEADY) as live:
        await live.publish(*MUGS, TEA, HOSE)
        yield live


@pytest.fixture
async def stub(live: LiveLookups) -> AsyncIterator[LookupServiceStub]:
    async with grpc.aio.insecure_channel(live.address) as channel:
        yield LookupServiceStub(channel)


def lookup(item_id: str = "mug-1", **fields: object) -> wire.FindSimilarRequest:
    return wire.FindSimilarRequest(anchor=wire.Anchor(item_id=item_id), explain=True, **fields)


def ids(answer: wire.FindSimilarResponse) -> list[str]:
    return [one.item_id for one in answer.neighbours]


def sources(answer: wire.FindSimilarResponse, item_id: str) -> set[str]:
    (one,) = [one for one in answer.neighbours if one.item_id == item_id]
    return {source.name for source in one.sources}


#: Among other things that are bought: what is in every basket goes together with nothing in particular.
BOUGHT_TOGETHER = [visit("mug-1", "tea") for _ in range(40)] + [visit("hose", "seeds") for _ in range(400)]


async def happened(live: LiveLookups, *events: Impressions | Interaction | Visit) -> None:
    """Let something be counted, and look-ups know how much there is in all."""
    await remember(live.evidence, *events)
    await live.server.stream.read_counts()


async def test_what_is_bought_together_comes_first_and_content_alone_does_not_know_it(
    live: LiveLookups, stub: LookupServiceStub
):
    await happened(live, *BOUGHT_TOGETHER)
    combined = await stub.FindSimilar(lookup(k=3))
    content = await stub.FindSimilar(lookup(k=3, ranking=wire.RANKING_CONTENT))
    assert ids(combined)[0] == "tea"
    assert "co_visits" in sources(combined, "tea")
    assert "tea" not in ids(content)
    assert content.ranking != combined.ranking


async def test_what_people_chose_rises_and_what_they_passed_over_falls(live: LiveLookups, stub: LookupServiceStub):
    before = ids(await stub.FindSimilar(lookup(k=5)))
    worst, best = before[-1], before[0]
    slates = [slate("mug-1", best, worst) for _ in range(200)]
    clicks = [acted("mug-1", worst, Action.CLICK, position=2) for _ in range(60)]
    await happened(live, *slates, *clicks)
    after = await stub.FindSimilar(lookup(k=7))
    assert (ids(after)[0], ids(after)[-1]) == (worst, best)
    assert "pairs" in sources(after, worst)


async def test_evidence_alone_answers_with_what_people_did_alone(live: LiveLookups, stub: LookupServiceStub):
    await happened(live, *BOUGHT_TOGETHER, *[visit("mug-1", f"mug-{n}") for n in range(6) for _ in range(9)])
    answer = await stub.FindSimilar(lookup(k=10, ranking=wire.RANKING_EVIDENCE))
    assert set(ids(answer)) == {"tea", "mug-0", "mug-2", "mug-3", "mug-4", "mug-5"}


async def test_a_thin_anchor_has_what_is_popular_in_its_category_among_its_candidates(
    live: LiveLookups, stub: LookupServiceStub
):
    await happened(live, *[visit("tea", "hose") for _ in range(30)])
    await live.server.stream.read_popular()
    answer = await stub.FindSimilar(lookup(k=10))
    assert "popular" in sources(answer, "tea")


async def test_an_unknown_anchor_gets_what_is_popular_where_that_is_asked_for(
    live: LiveLookups, stub: LookupServiceStub
):
    hidden = item.upserted("hidden", Content(title="secret", status=Status.HIDDEN), 1)
    await live.publish(hidden)
    await happened(live, *[visit("tea", "hose", "hidden") for _ in range(30)])
    await live.server.stream.read_popular()
    answer = await stub.FindSimilar(lookup("nobody", k=10, popular_if_unknown=True))
    assert set(ids(answer)) == {"tea", "hose"}
    narrowed = wire.Filter(category_prefix=wire.CategoryPath(names=["garden"]))
    answer = await stub.FindSimilar(lookup("nobody", popular_if_unknown=True, filter=narrowed))
    assert ids(answer) == ["hose"]
    for asked in (lookup("nobody"), lookup("nobody", popular_if_unknown=True, retrieval=wire.RETRIEVAL_DENSE)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.FindSimilar(asked)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_evidence_names_is_not_shown_where_the_filter_or_the_index_refuses_it(
    live: LiveLookups, stub: LookupServiceStub
):
    await live.publish(item.upserted("hidden", Content(title="secret", status=Status.HIDDEN), 1))
    together = [visit("mug-1", "tea", "hidden", "gone") for _ in range(40)]
    await happened(live, *together)
    answer = await stub.FindSimilar(lookup(k=20, filter=wire.Filter(exclude_ids=["tea"])))
    assert not {"tea", "hidden", "gone"} & set(ids(answer))


async def test_pins_stand_first_where_the_filter_admits_them(live: LiveLookups, stub: LookupServiceStub):
    answer = await stub.FindSimilar(lookup(k=4, pinned_ids=["hose", "gone", "tea"]))
    assert ids(answer)[:2] == ["hose", "tea"]
    assert "pinned" in sources(answer, "hose")
    without = await stub.FindSimilar(lookup(k=4, pinned_ids=["hose"], filter=wire.Filter(exclude_ids=["hose"])))
    assert "hose" not in ids(without)


async def test_every_score_is_the_sum_of_what_its_features_add(live: LiveLookups, stub: LookupServiceStub):
    await happened(live, *BOUGHT_TOGETHER)
    answer = await stub.FindSimilar(lookup(k=8))
    for one in answer.neighbours:
        assert len(one.features) == len(one.contributions) == len(answer.feature_names)
        assert one.score == pytest.approx(sum(one.contributions))
    plain = await stub.FindSimilar(wire.FindSimilarRequest(anchor=wire.Anchor(item_id="mug-1")))
    assert not any(one.features or one.contributions or one.sources for one in plain.neighbours)


async def test_without_evidence_content_answers_and_says_so(live: LiveLookups, stub: LookupServiceStub):
    await happened(live, *BOUGHT_TOGETHER)
    content = ids(await stub.FindSimilar(lookup(k=5, ranking=wire.RANKING_CONTENT)))
    live.evidence_door.problem = Unavailable("evidence", "the test took it away")
    answer = await stub.FindSimilar(lookup(k=5))
    assert (ids(answer), list(answer.degraded)) == (content, ["evidence"])
    live.evidence_door.problem = None
    await until_whole(stub)


@pytest.mark.parametrize(
    "problem",
    [
        Misconfigured("wants a password", field="NEARKIN_REDIS_URL", remedy="set it", reason="redis"),
        struct.error("unpack requires a buffer of 8 bytes"),
    ],
)
async def test_whatever_is_wrong_with_the_evidence_content_answers_and_it_is_counted(
    live: LiveLookups, stub: LookupServiceStub, problem: Exception
):
    live.evidence_door.problem = problem
    for _ in range(7):
        answer = await stub.FindSimilar(lookup(k=5))
        assert (len(answer.neighbours), list(answer.degraded)) == (5, ["evidence"])
    named = {"engine": "evidence", "why": "failed"}
    assert (live.metrics.registry.get_sample_value("nearkin_engine_failures_total", named) or 0) >= 7
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.FindSimilar(lookup(ranking=wire.RANKING_EVIDENCE))
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    live.evidence_door.problem = None
    await until_whole(stub)


async def test_evidence_that_fails_half_way_does_not_count_at_all(live: LiveLookups, stub: LookupServiceStub):
    await live.publish(item.upserted("seeds", Content(title="seeds"), 1))
    await happened(live, *BOUGHT_TOGETHER)
    content = ids(await stub.FindSimilar(lookup(k=4, ranking=wire.RANKING_CONTENT)))
    live.evidence_door.marginals_problem = Unavailable("evidence", "the test took it away")
    answer = await stub.FindSimilar(lookup(k=4, pinned_ids=["hose"]))
    assert (ids(answer), list(answer.degraded)) == (["hose", *content[:3]], ["evidence"])
    assert not {"pairs", "co_visits"} & {source.name for one in answer.neighbours for source in one.sources}
    for asked in (lookup(ranking=wire.RANKING_EVIDENCE), lookup("seeds", ranking=wire.RANKING_EVIDENCE)):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.FindSimilar(asked)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    live.index.go_away()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.FindSimilar(lookup())
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_what_is_popular_is_missing_where_the_index_fails_at_it(live: LiveLookups, stub: LookupServiceStub):
    await happened(live, *BOUGHT_TOGETHER)
    await live.server.stream.read_popular()
    live.index.refuses = lambda search: bool(search.among) and not search.hidden and "tea" not in search.among
    answer = await stub.FindSimilar(lookup("mug-1", k=3))
    assert (len(answer.neighbours), list(answer.degraded)) == (3, ["popular"])


async def test_the_index_has_nothing_more_to_do_while_the_evidence_is_away(live: LiveLookups, stub: LookupServiceStub):
    await happened(live, *BOUGHT_TOGETHER)
    await live.server.stream.read_popular()
    live.evidence_door.may_answer.clear()
    answer = await stub.FindSimilar(lookup("mug-5", k=20), timeout=5)
    live.evidence_door.may_answer.set()
    assert list(answer.degraded) == ["evidence"]
    assert len(live.index.searched) == 1
    assert {source.name for one in answer.neighbours for source in one.sources} <= {"content", "lexical"}


async def test_redis_is_asked_once_for_pairs_and_once_more_for_marginals_that_are_not_remembered(
    live: LiveLookups, stub: LookupServiceStub
):
    await happened(live, *BOUGHT_TOGETHER)
    trips = []
    for asked in (lookup("mug-1"), lookup("mug-1"), lookup("mug-2", k=3), lookup(ranking=wire.RANKING_CONTENT)):
        before = live.evidence_door.asked
        await stub.FindSimilar(asked)
        trips.append(live.evidence_door.asked - before)
    # All mugs, the tea and the hose were candidates of the first one; only it was none itself.
    assert trips == [2, 1, 2, 0]


async def test_evidence_that_is_slow_does_not_hold_the_answer_up(live: LiveLookups, stub: LookupServiceStub):
    live.evidence_door.may_answer.clear()
    answer = await stub.FindSimilar(lookup(k=5), timeout=5)
    assert (len(answer.neighbours), list(answer.degraded)) == (5, ["evidence"])
    live.evidence_door.may_answer.set()
    await until_whole(stub)


async def until_whole(stub: LookupServiceStub) -> None:
    """Wait until answers have all their parts again: nobody restarts anything."""
    while (await stub.FindSimilar(lookup())).degraded:
        pass


async def test_without_the_index_what_is_remembered_answers_and_says_so(live: LiveLookups, stub: LookupServiceStub):
    await happened(live, *BOUGHT_TOGETHER)
    assert "tea" in ids(await stub.FindSimilar(lookup(k=5)))  # so that its facts are known
    live.index.go_away()
    answer = await stub.FindSimilar(lookup(k=5))
    assert (ids(answer), list(answer.degraded)) == (["tea"], ["index"])
    assert answer.neighbours[0].title == "green tea leaves"
    assert (answer.collection, answer.bundle) == ("", "")
    refused = wire.Filter(availability=["discontinued"])
    assert ids(await stub.FindSimilar(lookup(k=5, filter=refused))) == []
    live.index.come_back()
    await until_whole(stub)


async def test_an_index_that_is_slow_leaves_time_for_what_is_remembered(live: LiveLookups, stub: LookupServiceStub):
    await happened(live, *BOUGHT_TOGETHER)
    await stub.FindSimilar(lookup())
    live.index.may_answer.clear()
    answer = await stub.FindSimilar(lookup(k=5), timeout=2)
    assert (ids(answer), list(answer.degraded)) == (["tea"], ["index"])
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.FindSimilar(lookup("mug-5"), timeout=1)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    live.index.may_answer.set()
    await until_whole(stub)


async def test_what_only_the_index_could_answer_is_told_while_it_is_away(live: LiveLookups, stub: LookupServiceStub):
    await happened(live, *BOUGHT_TOGETHER)
    live.index.go_away()
    for asked in (
        lookup("mug-5"),  # nothing is remembered of it
        lookup(ranking=wire.RANKING_CONTENT),
        lookup(filter=wire.Filter(tags_any=["sale"])),  # facts do not tell tags
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.FindSimilar(asked)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_with_both_away_the_status_names_both(live: LiveLookups, stub: LookupServiceStub):
    live.index.go_away()
    live.evidence_door.problem = Unavailable("evidence", "the test took it away")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.FindSimilar(lookup())
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "index" in failure.value.details()
    assert "evidence" in failure.value.details()


async def test_a_server_without_an_index_serves_by_evidence_if_there_is_any_and_it_knows_an_item(
    live: LiveLookups, stub: LookupServiceStub
):
    live.index.go_away()
    await live.until_ready(ready=False)
    await happened(live, *BOUGHT_TOGETHER)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.FindSimilar(lookup())
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert live.health.waiting
    live.index.come_back()
    await live.until_ready()
    while not ids(await stub.FindSimilar(lookup())):
        pass
    live.index.go_away()
    await live.until_ready()
    assert ids(await stub.FindSimilar(lookup())) == ["tea"]


async def test_evidence_goes_on_answering_while_what_is_popular_cannot_be_read(
    live: LiveLookups, stub: LookupServiceStub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(follow_stream, "POPULAR_EVERY_S", 0.0)
    monkeypatch.setattr(follow_stream, "COUNTS_EVERY_S", 0.0)
    await happened(live, *BOUGHT_TOGETHER)
    await stub.FindSimilar(lookup())
    live.index.go_away()
    failed = {"engine": "index", "why": "left_alone"}
    await until(lambda: (live.metrics.registry.get_sample_value("nearkin_engine_failures_total", failed) or 0) >= 3)
    assert live.server.stream.can_answer_alone
    await live.until_ready()
    assert ids(await stub.FindSimilar(lookup())) == ["tea"]


async def test_without_the_index_nothing_is_shown_that_it_hides_or_never_showed(
    live: LiveLookups, stub: LookupServiceStub
):
    sold_out = item.upserted("old", Content(title="old tea pot", tags=("sale",)), 1)
    hidden = item.upserted("secret", Content(title="secret", status=Status.HIDDEN), 1)
    await live.publish(sold_out, hidden)
    await happened(live, *BOUGHT_TOGETHER, *[visit("mug-1", "old", "secret", "never-seen") for _ in range(40)])
    await live.server.stream.read_popular()
    assert {"tea", "old"} <= set(ids(await stub.FindSimilar(lookup(k=20))))
    deleted = item.merge(item.upserted("tea", TEA.content, 1), item.deleted("tea", 2))
    await live.publish(item.upserted("old", Content(title="old tea pot", status=Status.HIDDEN), 2), deleted)
    # A look-up whose filter leaves them out says nothing of them; one without says that they are gone.
    await stub.FindSimilar(lookup(filter=wire.Filter(tags_any=["nothing"])))
    await stub.FindSimilar(lookup(k=20))
    live.index.go_away()
    answer = await stub.FindSimilar(lookup(k=20, pinned_ids=["secret", "never-seen", "mug-3"], no_exploration=True))
    assert list(answer.degraded) == ["index"]
    assert ids(answer) == ["mug-3", "hose"], "which is popular"


async def test_a_filter_that_leaves_an_item_out_does_not_make_it_unknown(live: LiveLookups, stub: LookupServiceStub):
    await happened(live, *BOUGHT_TOGETHER)
    assert "tea" in ids(await stub.FindSimilar(lookup(k=5)))
    await stub.FindSimilar(lookup(filter=wire.Filter(exclude_ids=["tea"])))
    live.index.go_away()
    assert ids(await stub.FindSimilar(lookup(k=5))) == ["tea"]


async def test_an_unknown_anchor_keeps_what_was_pinned_and_what_is_remembered_of_it(
    live: LiveLookups, stub: LookupServiceStub
):
    await happened(live, *BOUGHT_TOGETHER, *[visit("nobody", "mug-4") for _ in range(40)])
    await live.server.stream.read_popular()
    answer = await stub.FindSimilar(lookup("nobody", k=10, popular_if_unknown=True, pinned_ids=["hose", "gone"]))
    assert ids(answer)[0] == "hose"
    assert {"mug-4", "tea", "mug-1"} <= set(ids(answer))
    assert "co_visits" in sources(answer, "mug-4")


async def test_an_item_that_is_published_is_a_known_anchor_at_once(live: LiveLookups, stub: LookupServiceStub):
    asked = lookup("new", popular_if_unknown=True)
    await stub.FindSimilar(asked)
    await live.publish(item.upserted("new", Content(title="new hose", categories=(("garden",),)), 1))
    answer = await stub.FindSimilar(asked)
    place = list(answer.feature_names).index("category")
    (hose,) = [one for one in answer.neighbours if one.item_id == "hose"]
    assert hose.features[place] > 0


async def test_an_engine_that_fails_again_and_again_is_left_alone_and_comes_back(
    live: LiveLookups, stub: LookupServiceStub
):
    def open_circuits() -> float | None:
        return live.metrics.registry.get_sample_value("nearkin_circuit_open_ratio", {"engine": "evidence"})

    live.evidence_door.problem = Unavailable("evidence", "the test took it away")
    for _ in range(6):
        await stub.FindSimilar(lookup())
    assert open_circuits() == 1
    asked = live.evidence_door.asked
    await stub.FindSimilar(lookup())
    assert live.evidence_door.asked == asked
    live.evidence_door.problem = None
    await until_whole(stub)
    assert open_circuits() == 0


async def test_a_request_that_is_sent_again_has_the_same_answer_and_one_without_an_id_gets_one(
    stub: LookupServiceStub,
):
    first, again = [await stub.FindSimilar(lookup(request_id="r-1")) for _ in range(2)]
    assert (ids(first), first.request_id) == (ids(again), "r-1")
    made = [(await stub.FindSimilar(lookup())).request_id for _ in range(2)]
    assert all(made)
    assert len(set(made)) == 2


async def test_exploration_is_drawn_by_the_request_told_with_its_propensity_and_refused_by_who_opts_out():
    always = Ordering(exploration=ExplorationRules(share=1.0, pool=6, new_item_share=0.0))
    async with live_lookups(ordering=always) as live, grpc.aio.insecure_channel(live.address) as channel:
        await live.publish(*MUGS, TEA, HOSE)
        stub = LookupServiceStub(channel)
        drawn = [await stub.FindSimilar(lookup(k=3, request_id=f"r-{n}")) for n in range(20)]
        assert len({tuple(ids(one)) for one in drawn}) > 5
        assert {one.draw for one in drawn} == {"shuffled"}
        told = {neighbour.propensity for one in drawn for neighbour in one.neighbours}
        assert all(one == pytest.approx(1 / 6) for one in told)
        for rank, neighbour in enumerate(drawn[0].neighbours, 1):
            assert [one.rank for one in neighbour.sources if one.name == "explored"] == [rank]
            assert [one.score for one in neighbour.sources if one.name == "explored"] == [neighbour.propensity]
        out = [await stub.FindSimilar(lookup(k=3, request_id=f"r-{n}", no_exploration=True)) for n in range(5)]
        assert len({tuple(ids(one)) for one in out}) == 1
        assert not any("explored" in sources(one, item_id) for one in out for item_id in ids(one))
        assert {neighbour.propensity for one in out for neighbour in one.neighbours} == {1.0}


async def test_every_ranked_answer_is_offered_to_the_log_as_it_was_given(live: LiveLookups, stub: LookupServiceStub):
    answer = await stub.FindSimilar(lookup(k=4, request_id="r-1", surface="page"))
    (logged,) = live.logged
    assert (logged.request_id, logged.anchor, logged.k, logged.surface) == ("r-1", "mug-1", 4, "page")
    assert [one.item_id for one in logged.positions] == ids(answer)
    assert [list(one.features) for one in logged.positions] == [list(one.features) for one in answer.neighbours]
    assert (list(logged.feature_names), logged.weights) == (list(answer.feature_names), answer.ranking)


async def test_look_ups_of_several_contents_under_one_request_id_are_logged_each(
    live: LiveLookups, stub: LookupServiceStub
):
    anchors = [wire.Anchor(content=wire.Content(title=title)) for title in ("red mug", "green tea", "red mug")]
    for anchor in anchors:
        await stub.FindSimilar(wire.FindSimilarRequest(anchor=anchor, request_id="r-1"))
    first, other, again = [one.event_id for one in live.logged]
    assert first == again != other


async def test_what_is_blocked_by_hand_is_not_shown_and_the_explanation_says_so(
    live: LiveLookups, stub: LookupServiceStub
):
    live.curation = Curation(blocked_items=frozenset({"mug-2"}))
    answer = await stub.FindSimilar(lookup(k=10))
    assert "mug-2" not in ids(answer)
    assert [(one.by, one.to) for one in answer.moved if one.item_id == "mug-2"] == [("blocked_item", 0)]


@pytest.mark.parametrize("retrieval", [wire.RETRIEVAL_DENSE, wire.RETRIEVAL_LEXICAL])
async def test_what_is_blocked_by_hand_is_not_shown_by_one_search_alone_either(
    live: LiveLookups, stub: LookupServiceStub, retrieval: wire.Retrieval
):
    asked = lookup(k=3, retrieval=retrieval)
    first, second, third = ids(await stub.FindSimilar(asked))
    live.curation = Curation(frozenset({first}), {"mug-1": frozenset({third})})
    answer = await stub.FindSimilar(asked)
    assert ids(answer) == [second]
    assert [(one.item_id, one.by, getattr(one, "from"), one.to) for one in answer.moved] == [
        (first, "blocked_item", 1, 0),
        (third, "blocked_pair", 3, 0),
    ]


async def test_a_batch_ranks_each_of_its_look_ups(live: LiveLookups, stub: LookupServiceStub):
    await happened(live, *BOUGHT_TOGETHER)
    batch = wire.FindSimilarBatchRequest(
        requests=[lookup("mug-1", k=2), lookup("tea", k=2), lookup("hose", k=2, ranking=wire.RANKING_CONTENT)]
    )
    mug, tea, hose = [one.response for one in (await stub.FindSimilarBatch(batch)).results]
    assert (ids(mug)[0], ids(tea)[0]) == ("tea", "mug-1")
    assert len(ids(hose)) == 2


async def test_degradations_are_counted(live: LiveLookups, stub: LookupServiceStub):
    live.evidence_door.problem = Unavailable("evidence", "the test took it away")
    await stub.FindSimilar(lookup())
    await until(
        lambda: live.metrics.registry.get_sample_value("nearkin_lookups_degraded_total", {"part": "evidence"}) == 1
    )
