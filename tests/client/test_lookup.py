import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import MappingProxyType
from typing import Any

import grpc
import pytest

from canned_lookups import CannedLookups, canned_lookups, explained_answer
from live_lookups import LiveLookups, live_lookups, until
from nearkin.client.lookup import (
    BlockingLookupClient,
    ItemRecord,
    ItemStatus,
    LookupClient,
    Moved,
    SimilarItems,
    Source,
)
from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.core import item
from nearkin.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Misconfigured,
    NearkinError,
    Overloaded,
    PermanentError,
    Unavailable,
    UnknownItem,
)
from nearkin.core.features import FEATURE_NAMES
from nearkin.core.filters import ItemFilter, PriceRange
from nearkin.core.item import Availability, Content, Offer, Price
from nearkin.core.retrieval import Ranking, Retrieval
from nearkin.encoders.fake import HashingEncoder
from nearkin.lookup.server import Limits

Call = Callable[..., Awaitable[Any]]


def mug(number: int, **content: object) -> item.ItemState:
    offer = Offer(Price(number, "EUR"), Availability.IN_STOCK, ("DE",))
    return item.upserted(f"mug-{number}", Content(title=f"red mug number {number}", **content), 1, offer, 2)


@pytest.fixture
async def live() -> AsyncIterator[LiveLookups]:
    async with live_lookups(Limits(max_message_bytes=50_000, concurrency=4)) as live:
        await live.publish(*(mug(number) for number in range(5)))
        yield live


@pytest.fixture(params=["async", "blocking"])
async def call(live: LiveLookups, request: pytest.FixtureRequest) -> AsyncIterator[Call]:
    """Calls a client's method by its name: the same tests hold for both clients."""
    if request.param == "async":
        yield lambda method, *args, **fields: getattr(live.client, method)(*args, **fields)
    else:
        with BlockingLookupClient(live.address) as client:
            yield lambda method, *args, **fields: asyncio.to_thread(getattr(client, method), *args, **fields)


@pytest.fixture(params=["async", "blocking"])
async def call_canned(request: pytest.FixtureRequest) -> AsyncIterator[tuple[CannedLookups, Call]]:
    """As `call`, to a service that keeps what it is asked."""
    with canned_lookups(explained_answer()) as canned:
        if request.param == "async":
            async with LookupClient(canned.address) as client:
                yield canned, lambda method, *args, **fields: getattr(client, method)(*args, **fields)
        else:
            with BlockingLookupClient(canned.address) as client:
                yield (
                    canned,
                    lambda method, *args, **fields: asyncio.to_thread(getattr(client, method), *args, **fields),
                )


async def test_all_that_a_look_up_may_ask_reaches_the_service(call_canned: tuple[CannedLookups, Call]):
    canned, call = call_canned
    await call(
        "similar",
        item_id="mug-1",
        ranking=Ranking.EVIDENCE,
        request_id="r-1",
        surface="product-page",
        no_exploration=True,
        pinned_ids=["mug-7", "mug-8"],
        popular_if_unknown=True,
    )
    (asked,) = canned.asked
    assert asked.ranking == wire.RANKING_EVIDENCE
    assert (asked.request_id, asked.surface) == ("r-1", "product-page")
    assert (asked.no_exploration, asked.popular_if_unknown) == (True, True)
    assert list(asked.pinned_ids) == ["mug-7", "mug-8"]


async def test_what_a_look_up_does_not_ask_is_left_to_the_service_but_its_name(call_canned: tuple[CannedLookups, Call]):
    canned, call = call_canned
    await call("similar", item_id="mug-1")
    await call("similar", item_id="mug-1", request_id="")
    names = {one.request_id for one in canned.asked}
    assert len(names) == 2
    assert all(len(name) == 32 for name in names)
    asked = wire.FindSimilarRequest(anchor=wire.Anchor(item_id="mug-1"), retrieval=wire.RETRIEVAL_FUSED)
    for one in canned.asked:
        one.ClearField("request_id")
        assert one == asked


async def test_a_call_that_grpc_sends_again_is_the_same_look_up(call_canned: tuple[CannedLookups, Call]):
    canned, call = call_canned
    canned.refusals = 2
    found: SimilarItems = await call("similar", item_id="mug-1")
    assert len(found.neighbours) == 2
    assert len(canned.asked) == 3
    assert len({one.request_id for one in canned.asked}) == 1


async def test_a_call_that_a_server_did_not_take_is_sent_again(call_canned: tuple[CannedLookups, Call]):
    canned, call = call_canned
    canned.refusals, canned.refuses_with = 2, grpc.StatusCode.CANCELLED
    found: SimilarItems = await call("similar", item_id="mug")
    assert found.neighbours
    assert len(canned.asked) == 3


async def test_to_a_server_that_takes_hardly_any_call_none_is_sent_again(call_canned: tuple[CannedLookups, Call]):
    canned, call = call_canned
    canned.refusals, canned.refuses_with = 10_000, grpc.StatusCode.CANCELLED
    for _ in range(50):
        with pytest.raises(Overloaded, match="too many wait"):
            await call("similar", item_id="mug")
    assert len(canned.asked) < 100


async def test_each_anchor_of_many_is_asked_alike_under_a_name_of_its_own(call_canned: tuple[CannedLookups, Call]):
    canned, call = call_canned
    answers = await call(
        "similar_many",
        ["mug-1", Content(title="mug")],
        ranking=Ranking.CONTENT,
        surface="mail",
        no_exploration=True,
        popular_if_unknown=True,
    )
    assert [one.request_id for one in answers] == ["r-1", "r-1"]
    assert len(canned.asked) == len({one.request_id for one in canned.asked}) == 2
    for asked in canned.asked:
        assert (asked.ranking, asked.surface) == (wire.RANKING_CONTENT, "mail")
        assert asked.no_exploration
        assert asked.popular_if_unknown


async def test_an_answer_tells_why_it_is_as_it_is(call_canned: tuple[CannedLookups, Call]):
    _, call = call_canned
    found: SimilarItems = await call("similar", item_id="mug-1", explain=True)
    best, explored = found.neighbours
    assert best.sources == (Source("content", 0.75, 2), Source("co_visits", 0.25, 1))
    assert (best.propensity, explored.propensity) == (0.95, 0.05)
    assert explored.sources == (Source("content", 0.5, 9), Source("explored", 0.05, 2))
    assert {name: value for name, value in best.contributions.items() if value} == {"fused": 0.5, "coec": 1.0}
    assert tuple(best.features) == tuple(best.contributions) == FEATURE_NAMES
    assert {name: value for name, value in best.features.items() if value} == {"fused": 0.5, "coec": 2.0, "price": -1.0}
    assert found.moved == (
        Moved("mug-4", "blocked_item", 1, None),
        Moved("mug-5", "near_duplicate", 4, None, "mug-2"),
        Moved("mug-2", "diversity", 2, 1),
    )
    assert (found.request_id, found.ranking, found.draw) == ("r-1", "weights-1", "new_item")
    assert found.degraded == ("popular",)


async def test_an_items_neighbours_come_best_first_with_their_titles(call: Call):
    found: SimilarItems = await call("similar", item_id="mug-1", k=2)
    assert len(found.neighbours) == 2
    assert found.neighbours[0].score >= found.neighbours[1].score
    assert all(one.title.startswith("red mug number") and one.sources == () for one in found.neighbours)
    assert (found.bundle, found.collection) == ("hashing", "nearkin-items-hashing")


async def test_an_explanation_tells_each_search_with_score_and_rank(call: Call):
    found = await call("similar", item_id="mug-1", k=1, explain=True, no_exploration=True)
    (best,) = found.neighbours
    assert [source.name for source in best.sources] == ["content", "lexical"]
    assert all(isinstance(source, Source) and source.rank >= 1 for source in best.sources)


async def test_a_content_that_is_not_published_has_neighbours(call: Call):
    content = Content(
        title="mug number 3",
        description="red",
        language="en",
        categories=(("home", "mugs"),),
        tags=("new",),
        attributes={"size": "L"},
        maker="Potter",
    )
    assert len((await call("similar", content=content)).neighbours) == 5


async def test_every_condition_of_a_filter_reaches_the_search(live: LiveLookups, call: Call):
    conditions = ItemFilter(
        categories_any=(("home", "mugs"),),
        categories_all=(("home",),),
        category_prefix=("home",),
        tags_any=("red",),
        tags_all=("new",),
        attributes=(("size", "L"),),
        price=PriceRange("EUR", 1, 3),
        availability=(Availability.IN_STOCK,),
        market="DE",
        exclude_ids=("mug-4",),
    )
    await call("similar", item_id="mug-1", filter=conditions, retrieval=Retrieval.DENSE, k=7)
    (search,) = live.index.searched[0]
    assert search.filter == conditions
    assert search.limit == 7


async def test_an_open_price_range_stays_open(live: LiveLookups, call: Call):
    found = await call("similar", item_id="mug-1", filter=ItemFilter(price=PriceRange("EUR", low=3)))
    assert {one.id for one in found.neighbours} == {"mug-3", "mug-4"}


async def test_many_anchors_are_answered_in_order_each_by_itself(call: Call):
    found, unknown, by_content, empty = await call("similar_many", ["mug-1", "none", Content(title="mug"), Content()])
    assert len(found.neighbours) == 4
    assert isinstance(unknown, UnknownItem)
    assert len(by_content.neighbours) == 5
    assert isinstance(empty, InvalidRequest)
    assert empty.field == "anchor.content"


async def test_items_are_told_with_their_versions(live: LiveLookups, call: Call):
    await live.publish(item.deleted("gone", 9))
    assert await call("items", ["mug-1", "gone", "none"]) == [
        ItemRecord("mug-1", ItemStatus.VISIBLE, 1, 2, None, "red mug number 1", 1_700_000_000_000, "hashing"),
        ItemRecord("gone", ItemStatus.DELETED, None, None, 9, "", 1_700_000_000_000, "hashing"),
        ItemRecord("none", ItemStatus.UNKNOWN, bundle="hashing"),
    ]


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        ({"item_id": "none"}, UnknownItem, "anchor.item_id"),
        ({"item_id": "mug-1", "k": 0}, InvalidRequest, "k"),
        ({"item_id": "mug-1", "k": 2**40}, InvalidRequest, "k"),
        ({}, InvalidRequest, "anchor"),
        ({"item_id": "mug-1", "content": Content(title="mug")}, InvalidRequest, "anchor"),
        ({"content": Content(title="\ud800")}, InvalidRequest, "content"),
        ({"item_id": "\ud800"}, InvalidRequest, "item_id"),
        ({"item_id": "mug-1", "filter": ItemFilter(market="\ud800")}, InvalidRequest, "filter"),
        ({"item_id": "mug-1", "retrieval": "magic"}, InvalidRequest, "retrieval"),
        ({"item_id": "mug-1", "ranking": "magic"}, InvalidRequest, "ranking"),
        ({"item_id": "mug-1", "surface": "\ud800"}, InvalidRequest, "surface"),
        ({"item_id": "mug-1", "pinned_ids": ["\ud800"]}, InvalidRequest, "pinned_ids"),
        ({"item_id": "mug-1", "filter": ItemFilter(price=PriceRange("EUR", 2, 1))}, InvalidRequest, "filter.price.low"),
        ({"content": Content(description="x" * 60_000)}, InvalidRequest, "request"),
        ({"content": Content(description="x" * 300_000)}, InvalidRequest, "request"),
    ],
)
async def test_what_is_wrong_with_a_request_is_raised_with_its_field_and_remedy(
    call: Call, fields: dict[str, Any], kind: type[InvalidRequest], field: str
):
    with pytest.raises(kind) as refusal:
        await call("similar", **fields)
    assert refusal.value.field == field
    assert refusal.value.remedy
    assert len((await call("similar", item_id="mug-1")).neighbours) == 4


@pytest.mark.parametrize(
    ("method", "args", "fields", "field"),
    [
        ("similar", (), {"item_id": 5}, "item_id"),
        ("similar", (), {"content": {"title": "mug"}}, "content"),
        ("similar", (), {"content": "mug"}, "content"),
        ("similar", (), {"content": Content(title=5)}, "content.title"),
        ("similar", (), {"content": Content(title=b"mug")}, "content.title"),
        ("similar", (), {"content": Content(tags="red")}, "content.tags"),
        ("similar", (), {"content": Content(categories=("home",))}, "content.categories[0]"),
        ("similar", (), {"item_id": "mug-1", "k": "3"}, "k"),
        ("similar", (), {"item_id": "mug-1", "k": True}, "k"),
        ("similar", (), {"item_id": "mug-1", "k": 10**400}, "k"),
        ("similar", (), {"item_id": "mug-1", "explain": "yes"}, "explain"),
        ("similar", (), {"item_id": "mug-1", "no_exploration": "yes"}, "no_exploration"),
        ("similar", (), {"item_id": "mug-1", "retrieval": []}, "retrieval"),
        ("similar", (), {"item_id": "mug-1", "ranking": []}, "ranking"),
        ("similar", (), {"item_id": "mug-1", "request_id": 5}, "request_id"),
        ("similar", (), {"item_id": "mug-1", "pinned_ids": "mug-2"}, "pinned_ids"),
        ("similar", (), {"item_id": "mug-1", "pinned_ids": [5]}, "pinned_ids[0]"),
        ("similar", (), {"item_id": "mug-1", "filter": {"market": "DE"}}, "filter"),
        ("similar", (), {"item_id": "mug-1", "filter": ItemFilter(tags_any="red")}, "filter.tags_any"),
        ("similar", (), {"item_id": "mug-1", "filter": ItemFilter(availability=("sold",))}, "filter.availability[0]"),
        ("similar", (), {"item_id": "mug-1", "filter": ItemFilter(price=(1, 3))}, "filter.price"),
        ("similar", (), {"item_id": "mug-1", "filter": ItemFilter(price=PriceRange("EUR", "1"))}, "filter.price.low"),
        ("similar", (), {"item_id": "mug-1", "timeout_s": "1"}, "timeout_s"),
        ("similar", (), {"item_id": "mug-1", "timeout_s": float("inf")}, "timeout_s"),
        ("similar", (), {"item_id": "mug-1", "timeout_s": None}, "timeout_s"),
        ("similar_many", ("mug-1",), {}, "anchors"),
        ("similar_many", (5,), {}, "anchors"),
        ("similar_many", (["mug-1", None],), {}, "anchors[1]"),
        ("similar_many", (["mug-1", Content(maker=5)],), {}, "anchors[1].maker"),
        ("items", ("mug-1",), {}, "ids"),
        ("items", (["mug-1", 5],), {}, "ids[1]"),
        ("items", (["\ud800"],), {}, "ids"),
    ],
)
async def test_an_argument_of_a_wrong_type_is_named(
    call: Call, method: str, args: tuple[Any, ...], fields: dict[str, Any], field: str
):
    with pytest.raises(InvalidRequest) as refusal:
        await call(method, *args, **fields)
    assert refusal.value.field == field
    assert refusal.value.remedy


async def test_a_content_may_hold_any_mapping_and_any_list(call: Call):
    content = Content(title="mug", tags=["red"], attributes=MappingProxyType({"size": "L"}))
    assert len((await call("similar", content=content)).neighbours) == 5


async def test_a_call_on_a_closed_client_fails_for_good(live: LiveLookups):
    client = LookupClient(live.address)
    await client.items(["mug-1"])
    await client.close()
    with pytest.raises(PermanentError, match="the client is closed"):
        await client.items(["mug-1"])
    blocking = BlockingLookupClient(live.address)
    blocking.close()
    with pytest.raises(PermanentError, match="the client is closed"):
        blocking.items(["mug-1"])


async def test_a_call_that_runs_when_its_client_is_closed_fails_for_good(live: LiveLookups):
    live.index.may_answer.clear()
    blocking = BlockingLookupClient(live.address)
    calls = [
        asyncio.ensure_future(live.client.similar(item_id="mug-1", timeout_s=60)),
        asyncio.ensure_future(asyncio.to_thread(blocking.similar, item_id="mug-1", timeout_s=60)),
    ]
    await until(lambda: len(live.index.searched) == 2)
    await live.client.close()
    blocking.close()
    for one in calls:
        with pytest.raises(PermanentError, match="the client is closed"):
            await one
    live.index.may_answer.set()


async def test_a_call_that_its_caller_cancels_is_cancelled(live: LiveLookups):
    live.index.may_answer.clear()
    running = asyncio.ensure_future(live.client.similar(item_id="mug-1", timeout_s=60))
    await until(lambda: bool(live.index.searched))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    live.index.may_answer.set()


async def test_a_bundle_that_the_server_lacks_is_misconfigured():
    async with live_lookups() as live:
        live.index.index.serving_name = ""
        await live.index.prepare("other", 32)
        with pytest.raises(Misconfigured, match="NEARKIN_BUNDLE_PATH"):
            await live.client.similar(content=Content(title="mug"))


async def test_an_answer_that_does_not_come_in_time_exceeds_the_deadline(live: LiveLookups, call: Call):
    live.index.may_answer.clear()
    with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
        await call("similar", item_id="mug-1", timeout_s=0.05)
    live.index.may_answer.set()
    assert await call("similar", item_id="mug-1")


async def test_a_server_with_too_much_work_is_overloaded(live: LiveLookups, call: Call):
    live.index.may_answer.clear()
    running = asyncio.ensure_future(live.client.similar(item_id="mug-1"))
    await until(lambda: bool(live.index.searched))
    with pytest.raises(Overloaded, match="NEARKIN_LOOKUP_CONCURRENCY"):
        await call("similar_many", ["mug-1"] * 4)
    live.index.may_answer.set()
    await running


async def test_an_index_that_is_away_is_unavailable_and_its_return_is_noticed(live: LiveLookups, call: Call):
    live.index.go_away()
    with pytest.raises(Unavailable, match="the test took it away"):
        await call("similar", item_id="mug-1", timeout_s=2)
    live.index.come_back()
    assert await call("similar", item_id="mug-1")


async def test_a_short_absence_of_the_index_is_not_seen(live: LiveLookups, call: Call):
    live.index.go_away()
    answer = asyncio.ensure_future(call("similar", item_id="mug-1", timeout_s=30))
    refused = {"method": "FindSimilar", "code": "UNAVAILABLE"}
    await until(lambda: bool(live.metrics.registry.get_sample_value("nearkin_lookups_total", refused)))
    live.index.come_back()
    assert len((await answer).neighbours) == 4


async def test_nobody_listening_is_unavailable():
    with BlockingLookupClient("127.0.0.1:1") as client, pytest.raises(Unavailable, match="look-up service"):
        client.similar(item_id="a", timeout_s=5)


async def test_a_server_that_is_no_look_up_service_is_misconfigured():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with LookupClient(f"127.0.0.1:{port}") as client:
        with pytest.raises(Misconfigured, match="address"):
            await client.items(["a"])
    await server.stop(None)


@pytest.mark.parametrize("address", ["", "nowhere", "host:", "host:port", "host:99999", "http://host:7700", 7700])
@pytest.mark.parametrize("client", [LookupClient, BlockingLookupClient])
def test_an_address_that_is_none_is_refused(client: type, address: str):
    with pytest.raises(Misconfigured, match="address"):
        client(address)


def test_an_error_that_a_message_does_not_spell_out_is_kept_whole():
    from nearkin.client.lookup import _failure

    failure = _failure(grpc.StatusCode.INVALID_ARGUMENT, "by a proxy")
    assert isinstance(failure, InvalidRequest)
    assert "by a proxy" in str(failure)


async def test_one_client_serves_many_calls_at_a_time():
    async with live_lookups(encoder=HashingEncoder()) as live:
        await live.publish(*(mug(number) for number in range(3)))
        answers = await asyncio.gather(*(live.client.similar(item_id="mug-1") for _ in range(50)))
        assert all(not isinstance(one, NearkinError) and len(one.neighbours) == 2 for one in answers)
