"""The way of one event and of one look-up as spans, in memory and as a collector gets them."""

import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise

import grpc
import pytest
from kafka import KafkaConsumer, TopicPartition
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from live_lookups import live_lookups
from nearkin.client.lookup import BlockingLookupClient
from nearkin.client.producer import Producer
from nearkin.contracts.events import encode_upserted
from nearkin.contracts.topics import ITEMS
from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.contracts.v1.lookup_pb2_grpc import LookupServiceStub
from nearkin.core.errors import InvalidEvent, Misconfigured
from nearkin.core.feedback import Action
from nearkin.core.item import Content, Offer, Price, upserted
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.programs import free_port
from nearkin.encoders.fake import HashingEncoder
from nearkin.indexer.index_item import IndexItems
from nearkin.ops.dead_letters import DeadLetters
from nearkin.ops.metrics import Metrics
from nearkin.ops.record import Record, Rejected
from nearkin.ops.settings import Settings
from nearkin.ops.topics import apply_topics
from nearkin.ops.tracing import Spans, provide_spans, start_traces
from nearkin.stores.memory import MemoryIndex
from ops.service_process import ServiceProcess, eventually
from ops.span_collector import SpanCollector
from stores.owner_process import OwnerProcess
from stores.redis_process import RedisProcess

MUG = Content(title="red mug")
CHEAP = Offer(Price(3.0, "EUR"))

#: A trace that somebody else began, kept and not kept.
TRACE = "0af7651916cd43dd8448eb211c80319c"
KEPT, DROPPED = f"00-{TRACE}-b7ad6b7169203331-01", f"00-{TRACE}-b7ad6b7169203331-00"


class Traced:
    """Traces, and what they told."""

    def __init__(self, share=1.0):
        self.told = InMemorySpanExporter()
        self.traces = Spans(provide_spans(SimpleSpanProcessor(self.told), "test", share))

    @property
    def spans(self):
        return self.told.get_finished_spans()

    def named(self, name):
        (span,) = (each for each in self.spans if each.name == name)
        return span

    def names(self):
        return [span.name for span in self.spans]


@pytest.fixture
def traced():
    return Traced()


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as running:
        apply_topics(running.bootstrap, 1, 1)
        yield running


def item_record(event, *headers, offset=7):
    key, value = event
    return Record(ITEMS.name, 0, offset, 1_700_000_000_005, key, value, headers)


def mug(event_id="e"):
    return encode_upserted("mug", MUG, 1, event_id=event_id, occurred_at=1_700_000_000_000)


async def index_items(traced):
    encoder = HashingEncoder()
    items = await MemoryIndex().prepare(encoder.bundle, encoder.dimensions)
    return IndexItems(items, encoder, Metrics(CollectorRegistry()), traces=traced.traces)


async def seen(indexing):
    """Wait until the sampled item was searched for."""
    if indexing._sample is not None:
        await indexing._sample


async def test_an_event_goes_on_with_the_trace_that_its_header_names(traced):
    indexing = await index_items(traced)

    await indexing([item_record(mug("event-1"), ("traceparent", KEPT.encode()))])
    await seen(indexing)

    assert traced.names() == ["process items.v1", "decode", "read", "encode", "upsert", "visible"]
    assert {format(span.context.trace_id, "032x") for span in traced.spans} == {TRACE}
    process, *steps = traced.spans
    assert process.kind is SpanKind.CONSUMER
    assert format(process.parent.span_id, "016x") == "b7ad6b7169203331"
    assert process.attributes["nearkin.event_id"] == "event-1"
    assert process.attributes["messaging.kafka.offset"] == 7
    assert {step.parent.span_id for step in steps} == {process.context.span_id}
    assert all(before.end_time <= after.start_time for before, after in pairwise(steps))
    assert (steps[0].start_time, steps[3].end_time) == (process.start_time, process.end_time)


@pytest.mark.parametrize("headers", [(), (("traceparent", DROPPED.encode()),), (("traceparent", b"\xff nonsense"),)])
async def test_an_event_without_a_trace_that_is_kept_begins_none(traced, headers):
    indexing = await index_items(traced)

    await indexing([item_record(mug(), *headers)])
    await seen(indexing)

    assert traced.spans == ()


async def test_of_a_batch_the_traced_event_is_the_one_whose_visibility_is_proved(traced):
    others = [
        item_record(encode_upserted(name, Content(title=name), 1, event_id=name, occurred_at=1_700_000_000_000))
        for name in ("cup", "jug")
    ]
    indexing = await index_items(traced)

    await indexing([others[0], item_record(mug(), ("traceparent", KEPT.encode())), others[1]])
    await seen(indexing)

    assert traced.names().count("visible") == 1


async def test_a_refused_event_says_so_in_its_trace(traced, broker):
    record = item_record((b"mug", b'{"event_id": "event-2", "kind": "x"}'), ("traceparent", KEPT.encode()))
    letters = DeadLetters(broker.bootstrap, (ITEMS,), Metrics(CollectorRegistry()), traces=traced.traces)

    await letters.send([Rejected(record, InvalidEvent("wrong", remedy="mend it", reason="unknown_kind"))])
    await letters.close()

    span = traced.named("process items.v1")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "unknown_kind")
    assert span.attributes["nearkin.event_id"] == "event-2"


def test_a_producer_names_the_trace_in_a_header_and_ends_its_span_when_the_broker_has_the_record(traced, broker):
    with Producer(broker.bootstrap, traces=traced.traces) as producer:
        place = producer.upsert("mug", MUG, 1, offer=CHEAP).result(30)

    span = traced.named("publish items.v1")
    assert span.kind is SpanKind.PRODUCER
    assert span.attributes["messaging.kafka.offset"] == place.offset
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, consumer_timeout_ms=10_000)
    consumer.assign([TopicPartition(ITEMS.name, 0)])
    consumer.seek(TopicPartition(ITEMS.name, 0), place.offset)
    headers = dict(next(consumer).headers)
    consumer.close()
    version, trace_id, span_id, flags = headers["traceparent"].decode().split("-")
    assert (version, trace_id) == ("00", f"{span.context.trace_id:032x}")
    assert span_id == f"{span.context.span_id:016x}"
    assert int(flags, 16) & 1, "kept"


def test_what_is_not_among_the_share_has_no_header_and_no_span():
    traced = Traced(share=0.0)

    assert traced.traces.publishing(ITEMS.name) is None
    assert traced.spans == ()


async def call(live, request, **metadata):
    async with grpc.aio.insecure_channel(live.address) as channel:
        return await LookupServiceStub(channel).FindSimilar(request, metadata=tuple(metadata.items()), timeout=10)


async def test_a_look_up_goes_on_with_its_callers_trace_and_tells_its_stages(traced):
    async with live_lookups(traces=traced.traces) as live:
        await live.publish(upserted("mug", MUG, 1, CHEAP, 1), upserted("cup", Content(title="red cup"), 1, CHEAP, 1))
        await call(
            live, wire.FindSimilarRequest(anchor=wire.Anchor(item_id="mug"), k=3, request_id="r-1"), traceparent=KEPT
        )

    server = traced.named("nearkin.contracts.v1.LookupService/FindSimilar")
    assert server.kind is SpanKind.SERVER
    assert format(server.context.trace_id, "032x") == TRACE
    assert server.attributes["nearkin.request_id"] == "r-1"
    assert server.attributes["rpc.grpc.status_code"] == "OK"
    stages = {span.name: span for span in traced.spans if span is not server}
    assert {"evidence", "search", "rank"} <= stages.keys()
    assert {span.parent.span_id for span in stages.values()} == {server.context.span_id}
    assert all(span.end_time <= server.end_time for span in stages.values())


async def test_a_look_up_begins_a_trace_where_its_caller_names_none_and_tells_how_it_ended(traced):
    async with live_lookups(traces=traced.traces) as live:
        with pytest.raises(grpc.aio.AioRpcError):
            await call(live, wire.FindSimilarRequest(anchor=wire.Anchor(item_id="nothing"), k=3))

    server = traced.named("nearkin.contracts.v1.LookupService/FindSimilar")
    assert server.parent is None
    assert server.attributes["rpc.grpc.status_code"] == "NOT_FOUND"
    assert server.status.status_code is StatusCode.UNSET  # its caller's mistake


async def test_a_look_up_of_a_trace_that_is_not_kept_tells_nothing(traced):
    async with live_lookups(traces=traced.traces) as live:
        await live.publish(upserted("mug", MUG, 1, CHEAP, 1))
        await call(live, wire.FindSimilarRequest(anchor=wire.Anchor(item_id="mug"), k=3), traceparent=DROPPED)

    assert traced.spans == ()


def test_where_traces_are_off_nothing_that_makes_them_is_imported():
    code = (
        "import sys, nearkin.client.producer, nearkin.indexer.__main__, nearkin.feedback.__main__\n"
        "import nearkin.lookup.__main__\n"
        "from nearkin.ops.settings import Settings\n"
        "from nearkin.ops.tracing import OFF, start_traces\n"
        "assert start_traces(Settings(), 'x') is OFF\n"
        # redis-py imports opentelemetry's metrics wherever they are installed.
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry.sdk.trace', 'opentelemetry.exp'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_traces_that_are_asked_for_without_their_package_are_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)

    with pytest.raises(Misconfigured, match=r"NEARKIN_TRACES.*extra `trace`"):
        start_traces(Settings(traces="otlp"), "test")


def test_a_collector_that_is_away_holds_up_nobodys_end():
    traces = start_traces(Settings(traces="otlp", traces_endpoint="http://127.0.0.1:1", traces_share=1), "test")
    traces.publishing(ITEMS.name).arrived(0, 0)

    traces.close()


@pytest.mark.slow
def test_one_trace_leads_from_the_producer_to_a_visible_item_and_into_the_evidence_and_look_ups_have_theirs(
    broker, tmp_path
):
    with ExitStack() as stack:
        collector = stack.enter_context(SpanCollector())
        owner = stack.enter_context(OwnerProcess(tmp_path / "index"))
        (tmp_path / "redis").mkdir()
        redis = stack.enter_context(RedisProcess(tmp_path / "redis"))
        environment = {
            "NEARKIN_KAFKA_BOOTSTRAP": broker.bootstrap,
            "NEARKIN_QDRANT_URL": f"http://127.0.0.1:{owner.port}",
            "NEARKIN_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
            "NEARKIN_TRACES": "otlp",
            "NEARKIN_TRACES_ENDPOINT": collector.endpoint,
            "NEARKIN_TRACES_SHARE": "1",
        }
        address = f"127.0.0.1:{free_port()}"
        indexer, feedback, lookup = (
            stack.enter_context(
                ServiceProcess(
                    ["-m", f"nearkin.{name}"], tmp_path / name, environment | {"NEARKIN_LOOKUP_LISTEN": address}
                )
            )
            for name in ("indexer", "feedback", "lookup")
        )
        traces = start_traces(Settings(traces="otlp", traces_endpoint=collector.endpoint, traces_share=1), "publisher")
        for process in (indexer, feedback, lookup):
            process.until_ready()
        with Producer(broker.bootstrap, traces=traces) as producer:
            producer.upsert("jug", Content(title="blue jug"), offer=CHEAP, event_id="of-the-jug").result(30)
            producer.interaction("jug", "mug", Action.CLICK, event_id="of-the-click").result(30)
        eventually(lambda: indexer.metric('nearkin_freshness_seconds_count{stage="upserted_to_visible"'), "visible")
        eventually(lambda: feedback.metric('nearkin_events_total{outcome="applied"'), "counted")
        with BlockingLookupClient(address) as client:
            assert client.similar(item_id="jug", request_id="one") is not None
        for process in (indexer, feedback, lookup):
            assert process.stop() == 0, process.log.read_text()
        traces.close()

    by_id = {span.span_id: span for _, span in collector.spans}
    steps = [span for service, span in collector.spans if service == "indexer-live"]
    process = next(span for span in steps if "of-the-jug" in str(span.attributes))
    publish = by_id[process.parent_span_id]
    assert publish.name == "publish items.v1"
    ours = [span for span in steps if span.trace_id == publish.trace_id]
    assert [span.name for span in ours] == ["process items.v1", "decode", "read", "encode", "upsert", "visible"]
    assert publish.start_time_unix_nano <= process.start_time_unix_nano <= ours[-1].end_time_unix_nano

    counted = next(span for service, span in collector.spans if "of-the-click" in str(span.attributes))
    assert by_id[counted.parent_span_id].name == "publish feedback.v1"
    assert {"process feedback.v1", "apply"} <= set(collector.names("feedback"))

    assert any(name.endswith("/FindSimilar") for name in collector.names("lookup"))
    assert {"search", "rank"} <= set(collector.names("lookup"))
