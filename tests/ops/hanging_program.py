"""A process with health whose event loop hangs while a file is there: `hanging_program.py FILE`."""

import asyncio
import sys
import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from nearkin.ops import logs
from nearkin.ops.health import Health, HealthServer, beating
from nearkin.ops.metrics import Metrics
from nearkin.ops.process import exit_with, stop_on_signals
from nearkin.ops.settings import load_settings


def hang_while(hang: Path) -> None:
    while hang.exists():
        time.sleep(0.05)


async def serve(hang: Path) -> None:
    stopping = stop_on_signals()
    while not stopping.is_set():
        hang_while(hang)
        await asyncio.sleep(0.05)


def main() -> int:
    settings = load_settings()
    logs.configure(settings, "test")
    metrics = Metrics(CollectorRegistry(), "test")
    health = Health(metrics, stall_timeout_s=settings.stall_timeout_s)
    with HealthServer(settings.metrics_listen, health, metrics):
        asyncio.run(beating(health, serve(Path(sys.argv[1]))))
    return 0


if __name__ == "__main__":
    exit_with(main())
