"""The owner of the embedded index as a process of its own, on a port of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as wire

from nearkin.embedded.programs import free_port
from nearkin.ops.settings import Settings
from nearkin.stores.qdrant import QdrantIndex, connect

START_S = 60.0


class OwnerProcess:
    """Started on entry and gone on exit.

    Args:
        data: its folder; may outlive it.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
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
            self.process = subprocess.Popen(self.command(), stderr=log, stdout=log)
        deadline = time.monotonic() + START_S
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            while True:
                try:
                    wire.QdrantStub(channel).HealthCheck(wire.HealthCheckRequest(), timeout=1.0)
                except grpc.RpcError:
                    assert self.process.poll() is None, self.log.read_text()
                    assert time.monotonic() < deadline, self.log.read_text()
                    time.sleep(0.05)
                else:
                    return

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
        return connect(Settings(qdrant_url=f"http://127.0.0.1:{self.port}", index_alias=alias))

    def client(self) -> AsyncQdrantClient:
        """Qdrant's own client, as it comes."""
        return AsyncQdrantClient(
            host="127.0.0.1", grpc_port=self.port, prefer_grpc=True, check_compatibility=False, timeout=60
        )
