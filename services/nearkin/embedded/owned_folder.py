"""A folder with one format and one owner at a time, refused before anything in it is touched.

Its file FORMAT says what wrote it; its file LOCK is held while a process owns it, and names that process.
"""

import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import IO

from nearkin.core.errors import Misconfigured

#: How long the lock is tried again, in seconds: whoever asks whether the folder is owned holds it for a moment too.
LOCK_PATIENCE_S = 0.5
LOCK_PAUSE_S = 0.01


def write_durably(path: Path, text: str) -> None:
    """Replace a file so that a crash leaves the old text or the new one."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class OwnedFolder:
    """Owns a folder from `open` to `close`.

    Args:
        path: the folder; made where it is missing.
        format: what this program writes; a folder with another is refused.
        min_free_bytes: with less space on its disk the folder is refused.
    """

    def __init__(self, path: Path, format: str, min_free_bytes: int = 0) -> None:  # noqa: A002  # the file's name
        self.path, self._format, self._min_free_bytes = path, format, min_free_bytes
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Take the folder, or refuse without having written anything.

        Raises:
            Misconfigured: another version wrote it, something else is in it, its disk is full, or another process
                owns it.
        """
        try:
            self._check_format()
            self._check_space()
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            if not (self.path / "FORMAT").exists():
                write_durably(self.path / "FORMAT", self._format + "\n")
        except OSError as error:
            raise Misconfigured(
                f"the data folder cannot be used: {error.strerror}",
                field=str(self.path),
                remedy="give a folder on a disk with space that this user may write",
                reason="data_folder",
            ) from error

    def close(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def is_owned(self) -> bool:
        """Whether some process owns the folder now; holds its lock for a moment, which `open` waits out."""
        try:
            with (self.path / "LOCK").open(encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def free_bytes(self) -> int:
        """How much the disk still takes."""
        existing = self.path
        while not existing.exists():
            existing = existing.parent
        return shutil.disk_usage(existing).free

    def _check_format(self) -> None:
        if not self.path.exists():
            return
        try:
            found = (self.path / "FORMAT").read_text("utf-8", errors="replace").strip()
        except FileNotFoundError:
            strangers = [
                entry.name for entry in self.path.iterdir() if entry.name not in ("LOCK", ".FORMAT.unfinished")
            ]
            if not strangers:
                return
            raise Misconfigured(
                f"the folder is not empty and Nearkin did not write it (it holds {min(strangers)})",
                field=str(self.path),
                remedy="give an empty folder, or one that this program made",
                reason="data_folder",
            ) from None
        if found != self._format:
            raise Misconfigured(
                f"the data folder has the format {found[:40]!r}, this version reads {self._format!r}",
                field=str(self.path),
                remedy="run the version of Nearkin that wrote it, or give an empty folder and publish the items again",
                reason="data_format",
            )

    def _check_space(self) -> None:
        free = self.free_bytes()
        if free < self._min_free_bytes:
            raise Misconfigured(
                f"its disk has {free // 2**20} MiB left, and {self._min_free_bytes // 2**20} MiB are needed",
                field=str(self.path),
                remedy="free some space, or give a folder on another disk",
                reason="data_space",
            )

    def _take_lock(self) -> None:
        lock = (self.path / "LOCK").open("a+", encoding="utf-8")
        if not _locked(lock):
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise Misconfigured(
                f"another process owns the data folder (process {owner})",
                field=str(self.path),
                remedy="stop that process, or give another folder",
                reason="data_locked",
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock


def _locked(file: IO[str]) -> bool:
    """Lock a file for this process alone; False where another one keeps it."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOCK_PAUSE_S)
        else:
            return True
