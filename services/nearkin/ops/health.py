"""What a process says of itself over HTTP: /metrics for Prometheus, /live and /ready for whoever supervises it.

A process is *ready* when none of its parts waits for anything and its event loop turns: it can serve now. It is *live*
while it makes progress. The event loop, and the watchdog of a worker, beat; the thread that answers here is neither, so
it can tell that one of them beats no more. Whoever supervises the process has then as long again to start it anew, and
if nobody does, it ends itself. A worker that hangs in its work while its loop turns is ended by its watchdog.
"""

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, TypeVar

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from nearkin.core.errors import Misconfigured
from nearkin.ops.addresses import split_address
from nearkin.ops.listening import require_protected
from nearkin.ops.logs import fields
from nearkin.ops.metrics import Metrics
from nearkin.ops.process import EXIT_FAILED

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The part that every process has.
LOOP = "event loop"

#: How often it beats, and after how long without a beat a process that has begun is not ready, in seconds.
BEAT_S, LATE_S = 1.0, 5.0

#: Who connects and neither asks nor takes its answer for so long is left, in seconds: each keeps a thread.
SILENT_S = 10.0


class Health:
    """Which parts of the process wait, and for what. Safe to use from any thread.

    Args:
        metrics: its `up` and `loop_lag` follow.
        parts: parts that wait from the beginning, before anybody has said so.
        stall_timeout_s: the event loop has stalled after so long without a beat; it has so long to begin, too.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        metrics: Metrics,
        *parts: str,
        stall_timeout_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics, self._clock = metrics, clock
        self._lock = threading.Lock()
        self._waiting: dict[str, str] = dict.fromkeys(parts, "starting")
        self._beats = {LOOP: clock()}
        self._allowed_s = {LOOP: stall_timeout_s}
        self._begun = False
        self._metrics.up.set(not parts)
        self._metrics.loop_lag.set_function(lambda: clock() - self._beats[LOOP])

    def waits(self, part: str, why: str) -> None:
        """Say that a part waits, and why."""
        with self._lock:
            self._waiting[part] = why
            self._metrics.up.set(0)

    def ready(self, part: str) -> None:
        """Say that a part waits no longer."""
        with self._lock:
            self._waiting.pop(part, None)
            self._metrics.up.set(not self._waiting)

    def beat(self, part: str = LOOP, within_s: float | None = None) -> None:
        """Say that a part makes progress.

        Args:
            part: which.
            within_s: from now on it is expected to say so again within so long; by default what was said last.
        """
        if within_s is not None:
            self._allowed_s[part] = within_s
        self._beats[part] = self._clock()
        self._begun = self._begun or part == LOOP

    @property
    def begun(self) -> bool:
        """Whether the event loop has begun to turn."""
        return self._begun

    @property
    def waiting(self) -> dict[str, str]:
        """The parts that wait now, and why; empty when the process is ready."""
        with self._lock:
            waiting = dict(self._waiting)
        silent_s = self._clock() - self._beats[LOOP]
        if self._begun and silent_s > LATE_S:
            waiting[LOOP] = f"it has not turned for {silent_s:.0f} s"
        return waiting

    def stalled(self, patience: float = 1.0) -> dict[str, str]:
        """The parts that make no progress, and for how long; empty while the process is live.

        Args:
            patience: how many times what a part is allowed it may take.
        """
        now = self._clock()
        silent = {part: now - at for part, at in dict(self._beats).items()}
        return {
            part: f"no progress for {seconds:.0f} s"
            for part, seconds in silent.items()
            if seconds > patience * self._allowed_s[part]
        }


async def beating(health: Health, serving: Coroutine[Any, Any, T]) -> T:
    """Serve, while the event loop says again and again that it turns."""

    async def beat() -> None:
        while True:
            health.beat()
            await asyncio.sleep(BEAT_S)

    task = asyncio.create_task(beat(), name="beat")
    try:
        return await serving
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def exit_stalled(problem: str) -> None:
    """End the process at once: what hangs cannot be asked to stop. What every thread does is written first."""
    log.critical("the process makes no progress and ends itself", extra=fields(problem=problem))
    faulthandler.dump_traceback(sys.stderr)
    sys.stderr.flush()
    os._exit(EXIT_FAILED)


class HealthServer:
    """Serves /metrics, /live and /ready in a thread of its own, as a context manager.

    Args:
        listen: host:port; port 0 takes a free one.
        health: what /ready says.
        metrics: what /metrics says.
        end: ends a process that stalled and that nobody else has ended; told what stalled.
        insecure: whether other machines may reach it, as NEARKIN_LISTEN_INSECURE says: it speaks no TLS.

    Raises:
        Misconfigured: the address is no address, or it is taken, or may not be.
    """

    def __init__(
        self,
        listen: str,
        health: Health,
        metrics: Metrics,
        end: Callable[[str], None] = exit_stalled,
        *,
        insecure: bool = False,
    ) -> None:
        try:
            require_protected(listen, "NEARKIN_METRICS_LISTEN", by_tls=False, insecure=insecure)
            self._server = _Server(split_address(listen, least_port=0), _handler(health, metrics), health, end)
        except (OSError, ValueError) as error:
            raise Misconfigured(
                f"cannot listen on {listen!r}: {getattr(error, 'strerror', None) or error}",
                field="NEARKIN_METRICS_LISTEN",
                remedy="name a free host:port, or port 0 to take any free one",
                reason="setting",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True)

    @property
    def address(self) -> str:
        """The host:port that it really listens on."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        log.info("health and metrics are served", extra=fields(address=self.address))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A process that is started again takes its port over from its own last connections; a listening one keeps it.
    allow_reuse_address = True
    allow_reuse_port = False

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        health: Health,
        end: Callable[[str], None],
    ) -> None:
        self._health, self._end = health, end
        self._stalled_at: float | None = None
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks may be gone before the answer, as Prometheus is after its timeout: that is no error of ours."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def service_actions(self) -> None:
        """Look, a few times a second, whether the process stalled and is still there.

        What is seen at first may be a process that was stopped as a whole, and goes on now.
        """
        stalled = self._health.stalled(patience=2.0) if self._health.begun else {}
        if not stalled:
            self._stalled_at = None
        elif self._stalled_at is None:
            self._stalled_at = time.monotonic()
        elif time.monotonic() - self._stalled_at > LATE_S:
            self._end("; ".join(f"{part}: {why}" for part, why in stalled.items()))


def _handler(health: Health, metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = SILENT_S

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry))
            elif path == "/live":
                stalled = health.stalled()
                self._say(503 if stalled else 200, {"live": not stalled, "stalled": stalled})
            elif path == "/ready":
                waiting = health.waiting
                self._say(503 if waiting else 200, {"ready": not waiting, "waiting": waiting})
            else:
                self._say(404, {"error": "there are /metrics, /live and /ready"})

        def _say(self, code: int, answer: object) -> None:
            self._answer(code, "application/json", json.dumps(answer).encode() + b"\n")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the standard library
            """Requests are not decisions."""

    return Handler
