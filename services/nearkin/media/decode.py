"""Decodes pictures in processes of their own, so that one which crashes or hangs a decoder costs that picture alone.

Each process (`decode_process.py`) takes one picture at a time. One that does not answer in time is ended, and another
one is started for the next picture; one that dies is replaced, and only a picture that the new one dies of too is
called the reason. Each is renewed after so many pictures, so whatever leaks there goes with it.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nearkin.core.errors import Unavailable, UnusableMedia
from nearkin.media.decode_messages import LENGTHS, LONGEST_ASPECT, MOST_HEADER_BYTES, REASONS
from nearkin.media.kinds import Media
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import Settings

#: How long a process may take until it is ready, on a busy machine.
START_S = 30.0


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one picture may cost.

    Attributes:
        most_pixels: of a picture, by its header.
        timeout_s: of time, and of processor time.
        memory_bytes: of the address space of a process.
        renew_after: pictures that one process decodes.
    """

    most_pixels: int = 50_000_000
    timeout_s: float = 10.0
    memory_bytes: int = 2**30
    renew_after: int = 1000


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that an encoder can use.

    Attributes:
        rgb: rows, columns and three colours of sRGB, uint8.
        width: of the whole picture as it is stored, before it was made small and turned upright.
        height: the same.
    """

    rgb: NDArray[np.uint8]
    width: int
    height: int


class _Died(Exception):
    """The process ended, or answered what it never answers."""


class _Process:
    """One decoder's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self.decoded = process, 0
        if process.stdin is None or process.stdout is None:
            raise _Died
        self._pictures, self._pixels = process.stdin, process.stdout

    @classmethod
    async def start(cls, memory_bytes: int) -> Self:
        """Start one and wait until it is ready."""
        started = cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # modules come from where ours do, not from the folder that we were started in
                "-m",
                "nearkin.media.decode_process",
                str(os.getpid()),
                str(memory_bytes),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                # Nothing of our own environment, which may hold credentials, but the way to the code.
                env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "LC_ALL": "C.UTF-8"},
            )
        )
        try:
            async with asyncio.timeout(START_S):
                await started.answer(0)
        except BaseException:
            await started.end()
            raise
        return started

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, header: dict[str, object], body: bytes) -> None:
        head = json.dumps(header).encode()
        try:
            self._pictures.write(LENGTHS.pack(len(head), len(body)))
            self._pictures.write(head)
            self._pictures.write(body)
            await self._pictures.drain()
        except (ConnectionError, RuntimeError) as error:
            raise _Died from error

    async def answer(self, most_bytes: int) -> tuple[dict[str, Any], bytes]:
        """What it answers; none of it is believed to be small, or whole."""
        try:
            head_bytes, body_bytes = LENGTHS.unpack(await self._pixels.readexactly(LENGTHS.size))
            if head_bytes > MOST_HEADER_BYTES or body_bytes > most_bytes:
                raise _Died
            header = json.loads(await self._pixels.readexactly(head_bytes))
            body = await self._pixels.readexactly(body_bytes)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
            raise _Died from error
        if not isinstance(header, dict):
            raise _Died
        return header, body

    async def end(self) -> int:
        """End it, and tell how it ended: negative for a signal."""
        if self.alive:
            with suppress(ProcessLookupError):
                self._process.kill()
        self._pictures.close()
        with suppress(ConnectionError, BrokenPipeError):
            await self._pictures.wait_closed()
        return await self._process.wait()


class Decoder:
    """Decodes pictures; to be closed.

    Args:
        metrics: where pictures are counted.
        limits: what one may cost.
        processes: pictures that are decoded at a time.
    """

    def __init__(self, metrics: Metrics, *, limits: DecodeLimits | None = None, processes: int = 1) -> None:
        self._metrics, self._limits, self._count = metrics, limits or DecodeLimits(), processes
        self._idle: asyncio.LifoQueue[_Process | None] = asyncio.LifoQueue()
        for _ in range(processes):
            self._idle.put_nowait(None)
        self._ending: set[asyncio.Task[int]] = set()
        self._closed = False

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics) -> Self:
        """The decoder that the settings describe."""
        limits = DecodeLimits(
            most_pixels=settings.media_max_pixels,
            timeout_s=settings.media_decode_timeout_s,
            memory_bytes=settings.media_decode_memory_bytes,
        )
        return cls(metrics, limits=limits, processes=settings.media_decode_processes)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start all processes, so that the first picture need not wait for one.

        Raises:
            Unavailable: one does not start.
        """
        for slot in [self._idle.get_nowait() for _ in range(self._idle.qsize())]:
            process = slot
            try:
                process = slot or await self._start()
            finally:
                self._idle.put_nowait(process)

    async def close(self) -> None:
        """End all processes, once each has done what it is at; whoever waits for one is refused."""
        self._closed = True
        slots = [await self._idle.get() for _ in range(self._count)]
        for process in slots:
            if process is not None:
                self._end(process)
            self._idle.put_nowait(None)
        while self._ending:
            await asyncio.wait(set(self._ending))

    async def decode(self, media: Media, *, edge: int, field: str = "") -> Picture:
        """Decode a picture.

        Args:
            media: the picture.
            edge: what its shorter edge is brought to, where it is longer; the longer one is at most four times that.
            field: where its reference stands, for errors.

        Raises:
            UnusableMedia: it cannot be decoded, or would cost too much.
            Unavailable: no process can be started.
        """
        if not media.kind.is_picture:
            raise UnusableMedia("it is a video", field=field, remedy="send it among the videos", reason="not_a_picture")
        began = time.monotonic()
        try:
            picture = await self._decode(media, edge)
        except UnusableMedia as error:
            self._metrics.media_decodes.labels(kind=media.kind.value, outcome=error.reason).inc()
            raise UnusableMedia(error.problem, remedy=error.remedy, field=field, reason=error.reason) from error
        self._metrics.media_decodes.labels(kind=media.kind.value, outcome="decoded").inc()
        self._metrics.media_decode_seconds.observe(time.monotonic() - began)
        return picture

    async def _decode(self, media: Media, edge: int) -> Picture:
        kind = media.kind.value
        try:
            try:
                return await self._turn(media, edge, fresh=False)
            except _Died:
                # It may have died of something else, as where the machine ran out of memory: a fresh one tells.
                return await self._turn(media, edge, fresh=True)
        except _Died:
            raise UnusableMedia(
                f"as {kind} it makes its decoder crash", remedy="send another file", reason="crash"
            ) from None
        except TimeoutError:
            raise UnusableMedia(
                f"as {kind} it takes longer than {self._limits.timeout_s:g} s to decode",
                remedy="send another file, or raise NEARKIN_MEDIA_DECODE_TIMEOUT_S",
                reason="hang",
            ) from None

    async def _turn(self, media: Media, edge: int, *, fresh: bool) -> Picture:
        process, again = await self._idle.get(), None
        try:
            if self._closed:
                raise Unavailable("picture decoder", "it is closed")
            if process is not None and (fresh or not process.alive):
                self._end(process)
                process = None
            process = process or await self._start()
            picture = await self._ask(process, media, edge)
        except UnusableMedia:
            again = process
            raise
        else:
            again = process
            return picture
        finally:
            # Whatever interrupts a process leaves an answer in its pipe that would be taken for that of the next one.
            if process is not None and (again is None or process.decoded >= self._limits.renew_after):
                self._end(process)
                again = None
            self._idle.put_nowait(again)

    async def _ask(self, process: _Process, media: Media, edge: int) -> Picture:
        asked: dict[str, object] = {
            "kind": media.kind.value,
            "edge": edge,
            "most_pixels": self._limits.most_pixels,
            "seconds": self._limits.timeout_s,
        }
        process.decoded += 1
        async with asyncio.timeout(self._limits.timeout_s):
            await process.ask(asked, media.content)
            answer, rgb = await process.answer(edge * edge * LONGEST_ASPECT * 3)
        return _picture(answer, rgb)

    async def _start(self) -> _Process:
        try:
            return await _Process.start(self._limits.memory_bytes)
        except TimeoutError:
            raise Unavailable("picture decoder", f"its process was not ready after {START_S:g} s") from None
        except (_Died, OSError) as error:
            system = getattr(error, "strerror", None) or "it ends as it begins"
            raise Unavailable("picture decoder", f"its process does not start: {system}") from error

    def _end(self, process: _Process) -> None:
        task = asyncio.create_task(process.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _picture(answer: dict[str, Any], rgb: bytes) -> Picture:
    """The picture that a process answers; one that a flaw was used against may answer anything."""
    try:
        if "problem" in answer:
            if answer["reason"] not in REASONS:
                raise _Died
            raise UnusableMedia(str(answer["problem"]), remedy=str(answer["remedy"]), reason=answer["reason"])
        pixels = np.frombuffer(rgb, np.uint8).reshape(int(answer["height"]), int(answer["width"]), 3)
        return Picture(pixels, int(answer["full_width"]), int(answer["full_height"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _Died from error
