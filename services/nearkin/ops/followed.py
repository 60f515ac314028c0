"""What files hold that may be exchanged while a process runs: certificates, keys, tokens.

Whoever needs it looks whether they have changed. Files that cannot be used while they are being exchanged are told, and
what was read before stays in force.
"""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from nearkin.core.errors import Misconfigured

log = logging.getLogger(__name__)

T = TypeVar("T")


class Followed(Generic[T]):
    """What some files hold.

    Args:
        name: what they are, as lines of the log say.
        files: the files.
        load: makes of them what is needed; Misconfigured where they cannot be used.
        every_s: how often they are looked at, at most, in seconds.

    Attributes:
        held: what they held when they could be used last.

    Raises:
        Misconfigured: they cannot be used.
    """

    def __init__(self, name: str, files: Iterable[Path], load: Callable[[], T], every_s: float = 0.0) -> None:
        self._name, self._files, self._load, self._every_s = name, tuple(files), load, every_s
        self._looked_at, self._seen = time.monotonic(), self._stamps()
        self.held = load()

    def look(self) -> bool:
        """Whether they hold something else than at the last look; it is held from now on."""
        now = time.monotonic()
        if now - self._looked_at < self._every_s:
            return False
        self._looked_at = now
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        # Settings need this module, and what makes `fields` needs settings.
        try:
            self.held = self._load()
        except (Misconfigured, OSError) as error:  # it may be gone between two looks at it
            problem = {"fields": {"problem": str(error)}}
            log.error("%s have changed and cannot be used", self._name, extra=problem)
            return False
        log.info(
            "%s have changed and are used", self._name, extra={"fields": {"files": [str(file) for file in self._files]}}
        )
        return True

    def _stamps(self) -> list[tuple[int, int, int]]:
        """What tells one content of each file from another: its inode, size and time of change; 0 where it is away."""
        stamps = []
        for file in self._files:
            try:
                stat = file.stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return stamps
