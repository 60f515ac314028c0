"""A process of ours under test: started with NEARKIN_* alone, asked over its own /ready and /metrics."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from nearkin.embedded.programs import free_port

#: Longer than anything takes that does not hang.
CEILING_S = 60.0


def eventually(holds: Callable[[], object], what: str, ceiling_s: float = CEILING_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + ceiling_s
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


class ServiceProcess:
    """One process, started on entry and gone on exit.

    Args:
        arguments: what Python runs.
        log: where its output goes.
        environment: what it is configured by.
    """

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self.arguments, self.log = arguments, log
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("NEARKIN_")},
            "NEARKIN_METRICS_LISTEN": self.address,
            "NEARKIN_LOG_FORMAT": "json",
            "NEARKIN_RETRY_INITIAL_MS": "20",
            "NEARKIN_RETRY_MAX_MS": "200",
            **environment,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments], env=self.environment, stdout=log, stderr=log
            )

    def until_ready(self) -> Self:
        """Wait until it serves."""

        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.ready()[0]

        eventually(ready, f"ready; it said: {self.log.read_text()[-2000:]}")
        return self

    def ready(self) -> tuple[bool, dict[str, str]]:
        """What /ready says: whether, and what waits for what."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/ready", timeout=5):
                return True, {}
        except urllib.error.HTTPError as error:
            with error:
                return False, json.load(error)["waiting"]
        except OSError:
            return False, {}

    def metric(self, sample: str) -> float:
        """The value of a sample as /metrics writes it; 0 where it is not there."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(number)
        return self.exit()

    def exit(self) -> int:
        """Wait until it ends by itself; its exit status."""
        return self.process.wait(timeout=CEILING_S)
