"""What a process says of itself over HTTP: /metrics for Prometheus, /live and /ready for whoever supervises it.

A process is *ready* when none of its parts waits for anything; it is *live* as long as it answers, because a process
that stopped making progress ends itself (see `ops/worker.py`) rather than answering 500 until somebody notices.
"""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from nearkin.core.errors import Misconfigured
from nearkin.ops.addresses import split_address
from nearkin.ops.logs import fields
from nearkin.ops.metrics import Metrics

log = logging.getLogger(__name__)


class Health:
    """Which parts of the process wait, and for what. Safe to use from any thread.

    Args:
        metrics: its `up` follows.
        parts: parts that wait from the beginning, before anybody has said so.
    """

    def __init__(self, metrics: Metrics, *parts: str) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._waiting: dict[str, str] = dict.fromkeys(parts, "starting")
        self._metrics.up.set(not parts)

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

    @property
    def waiting(self) -> dict[str, str]:
        """The parts that wait now, and why; empty when the process is ready."""
        with self._lock:
            return dict(self._waiting)


class HealthServer:
    """Serves /metrics, /live and /ready in a thread of its own, as a context manager.

    Args:
        listen: host:port; port 0 takes a free one.
        health: what /ready says.
        metrics: what /metrics says.

    Raises:
        Misconfigured: the address is no address, or it is taken.
    """

    def __init__(self, listen: str, health: Health, metrics: Metrics) -> None:
        try:
            self._server = _Server(split_address(listen, least_port=0), _handler(health, metrics))
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
        return f"{host!s}:{port}"

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


def _handler(health: Health, metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry))
            elif path == "/live":
                self._say(200, {"live": True})
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
