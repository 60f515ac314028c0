"""Which parts answer, and what is wrong with those that do not: one log line for each change, and a metric.

An engine answers when it answers a question of the kind that services ask it; a service, when its own /ready says so.
"""

import asyncio
import contextlib
import http.client
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearkin.core.errors import NearkinError
from nearkin.ops.addresses import split_parts
from nearkin.ops.grpc_tls import FollowingChannel
from nearkin.ops.logs import describe, fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import Settings
from nearkin.stores import evidence, qdrant

log = logging.getLogger(__name__)

#: How long one question may take, in seconds.
ASK_S = 5.0

#: So long after the start a part that has not answered yet is not worth a line, in seconds: all start together.
GRACE_S = 15.0

#: Asks a part; what is wrong with it, empty where it answers.
Ask = Callable[[], Awaitable[str]]

_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


@dataclass(slots=True)
class _Part:
    problem: str | None = None  # None before anything is known
    since: float = 0.0


class Parts:
    """What is known of each part.

    Args:
        metrics: where it is told.
        clock: monotonic seconds.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock, self._began = metrics, clock, clock()
        self._parts: dict[str, _Part] = {}
        self._expected: set[str] = set()
        self._all_answered = asyncio.Event()

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong with each part that was asked; empty where it answers."""
        return {name: part.problem for name, part in self._parts.items() if part.problem is not None}

    async def answer(self, names: Collection[str], within_s: float = GRACE_S) -> None:
        """Wait until each of some parts has answered, or the time has passed."""
        self._expected = {name for name in names if self.problems.get(name) != ""}
        if self._expected:
            self._all_answered.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._all_answered.wait()

    def hear(self, name: str, problem: str) -> None:
        """Take what a part said last.

        Args:
            name: the part.
            problem: what is wrong with it; empty where it answers.
        """
        part, now = self._parts.setdefault(name, _Part(since=self._clock())), self._clock()
        self._metrics.monitor_part_up.labels(name).set(not problem)
        if not problem:
            self._expected.discard(name)
            if not self._expected:
                self._all_answered.set()
        if part.problem is None and problem and now - self._began < GRACE_S:
            return
        if part.problem is not None and bool(part.problem) == bool(problem):
            part.problem = problem
            return
        if problem:
            log.error("a part is down", extra=fields(part=name, problem=problem))
        elif part.problem:
            log.warning("a part is back", extra=fields(part=name, down_s=round(now - part.since, 1)))
        part.problem, part.since = problem, now


async def watch_part(name: str, ask: Ask, parts: Parts, every_s: float) -> None:
    """Ask a part again and again, until cancelled."""
    while True:
        parts.hear(name, await asked(ask))
        await asyncio.sleep(every_s)


async def asked(ask: Ask) -> str:
    """What a part says of itself, or why it says nothing."""
    try:
        async with asyncio.timeout(ASK_S):
            return await ask()
    except TimeoutError:
        return f"no answer within {ASK_S:g} s"
    except NearkinError as error:
        return str(error)
    except Exception as error:
        return describe(error)


@contextlib.asynccontextmanager
async def asking(settings: Settings) -> AsyncIterator[dict[str, Ask]]:
    """How to ask each part that the settings name, but the broker, of which whoever reads lag knows.

    Raises:
        Misconfigured: a file of TLS or an address cannot be used.
    """
    async with contextlib.AsyncExitStack() as closing:
        asks: dict[str, Ask] = {}
        for name in engines_of(settings):
            match name:
                case "index":
                    index = qdrant.connect(settings)
                    closing.push_async_callback(index.close)
                    asks[name] = partial(_answers, index.serving)
                case "redis":
                    store = evidence.connect(settings, evidence.rules_of(settings))
                    closing.push_async_callback(store.close)
                    asks[name] = partial(_answers, store.read_newest)
                case "lookup":
                    channel = _lookup_channel(settings)
                    closing.push_async_callback(channel.close, None)
                    stub = health_pb2_grpc.HealthStub(channel)
                    asks[name] = partial(_serves, stub)
        for name, address in services_of(settings).items():
            asks.setdefault(name, _ready_at(address))
        yield asks


def engines_of(settings: Settings) -> list[str]:
    """The engines that are watched."""
    return [name for one in settings.monitor_engines.split(",") if (name := one.strip())]


def services_of(settings: Settings) -> Mapping[str, str]:
    """Where the services serve their health, by name; the monitor does not ask itself."""
    return {name: address for name, address in split_parts(settings.monitor_parts).items() if name != "monitor"}


async def _answers(call: Callable[[], Awaitable[object]]) -> str:
    await call()
    return ""


def _lookup_channel(settings: Settings) -> grpc.aio.Channel | FollowingChannel:
    if (tls := settings.lookup_caller_tls) is not None:
        return FollowingChannel(grpc.aio.secure_channel, settings.lookup_address, tls, _OPTIONS)
    return grpc.aio.insecure_channel(settings.lookup_address, options=_OPTIONS)


async def _serves(stub: health_pb2_grpc.HealthStub) -> str:
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=ASK_S)
    except grpc.aio.AioRpcError as error:
        return f"gRPC {error.code().name}"
    status = answer.status
    if status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    return f"it says {health_pb2.HealthCheckResponse.ServingStatus.Name(status)}"


def _ready_at(address: str) -> Ask:
    return partial(asyncio.to_thread, says_ready, address)


def says_ready(address: str, timeout_s: float = ASK_S) -> str:
    """What a service's own /ready says is wrong; empty where it is ready."""
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        body = answer.read(10_000)
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers on {address} ({getattr(error, 'strerror', None) or type(error).__name__})"
    finally:
        connection.close()
    if answer.status == http.HTTPStatus.OK:
        return ""
    with contextlib.suppress(ValueError, AttributeError):
        waiting = json.loads(body).get("waiting", {})
        return "; ".join(f"waits for {part}: {why}" for part, why in waiting.items()) or f"it says {answer.status}"
    return f"it says {answer.status}"
