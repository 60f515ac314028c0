"""The whole of Nearkin on one machine: which programs, with which addresses, and where others find them.

```
DATA/FORMAT, LOCK      what wrote the folder, and who owns it now
DATA/endpoints.json    where everything listens, while it runs
DATA/index/            the embedded index: survives a restart
DATA/redis/            Redis: survives a restart
DATA/logs/             one bounded log for each program
```

The broker keeps topics in memory only. When it starts again, its topics are made again and the workers, which know
offsets that mean nothing any more, start again with it.
"""

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kafka import KafkaAdminClient

from nearkin.embedded.broker import broker_answers, broker_command
from nearkin.embedded.endpoints import FORMAT, Endpoints, remove_endpoints, write_endpoints
from nearkin.embedded.owned_folder import OwnedFolder
from nearkin.embedded.programs import LOOPBACK, accepts, free_address, free_port
from nearkin.embedded.redis import redis_answers, redis_binary, redis_command
from nearkin.embedded.supervisor import Patience, Program, Supervisor
from nearkin.ops.listening import require_protected
from nearkin.ops.settings import Settings, load_settings
from nearkin.ops.topics import apply_topics

#: The index refuses writes below 128 MiB, so a stack that starts with less than twice that would soon stop serving.
MIN_FREE_BYTES = 256 * 2**20

#: The index builds its graph before it answers, up to 1 s for 1,000 items: killed meanwhile, it would begin anew.
INDEX_READY_S = 900.0

#: What serves its own /ready and /metrics.
SERVICES = ("indexer-live", "indexer-bulk", "feedback", "lookup", "monitor")

#: How engines elsewhere are reached: the embedded ones listen on loopback, without TLS.
NOT_HERE = ("NEARKIN_REDIS_USERNAME", "NEARKIN_REDIS_PASSWORD", "NEARKIN_INDEX_CERT", "NEARKIN_INDEX_KEY")

#: What a worker's end means: the broker keeps its partitions for it until its session ends (6 s), and it must start.
WAIT = "meanwhile, some 15 s"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: `timeout` signals its child and then the group, so it signals twice: what comes so close is one wish.
ONE_WISH_S = 1.0

T = TypeVar("T")


class StopRequested(Exception):
    """A signal asked the stack to stop before its work was done."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that runs.

    Attributes:
        endpoints: where it listens.
        data: its folder.
        supervisor: what keeps it running.
    """

    endpoints: Endpoints
    data: Path
    supervisor: Supervisor


async def run_stack(
    data: Path,
    work: Callable[[Stack], Awaitable[T]],
    *,
    report: Callable[[str, str], None],
    echo: Callable[[str, str], None] | None = None,
    patience: Patience | None = None,
    lookup_listen: str | None = None,
    environment: Mapping[str, str] | None = None,
    kafka: str | None = None,
) -> T:
    """Start the stack, do some work beside it, and stop it, whatever happens. For the main thread.

    SIGTERM, SIGINT and SIGHUP stop it; another one, more than a moment later, kills what still stops.

    Args:
        data: the stack's folder; made where it is missing.
        work: what to do once everything is ready.
        report: told what happens, as (program's name, what).
        echo: given every line that a program writes, as (program's name, line).
        patience: how long things may take.
        lookup_listen: host:port of look-ups; a free port of this machine where it is None.
        environment: settings of its programs, above those of this process's environment.
        kafka: host:port of a Kafka that runs already and has the topics; a broker of its own where it is None.

    Raises:
        Misconfigured: the folder, a setting, a file or a port is not as it must be.
        Unavailable: a program keeps dying.
        StopRequested: a signal came before the work was done.
    """
    folder = OwnedFolder(data, FORMAT, MIN_FREE_BYTES)
    settings = load_settings()
    folder.open()
    try:
        endpoints = choose_endpoints(settings, lookup_listen)
        if kafka is not None:
            endpoints = msgspec.structs.replace(endpoints, kafka=kafka)
        programs = _programs(data, endpoints, settings, os.environ | dict(environment or {}), report)
        if kafka is not None:
            programs = _without_broker(programs, settings)
        supervisor = Supervisor(programs, data / "logs", report=report, echo=echo, patience=patience or Patience())
        with stopped_by_signals(supervisor):
            async with supervisor:
                write_endpoints(data, endpoints)
                try:
                    return await _work_beside(supervisor, work(Stack(endpoints, data, supervisor)))
                finally:
                    remove_endpoints(data)
    finally:
        folder.close()


async def _work_beside(supervisor: Supervisor, work: Awaitable[T]) -> T:
    """The work's result, unless a program is given up first."""
    working, failing = asyncio.ensure_future(work), asyncio.ensure_future(supervisor.wait())
    both: set[asyncio.Future[Any]] = {working, failing}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
        return await working
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


@contextlib.contextmanager
def stopped_by_signals(supervisor: Supervisor) -> Iterator[None]:
    """The first signal cancels the task, one that is a wish of its own also its patience."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    wished_at: float | None = None

    def on_signal() -> None:
        nonlocal wished_at
        if wished_at is None:
            wished_at = loop.time()
            if task is not None:
                task.cancel()
        elif loop.time() - wished_at > ONE_WISH_S:
            supervisor.hurry()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    except asyncio.CancelledError:
        if wished_at is None or task is None:
            raise
        task.uncancel()
        raise StopRequested from None
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)


def choose_endpoints(settings: Settings, lookup_listen: str | None) -> Endpoints:
    """Free ports for everything, but for look-ups the address that was asked for.

    Raises:
        Misconfigured: that address is not one, or is taken, or would be open to other machines.
    """
    if lookup_listen is not None:
        lookup_listen = free_address(lookup_listen, "NEARKIN_LOOKUP_LISTEN")
        require_protected(
            lookup_listen,
            "NEARKIN_LOOKUP_LISTEN",
            by_tls=settings.lookup_cert is not None,
            insecure=settings.listen_insecure,
            remedy="set NEARKIN_LOOKUP_CERT and NEARKIN_LOOKUP_KEY, ",
        )

    def free() -> str:
        return f"{LOOPBACK}:{free_port()}"

    return Endpoints(
        kafka=free(),
        lookup=lookup_listen or free(),
        qdrant=f"http://{free()}",
        redis=f"redis://{free()}/0" if redis_binary() else "",
        metrics={name: free() for name in SERVICES if name != "feedback" or redis_binary()},
        partitions=settings.items_partitions,
    )


def _programs(
    data: Path,
    endpoints: Endpoints,
    settings: Settings,
    environment: Mapping[str, str],
    report: Callable[[str, str], None],
) -> list[Program]:
    """What runs, in the order of the picture: broker, Redis, index, indexers, feedback, look-ups, monitor."""
    environment = {
        **environment,
        "NEARKIN_KAFKA_BOOTSTRAP": endpoints.kafka,
        # What is set of engines elsewhere is not of those here; an empty text counts more than a file of secrets.
        **dict.fromkeys(NOT_HERE, ""),
        "NEARKIN_KAFKA_PROTOCOL": "plaintext",
        "NEARKIN_QDRANT_URL": endpoints.qdrant,
        "NEARKIN_LOOKUP_LISTEN": endpoints.lookup,
        "NEARKIN_LOOKUP_TLS": str(settings.lookup_cert is not None).lower(),
        "NEARKIN_LOG_FORMAT": "json" if settings.log_format == "json" else "text",  # files that a person reads
    }
    if endpoints.redis:
        environment["NEARKIN_REDIS_URL"] = endpoints.redis

    async def prepare_broker(restart: bool) -> None:
        if restart:
            report(
                "broker",
                "kept nothing over its end, dead letters neither: topics are made again; publish again what was not "
                "indexed or counted",
            )
        await asyncio.to_thread(apply_embedded_topics, endpoints.kafka, settings)

    def service(
        name: str,
        module: str,
        follows: tuple[str, ...],
        meanwhile: str,
        needs: str = "index",
        nice: Sequence[str] = (),
        **further: str,
    ) -> Program:
        listen = endpoints.metrics[name]
        return Program(
            name,
            [*nice, sys.executable, "-m", module],
            lambda: says_ready(listen),
            environment=environment | {"NEARKIN_METRICS_LISTEN": listen} | further,
            follows=follows,
            needs=(needs,),
            meanwhile=meanwhile,
        )

    # Where cores are few, whoever waits for an answer goes before what is to be counted, and before a bulk load.
    last = ("nice", "-n", "10") if shutil.which("nice") else ()
    index = endpoints.qdrant.removeprefix("http://")
    owner = ["-m", "nearkin.embedded.index_owner", "--data", str(data / "index"), "--listen", index]
    programs = [
        Program(
            "broker",
            broker_command(_port(endpoints.kafka)),
            lambda: broker_answers(endpoints.kafka),
            prepare=prepare_broker,
            # It has nothing to save, and takes five seconds when asked kindly.
            stop_signal=signal.SIGKILL,
        ),
        Program(
            "index", [sys.executable, *owner], lambda: _serves(index), environment=environment, ready_s=INDEX_READY_S
        ),
        service("indexer-live", "nearkin.indexer", ("broker",), f"new items wait {WAIT}", NEARKIN_INDEXER_LANE="live"),
        service(
            "indexer-bulk",
            "nearkin.indexer",
            ("broker",),
            f"the bulk lane waits {WAIT}",
            nice=last,
            NEARKIN_INDEXER_LANE="bulk",
        ),
        service("lookup", "nearkin.lookup", (), "look-ups fail until it is ready"),
    ]
    if binary := redis_binary():
        port = _port(endpoints.redis.removesuffix("/0"))
        (data / "redis").mkdir(exist_ok=True)
        programs.insert(1, Program("redis", redis_command(binary, port, data / "redis"), lambda: redis_answers(port)))
        programs.insert(
            -1, service("feedback", "nearkin.feedback", ("broker",), f"new feedback waits {WAIT}", "redis", last)
        )
    else:
        report("redis", "there is no redis-server here: going without, so feedback is not counted")
    programs.append(_monitor(endpoints, environment, last))
    return programs


def _monitor(endpoints: Endpoints, environment: Mapping[str, str], nice: Sequence[str]) -> Program:
    """Watches the others, needs none of them, and is needed by none."""
    listen = endpoints.metrics["monitor"]
    watched = {name: address for name, address in endpoints.metrics.items() if name not in ("monitor", "lookup")}
    settings = {
        "NEARKIN_METRICS_LISTEN": listen,
        "NEARKIN_LOOKUP_ADDRESS": endpoints.lookup,
        "NEARKIN_MONITOR_PARTS": ",".join(f"{name}={address}" for name, address in watched.items()),
        "NEARKIN_MONITOR_ENGINES": "broker,index,redis,lookup" if endpoints.redis else "broker,index,lookup",
    }
    return Program(
        "monitor",
        [*nice, sys.executable, "-m", "nearkin.monitor"],
        lambda: says_ready(listen),
        environment={**environment, **settings},
        meanwhile="nobody watches meanwhile",
        awaited=False,
    )


def _without_broker(programs: Sequence[Program], settings: Settings) -> list[Program]:
    """The programs on a broker that runs already, which they speak to as the settings say."""
    return [
        replace(
            program,
            environment={**(program.environment or {}), "NEARKIN_KAFKA_PROTOCOL": settings.kafka_protocol},
            follows=tuple(name for name in program.follows if name != "broker"),
        )
        for program in programs
        if program.name != "broker"
    ]


def apply_embedded_topics(bootstrap: str, settings: Settings) -> None:
    """Make the topics; one that a quicker client made the broker make by itself, with other settings, is made anew."""
    applied = apply_topics(bootstrap, settings.items_partitions, replication=1)
    if applied.mismatches:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            admin.delete_topics(sorted({mismatch.topic for mismatch in applied.mismatches}))
        finally:
            admin.close()
        applied = apply_topics(bootstrap, settings.items_partitions, replication=1)
    applied.require()


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def says_ready(address: str) -> bool:
    """Whether a service's own /ready says so."""
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _serves(address: str) -> bool:
    """Whether a gRPC server's own health says so."""
    if not accepts(address):
        return False
    with grpc.insecure_channel(address) as channel:
        try:
            health = health_pb2_grpc.HealthStub(channel)
            return bool(health.Check(health_pb2.HealthCheckRequest(), timeout=1).status == _SERVING)
        except grpc.RpcError:
            return False
