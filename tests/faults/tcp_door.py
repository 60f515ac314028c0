"""A TCP door before a server, which a test shuts and opens: to its clients the server is away, and then back."""

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

from nearkin.embedded.programs import LOOPBACK, free_port


class Door:
    """Lets connections through to a port while it is open; as a context manager, open from the beginning.

    Args:
        to: the loopback port of the server.

    Attributes:
        address: its host:port, kept while it is shut.
    """

    def __init__(self, to: int) -> None:
        self._to, self._port = to, free_port()
        self.address = f"{LOOPBACK}:{self._port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="door", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._visits: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Let connections through."""
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)

    def shut(self) -> None:
        """Cut every connection and refuse new ones."""
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._visit, LOOPBACK, self._port)

    async def _shut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        visits = list(self._visits)
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.current_task()
        assert visit is not None
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)
        mine = {writer}
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._to)
            mine.add(far_writer)
            self._writers.add(far_writer)
            await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers -= mine
            for each in mine:
                each.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65_536):
        writer.write(chunk)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
