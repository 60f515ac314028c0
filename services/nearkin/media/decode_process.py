"""The process that pictures are decoded in: `python -m nearkin.media.decode_process PARENT_PID MEMORY_BYTES`.

It reads one picture after the other from its standard input and writes pixels to its standard output. A flaw of a
decoder is met here, where there is nothing to take: no settings, no credential, no connection, and from the first
picture on no file or socket can be opened. Memory and processor time are limited by the kernel, and the kernel ends it
with its parent. Where memory runs out on the machine, it is this process that is taken first.
"""

import ctypes
import json
import math
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from nearkin.core.errors import UnusableMedia
from nearkin.media.decode_messages import LENGTHS
from nearkin.media.picture import decode_picture

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main(arguments: list[str]) -> None:
    """Decode until the input ends."""
    parent, memory = (int(each) for each in arguments)
    pictures, pixels = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what a library prints must not come between
        os.dup2(nothing, descriptor)
    confine(parent, memory)
    _send(pixels, {"ready": True}, b"")
    while (lengths := pictures.read(LENGTHS.size)) and len(lengths) == LENGTHS.size:
        header_bytes, body_bytes = LENGTHS.unpack(lengths)
        asked, content = json.loads(pictures.read(header_bytes)), pictures.read(body_bytes)
        _limit_processor(asked["seconds"])
        try:
            found = decode_picture(content, asked["kind"], asked["edge"], asked["most_pixels"])
        except UnusableMedia as error:
            _send(pixels, {"problem": error.problem, "remedy": error.remedy, "reason": error.reason}, b"")
        else:
            size = {"width": found.width, "height": found.height}
            _send(pixels, {**size, "full_width": found.full_width, "full_height": found.full_height}, found.rgb)
            del found
        del content  # not held while the next one is waited for


def confine(parent: int, memory: int) -> None:
    """Give up whatever decoding does not need."""
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getppid() != parent:
        sys.exit("the parent died first")
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, 0),  # those that are open stay so
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def _limit_processor(seconds: float) -> None:
    """Have the kernel end this process if one picture takes more processor time."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    until = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


def _send(stream: BinaryIO, header: dict[str, object], body: bytes) -> None:
    head = json.dumps(header).encode()
    stream.write(LENGTHS.pack(len(head), len(body)))
    stream.write(head)
    stream.write(body)
    stream.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
