"""A process's own wall clock, which a test sets while it runs; what counts seconds without a clock is left alone.

libfaketime (Debian's package `faketime`) stands between the process and the system; once a second it reads a file.
"""

from pathlib import Path

#: Where Debian puts it, by architecture.
_LIBRARIES = "faketime/libfaketimeMT.so.1"


class NoFaketime(Exception):
    """This machine has no libfaketime."""


def faketime_library() -> Path:
    """The library.

    Raises:
        NoFaketime: it is not installed.
    """
    for found in sorted(Path("/usr/lib").glob(f"*/{_LIBRARIES}")):
        return found
    raise NoFaketime("there is no libfaketime: install the package faketime")


class SetClock:
    """The wall clock of one process.

    Args:
        library: libfaketime.
        file: where it looks.

    Attributes:
        environment: what the process is to be started with.
    """

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            # Nobody can set these: jumps there would be no test of anything.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its files have the times of the disk.
            "NO_FAKE_STAT": "1",
        }
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """Let the clock be ahead of the right time from now on, or behind it where this is negative."""
        self._file.write_text(f"{ahead_s:+d}\n")
