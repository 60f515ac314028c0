"""The way of one event, or of one look-up, as spans for an OpenTelemetry collector. Off unless NEARKIN_TRACES says so.

A producer begins a trace and sends its name along in the record's `traceparent` header (W3C Trace Context); whoever
consumes the record goes on with it, and begins none of its own. Most records belong to no trace, and a batch holds
many, so a worker's spans are made afterwards, of times that it knows anyway: what is not traced costs one question a
batch.
A look-up goes on with the trace that its caller names in the call's metadata, or begins one.

A trace holds ids, places and times, never what an event says. opentelemetry is imported only where traces are on.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Protocol

import nearkin
from nearkin.core.errors import Misconfigured
from nearkin.ops.record import Record
from nearkin.ops.settings import Settings

Header = tuple[str, bytes | str]

#: What is carried of a trace, by W3C Trace Context.
CARRIED = ("traceparent", "tracestate")

#: What of a gRPC call is the server's fault; of the rest its caller knows.
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

#: How long a stopping process waits until the collector has the last spans, in seconds.
CLOSE_S = 2.0


class Publishing(Protocol):
    """A record on its way to the broker: told once what became of it."""

    headers: list[tuple[str, bytes]]

    def arrived(self, partition: int, offset: int) -> None:
        """The broker has it."""

    def failed(self, why: str) -> None:
        """The broker does not have it."""


class Serving(Protocol):
    """A call that is being served."""

    def ended(self, code: str) -> None:
        """Say with which gRPC status."""


class Traces:
    """Traces that are off: every question is answered with nothing, at once."""

    on: ClassVar[bool] = False

    def publishing(self, topic: str) -> Publishing | None:
        """A record that begins a trace, or goes on with one; None where it is not among the share that is traced."""
        return None

    def parent_of(self, record: Record) -> Any:
        """What a record's span belongs to; None where the record is not traced."""
        return None

    def processed(
        self, record: Record, parent: Any, began_s: float, ended_s: float, *, event_id: str = "", refused: str = ""
    ) -> Any:
        """A record was dealt with, in a span that others can belong to; times are seconds since the epoch."""
        return None

    def step(self, name: str, parent: Any, began_s: float, ended_s: float) -> None:
        """A step of that."""

    def serving(self, method: str, context: Any) -> contextlib.AbstractContextManager[Serving]:
        """A gRPC call while it is served."""
        return _NOT_TRACED

    def looked_up(self, stage: str, seconds: float) -> None:
        """A stage of the look-up that is being served ended just now."""

    def name_lookup(self, request_id: str) -> None:
        """The name of the look-up that is being served."""

    def close(self) -> None:
        """Send what is left."""


class _NotTraced(contextlib.AbstractContextManager[Serving]):
    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ended(self, code: str) -> None:
        pass


_NOT_TRACED = _NotTraced()

#: What a process has where traces are off.
OFF = Traces()


def start_traces(settings: Settings, process: str) -> Traces:
    """The traces of a process by its settings.

    Raises:
        Misconfigured: they are on, and opentelemetry is not installed.
    """
    if settings.traces == "off":
        return OFF
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise Misconfigured(
            f"traces are asked for, and {error.name} is not installed",
            field="NEARKIN_TRACES",
            remedy="install the extra `trace` (in a clone: `pip install -e '.[serve,trace]'`), or set it to off",
            reason="setting",
        ) from error
    exporter = OTLPSpanExporter(
        endpoint=settings.traces_endpoint, insecure=settings.traces_endpoint.startswith("http://"), timeout=5
    )
    return Spans(provide_spans(BatchSpanProcessor(exporter), process, settings.traces_share))


def provide_spans(processor: Any, process: str, share: float) -> Any:
    """A TracerProvider of our own.

    Args:
        processor: takes spans that ended.
        process: what the process is; names the service.
        share: of traces that begin here, so many are kept.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(share)),
        resource=Resource.create(
            {"service.namespace": "nearkin", "service.name": process, "service.version": nearkin.__version__}
        ),
        shutdown_on_exit=False,  # `close` does it, and waits no longer than it says
    )
    provider.add_span_processor(processor)
    return provider


class Spans(Traces):
    """Traces that are on.

    Args:
        provider: an OpenTelemetry TracerProvider: ours, or that of the application that publishes.
    """

    on = True

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._trace, self._nothing = trace, Context()
        self._tracer = provider.get_tracer("nearkin", nearkin.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def publishing(self, topic: str) -> Publishing | None:
        """A span until the broker has answered, and the headers that name it."""
        span = self._tracer.start_span(
            f"publish {topic}", kind=self._trace.SpanKind.PRODUCER, attributes=_messaging(topic, "publish")
        )
        if not span.is_recording():
            return None
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        return _Publishing(span, [(name, value.encode()) for name, value in carrier.items()], self._error)

    def parent_of(self, record: Record) -> Any:
        """By the record's headers; None where they name no trace, or one that is not kept."""
        if not record.headers:
            return None
        parent = self._named(record.headers)
        found = self._trace.get_current_span(parent).get_span_context()
        return parent if found.is_valid and found.trace_flags.sampled else None

    def processed(
        self, record: Record, parent: Any, began_s: float, ended_s: float, *, event_id: str = "", refused: str = ""
    ) -> Any:
        """A span of a record, begun and ended in the past; what the spans of its steps belong to."""
        attributes = _messaging(record.topic, "process") | {
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
        }
        if event_id:
            attributes["nearkin.event_id"] = event_id
        span = self._tracer.start_span(
            f"process {record.topic}",
            parent,
            kind=self._trace.SpanKind.CONSUMER,
            attributes=attributes,
            start_time=_ns(began_s),
        )
        if refused:
            span.set_status(self._error(refused))
        span.end(_ns(max(began_s, ended_s)))
        return self._trace.set_span_in_context(span)

    def step(self, name: str, parent: Any, began_s: float, ended_s: float) -> None:
        """A span begun and ended in the past."""
        self._tracer.start_span(name, parent, start_time=_ns(began_s)).end(_ns(max(began_s, ended_s)))

    @contextlib.contextmanager
    def serving(self, method: str, context: Any) -> Iterator[Serving]:
        """A span around a call; what happens in its task meanwhile belongs to it."""
        service, _, name = method.rpartition("/")
        with self._tracer.start_as_current_span(
            method,
            self._named(context.invocation_metadata() or ()),
            kind=self._trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
            record_exception=False,  # its words may quote the request
            set_status_on_exception=False,
        ) as span:
            yield _Serving(span, self._error)

    def looked_up(self, stage: str, seconds: float) -> None:
        """A span that ends now, of the call that is being served in this task."""
        if self._trace.get_current_span().is_recording():
            now = time.time_ns()
            self._tracer.start_span(stage, start_time=now - int(seconds * 1e9)).end(now)

    def name_lookup(self, request_id: str) -> None:
        """An attribute of the call's span."""
        self._trace.get_current_span().set_attribute("nearkin.request_id", request_id)

    def close(self) -> None:
        """Send what is left, and wait for it a moment: a collector that is away holds nobody up."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def _named(self, headers: Iterable[Header]) -> Any:
        """The trace that headers name, as a parent; an empty one where they name none."""
        carrier = {
            name: value if isinstance(value, str) else value.decode(errors="replace")
            for name, value in headers
            if name in CARRIED and value is not None
        }
        # Beside nothing: what runs in this task may belong to another trace.
        return self._propagator.extract(carrier, self._nothing)

    def _error(self, why: str) -> Any:
        return self._trace.Status(self._trace.StatusCode.ERROR, why)


class _Publishing:
    def __init__(self, span: Any, headers: list[tuple[str, bytes]], error: Any) -> None:
        self._span, self.headers, self._error = span, headers, error

    def arrived(self, partition: int, offset: int) -> None:
        self._span.set_attribute("messaging.destination.partition.id", str(partition))
        self._span.set_attribute("messaging.kafka.offset", offset)
        self._span.end()

    def failed(self, why: str) -> None:
        self._span.set_status(self._error(why))
        self._span.end()


class _Serving:
    def __init__(self, span: Any, error: Any) -> None:
        self._span, self._error = span, error

    def ended(self, code: str) -> None:
        self._span.set_attribute("rpc.grpc.status_code", code)
        if code in _FAULTS:
            self._span.set_status(self._error(code))


def _messaging(topic: str, operation: str) -> dict[str, Any]:
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": topic,
        "messaging.operation.type": "send" if operation == "publish" else operation,
    }


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
