"""How every process runs and ends: asked by a signal, with a status that a supervisor can go by."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys

#: Something failed that a fresh process may not meet again; and: nothing will change until a setting or file does.
EXIT_FAILED, EXIT_MISCONFIGURED = 70, 2


def stop_on_signals() -> asyncio.Event:
    """An event of the running loop that SIGTERM and SIGINT set."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


def collect_young_garbage_only() -> None:
    """Have Python look for cycles of garbage among young objects alone, nearly always.

    What a server remembers is much and lives long: to look through 200,000 objects stops every answer for 200 ms, and
    finds nothing. What is there now is never looked through again; what has outlived two looks at the young, after some
    ten million objects more than were freed, so hardly ever. A cycle that lives that long stays.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 100)


def exit_with(status: int) -> None:
    """End the process with what was written flushed, whatever threads a library has left behind."""
    logging.shutdown()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
