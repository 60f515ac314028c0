"""TLS of gRPC, on both sides, by files that may be exchanged while a process runs.

gRPC takes contents, not files. A server asks for them whenever somebody connects. A channel keeps those that it was
made with, so whoever holds one makes another when they change.
"""

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from nearkin.core.errors import Misconfigured
from nearkin.ops.tls import Seen, Tls, require_pair, seen

log = logging.getLogger(__name__)

#: How often a channel's files are looked at, at most, and how long the calls of a former channel may take, in seconds.
LOOK_EVERY_S, GRACE_S = 1.0, 60.0


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """What a client connects with, as the files are now.

    Raises:
        Misconfigured: a file is not there, or does not hold what it must; names it.
    """
    tls.load()  # says what is wrong, where gRPC says it at the first call, and in other words
    return grpc.ssl_channel_credentials(
        root_certificates=Path(tls.ca).read_bytes() if tls.ca else None,
        private_key=Path(tls.key or tls.cert).read_bytes() if tls.cert else None,
        certificate_chain=Path(tls.cert).read_bytes() if tls.cert else None,
    )


class FollowingChannel:
    """What a stub takes for a channel: its calls go over one that was made with the files of its TLS as they are.

    A channel that was made with what the files held before ends some time after its last call began.

    Args:
        make: `grpc.secure_channel`, or `grpc.aio.secure_channel`.
        target: what to connect to.
        tls: how.
        options: of the channel.

    Raises:
        Misconfigured: a file is not there, or does not hold what it must; names it.
    """

    def __init__(self, make: Callable[..., Any], target: str, tls: Tls, options: Sequence[tuple[str, Any]]) -> None:
        self._make, self._target, self._tls, self._options = make, target, tls, options
        self._lock = threading.Lock()
        self._seen, self._looked_at = seen(tls.files), time.monotonic()
        self._channel = self._open()
        self._calls: dict[str, Any] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def unary_unary(self, path: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """A method, as stubs ask for it."""

        def call(*request: Any, **how: Any) -> Any:
            with self._lock:
                self._follow()
                method = self._calls.get(path)
                if method is None:
                    method = self._calls[path] = self._channel.unary_unary(path, *arguments, **options)
            return method(*request, **how)

        return call

    # A stub asks for all of a service's methods, whether or not anybody calls them.
    unary_stream = stream_unary = stream_stream = unary_unary

    def close(self, *grace: float | None) -> Any:
        """Close it; awaitable where the channel's own is."""
        return self._channel.close(*grace)

    def _follow(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        found = seen(self._tls.files)
        if found == self._seen:
            return
        self._seen = found
        try:
            opened = self._open()
        except Misconfigured as error:
            log.error("files of TLS have changed and cannot be used", extra={"fields": {"problem": str(error)}})
            return
        former, self._channel = self._channel, opened
        self._calls.clear()
        names = [str(file) for file in self._tls.files]
        log.info("files of TLS have changed and are used", extra={"fields": {"files": names}})
        if isinstance(former, grpc.aio.Channel):
            closing = asyncio.get_running_loop().create_task(former.close(GRACE_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        else:
            later = threading.Timer(GRACE_S, former.close)
            later.daemon = True
            later.start()

    def _open(self) -> Any:
        return self._make(self._target, channel_credentials(self._tls), options=self._options)


class ServerCertificate:
    """What a server shows, and whom it lets in.

    Args:
        cert: PEM file of its certificate, with those between it and its authority.
        key: PEM file of its private key; the same file where it is None.
        client_ca: PEM file of the authorities that callers must be certified by; callers need no certificate where it
            is None.

    Raises:
        Misconfigured: a file is not there, or does not hold what it must; names it.
    """

    def __init__(self, cert: Path, key: Path | None = None, client_ca: Path | None = None) -> None:
        self._cert, self._key, self._client_ca = cert, key or cert, client_ca
        self._files = tuple(file for file in (cert, key, client_ca) if file is not None)
        self._seen: Seen = seen(self._files)
        self._first = self._load()

    def credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`."""
        return grpc.dynamic_ssl_server_credentials(
            self._first, self._changed, require_client_authentication=self._client_ca is not None
        )

    def _changed(self) -> Any:
        """The files' contents where they are others than before, else None; gRPC calls it at every connection."""
        found = seen(self._files)
        if found == self._seen:
            return None
        self._seen = found
        try:
            loaded = self._load()
        except Misconfigured as error:
            log.error("files of TLS have changed and cannot be used", extra={"fields": {"problem": str(error)}})
            return None
        log.info("files of TLS have changed and are used", extra={"fields": {"files": [str(f) for f in self._files]}})
        return loaded

    def _load(self) -> Any:
        require_pair(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), self._cert, self._key)
        authorities = None
        if self._client_ca is not None:
            Tls(ca=self._client_ca).load()
            authorities = self._client_ca.read_bytes()
        return grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._cert.read_bytes())], root_certificates=authorities
        )
