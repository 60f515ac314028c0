"""Finds the bundles that are installed: those that Nearkin ships, those that packages carry, those of a folder.

A package carries a bundle by an entry point of the group `nearkin.bundles`, whose value is the import name of the
folder that holds the manifest. Nothing is imported to find it: what a bundle is made of is read as files alone.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from nearkin.core.errors import Misconfigured
from nearkin.encoders.bundle import DEFAULT_BUNDLE, MANIFEST, read_manifest, verify_bundle
from nearkin.encoders.manifest import Manifest

GROUP = "nearkin.bundles"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bundle lies, and who brought it there.

    Attributes:
        folder: that holds its manifest.
        source: in words.
        kept_by_id: whether the folder must bear the bundle's id as its name.
    """

    folder: Path
    source: str
    kept_by_id: bool = False

    def read(self) -> Manifest:
        """Its manifest.

        Raises:
            Misconfigured: it is not as it must be.
        """
        return self._of_its_name(read_manifest(self.folder))

    def verify(self) -> Manifest:
        """Prove it whole.

        Raises:
            Misconfigured: what is wrong with it.
        """
        return self._of_its_name(verify_bundle(self.folder))

    def _of_its_name(self, manifest: Manifest) -> Manifest:
        if self.kept_by_id and self.folder.name != manifest.id:
            raise Misconfigured(
                f"holds the bundle {manifest.id!r}: a folder of NEARKIN_BUNDLES_DIR bears its bundle's id as its name",
                field=str(self.folder),
                remedy="rename the folder, or take it away and pull the bundle again",
                reason="bundle",
            )
        return manifest


def find_bundles(bundles_dir: Path | None) -> list[Place]:
    """Every bundle that is installed, whole or not.

    Args:
        bundles_dir: a folder of bundles, each in a folder of its id; None for none.

    Raises:
        Misconfigured: that folder cannot be read.
    """
    return [*_shipped(), *_in_packages(), *_in_folder(bundles_dir)]


def find_bundle(wanted: str, bundles_dir: Path | None) -> Place:
    """The bundle of an id, of a name that only one has, or in a folder.

    Raises:
        Misconfigured: none or more than one is meant.
    """
    if (Path(wanted) / MANIFEST).is_file() or "/" in wanted:
        return Place(Path(wanted), "named by its folder")
    places = find_bundles(bundles_dir)
    known = {place: _names(place) for place in places}
    found = [place for place, names in known.items() if wanted in names]
    ids = {known[place][0] for place in found}
    if not found:
        raise Misconfigured(
            f"no bundle {wanted!r} is installed",
            field="BUNDLE",
            remedy=f"give one of {', '.join(names[0] for names in known.values())}, or the folder of one",
            reason="bundle",
        )
    if len(ids) > 1:
        raise Misconfigured(
            f"{wanted!r} is the name of several bundles",
            field="BUNDLE",
            remedy=f"give the id of one: {', '.join(sorted(ids))}",
            reason="bundle",
        )
    return found[0]


def _names(place: Place) -> tuple[str, ...]:
    """What a bundle may be asked for by, its id first; the name of its folder where its manifest cannot be read."""
    try:
        manifest = place.read()
    except Misconfigured:
        return (place.folder.name,)
    return manifest.id, manifest.name


def _shipped() -> Iterator[Place]:
    """The default bundle, and then the others."""
    beside = sorted(path.parent for path in DEFAULT_BUNDLE.parent.glob(f"*/{MANIFEST}"))
    for folder in dict.fromkeys([DEFAULT_BUNDLE, *beside]):
        yield Place(folder, "shipped with nearkin")


def _in_packages() -> Iterator[Place]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        package, *inside = point.value.split(".")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        roots = spec.submodule_search_locations if spec is not None else None
        if not roots:  # its package is gone, and left its entry point behind
            continue
        brought_by = f"package {point.dist.name} {point.dist.version}" if point.dist is not None else "a package"
        yield Place(Path(next(iter(roots))).joinpath(*inside), brought_by)


def _in_folder(bundles_dir: Path | None) -> Iterator[Place]:
    if bundles_dir is None or not bundles_dir.exists():  # nothing was pulled yet
        return
    try:
        folders = sorted(path for path in bundles_dir.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise Misconfigured(
            f"cannot be read ({error.strerror})",
            field=str(bundles_dir),
            remedy="set NEARKIN_BUNDLES_DIR to a folder of bundles that this user may read",
            reason="bundle",
        ) from error
    for folder in folders:
        yield Place(folder, "NEARKIN_BUNDLES_DIR", kept_by_id=True)
