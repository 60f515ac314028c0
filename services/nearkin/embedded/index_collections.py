"""The collections of the embedded index and their aliases, by name: what Qdrant Edge lacks to be an index."""

import contextlib
import ctypes
import logging
import time
from collections.abc import Iterator

import grpc

from nearkin.embedded.edge_collection import EdgeCollection
from nearkin.embedded.edge_messages import Refused, bad_request
from nearkin.embedded.index_folder import IndexFolder, is_collection_name
from nearkin.stores.qdrant_stubs import wire

log = logging.getLogger(__name__)


class Collections:
    """Every collection in the folder, and the aliases, by name."""

    def __init__(self, folder: IndexFolder, min_free_bytes: int) -> None:
        self._folder, self._min_free_bytes = folder, min_free_bytes
        self._open: dict[str, EdgeCollection] = {}
        self.aliases = folder.read_aliases()
        for path in sorted(folder.collections.iterdir()):
            self._open[path.name] = EdgeCollection(path)
        self._free_checked_at = 0.0
        self._free = 0

    def __iter__(self) -> Iterator[EdgeCollection]:
        return iter(list(self._open.values()))

    def __contains__(self, name: str) -> bool:
        return self.aliases.get(name, name) in self._open

    def get(self, name: str) -> EdgeCollection:
        """The collection of this name or alias."""
        try:
            return self._open[self.aliases.get(name, name)]
        except KeyError:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!") from None

    def to_write(self, name: str) -> EdgeCollection:
        """The same, where the disk has space for a write."""
        self._require_space()
        return self.get(name)

    def create(self, request: wire.CreateCollection) -> None:
        """Make a collection."""
        name = request.collection_name
        if not is_collection_name(name):
            raise bad_request(f"the collection name {name!r} may hold letters, digits, '_', '-' and '.' only")
        if name in self:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"Wrong input: Collection `{name}` already exists!")
        self._require_space()
        self._open[name] = EdgeCollection.create(self._folder.collections / name, request)
        log.info("collection %s created", name)

    def delete(self, name: str) -> bool:
        """Remove a collection and its aliases; says whether there was one."""
        if name not in self._open:
            return False
        self._write_aliases({alias: target for alias, target in self.aliases.items() if target != name})
        self._open.pop(name).delete()
        log.info("collection %s deleted", name)
        return True

    def change_aliases(self, request: wire.ChangeAliases) -> None:
        """Apply all changes of aliases, or none."""
        aliases = dict(self.aliases)
        for action in request.actions:
            match action.WhichOneof("action"):
                case "create_alias":
                    if action.create_alias.collection_name not in self._open:
                        self.get(action.create_alias.collection_name)
                    if action.create_alias.alias_name in self._open:
                        raise bad_request(f"a collection has the name {action.create_alias.alias_name}")
                    aliases[action.create_alias.alias_name] = action.create_alias.collection_name
                case "delete_alias":
                    aliases.pop(action.delete_alias.alias_name, None)
                case "rename_alias":
                    aliases[action.rename_alias.new_alias_name] = aliases.pop(action.rename_alias.old_alias_name)
        self._write_aliases(aliases)

    def _write_aliases(self, aliases: dict[str, str]) -> None:
        if aliases != self.aliases:
            self._folder.write_aliases(aliases)
            self.aliases = aliases

    def _require_space(self) -> None:
        now = time.monotonic()
        if now - self._free_checked_at > 0.5:
            self._free, self._free_checked_at = self._folder.free_bytes(), now
        if self._free < self._min_free_bytes:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"No space left on device: {self._free >> 20} MiB are free under {self._folder.path}, writes need "
                f"{self._min_free_bytes >> 20}; free some space, writes resume by themselves",
            )


def optimise(collection: EdgeCollection) -> None:
    """Build a collection's graph where it has points enough, and say so."""
    started = time.monotonic()
    if collection.optimise():
        log.info("collection %s optimised in %.1f s", collection.name, time.monotonic() - started)
        return_freed_memory()


def return_freed_memory() -> None:
    """Give what was freed back to the system: after a load or a build it is as much as half of the heap."""
    # Only glibc has the call, and only glibc needs it.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
