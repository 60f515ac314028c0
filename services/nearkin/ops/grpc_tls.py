"""TLS of gRPC, on both sides, by files that may be exchanged while a process runs.

gRPC takes contents, not files. A server asks for them whenever somebody connects. A channel keeps those that it was
made with, so whoever holds one makes another when they change.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from nearkin.ops.followed import Followed
from nearkin.ops.tls import Tls, require_pair

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
        self._followed = Followed("files of TLS", tls.files, self._open, LOOK_EVERY_S)
        self._calls: dict[str, Any] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def unary_unary(self, path: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """A method, as stubs ask for it."""

        def call(*request: Any, **how: Any) -> Any:
            with self._lock:
                self._follow()
                method = self._calls.get(path)
                if method is None:
                    method = self._calls[path] = self._followed.held.unary_unary(path, *arguments, **options)
            return method(*request, **how)

        return call

    # A stub asks for all of a service's methods, whether or not anybody calls them.
    unary_stream = stream_unary = stream_stream = unary_unary

    def close(self, *grace: float | None) -> Any:
        """Close it; awaitable where the channel's own is."""
        return self._followed.held.close(*grace)

    def _follow(self) -> None:
        former = self._followed.held
        if not self._followed.look():
            return
        self._calls.clear()
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
        files = [file for file in (cert, key, client_ca) if file is not None]
        self._followed = Followed("files of TLS", files, self._load)

    def credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`."""
        return grpc.dynamic_ssl_server_credentials(
            self._followed.held, self._changed, require_client_authentication=self._client_ca is not None
        )

    def _changed(self) -> Any:
        """The files' contents where they are others than before, else None; gRPC calls it at every connection."""
        return self._followed.held if self._followed.look() else None

    def _load(self) -> Any:
        require_pair(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), self._cert, self._key)
        authorities = None
        if self._client_ca is not None:
            Tls(ca=self._client_ca).load()
            authorities = self._client_ca.read_bytes()
        return grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._cert.read_bytes())], root_certificates=authorities
        )
