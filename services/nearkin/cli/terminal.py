"""Where commands print: lines as wide as the terminal, or as long as they are where a program reads them."""

import os
import sys
from typing import NoReturn

from rich.console import Console

#: What a shell says of a program whose output nobody reads any more (128 + SIGPIPE).
NOT_READ = 141

#: Wider than any table or line: `grep` finds what was not broken.
_UNBROKEN = 10_000


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        self.quiet = True
        end_unread()


def terminal(*, stderr: bool = False) -> Console:
    """Standard output, or standard error."""
    console = _Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNBROKEN
    return console


def end_unread() -> NoReturn:
    """End the command because whoever read its output went away: nothing is wrong, and nobody is there to be told."""
    # What is still buffered would fail once more when the interpreter ends.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    raise SystemExit(NOT_READ)
