"""Certificates for tests, issued by an authority of a test's own, as PEM files that can be exchanged."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from nearkin.ops.tls import Tls


@dataclass(frozen=True)
class Pair:
    """Files of a certificate and of its private key."""

    cert: Path
    key: Path

    def become(self, other: "Pair") -> None:
        """Hold what another pair holds, each file at once."""
        for mine, others in ((self.key, other.key), (self.cert, other.cert)):
            coming = mine.with_suffix(".coming")
            coming.write_bytes(others.read_bytes())
            coming.replace(mine)


class Authority:
    """An authority that certifies this machine's loopback addresses.

    Args:
        folder: of its files.
        name: what they are called by; another authority needs another one.

    Attributes:
        file: its own certificate.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._name, self._issued = folder, name, 0
        folder.mkdir(parents=True, exist_ok=True)
        self._ca = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(
        self, *, expired: bool = False, hosts: tuple[str, ...] = ("127.0.0.1", "::1", "localhost"), days: int = 1
    ) -> Pair:
        """A new certificate with its key, valid for so many days more."""
        until = dt.datetime.now(dt.UTC) + dt.timedelta(days=-1 if expired else days)
        leaf = self._ca.issue_cert(*hosts, not_before=until - dt.timedelta(days=90), not_after=until)
        self._issued += 1
        cert, key = (self._folder / f"{self._name}-{self._issued}.{kind}" for kind in ("crt", "key"))
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        # PKCS 8 is the one form that Java reads too.
        private = load_pem_private_key(leaf.private_key_pem.bytes(), None)
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Pair(cert, key)

    def client(self) -> Tls:
        """A caller that trusts it, and shows a certificate of it."""
        pair = self.issue()
        return Tls(self.file, pair.cert, pair.key)
