"""Keeps a set of programs running: started once what they follow is ready, again when they die, and stopped together.

A program that dies is started again after a pause that doubles, and with it the programs that follow it, because what
they knew of it is gone. One that keeps dying, or exits saying that its configuration is wrong, is given up: its last
words are told and all others are stopped. Programs cannot outlive the supervisor, however it ends (`leash.py`).
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nearkin.core.errors import Misconfigured, NearkinError, Unavailable
from nearkin.embedded.programs import leashed
from nearkin.ops.process import EXIT_MISCONFIGURED

_PROBE_EVERY_S = 0.05
_LAST_WORDS = 12
_LOG_BYTES = 5_000_000


@dataclass(frozen=True, slots=True)
class Program:
    """What to run and how to know that it runs.

    Attributes:
        name: how people call it.
        command: the program and its arguments.
        ready: blocking; whether it answers. Called in a thread, again and again until it says yes.
        environment: its whole environment; the supervisor's where it is None.
        follows: programs that must be ready before it starts, and whose restart restarts it.
        needs: programs that it uses until its end: they are stopped after it.
        prepare: awaited every time it has become ready, before those that follow it start; told whether this is a
            restart.
        stop_signal: asks it to end.
        ready_s: how long it may take from a start until it answers; the supervisor's patience where it is None.
        meanwhile: what its end means until it is back, told with it.
        awaited: whether the start waits for it: not for one that nothing needs.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str] | None = None
    follows: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    prepare: Callable[[bool], Awaitable[None]] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    ready_s: float | None = None
    meanwhile: str = ""
    awaited: bool = True


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds.

    Attributes:
        ready_s: from a start until it answers.
        grace_s: from the stop signal until SIGKILL.
        first_pause_s: before a first restart; doubles with every death within the window.
        longest_pause_s: the most that it grows to.
        deaths: so many deaths within the window are too many.
        window_s: the window.
    """

    ready_s: float = 60.0
    grace_s: float = 15.0
    first_pause_s: float = 0.2
    longest_pause_s: float = 10.0
    deaths: int = 5
    window_s: float = 60.0


class _LogFile(RotatingFileHandler):
    """A bounded log that a full disk does not bring down."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Let go of the line: the programs matter more than their logs."""


@dataclass(slots=True)
class _Child:
    program: Program
    log: _LogFile
    process: asyncio.subprocess.Process | None = None
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    is_stopped: asyncio.Event = field(default_factory=asyncio.Event)
    starts: int = 0
    deaths: deque[float] = field(default_factory=deque)
    last_words: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_WORDS))
    stopping: bool = False
    killed_because: str = ""


class Supervisor:
    """Runs programs from `async with` to its end; must live on the main thread's event loop.

    Args:
        programs: in an order in which each follows only earlier ones.
        logs: folder of the programs' logs, one bounded file for each.
        report: told what happens, as (program's name, what).
        echo: given every line that a program writes, as (program's name, line).
        patience: how long things may take.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        logs: Path,
        *,
        report: Callable[[str, str], None] = lambda _name, _what: None,
        echo: Callable[[str, str], None] | None = None,
        patience: Patience = Patience(),
    ) -> None:
        self._programs, self._logs, self._patience = tuple(programs), logs, patience
        self._report, self._echo = report, echo
        self._children: dict[str, _Child] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] | None = None
        self._hurry = asyncio.Event()

    def pid(self, name: str) -> int | None:
        """The process id of a program that runs."""
        process = self._children[name].process
        return process.pid if process is not None and process.returncode is None else None

    async def wait(self) -> None:
        """Wait until a program is given up.

        Raises:
            Misconfigured: a program says that its configuration is wrong.
            Unavailable: a program keeps dying.
        """
        if self._failed is None:
            raise RuntimeError("the supervisor is not started")
        await asyncio.shield(self._failed)

    def hurry(self) -> None:
        """Stop asking kindly: whatever still stops is killed."""
        self._hurry.set()

    async def __aenter__(self) -> Self:
        """Start everything, and wait until all that is awaited is ready.

        Raises:
            Misconfigured: a program says that its configuration is wrong.
            Unavailable: a program keeps dying.
        """
        self._failed = asyncio.get_running_loop().create_future()
        self._logs.mkdir(parents=True, exist_ok=True)
        for program in self._programs:
            log = _LogFile(
                self._logs / f"{program.name}.log", maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8", delay=True
            )
            self._children[program.name] = _Child(program, log)
        self._keepers = [asyncio.create_task(self._keep(child)) for child in self._children.values()]
        for keeper in self._keepers:
            keeper.add_done_callback(self._notice_end)
        everything = asyncio.gather(
            *(child.is_ready.wait() for child in self._children.values() if child.program.awaited)
        )
        first: set[asyncio.Future[Any]] = {everything, self._failed}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
        except BaseException:
            await self._stop()
            raise
        finally:
            everything.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await everything
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        """Stop every program before what it needs; on return none is left."""
        for child in self._children.values():
            child.stopping = True
        await asyncio.gather(*(self._stop_after_its_users(child) for child in self._children.values()))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for child in self._children.values():
            child.log.close()
        if self._failed is not None and not self._failed.cancel():
            self._failed.exception()  # told by whoever waited for it, or by nobody

    async def _stop_after_its_users(self, child: _Child) -> None:
        name = child.program.name
        for user in self._children.values():
            if name in (*user.program.needs, *user.program.follows):
                await user.is_stopped.wait()
        await self._end(child)
        child.is_stopped.set()

    async def _end(self, child: _Child) -> None:
        """Ask a program to end; kill it when the grace has passed."""
        process = child.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(child.program.stop_signal)
        ended, hurried = asyncio.create_task(_ended(process)), asyncio.create_task(self._hurry.wait())
        await asyncio.wait({ended, hurried}, timeout=self._patience.grace_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not ended.done():
            why = "" if self._hurry.is_set() else f" after {self._patience.grace_s:g} s without an end"
            self._report(child.program.name, f"killed{why}")
            _kill_group(process.pid)
        await ended

    async def _keep(self, child: _Child) -> None:
        """Run one program for ever."""
        program = child.program
        while True:
            for name in program.follows:
                await self._children[name].is_ready.wait()
            if child.stopping:
                return
            try:
                what = await self._run_once(child)
            except NearkinError as error:
                self._give_up(error)
                return
            answered = child.is_ready.is_set()
            child.is_ready.clear()
            if child.stopping:
                return
            if child.killed_because == "follows":
                child.killed_because = ""
                continue
            if child.process is not None and child.process.returncode == EXIT_MISCONFIGURED:
                self._give_up(
                    Misconfigured(
                        f"says that its configuration is wrong:\n{_quoted(child.last_words)}",
                        field=program.name,
                        remedy=f"correct it and start again (its log: {self._logs / program.name}.log)",
                        reason="program",
                    )
                )
                return
            pause = self._count_death(child, answered=answered)
            if pause is None:
                self._give_up(
                    Unavailable(
                        program.name,
                        f"it ended {len(child.deaths)} times, last it {what}; "
                        f"its log is {self._logs / program.name}.log and ends with\n{_quoted(child.last_words)}",
                    )
                )
                return
            meanwhile = f"; {program.meanwhile}" if program.meanwhile else ""
            self._report(program.name, f"{what}; starts again in {pause:g} s{meanwhile}")
            self._restart_followers(program.name)
            await asyncio.sleep(pause)

    async def _run_once(self, child: _Child) -> str:
        """Start a program and wait until it ends; says how it ended."""
        program = child.program
        child.last_words.clear()
        restart = child.starts > 0
        child.starts += 1
        child.process = process = await asyncio.create_subprocess_exec(
            *leashed(program.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=program.environment,
            # Ctrl-C reaches only the supervisor. Not a session of its own: Linux weighs niceness within a session only,
            # and the bulk indexer yields to the live one.
            process_group=0,
        )
        reader = asyncio.create_task(self._read(child, process))
        readiness = asyncio.create_task(self._await_ready(child, process, restart=restart))
        try:
            code = await _ended(process)
            # What it started and left behind would hold its ports and its folder.
            _kill_group(process.pid)
            await asyncio.wait({reader}, timeout=2)
        finally:
            _kill_group(process.pid)
            readiness.cancel()
            reader.cancel()
            outcome = (await asyncio.gather(readiness, return_exceptions=True))[0]
        if isinstance(outcome, NearkinError):
            raise outcome
        if child.killed_because not in ("", "follows"):
            what, child.killed_because = child.killed_because, ""
            return what
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"

    async def _await_ready(self, child: _Child, process: asyncio.subprocess.Process, *, restart: bool) -> None:
        began = time.monotonic()
        ready_s = self._patience.ready_s if child.program.ready_s is None else child.program.ready_s
        while not await asyncio.to_thread(child.program.ready):
            if time.monotonic() - began > ready_s:
                child.killed_because = f"did not answer within {ready_s:g} s"
                _kill_group(process.pid)
                return
            await asyncio.sleep(_PROBE_EVERY_S)
        if process.returncode is not None:
            return
        try:
            if child.program.prepare is not None:
                await child.program.prepare(restart)
        except NearkinError:
            _kill_group(process.pid)
            raise
        child.is_ready.set()
        self._report(child.program.name, f"ready after {time.monotonic() - began:.1f} s (process {process.pid})")

    async def _read(self, child: _Child, process: asyncio.subprocess.Process) -> None:
        """Move what a program writes to its log, to the terminal if asked, and into its last words."""
        if process.stdout is None:
            return
        rest = b""
        while chunk := await process.stdout.read(65_536):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LOG_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._take_line(child, line)
        if rest:
            self._take_line(child, rest)

    def _take_line(self, child: _Child, line: bytes) -> None:
        text = line.decode("utf-8", errors="replace").rstrip("\r")
        child.last_words.append(text[:500])
        child.log.handle(logging.makeLogRecord({"msg": "%s", "args": (text,)}))
        if self._echo is not None:
            self._echo(child.program.name, text)

    def _count_death(self, child: _Child, *, answered: bool) -> float | None:
        """The pause before the next start; None when there were too many deaths.

        Only a program that answered is forgiven its old deaths: one that never does may take the whole window to die.
        """
        now = time.monotonic()
        child.deaths.append(now)
        while answered and child.deaths[0] < now - self._patience.window_s:
            child.deaths.popleft()
        if len(child.deaths) >= self._patience.deaths:
            return None
        pause: float = self._patience.first_pause_s * 2 ** (len(child.deaths) - 1)
        return min(pause, self._patience.longest_pause_s)

    def _restart_followers(self, name: str) -> None:
        """Kill what follows a program that died: each waits for it to be ready, and starts again."""
        for follower in self._children.values():
            process = follower.process
            if name in follower.program.follows and process is not None and process.returncode is None:
                follower.killed_because = "follows"
                follower.is_ready.clear()
                self._report(follower.program.name, f"starts again with {name}")
                _kill_group(process.pid)
                self._restart_followers(follower.program.name)

    def _notice_end(self, keeper: asyncio.Task[None]) -> None:
        """Nothing that goes wrong in here may leave a program unwatched."""
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)


async def _ended(process: asyncio.subprocess.Process) -> int:
    """How a program ended. asyncio's own wait also waits for whatever else holds the program's output open."""
    while process.returncode is None:  # noqa: ASYNC110  # nothing sets an event for it
        await asyncio.sleep(_PROBE_EVERY_S)
    return process.returncode


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _quoted(lines: Sequence[str]) -> str:
    return "\n".join(f"  | {line}" for line in lines) or "  (it wrote nothing)"
