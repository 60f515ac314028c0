"""A host of media on loopback that answers each path as it is told, down to the single byte."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

#: What a path answers: gets the connection after the request's head was read.
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def whole(content: bytes, *, status: str = "200 OK", headers: str = "") -> Answer:
    """The content, with its length, and the connection kept."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{headers}\r\n".encode() + content)
        await writer.drain()

    return answer


def redirect(location: str, status: str = "302 Found") -> Answer:
    """Elsewhere."""
    return whole(b"", status=status, headers=f"Location: {location}\r\n")


def raw(*parts: bytes, pause_s: float = 0.0) -> Answer:
    """Just these bytes, with pauses between them; then the connection is closed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        raise ConnectionAbortedError

    return answer


def dripping(head: bytes, byte: bytes, pause_s: float) -> Answer:
    """A head, and then a byte now and then for ever."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


def endless(head: bytes) -> Answer:
    """A head, and then bytes as fast as they are taken, for ever."""
    return dripping(head, b"\0" * 65_536, 0)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Nothing at all."""
    await reader.read()


@dataclass
class MediaHost:
    """The host; `requests` are the heads of what it was asked, in order.

    Args:
        answers: by path, without the query.
        tls: how it is protected; in the open where it is None.
        address: where it listens.
        port: 0 for any.
    """

    answers: dict[str, Answer]
    tls: ssl.SSLContext | None = None
    address: str = "127.0.0.1"
    port: int = 0
    requests: list[str] = field(default_factory=list)
    connections: int = 0

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, self.address, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def paths(self) -> list[str]:
        """The targets that were asked for."""
        return [head.split(" ")[1] for head in self.requests]

    @property
    def source(self) -> str:
        """It as the setting of sources names it, under the name that all of them have."""
        return f"http{'s' if self.tls else ''}://media.test:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        # The task is ended by cancelling it; asyncio's streams would log that as an error.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.requests.append(head)
                await self.answers[head.split(" ")[1].partition("?")[0]](reader, writer)
        writer.transport.abort()
