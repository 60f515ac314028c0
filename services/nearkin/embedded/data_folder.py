"""The folder of the embedded index: one format, one owner at a time, and pointers that change whole or not at all.

```
FORMAT                      what wrote the folder; another version is refused before anything is touched
LOCK                        held while a process owns the folder; names it
aliases.json                alias -> collection, replaced by an atomic rename
collections/NAME/           one Qdrant Edge shard and the request that created it
```
"""

import fcntl
import json
import os
import re
import shutil
from pathlib import Path
from typing import IO

from nearkin.core.errors import Misconfigured

FORMAT = "nearkin-index 1"

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")


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


def is_collection_name(name: str) -> bool:
    """Whether a collection may have this name: it becomes a folder's."""
    return _NAME.fullmatch(name) is not None


class DataFolder:
    """Owns a data folder from `open` to `close`.

    Args:
        path: the folder; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def collections(self) -> Path:
        """The folder with a folder for each collection."""
        return self.path / "collections"

    def open(self) -> None:
        """Take the folder, or refuse without having written anything.

        Raises:
            Misconfigured: another version wrote it, something else is in it, or another process owns it.
        """
        try:
            self._check_format()
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            if not (self.path / "FORMAT").exists():
                write_durably(self.path / "FORMAT", FORMAT + "\n")
            self.collections.mkdir(exist_ok=True)
        except OSError as error:
            raise Misconfigured(
                f"the data folder cannot be used: {error.strerror}",
                field=str(self.path),
                remedy="give a folder on a disk with space that this user may write",
                reason="data_folder",
            ) from error
        for unfinished in self.collections.glob(".*"):
            shutil.rmtree(unfinished)

    def close(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read_aliases(self) -> dict[str, str]:
        """Which collection each alias names."""
        try:
            aliases: dict[str, str] = json.loads((self.path / "aliases.json").read_text("utf-8"))
        except FileNotFoundError:
            return {}
        return aliases

    def write_aliases(self, aliases: dict[str, str]) -> None:
        """Change all aliases at once."""
        write_durably(self.path / "aliases.json", json.dumps(aliases, indent=1, sort_keys=True) + "\n")

    def free_bytes(self) -> int:
        """How much the disk still takes."""
        return shutil.disk_usage(self.path).free

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
                f"the folder is not empty and no index wrote it (it holds {min(strangers)})",
                field=str(self.path),
                remedy="give an empty folder, or one of an embedded index",
                reason="data_folder",
            ) from None
        if found != FORMAT:
            raise Misconfigured(
                f"the data folder has the format {found[:40]!r}, this version reads {FORMAT!r}",
                field=str(self.path),
                remedy="run the version of Nearkin that wrote it, or give an empty folder and publish the items again",
                reason="data_format",
            )

    def _take_lock(self) -> None:
        lock = (self.path / "LOCK").open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise Misconfigured(
                f"another process owns the data folder (process {owner})",
                field=str(self.path),
                remedy="stop that process, or give another folder",
                reason="data_locked",
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock
