"""What every program of the embedded stack needs to be started: a free port, a leash, and a wait until it answers."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.ops.addresses import split_address

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def free_address(address: str, setting: str) -> str:
    """An address that this machine has and nothing listens on now, with a free port in place of port 0.

    Args:
        address: host:port.
        setting: who asks for it.

    Raises:
        Misconfigured: it is no address, or taken.
    """
    try:
        host, port = split_address(address, least_port=0)
        # create_server lets a port be taken again at once after its last owner's end, as the servers themselves do.
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            return f"{address.rpartition(':')[0]}:{probe.getsockname()[1]}"
    except ValueError as error:
        raise Misconfigured(str(error), field=setting, remedy="give host:port", reason="address") from error
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {address}: {error.strerror}",
            field=setting,
            remedy="stop what listens there, give another port, or unset it: then a free one is taken",
            reason="port",
        ) from error


def accepts(address: str) -> bool:
    """Whether something accepts connections at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def leashed(command: Sequence[str]) -> list[str]:
    """The command that runs a program so that it dies with this process.

    Args:
        command: the program and its arguments; the program is found on the PATH.

    Raises:
        Misconfigured: there is no such program.
    """
    program = shutil.which(command[0])
    if program is None:
        raise Misconfigured(f"there is no program {command[0]}", remedy="install it, or put it on the PATH")
    leash = Path(__file__).with_name("leash.py")
    return [sys.executable, "-I", "-S", str(leash), str(os.getpid()), program, *command[1:]]


def start(command: Sequence[str], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Start a program that dies with this process.

    It gets a process group of its own, so that Ctrl-C reaches only its parent.

    Args:
        command: the program and its arguments.
        output: where stdout and stderr go.
    """
    return subprocess.Popen(
        leashed(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, process_group=0
    )


def wait_until(answers: Callable[[], bool], what: str, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Wait until a program answers.

    Raises:
        Unavailable: it died, or the time passed.
    """
    deadline = time.monotonic() + timeout_s
    while not answers():
        if process.poll() is not None:
            raise Unavailable(what, f"it exited with {process.returncode} before it answered")
        if time.monotonic() > deadline:
            raise Unavailable(what, f"it did not answer within {timeout_s:g} s")
        time.sleep(0.02)
