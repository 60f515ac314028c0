"""The owner of the embedded index as a process of its own, on a port of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as wire

from certificates import Authority
from nearkin.embedded.programs import free_port
from nearkin.ops.settings import Settings
from nearkin.stores.qdrant import QdrantIndex, connect

START_S = 60.0


class OwnerProcess:
    """Started on entry and gone on exit.

    Args:
        data: its folder; may outlive it.
        protected: certifies it: it then speaks TLS alone, and asks for a key.
    """

    def __init__(self, data: Path, protected: Authority | None = None) -> None:
        self.data = data
        self._environment: dict[str, str] = {}
        self._reached_by: dict[str, Any] = {}
        self._credentials: grpc.ChannelCredentials | None = None
        if protected is not None:
            shown = protected.issue()
            self._environment = {"NEARKIN_INDEX_CERT": str(shown.cert), "NEARKIN_INDEX_KEY": str(shown.key)}
            self._environment["NEARKIN_QDRANT_API_KEY"] = "a-key"
            self._reached_by = {"qdrant_ca": protected.file, "qdrant_api_key": "a-key"}
            self._credentials = grpc.ssl_channel_credentials(protected.file.read_bytes())
        self.port = free_port()
        self.options: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()

    def command(self, port: int | None = None) -> list[str]:
        address = f"127.0.0.1:{self.port if port is None else port}"
        owner = [sys.executable, "-m", "nearkin.embedded.index_owner", "--data", str(self.data), "--listen", address]
        return [*owner, *self.options]

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.log = self.data.parent / f"{self.data.name}.log"
        with self.log.open("ab") as log:
            environment = os.environ | self._environment
            self.process = subprocess.Popen(self.command(), env=environment, stderr=log, stdout=log)
        deadline = time.monotonic() + START_S
        with self._channel() as channel:
            while True:
                try:
                    wire.QdrantStub(channel).HealthCheck(wire.HealthCheckRequest(), timeout=1.0)
                except grpc.RpcError:
                    assert self.process.poll() is None, self.log.read_text()
                    assert time.monotonic() < deadline, self.log.read_text()
                    time.sleep(0.05)
                else:
                    return

    def _channel(self) -> grpc.Channel:
        address = f"127.0.0.1:{self.port}"
        return grpc.secure_channel(address, self._credentials) if self._credentials else grpc.insecure_channel(address)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def run_to_its_end(self, port: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run another one on the same folder, one that is expected to refuse."""
        return subprocess.run(
            self.command(port), capture_output=True, text=True, timeout=60, check=False, env=os.environ
        )

    def connect(self, alias: str) -> QdrantIndex:
        scheme = "https" if self._credentials else "http"
        url = f"{scheme}://127.0.0.1:{self.port}"
        return connect(Settings(qdrant_url=url, index_alias=alias, **self._reached_by))

    def client(self) -> AsyncQdrantClient:
        """Qdrant's own client, as it comes."""
        return AsyncQdrantClient(
            host="127.0.0.1", grpc_port=self.port, prefer_grpc=True, check_compatibility=False, timeout=60
        )
