"""TLS of a connection that we open: whom it trusts, and what it shows of itself, by files that may be exchanged.

Whoever holds a context of here uses what the files say now: they are looked at whenever a connection is opened, so a
rotated certificate needs no restart.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nearkin.core.errors import Misconfigured
from nearkin.ops.followed import Followed


@dataclass(frozen=True, slots=True)
class Tls:
    """How a connection is protected. All files are PEM.

    Attributes:
        ca: certificates of the authorities that are trusted; those of the system where it is None.
        cert: the certificate that is shown, with those between it and its authority; none where it is None.
        key: the certificate's private key; it may stand in the certificate's file.
    """

    ca: Path | str | None = None
    cert: Path | str | None = None
    key: Path | str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.cert is None:
            raise Misconfigured(
                "there is a private key and no certificate", field="tls", remedy="give both, or none", reason="tls"
            )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is made of."""
        return tuple(Path(file) for file in (self.ca, self.cert, self.key) if file is not None)

    def context(self) -> ssl.SSLContext:
        """A client's context that follows its files.

        Raises:
            Misconfigured: a file is not there, or does not hold what it must; names it.
        """
        return _Following(self)

    def load(self) -> ssl.SSLContext:
        """A client's context as the files are now; raises as `context`."""
        try:
            made = ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as error:
            raise _unusable(self.ca, "certificates of authorities", error) from error
        if self.cert is not None:
            require_pair(made, self.cert, self.key)
        return made


def require_pair(context: ssl.SSLContext, cert: Path | str, key: Path | str | None) -> None:
    """Have a context show a certificate.

    Raises:
        Misconfigured: a file is not there, or they are no pair; names the certificate.
    """
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise _unusable(cert, "a certificate, and its private key there or in a file of its own", error) from error


class _Following(ssl.SSLContext):
    """A client's context that opens each connection by a context of what the files hold at that moment."""

    _followed: Followed[ssl.SSLContext]

    def __new__(cls, tls: Tls) -> Self:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self._followed = Followed("files of TLS", tls.files, tls.load)
        return self

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        return self._current().wrap_socket(*arguments, **options)

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        return self._current().wrap_bio(*arguments, **options)

    def _current(self) -> ssl.SSLContext:
        self._followed.look()
        return self._followed.held


def _no_password() -> str:
    # OpenSSL would ask whoever sits at the terminal.
    raise ValueError("the private key is encrypted")


def _unusable(file: Path | str | None, holds: str, error: Exception) -> Misconfigured:
    problem = error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None) or str(error)
    return Misconfigured(
        f"it cannot be used ({problem})",
        field=str(file),
        remedy=f"it must be a PEM file with {holds}, unencrypted",
        reason="tls",
    )
