"""Look-ups by TLS and by mutual TLS: real servers and clients, with certificates that are right, wrong, rotated."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import pytest

from certificates import Authority, Pair
from live_lookups import LiveLookups, live_lookups
from nearkin.client.lookup import BlockingLookupClient, LookupClient
from nearkin.core import item
from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.core.item import Content
from nearkin.ops import grpc_tls
from nearkin.ops.grpc_tls import ServerCertificate
from nearkin.ops.tls import Tls

MUGS = [item.upserted(f"mug-{n}", Content(title=f"red mug number {n}"), 1) for n in range(3)]


@pytest.fixture(autouse=True)
def looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_tls, "LOOK_EVERY_S", 0.0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def protected(pair: Pair, callers: Path | None = None) -> AsyncIterator[LiveLookups]:
    async with live_lookups(certificate=ServerCertificate(pair.cert, pair.key, callers)) as live:
        await live.publish(*MUGS)
        yield live


async def finds(live: LiveLookups, tls: Tls | None) -> bool:
    """Whether a new client gets an answer, or does not come to speak to the service."""
    async with LookupClient(live.address, tls=tls) as lookups:
        try:
            return bool((await lookups.similar(item_id="mug-1", timeout_s=5)).neighbours)
        except Unavailable:
            return False


async def test_both_clients_look_up_by_tls(authority: Authority) -> None:
    async with protected(authority.issue()) as live:
        assert await finds(live, Tls(authority.file))
        with BlockingLookupClient(live.address, tls=Tls(authority.file)) as lookups:
            assert (await asyncio.to_thread(lookups.similar, item_id="mug-1")).neighbours


async def test_a_server_with_a_certificate_does_not_speak_in_the_open(authority: Authority) -> None:
    async with protected(authority.issue()) as live:
        assert not await finds(live, None)


@pytest.mark.parametrize("wrong", ["another authority", "expired", "another host"])
async def test_a_client_does_not_speak_to_a_server_that_cannot_prove_itself(
    authority: Authority, tmp_path: Path, wrong: str
) -> None:
    made: dict[str, Callable[[], Pair]] = {
        "another authority": lambda: Authority(tmp_path, "other").issue(),
        "expired": lambda: authority.issue(expired=True),
        "another host": lambda: authority.issue(hosts=("elsewhere.example",)),
    }
    async with protected(made[wrong]()) as live:
        assert not await finds(live, Tls(authority.file))


async def test_by_mutual_tls_only_callers_of_the_authority_are_answered(authority: Authority, tmp_path: Path) -> None:
    stranger, late = Authority(tmp_path, "stranger").issue(), authority.issue(expired=True)
    async with protected(authority.issue(), callers=authority.file) as live:
        assert await finds(live, authority.client())
        assert not await finds(live, Tls(authority.file))
        assert not await finds(live, Tls(authority.file, stranger.cert, stranger.key))
        assert not await finds(live, Tls(authority.file, late.cert, late.key))


async def test_a_server_shows_a_rotated_certificate_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    shown, expired = authority.issue(), authority.issue(expired=True)
    async with protected(shown) as live:
        assert await finds(live, Tls(authority.file))

        shown.become(expired)
        assert not await finds(live, Tls(authority.file))

        shown.become(authority.issue())
        assert await finds(live, Tls(authority.file))

        shown.cert.write_text("half")
        assert await finds(live, Tls(authority.file))


async def test_whom_a_server_lets_in_is_rotated_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    former, coming = Authority(tmp_path, "former"), Authority(tmp_path, "coming")
    callers = tmp_path / "callers.pem"
    callers.write_bytes(former.file.read_bytes())
    pairs = former.issue(), coming.issue()
    old, new = (Tls(authority.file, pair.cert, pair.key) for pair in pairs)
    async with protected(authority.issue(), callers=callers) as live:
        assert [await finds(live, old), await finds(live, new)] == [True, False]

        callers.write_bytes(coming.file.read_bytes())

        assert [await finds(live, old), await finds(live, new)] == [False, True]


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_client_goes_on_by_rotated_files_without_being_made_again(
    authority: Authority, tmp_path: Path, blocking: bool
) -> None:
    coming = Authority(tmp_path, "coming")
    mine, trusted = authority.issue(), tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    tls = Tls(trusted, mine.cert, mine.key)
    async with (
        protected(authority.issue(), callers=authority.file) as live,
        protected(coming.issue(), callers=coming.file) as another,
        Turned(live.address) as door,
        LookupClient(door.address, tls=tls) as asking,
    ):
        with BlockingLookupClient(door.address, tls=tls) as waiting:

            async def look_up() -> bool:
                if blocking:
                    found = await asyncio.to_thread(waiting.similar, item_id="mug-1", timeout_s=20)
                else:
                    found = await asking.similar(item_id="mug-1", timeout_s=20)
                return bool(found.neighbours)

            assert await look_up()
            trusted.write_bytes(coming.file.read_bytes())
            mine.become(coming.issue())
            door.turn_to(another.address)

            assert await look_up()


async def test_a_server_does_not_start_with_files_that_are_no_pair(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.issue(), authority.issue()

    with pytest.raises(Misconfigured, match=one.cert.name):
        ServerCertificate(one.cert, other.key)
    with pytest.raises(Misconfigured, match=r"away\.pem"):
        ServerCertificate(one.cert, one.key, tmp_path / "away.pem")


async def test_a_client_whose_files_are_away_says_which() -> None:
    async with LookupClient("127.0.0.1:1", tls=Tls("away.pem")) as lookups:
        with pytest.raises(Misconfigured, match=r"away\.pem"):
            await lookups.similar(item_id="mug-1")
    with pytest.raises(Misconfigured, match=r"away\.pem"):
        BlockingLookupClient("127.0.0.1:1", tls=Tls("away.pem"))


class Turned:
    """An address that leads to one server, and later to another: those who came to the first are sent away."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.turn_to("")
        self._server.close()
        await self._server.wait_closed()

    def turn_to(self, to: str) -> None:
        self._to = to
        for writer in self._open:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._to.partition(":")
        there, back = await asyncio.open_connection(host, int(port))
        ends = {writer, back}
        self._open |= ends
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer), return_exceptions=True)
        finally:
            self._open -= ends
            for end in ends:
                end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()
    writer.close()
