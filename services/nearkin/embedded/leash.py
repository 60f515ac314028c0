"""Starts a program that cannot outlive its parent: `python leash.py PARENT_PID PROGRAM ARGUMENT…`.

The kernel kills it when the parent dies, however the parent dies. A program of its own, because code between fork and
exec is unsafe in a process with threads; it replaces itself with the program, so nothing of it stays.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the program."""
    parent, *program = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the parent died first")
    os.execv(program[0], program)  # noqa: S606  # no shell: becoming the program is the purpose


if __name__ == "__main__":
    main(sys.argv[1:])
