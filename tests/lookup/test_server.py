import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from live_lookups import LiveLookups, WatchedCollection, live_lookups, until
from nearkin.client.lookup import SimilarItems
from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.contracts.v1.lookup_pb2_grpc import LookupServiceStub
from nearkin.core import item
from nearkin.core.errors import DeadlineExceeded, Misconfigured, Overloaded, Unavailable
from nearkin.core.item import Content, Offer
from nearkin.core.ports import Search
from nearkin.core.vectors import Hits
from nearkin.encoders.fake import HashingEncoder
from nearkin.lookup.server import LEAVE_S, SERVICE, Limits, LookupServer
from nearkin.ops.health import Health
from nearkin.ops.metrics import Metrics

MUGS = [item.upserted(f"mug-{n}", Content(title=f"red mug number {n}"), 1) for n in range(5)]

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def live() -> AsyncIterator[LiveLookups]:
    async with live_lookups(Limits(max_message_bytes=50_000, concurrency=4)) as live:
        await live.publish(*MUGS)
        yield live


@pytest.fixture
async def channel(live: LiveLookups) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(live.address) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> LookupServiceStub:
    return LookupServiceStub(channel)


def lookup(item_id: str = "mug-1", **fields: object) -> wire.FindSimilarRequest:
    return wire.FindSimilarRequest(anchor=wire.Anchor(item_id=item_id), **fields)


def content(**fields: object) -> wire.FindSimilarRequest:
    return wire.FindSimilarRequest(anchor=wire.Anchor(content=wire.Content(**fields)))


async def status_of(call: grpc.aio.UnaryUnaryCall) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code(), failure.value.details() or ""


async def still_answers(stub: LookupServiceStub) -> bool:
    return len((await stub.FindSimilar(lookup(k=4), timeout=10)).neighbours) == 4


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (lookup("none"), grpc.StatusCode.NOT_FOUND, ("anchor.item_id: ", "'none' is not in the index; publish it")),
        (lookup(k=0), grpc.StatusCode.INVALID_ARGUMENT, ("k: is 0; ask for 1 to 200",)),
        (lookup(k=10_000), grpc.StatusCode.INVALID_ARGUMENT, ("k: is 10000; ask for 1 to 200",)),
        (wire.FindSimilarRequest(), grpc.StatusCode.INVALID_ARGUMENT, ("anchor: is missing; set item_id",)),
        (
            lookup(filter=wire.Filter(price=wire.PriceRange(currency="EUR", low=2, high=1))),
            grpc.StatusCode.INVALID_ARGUMENT,
            ("filter.price.low: 2.0 is above high", "swap them"),
        ),
        (
            lookup(filter=wire.Filter(price=wire.PriceRange(low=2))),
            grpc.StatusCode.INVALID_ARGUMENT,
            ("filter.price.currency: is missing; give its three capital letters",),
        ),
        (
            lookup(filter=wire.Filter(availability=["sold"])),
            grpc.StatusCode.INVALID_ARGUMENT,
            ("filter.availability[0]: 'sold' is not an availability; use in_stock",),
        ),
        (
            lookup(filter=wire.Filter(category_prefix=wire.CategoryPath())),
            grpc.StatusCode.INVALID_ARGUMENT,
            ("filter.category_prefix.names: is empty; give 1 to",),
        ),
        (content(), grpc.StatusCode.INVALID_ARGUMENT, ("anchor.content: ", "; give")),
        (content(title=" \u200b\n"), grpc.StatusCode.INVALID_ARGUMENT, ("anchor.content: ", "; give")),
        (
            content(description="x" * 60_000),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            ("request: has 600", "send at most 50000", "NEARKIN_LOOKUP_MAX_MESSAGE_BYTES"),
        ),
        (content(description="x" * 300_000), grpc.StatusCode.RESOURCE_EXHAUSTED, ("larger than max",)),
    ],
)
async def test_what_is_wrong_with_a_look_up_has_its_status_and_names_field_and_remedy(
    stub: LookupServiceStub, request_: wire.FindSimilarRequest, code: grpc.StatusCode, says: tuple[str, ...]
):
    found, message = await status_of(stub.FindSimilar(request_))
    assert found is code
    assert all(words in message for words in says), message
    assert await still_answers(stub)


async def test_bytes_that_are_no_message_are_refused_and_the_server_lives(
    channel: grpc.aio.Channel, stub: LookupServiceStub
):
    raw = channel.unary_unary(f"/{SERVICE}/FindSimilar")
    code, _ = await status_of(raw(b"\xff\xff\xff"))
    assert code is not grpc.StatusCode.OK
    assert await still_answers(stub)


async def test_an_expired_deadline_is_told_and_frees_the_server(live: LiveLookups, stub: LookupServiceStub):
    live.index.may_answer.clear()
    calls = [status_of(stub.FindSimilar(lookup(), timeout=0.05)) for _ in range(4)]
    assert [code for code, _ in await asyncio.gather(*calls)] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 4
    live.index.may_answer.set()
    assert await still_answers(stub)


async def test_a_call_without_a_deadline_gets_the_servers():
    async with live_lookups(Limits(timeout_s=0.05)) as live:
        await live.publish(*MUGS)
        live.index.may_answer.clear()
        async with grpc.aio.insecure_channel(live.address) as channel:
            code, message = await status_of(LookupServiceStub(channel).FindSimilar(lookup()))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "NEARKIN_LOOKUP_TIMEOUT_S" in message


async def test_what_is_beyond_the_bound_is_shed_and_what_is_below_is_served(live: LiveLookups, stub: LookupServiceStub):
    live.index.may_answer.clear()
    taken = [asyncio.ensure_future(stub.FindSimilar(lookup(k=4))) for _ in range(4)]
    await until(lambda: len(live.index.searched) == 4)
    code, message = await status_of(stub.FindSimilar(lookup()))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "NEARKIN_LOOKUP_CONCURRENCY" in message
    live.index.may_answer.set()
    assert all([len((await call).neighbours) == 4 for call in taken])
    assert await still_answers(stub)


@pytest.fixture
async def of_two(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveLookups]:
    """A server that works on two calls at a time, and whose index does not answer until a test lets it."""
    monkeypatch.setattr("nearkin.lookup.turns.PATIENCE_S", 10.0)
    async with live_lookups(Limits(at_once=2)) as live:
        await live.publish(*MUGS)
        live.index.may_answer.clear()
        yield live


async def test_a_burst_waits_for_its_turn_and_is_answered(of_two: LiveLookups):
    calls = [asyncio.ensure_future(of_two.client.similar(item_id="mug-1", k=4, timeout_s=30)) for _ in range(12)]
    await until(lambda: len(of_two.index.searched) == 2)
    await asyncio.sleep(0.1)
    assert len(of_two.index.searched) == 2
    of_two.index.may_answer.set()
    assert {len((await call).neighbours) for call in calls} == {4}


async def test_a_turn_that_does_not_come_in_time_is_refused_and_counted(
    of_two: LiveLookups, monkeypatch: pytest.MonkeyPatch
):
    taken = [asyncio.ensure_future(of_two.client.similar(item_id="mug-1", k=4, timeout_s=30)) for _ in range(2)]
    await until(lambda: len(of_two.index.searched) == 2)
    monkeypatch.setattr("nearkin.lookup.turns.PATIENCE_S", 0.02)
    with pytest.raises(Overloaded, match=r"no turn came within 20 ms; .* NEARKIN_LOOKUP_AT_ONCE"):
        await of_two.client.similar(item_id="mug-1", timeout_s=30)
    refused = {"method": "FindSimilar", "code": "RESOURCE_EXHAUSTED"}
    assert of_two.metrics.registry.get_sample_value("nearkin_lookups_total", refused) == 1
    of_two.index.may_answer.set()
    assert {len((await call).neighbours) for call in taken} == {4}
    assert len((await of_two.client.similar(item_id="mug-1", k=4, timeout_s=30)).neighbours) == 4


async def test_what_waits_for_its_turn_waits_at_the_cost_of_its_deadline(of_two: LiveLookups):
    taken = [asyncio.ensure_future(of_two.client.similar(item_id="mug-1", k=4, timeout_s=30)) for _ in range(2)]
    await until(lambda: len(of_two.index.searched) == 2)
    with pytest.raises(DeadlineExceeded):
        await of_two.client.similar(item_id="mug-1", timeout_s=0.1)
    of_two.index.may_answer.set()
    await asyncio.gather(*taken)
    await of_two.client.similar(item_id="mug-1", timeout_s=30)
    assert len(of_two.index.searched) == 3


async def test_of_a_flood_few_are_worked_on_at_a_time_and_everybody_gets_a_clear_word(monkeypatch: pytest.MonkeyPatch):
    at_work, most = 0, 0

    async def slow(collection: WatchedCollection, searches: Sequence[Search]) -> list[Hits]:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.02)
        at_work -= 1
        return await collection.collection.search(searches)

    monkeypatch.setattr(WatchedCollection, "search", slow)
    async with live_lookups(Limits(at_once=3)) as live:
        await live.publish(*MUGS)
        calls = [live.client.similar(item_id="mug-1", k=4, timeout_s=30) for _ in range(1000)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(one) for one in outcomes} == {SimilarItems, Overloaded}
        assert most == 3
        assert len((await live.client.similar(item_id="mug-1", k=4, timeout_s=30)).neighbours) == 4


async def test_a_batch_counts_by_its_anchors_and_an_idle_server_takes_any(live: LiveLookups, stub: LookupServiceStub):
    whole = wire.FindSimilarBatchRequest(requests=[lookup(f"mug-{n % 5}") for n in range(20)])
    assert len((await stub.FindSimilarBatch(whole)).results) == 20
    live.index.searched.clear()
    live.index.may_answer.clear()
    taken = asyncio.ensure_future(stub.FindSimilar(lookup()))
    await until(lambda: bool(live.index.searched))
    code, _ = await status_of(stub.FindSimilarBatch(whole))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    live.index.may_answer.set()
    await taken


async def test_a_batch_answers_in_order_and_each_failure_stands_in_its_place(stub: LookupServiceStub):
    request = wire.FindSimilarBatchRequest(
        requests=[lookup("mug-1", k=2, explain=True), lookup("none"), lookup(k=0), content(title="red mug"), content()]
    )
    results = (await stub.FindSimilarBatch(request)).results
    assert [one.WhichOneof("result") for one in results] == ["response", "failure", "failure", "response", "failure"]
    codes = [one.failure.code for one in results]
    not_found, invalid = grpc.StatusCode.NOT_FOUND.value[0], grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert codes == [0, not_found, invalid, 0, invalid]
    assert results[2].failure.message.startswith("k: is 0; ")
    assert all(one.sources for one in results[0].response.neighbours)
    assert not any(one.sources for one in results[3].response.neighbours)


async def test_a_batch_of_refused_look_ups_alone_is_answered(stub: LookupServiceStub):
    (result,) = (await stub.FindSimilarBatch(wire.FindSimilarBatchRequest(requests=[lookup(k=0)]))).results
    assert result.failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_an_empty_batch_is_refused(stub: LookupServiceStub):
    code, message = await status_of(stub.FindSimilarBatch(wire.FindSimilarBatchRequest()))
    assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "requests: is empty; give 1 to 100")


async def test_an_answer_names_its_collection_and_bundle(live: LiveLookups, stub: LookupServiceStub):
    answer = await stub.FindSimilar(lookup())
    collection = await live.index.serving()
    assert (answer.collection, answer.bundle) == (collection.name, live.encoder.bundle)


async def test_items_are_told_in_order_with_status_and_versions(live: LiveLookups, stub: LookupServiceStub):
    hidden = item.upserted("hidden", Content(title="secret", status=item.Status.HIDDEN), 3, Offer(), 4)
    await live.publish(hidden, item.deleted("gone", 9), item.offered("priced", Offer(), 5))
    answer = await stub.GetItems(wire.GetItemsRequest(item_ids=["gone", "mug-1", "none", "hidden", "priced", "mug-1"]))
    assert [(one.item_id, one.status) for one in answer.items] == [
        ("gone", wire.ITEM_STATUS_DELETED),
        ("mug-1", wire.ITEM_STATUS_VISIBLE),
        ("none", wire.ITEM_STATUS_UNKNOWN),
        ("hidden", wire.ITEM_STATUS_HIDDEN),
        ("priced", wire.ITEM_STATUS_PENDING),
        ("mug-1", wire.ITEM_STATUS_VISIBLE),
    ]
    gone, mug, none, secret, priced, _ = answer.items
    assert (gone.deleted_version, gone.HasField("content_version")) == (9, False)
    assert (mug.content_version, mug.title, mug.indexed_at_ms) == (1, "red mug number 1", 1_700_000_000_000)
    assert none == wire.IndexedItem(item_id="none", status=wire.ITEM_STATUS_UNKNOWN)
    assert (secret.content_version, secret.offer_version, secret.title) == (3, 4, "secret")
    assert priced.offer_version == 5


async def test_health_and_look_ups_follow_the_index_away_and_back(
    live: LiveLookups, channel: grpc.aio.Channel, stub: LookupServiceStub
):
    health = health_pb2_grpc.HealthStub(channel)

    async def statuses() -> set[int]:
        return {(await health.Check(health_pb2.HealthCheckRequest(service=one))).status for one in ("", SERVICE)}

    assert await statuses() == {SERVING}
    live.index.go_away()
    await live.until_ready(ready=False)
    code, message = await status_of(stub.FindSimilar(lookup()))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "the test took it away" in message
    assert await statuses() == {NOT_SERVING}
    live.index.come_back()
    await live.until_ready()
    assert await still_answers(stub)
    assert await statuses() == {SERVING}


async def test_a_server_without_an_index_starts_and_says_that_it_does_not_serve():
    async with live_lookups() as live:
        live.index.go_away()
        await live.until_ready(ready=False)
        assert "the test took it away" in live.health.waiting["index"]
        live.index.problem = RuntimeError("never foreseen")
        await asyncio.sleep(0.6)
        live.index.come_back()
        await live.until_ready()


async def test_a_server_tells_which_bundle_it_encodes_with_and_which_it_searches_through_a_switch_and_back(
    live: LiveLookups, stub: LookupServiceStub, caplog: pytest.LogCaptureFixture
):
    def told(use: str, bundle: str) -> bool:
        return live.metrics.registry.get_sample_value("nearkin_bundle_info", {"bundle": bundle, "use": use}) == 1

    caplog.set_level(logging.INFO)
    own = live.encoder.bundle
    await until(lambda: told("searches", own))
    await live.index.prepare("another", live.encoder.dimensions)
    live.index.index.serving_name = f"{live.index.index.alias}-another"
    await until(lambda: told("searches", "another"))
    assert told("encodes", own)
    assert not told("searches", own)
    code, message = await status_of(stub.FindSimilar(content(title="mug")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "another" in message
    live.index.index.serving_name = f"{live.index.index.alias}-{own}"
    await until(lambda: told("searches", own))
    assert not told("searches", "another")
    assert await still_answers(stub)
    switches = [(each.levelname, each.getMessage()) for each in caplog.records if "bundle" in each.getMessage()]
    assert [level for level, _ in switches] == ["WARNING", "INFO"]
    assert "serves another bundle" in switches[0][1]


async def test_a_fault_that_nobody_foresaw_is_internal_logged_and_survived(
    live: LiveLookups, stub: LookupServiceStub, caplog: pytest.LogCaptureFixture
):
    live.index.problem = RuntimeError("quotes an event")
    code, message = await status_of(stub.FindSimilar(lookup()))
    assert code is grpc.StatusCode.INTERNAL
    assert "quotes an event" not in message
    assert any(record.levelno == logging.ERROR for record in caplog.records)
    live.index.come_back()
    assert await still_answers(stub)


async def test_reflection_names_the_services(channel: grpc.aio.Channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answers = [answer async for answer in call]
    names = {service.name for answer in answers for service in answer.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_a_draining_server_finishes_what_runs_and_takes_no_more(live: LiveLookups, stub: LookupServiceStub):
    live.index.may_answer.clear()
    running = asyncio.ensure_future(stub.FindSimilar(lookup(k=4)))
    await until(lambda: bool(live.index.searched))
    draining = asyncio.ensure_future(live.server.drain(grace_s=30))
    await asyncio.sleep(LEAVE_S + 0.2)
    code, _ = await status_of(stub.FindSimilar(lookup(), timeout=5))
    assert code is grpc.StatusCode.UNAVAILABLE
    live.index.may_answer.set()
    assert len((await running).neighbours) == 4
    await draining


async def test_what_outlasts_the_grace_is_cut_off(live: LiveLookups, stub: LookupServiceStub):
    live.index.may_answer.clear()
    running = asyncio.ensure_future(stub.FindSimilar(lookup()))
    await until(lambda: bool(live.index.searched))
    await live.server.drain(grace_s=0.05)
    code, _ = await status_of(running)
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1:", ":", "127.0.0.1:99999", "taken"])
async def test_an_address_that_cannot_be_taken_is_refused_with_the_setting_and_the_remedy(
    live: LiveLookups, listen: str
):
    metrics = Metrics(live.metrics.registry.__class__(), "lookup")
    server = LookupServer(live.index, HashingEncoder(), live.evidence, Limits(), metrics, Health(metrics))
    with pytest.raises(Misconfigured) as refusal:
        await server.start(live.address if listen == "taken" else listen)
    assert refusal.value.field == "NEARKIN_LOOKUP_LISTEN"
    assert "127.0.0.1:7700" in refusal.value.remedy or "port 0" in refusal.value.remedy


@pytest.mark.parametrize("listen", ["http://127.0.0.1:0", "::1:0", "a b:0"])
async def test_what_is_no_address_is_not_told_as_a_taken_port(live: LiveLookups, listen: str):
    metrics = Metrics(live.metrics.registry.__class__(), "lookup")
    server = LookupServer(live.index, HashingEncoder(), live.evidence, Limits(), metrics, Health(metrics))
    with pytest.raises(Misconfigured, match=r"NEARKIN_LOOKUP_LISTEN: .* is not host:port"):
        await server.start(listen)


async def test_calls_are_counted_by_method_and_status_and_timed_by_stage(live: LiveLookups, stub: LookupServiceStub):
    await stub.FindSimilar(lookup())
    await status_of(stub.FindSimilar(lookup("none")))
    await stub.GetItems(wire.GetItemsRequest(item_ids=["a"]))

    def sample(name: str, **labels: str) -> float | None:
        return live.metrics.registry.get_sample_value(name, labels)

    assert sample("nearkin_lookups_total", method="FindSimilar", code="OK") == 1
    assert sample("nearkin_lookups_total", method="FindSimilar", code="NOT_FOUND") == 1
    assert sample("nearkin_lookups_total", method="GetItems", code="OK") == 1
    for stage in ("search", "evidence", "rank"):
        assert sample("nearkin_lookup_seconds_count", stage=stage) == 2
    assert sample("nearkin_lookup_seconds_count", stage="total") == 3


async def test_a_call_that_cannot_be_answered_is_told_with_its_name_and_a_callers_mistake_is_not(
    live: LiveLookups, stub: LookupServiceStub, caplog: pytest.LogCaptureFixture
):
    await status_of(stub.FindSimilar(lookup("none", request_id="mistaken")))
    assert not caplog.records

    live.index.go_away()
    live.evidence_door.problem = Unavailable("evidence", "the test took it away")
    code, _ = await status_of(stub.FindSimilar(lookup(request_id="in-vain")))

    assert code is grpc.StatusCode.UNAVAILABLE
    (told,) = (each for each in caplog.records if each.getMessage() == "a call is not answered")
    assert told.levelno == logging.WARNING
    assert (told.fields["request_id"], told.fields["code"]) == ("in-vain", "UNAVAILABLE")


async def test_who_wants_to_know_of_every_call_is_told_of_each_and_never_what_a_caller_got_wrong_in_its_words(
    live: LiveLookups, stub: LookupServiceStub, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.DEBUG, "nearkin"):
        await stub.FindSimilar(lookup(request_id="r-1"))
        await status_of(stub.FindSimilar(lookup("words of the request", request_id="r-2")))

    ends = [(each.fields["request_id"], each.fields["code"]) for each in caplog.records if "ms" in each.fields]
    assert ends == [("r-1", "OK"), ("r-2", "NOT_FOUND")]
    assert "words of the request" not in str([vars(each) for each in caplog.records])


async def test_an_answer_that_lacks_a_part_is_told_with_its_name(
    live: LiveLookups, stub: LookupServiceStub, caplog: pytest.LogCaptureFixture
):
    live.evidence_door.problem = Unavailable("evidence", "the test took it away")
    await stub.FindSimilar(lookup(request_id="r-1"))

    told = [each.fields for each in caplog.records if each.getMessage() == "a look-up is answered without a part"]
    assert told == [{"part": "evidence", "request_id": "r-1"}]
