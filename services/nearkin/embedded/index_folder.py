"""The folder of the embedded index: one format, one owner at a time, and pointers that change whole or not at all.

```
FORMAT                      what wrote the folder; another version is refused before anything is touched
LOCK                        held while a process owns the folder; names it
aliases.json                alias -> collection, replaced by an atomic rename
collections/NAME/           one Qdrant Edge shard and the request that created it
```
"""

import json
import re
import shutil
from pathlib import Path

from nearkin.embedded.owned_folder import OwnedFolder, write_durably

FORMAT = "nearkin-index 1"

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")


def is_collection_name(name: str) -> bool:
    """Whether a collection may have this name: it becomes a folder's."""
    return _NAME.fullmatch(name) is not None


class IndexFolder(OwnedFolder):
    """Owns the folder of an index from `open` to `close`.

    Args:
        path: the folder; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, FORMAT)

    @property
    def collections(self) -> Path:
        """The folder with a folder for each collection."""
        return self.path / "collections"

    def open(self) -> None:
        """Take the folder as `OwnedFolder.open` does, and remove what a crash left unfinished."""
        super().open()
        self.collections.mkdir(exist_ok=True)
        for unfinished in self.collections.glob(".*"):
            shutil.rmtree(unfinished)

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
