"""The gRPC edge of look-ups: each method decodes, calls one function, encodes, and answers with a documented status.

The server lives whatever its engines do: while nothing can be answered from, health says NOT_SERVING and look-ups
UNAVAILABLE, and both recover by themselves. It takes a bounded number of anchors at once and refuses what is beyond, so
that under too much load the answers that it gives are still in time.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from nearkin.contracts.limits import MAX_REQUEST_ID
from nearkin.contracts.v1 import lookup_pb2 as wire
from nearkin.contracts.v1 import lookup_pb2_grpc
from nearkin.core.answer import LoggedAnswer
from nearkin.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Misconfigured,
    NearkinError,
    Overloaded,
    Unavailable,
    UnknownItem,
)
from nearkin.core.ports import ContentEncoder, EvidenceStore, ItemCollection, ItemIndex
from nearkin.core.probe import PROBE_MARKET, is_probe
from nearkin.core.rules import Curation
from nearkin.lookup.authorise import Authorise, TokenFile
from nearkin.lookup.encode_answer import encode_answer, encode_item, logged
from nearkin.lookup.engines import FLOOR_S, Engine
from nearkin.lookup.find_similar import Answer, Depths, FindSimilar, Observe
from nearkin.lookup.follow_stream import Stream
from nearkin.lookup.log_answers import make_request_id
from nearkin.lookup.parse_request import check_batch, parse_ids, parse_lookup
from nearkin.lookup.rank_candidates import Ordering
from nearkin.lookup.recall_evidence import RecallEvidence
from nearkin.lookup.request import SimilarTo
from nearkin.lookup.turns import Turns
from nearkin.ops.addresses import split_address
from nearkin.ops.grpc_tls import ServerCertificate
from nearkin.ops.health import Health
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.tracing import OFF, Traces

log = logging.getLogger(__name__)

SERVICE = wire.DESCRIPTOR.services_by_name["LookupService"].full_name

#: How often the server looks whether the index is there, in seconds.
HEALTH_INTERVAL_S = 0.5

#: So many calls that came may wait for this process to take them: a burst, and no more than is answered in time.
MOST_PENDING = 64

#: How long a server that ends goes on to serve those who heed its health, in seconds; a tenth of its grace at most.
LEAVE_S = 0.5

#: gRPC refuses messages that are so many times too large by itself; up to there the refusal names the setting.
_TRANSPORT_SLACK = 4


class _RequestTooLarge(InvalidRequest):
    """A request has more bytes than the server takes."""


_CODES: dict[type[NearkinError], grpc.StatusCode] = {
    _RequestTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownItem: grpc.StatusCode.NOT_FOUND,
    Misconfigured: grpc.StatusCode.FAILED_PRECONDITION,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

#: What ends a call without an answer for which its caller cannot be blamed; too much at once is among it.
_OURS = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a look-up server takes, by the settings of the same names.

    Attributes:
        max_message_bytes: the largest request.
        timeout_s: the longest time for one call whose caller sets no shorter deadline.
        concurrency: how many anchors may be under way, those that wait for their turn included.
        at_once: how many calls are worked on at a time; the others wait for their turn.
        evidence_budget_s: how long the evidence may take in one look-up.
        depths: how many candidates each source names.
    """

    max_message_bytes: int = 1_048_576
    timeout_s: float = 10.0
    concurrency: int = 128
    at_once: int = 16
    evidence_budget_s: float = 0.1
    depths: Depths = field(default_factory=Depths)


class LookupService(lookup_pb2_grpc.LookupServiceServicer):
    """The methods of `lookup.proto`.

    Args:
        find: answers look-ups.
        index: where the items are.
        stream: what is known of the stream as a whole.
        log_answer: takes what was answered.
        limits: what the server takes.
        metrics: where calls are counted.
        traces: where calls that belong to a trace are told.
    """

    def __init__(
        self,
        find: FindSimilar,
        index: ItemIndex,
        stream: Stream,
        log_answer: Callable[[LoggedAnswer], None],
        limits: Limits,
        metrics: Metrics,
        traces: Traces,
    ) -> None:
        self._find, self._index, self._stream, self._log_answer = find, index, stream, log_answer
        self._limits, self._metrics, self._traces = limits, metrics, traces
        self._working, self._turns = 0, Turns(limits.at_once)

    async def FindSimilar(  # noqa: N802  # gRPC's name
        self, request: wire.FindSimilarRequest, context: Any
    ) -> wire.FindSimilarResponse:
        """One anchor: its neighbours, or the status of what is wrong."""
        return await self._serve("FindSimilar", request, context, self._find_similar, anchors=1)

    async def FindSimilarBatch(  # noqa: N802  # gRPC's name
        self, request: wire.FindSimilarBatchRequest, context: Any
    ) -> wire.FindSimilarBatchResponse:
        """Many anchors: for each its neighbours or its own failure."""
        return await self._serve(
            "FindSimilarBatch", request, context, self._find_similar_batch, anchors=len(request.requests)
        )

    async def GetItems(  # noqa: N802  # gRPC's name
        self, request: wire.GetItemsRequest, context: Any
    ) -> wire.GetItemsResponse:
        """What the index holds of items."""
        weight = 1 + len(request.item_ids) // 100
        return await self._serve("GetItems", request, context, self._get_items, anchors=weight)

    async def _find_similar(self, request: wire.FindSimilarRequest, allowed_s: float) -> wire.FindSimilarResponse:
        (answer,) = await self._answer([parse_lookup(request)], allowed_s)
        if isinstance(answer, NearkinError):
            raise answer
        return encode_answer(answer, explain=request.explain)

    async def _find_similar_batch(
        self, request: wire.FindSimilarBatchRequest, allowed_s: float
    ) -> wire.FindSimilarBatchResponse:
        check_batch(request)
        parsed: list[SimilarTo | InvalidRequest] = []
        for one in request.requests:
            try:
                parsed.append(parse_lookup(one))
            except InvalidRequest as refusal:
                parsed.append(refusal)
        valid = [one for one in parsed if isinstance(one, SimilarTo)]
        answers = iter(await self._answer(valid, allowed_s) if valid else ())
        response = wire.FindSimilarBatchResponse()
        for asked, lookup in zip(request.requests, parsed, strict=True):
            answer = next(answers) if isinstance(lookup, SimilarTo) else lookup
            response.results.append(_result(answer, explain=asked.explain))
            await asyncio.sleep(0)  # single look-ups go on beside a batch
        return response

    async def _answer(self, lookups: list[SimilarTo], allowed_s: float) -> list[Answer | NearkinError]:
        named = [one if one.request_id else replace(one, request_id=make_request_id()) for one in lookups]
        self._traces.name_lookup(named[0].request_id)
        answers = await self._find(named, allowed_s)
        now_ms = time.time_ns() // 1_000_000
        for answer in answers:
            if isinstance(answer, Answer) and not answer.lookup.is_of_probes:
                self._metrics.answers.labels(answer.draw.value).inc()
                for part in answer.degraded:
                    self._metrics.degraded.labels(part).inc()
                    log.warning(
                        "a look-up is answered without a part",
                        extra=fields(part=part, request_id=answer.lookup.request_id),
                    )
                self._log_answer(logged(answer, self._stream.priors_version, now_ms))
        return answers

    async def _get_items(self, request: wire.GetItemsRequest, _allowed_s: float) -> wire.GetItemsResponse:
        ids = parse_ids(request)
        collection = await self._index.serving()
        held = await collection.read(list(dict.fromkeys(ids)))
        return wire.GetItemsResponse(
            items=[encode_item(item_id, held.get(item_id)) for item_id in ids],
            collection=collection.name,
            bundle=collection.bundle,
        )

    async def _serve(
        self,
        method: str,
        request: Request,
        context: Any,
        answer: Callable[[Request, float], Awaitable[Response]],
        *,
        anchors: int,
    ) -> Response:
        """Answer one call within its bounds, or abort it with the status that its error has; count and time it."""
        started = time.perf_counter()
        code, message = grpc.StatusCode.CANCELLED, ""
        with self._traces.serving(f"{SERVICE}/{method}", context) as span:
            try:
                with self._admitted(request, anchors):
                    async with (
                        _deadline(context.time_remaining(), self._limits.timeout_s) as allowed_s,
                        self._turns.take() as waited_s,
                    ):
                        self._metrics.lookup_seconds.labels("turn").observe(waited_s)
                        response = await answer(request, allowed_s - waited_s)
                code = grpc.StatusCode.OK
            except NearkinError as error:
                code, message = _status(error)
            except Exception:
                log.exception(
                    "%s failed in a way that is not foreseen", method, extra=fields(request_id=_name_of(request))
                )
                code, message = grpc.StatusCode.INTERNAL, "the look-up failed; the server's log says why"
            finally:
                took_s = time.perf_counter() - started
                span.ended(code.name)
                _tell(method, request, code, message, took_s)
                if not _is_of_probes(request):
                    self._metrics.lookups.labels(method, code.name).inc()
                    self._metrics.lookup_seconds.labels("total").observe(took_s)
        if code is not grpc.StatusCode.OK:
            await context.abort(code, message)
        return response

    @contextlib.contextmanager
    def _admitted(self, request: Message, anchors: int) -> Any:
        size, most = request.ByteSize(), self._limits.max_message_bytes
        if size > most:
            raise _RequestTooLarge(
                f"has {size} bytes",
                field="request",
                remedy=f"send at most {most}, or raise the server's NEARKIN_LOOKUP_MAX_MESSAGE_BYTES",
            )
        if self._working and self._working + anchors > self._limits.concurrency:
            raise Overloaded(
                f"the server has {self._working} anchors already; try again later, add servers, or raise "
                "NEARKIN_LOOKUP_CONCURRENCY"
            )
        self._working += anchors
        try:
            yield
        finally:
            self._working -= anchors


@contextlib.asynccontextmanager
async def _deadline(remaining: float | None, longest: float) -> AsyncIterator[float]:
    """Give up at the caller's deadline, and with it every call to an engine that is under way; how long that is."""
    allowed = longest if remaining is None else min(remaining, longest)
    try:
        async with asyncio.timeout(allowed):
            yield allowed
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the deadline of {allowed:.3f} s passed; ask for less, or set a later one (the server allows "
            f"{longest:g} s, by NEARKIN_LOOKUP_TIMEOUT_S)"
        ) from error


def _is_of_probes(request: Message) -> bool:
    """Whether the monitor asks: what users see of look-ups is counted without it."""
    match request:
        case wire.FindSimilarRequest():
            return request.filter.market == PROBE_MARKET
        case wire.GetItemsRequest():
            return bool(request.item_ids) and is_probe(request.item_ids[0])
        case _:
            return False


def _name_of(request: Message) -> str:
    """The name that a caller gave its look-up, where it is one that a line of the log may hold."""
    name = getattr(request, "request_id", "")
    return name if len(name) <= MAX_REQUEST_ID and name.isprintable() else ""


def _tell(method: str, request: Message, code: grpc.StatusCode, message: str, took_s: float) -> None:
    """Say how a call ended: aloud where it is the server's doing, else to whoever wants to know of every call."""
    level = logging.WARNING if code in _OURS else logging.DEBUG
    if not log.isEnabledFor(level):
        return
    # What a caller is told of its own mistake may quote the request.
    why = {"problem": message} if code in _OURS else {}
    said = fields(method=method, code=code.name, request_id=_name_of(request), ms=round(1000 * took_s, 1), **why)
    log.log(level, "a call ended" if code is grpc.StatusCode.OK else "a call is not answered", extra=said)


def _status(error: NearkinError) -> tuple[grpc.StatusCode, str]:
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    return code, str(error)


def _result(answer: Answer | NearkinError, *, explain: bool) -> wire.FindSimilarResult:
    if isinstance(answer, Answer):
        return wire.FindSimilarResult(response=encode_answer(answer, explain=explain))
    code, message = _status(answer)
    return wire.FindSimilarResult(failure=wire.Failure(code=code.value[0], message=message))


def _observer(metrics: Metrics, traces: Traces) -> Observe:
    """Who is told how long each stage of a look-up took."""

    def count(stage: str, seconds: float) -> None:
        metrics.lookup_seconds.labels(stage).observe(seconds)

    def count_and_trace(stage: str, seconds: float) -> None:
        count(stage, seconds)
        traces.looked_up(stage, seconds)

    return count_and_trace if traces.on else count


class LookupServer:
    """A gRPC server with the look-up service, health that follows the engines, and reflection.

    Args:
        index: where the items are; need not be reachable yet.
        encoder: for anchors that are contents.
        evidence: what people did; need not be reachable yet.
        limits: what the server takes.
        metrics: where calls are counted.
        readiness: is told whether anything can be answered, as gRPC's own health service is.
        ordering: how candidates become an answer.
        curation: tells what was decided by hand, as of now.
        log_answer: takes what was answered; must neither wait nor raise.
        clock: whether evidence is decayed to the wall's time or to that of the newest event.
        tokens: who may call what; everybody everything where it is None.
        traces: where calls that belong to a trace are told.

    Attributes:
        stream: what is known of the stream as a whole.
    """

    def __init__(
        self,
        index: ItemIndex,
        encoder: ContentEncoder,
        evidence: EvidenceStore,
        limits: Limits,
        metrics: Metrics,
        readiness: Health,
        *,
        ordering: Ordering | None = None,
        curation: Callable[[], Curation] = Curation,
        log_answer: Callable[[LoggedAnswer], None] = lambda _: None,
        clock: Literal["wall", "stream"] = "wall",
        tokens: TokenFile | None = None,
        traces: Traces = OFF,
    ) -> None:
        self._index, self._encoder, self._readiness, self._metrics = index, encoder, readiness, metrics
        items = Engine("index", metrics)
        # Who allows the evidence less time than the floor has said how slow is too slow.
        remembered = Engine("evidence", metrics, floor_s=min(FLOOR_S, limits.evidence_budget_s))
        self.stream = Stream(evidence, index, remembered, items, clock)
        self._find = find = FindSimilar(
            index,
            encoder,
            RecallEvidence(evidence),
            self.stream,
            items=items,
            evidence=remembered,
            ordering=ordering or Ordering(),
            curation=curation,
            depths=limits.depths,
            evidence_budget_s=limits.evidence_budget_s,
            observe=_observer(metrics, traces),
        )
        most = limits.max_message_bytes * _TRANSPORT_SLACK
        self._server = grpc.aio.server(
            interceptors=[] if tokens is None else [Authorise(tokens, metrics)],
            options=[
                ("grpc.max_receive_message_length", most),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                # gRPC hands calls over one at a time. Those that nobody took yet would grow old beyond this number: it
                # refuses some from half of it on, and then all.
                ("grpc.server.max_pending_requests", MOST_PENDING // 2),
                ("grpc.server.max_pending_requests_hard_limit", MOST_PENDING),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        lookup_pb2_grpc.add_LookupServiceServicer_to_server(  # type: ignore[no-untyped-call]  # generated
            LookupService(find, index, self.stream, log_answer, limits, metrics, traces), self._server
        )
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # its stubs leave it out
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._following: list[asyncio.Task[None]] = []

    async def start(self, listen: str, certificate: ServerCertificate | None = None) -> str:
        """Serve, and follow the index from now on.

        Args:
            listen: host:port; port 0 takes a free one.
            certificate: what is shown there, by TLS; nothing is encrypted where it is None.

        Returns:
            The address that is served.

        Raises:
            Misconfigured: the address cannot be taken.
        """
        try:
            split_address(listen, least_port=0)
        except ValueError as error:
            raise Misconfigured(
                str(error), field="NEARKIN_LOOKUP_LISTEN", remedy="set it to such as 127.0.0.1:7700", reason="setting"
            ) from error
        try:
            if certificate is None:
                taken = self._server.add_insecure_port(listen)
            else:
                taken = self._server.add_secure_port(listen, certificate.credentials())
        except RuntimeError as error:
            await self._server.stop(None)
            raise Misconfigured(
                f"{listen} cannot be listened on (is the port taken?)",
                field="NEARKIN_LOOKUP_LISTEN",
                remedy="stop what listens there, or set another host:port (port 0 takes a free one)",
                reason="port",
            ) from error
        await self._tell_health("starting")
        await self._server.start()
        self._following = [
            asyncio.create_task(self.stream.follow(), name="follow the stream"),
            asyncio.create_task(self._follow_index(), name="follow the index"),
        ]
        return f"{listen.rpartition(':')[0]}:{taken}"

    async def drain(self, grace_s: float) -> None:
        """Say that it ends, so that whoever asks health first goes elsewhere; then take no more and finish what runs.

        Args:
            grace_s: how long what runs may take at most.
        """
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        self._readiness.waits("index", "stopping")
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(min(LEAVE_S, grace_s / 10))
        await self._server.stop(grace_s)

    async def _follow_index(self) -> None:
        """Keep health true, and say each change once."""
        said: bool | None = None
        searched = ""
        self._metrics.bundle_info.labels(bundle=self._encoder.bundle, use="encodes").set(1)
        while True:
            try:
                collection, problem = await self._reach_index(), ""
            except (NearkinError, TimeoutError) as error:
                collection, problem = None, str(error) or "the index does not answer in time"
            except Exception as error:
                collection, problem = None, f"the index fails in a way that is not foreseen: {describe(error)}"
            alone = collection is None and self.stream.can_answer_alone and self._find.can_answer_alone
            await self._tell_health("" if alone else problem)
            if collection is None:
                if said is not False:
                    what = "answering by evidence alone" if alone else "not serving"
                    log.warning("%s until the index answers", what, extra=fields(problem=problem))
            elif said is not True:
                log.info("serving", extra=fields(collection=collection.name))
            said = collection is not None
            if collection is not None and collection.bundle != searched:
                self._tell_bundle(searched, collection.bundle)
                searched = collection.bundle
            await asyncio.sleep(HEALTH_INTERVAL_S)

    def _tell_bundle(self, former: str, now: str) -> None:
        """Say of which bundle the collection is that is searched from now on."""
        encodes = self._encoder.bundle
        if former:
            self._metrics.bundle_info.remove(former, "searches")
        self._metrics.bundle_info.labels(bundle=now, use="searches").set(1)
        if now != encodes:
            log.warning(
                "the index serves another bundle than this server encodes with: contents are refused as anchors "
                "until the server is restarted with NEARKIN_BUNDLE_PATH set to that bundle",
                extra=fields(index=now, server=encodes),
            )
        elif former:
            log.info("the index serves the bundle that this server encodes with again", extra=fields(bundle=now))

    async def _reach_index(self) -> ItemCollection:
        async with asyncio.timeout(10 * HEALTH_INTERVAL_S):
            return await self._index.serving()

    async def _tell_health(self, problem: str) -> None:
        if problem:
            self._readiness.waits("index", problem)
        else:
            self._readiness.ready("index")
        status = health_pb2.HealthCheckResponse.NOT_SERVING if problem else health_pb2.HealthCheckResponse.SERVING
        for service in ("", SERVICE):
            await self._health.set(service, status)
