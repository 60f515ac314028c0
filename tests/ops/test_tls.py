import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certificates import Authority, Pair
from nearkin.core.errors import Misconfigured
from nearkin.ops.tls import Tls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def serve(pair: Pair, callers: Path | None = None) -> AsyncIterator[int]:
    """A server that says who called, on a free port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=callers)
    context.load_cert_chain(pair.cert, pair.key)
    if callers is not None:
        context.verify_mode = ssl.CERT_REQUIRED

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert") or {}
        writer.write(f"{shown.get('serialNumber', 'nobody')}\n".encode())
        with contextlib.suppress(OSError):
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def call(port: int, context: ssl.SSLContext) -> str:
    """Who the server says called."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            return (await reader.readline()).decode().strip()
        finally:
            writer.close()


async def test_a_server_of_the_authority_is_trusted_and_sees_the_certificate(authority: Authority) -> None:
    mine = authority.issue()

    async with serve(authority.issue(), callers=authority.file) as port:
        shown = await call(port, Tls(authority.file, mine.cert, mine.key).context())

    assert shown not in ("", "nobody")


@pytest.mark.parametrize("wrong", ["another authority", "expired", "another host", "the system's authorities"])
async def test_a_server_that_cannot_prove_itself_is_not_spoken_to(
    authority: Authority, tmp_path: Path, wrong: str
) -> None:
    pair = {
        "another authority": lambda: Authority(tmp_path, "other").issue(),
        "expired": lambda: authority.issue(expired=True),
        "another host": lambda: authority.issue(hosts=("elsewhere.example",)),
    }.get(wrong, authority.issue)()
    trusted = None if wrong == "the system's authorities" else authority.file

    async with serve(pair) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await call(port, Tls(trusted).context())


async def test_a_rotated_authority_and_certificate_count_from_the_next_connection_on(
    authority: Authority, tmp_path: Path
) -> None:
    next_authority = Authority(tmp_path, "next")
    mine, coming = authority.issue(), next_authority.issue()
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    context = Tls(trusted, mine.cert, mine.key).context()
    async with serve(authority.issue(), callers=authority.file) as port:
        before = await call(port, context)

    trusted.write_bytes(next_authority.file.read_bytes())
    mine.become(coming)

    async with serve(next_authority.issue(), callers=next_authority.file) as port:
        assert await call(port, context) not in ("", before)


async def test_a_file_that_is_half_written_is_told_and_what_was_read_stays(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    mine = authority.issue()
    context = Tls(authority.file, mine.cert, mine.key).context()

    mine.cert.write_text("-----BEGIN CERTIFICATE-----\nhalf")

    async with serve(authority.issue(), callers=authority.file) as port:
        with caplog.at_level(logging.ERROR):
            assert await call(port, context) != ""
    assert "cannot be used" in caplog.text


def test_files_that_cannot_be_used_are_named_and_not_quoted(authority: Authority, tmp_path: Path) -> None:
    mine, other = authority.issue(), authority.issue()
    secret = tmp_path / "secret.pem"
    secret.write_text("s3cret, and no PEM")

    for tls, named in (
        (Tls(tmp_path / "away.pem"), "away.pem"),
        (Tls(secret), "secret.pem"),
        (Tls(authority.file, secret, mine.key), "secret.pem"),
        (Tls(authority.file, mine.cert, other.key), mine.cert.name),
        (Tls(authority.file, mine.cert, secret), mine.cert.name),
    ):
        with pytest.raises(Misconfigured) as refusal:
            tls.context()
        assert named in refusal.value.field
        assert "s3cret" not in str(refusal.value)


def test_an_encrypted_key_is_refused_rather_than_asked_for_at_the_terminal(
    authority: Authority, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    mine = authority.issue()
    key = load_pem_private_key(mine.key.read_bytes(), None)
    mine.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))

    with pytest.raises(Misconfigured, match="unencrypted"):
        Tls(authority.file, mine.cert, mine.key).context()


def test_a_key_without_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no certificate"):
        Tls(key=tmp_path / "key.pem")
