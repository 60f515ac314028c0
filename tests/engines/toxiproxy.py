"""Toxiproxy: links between two parts that a test cuts, slows down and mends, while both ends stay as they are.

The program is built by Go from its module, at the version below, once for a machine: into `~/.cache/nearkin`, or below
XDG_CACHE_HOME. Links are made and changed over its HTTP interface.
"""

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nearkin.embedded.programs import LOOPBACK, accepts, free_port, start, wait_until

VERSION = "v2.12.0"
_PROGRAM = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"

_BUILD_TIMEOUT_S = 300

#: What a change of a link may take.
_ANSWERS_S = 10


class NoToxiproxy(Exception):
    """This machine cannot run it; says what is missing."""


def toxiproxy_binary() -> Path:
    """The program, built first where it is not there.

    Raises:
        NoToxiproxy: no Go, or Go could not build it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nearkin"
    binary = cache / f"toxiproxy-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "toxiproxy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.is_file():
            if shutil.which("go") is None:
                raise NoToxiproxy("there is no go on the PATH: install Go 1.23 or newer")
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                _build(Path(folder))
                (Path(folder) / "server").rename(binary)
    return binary


def _build(folder: Path) -> None:
    try:
        done = subprocess.run(
            ["go", "install", _PROGRAM],
            env=os.environ | {"GOBIN": str(folder)},
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoToxiproxy(f"go did not build it within {_BUILD_TIMEOUT_S} s") from None
    if done.returncode:
        raise NoToxiproxy(f"go could not build it: {done.stderr.strip()[:500]}")


class Link:
    """One way between a client and a server.

    Args:
        network: the program that carries it.
        name: of the link, with nothing that a URL would have to escape.
        to: the loopback port of the server.

    Attributes:
        address: the host:port where the client comes to, kept while the link is cut.
    """

    def __init__(self, network: "Network", name: str, to: int) -> None:
        self._network, self._path = network, f"/proxies/{name}"
        made = network.ask("POST", "/proxies", name=name, listen=f"{LOOPBACK}:0", upstream=f"{LOOPBACK}:{to}")
        self.name, self.address = name, str(made["listen"])

    def refuse(self) -> None:
        """Break every connection and refuse new ones."""
        self._network.ask("PATCH", self._path, enabled=False)

    def swallow(self) -> None:
        """Let nothing arrive any more, in either direction, and tell nobody: connections stay, and new ones come."""
        for stream in ("upstream", "downstream"):
            self._add("timeout", stream, timeout=0)

    def delay(self, ms: int, jitter_ms: int = 0) -> None:
        """Let every answer arrive later."""
        self._add("latency", "downstream", latency=ms, jitter=jitter_ms)

    def mend(self) -> None:
        """Let everything through again; connections whose bytes were swallowed are broken."""
        for toxic in self._network.ask("GET", self._path)["toxics"]:
            self._network.ask("DELETE", f"{self._path}/toxics/{toxic['name']}")
        self._network.ask("PATCH", self._path, enabled=True)

    def _add(self, kind: str, stream: str, **attributes: int) -> None:
        self._network.ask("POST", f"{self._path}/toxics", type=kind, stream=stream, attributes=attributes)


class Network:
    """Toxiproxy as a context manager.

    Args:
        binary: the program.
        log: where it writes; each connection is a line of it.
    """

    def __init__(self, binary: Path, log: Path) -> None:
        self._binary, self._log, self._port = binary, log, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def link(self, name: str, to: int) -> Link:
        """A new way to a loopback port, over which everything passes at first."""
        return Link(self, name, to)

    def ask(self, method: str, path: str, **fields: object) -> Any:
        """Have its HTTP interface do something; what it answers."""
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=_ANSWERS_S)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(fields) if fields else None)
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status < http.HTTPStatus.BAD_REQUEST, f"{method} {path}: {answer.status} {said.decode()}"
            return json.loads(said) if said else None

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = start([str(self._binary), "-host", LOOPBACK, "-port", str(self._port)], log)
        wait_until(lambda: accepts(f"{LOOPBACK}:{self._port}"), "toxiproxy", self._process, _ANSWERS_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
