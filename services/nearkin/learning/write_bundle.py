"""Writes a bundle's folder: its files, and a manifest that names each with its size and digest.

The folder is made beside its place and moved there whole, so that one which is there is one that was finished.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from nearkin.core.errors import Misconfigured
from nearkin.encoders.bundle import MANIFEST, verify_bundle
from nearkin.encoders.check_graph import describe_graph
from nearkin.encoders.manifest import FORMAT, BundleFile, Figure, Manifest, Modalities, Parity, encode_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a model comes from, as its manifest tells it.

    Attributes:
        name: of the bundle that is made of it.
        source: which model of whom, and how it was come by.
        licence: as an SPDX identifier.
        training_data: what it was trained on.
        languages: BCP 47 tags; none for a model that reads no language.
    """

    name: str
    source: str
    licence: str
    training_data: str
    languages: tuple[str, ...] = ()


def write_bundle(
    folder: Path,
    origin: Origin,
    *,
    version: str,
    dimensions: int,
    modalities: Modalities,
    files: Mapping[str, bytes],
    parity: tuple[Parity, ...],
    quality: tuple[Figure, ...] = (),
) -> Manifest:
    """Write a bundle, and prove it whole as whoever loads it will.

    Args:
        folder: made by this; nothing may be there.
        origin: where its model comes from.
        version: semantic.
        dimensions: of its vectors.
        modalities: what it encodes.
        files: their contents by path.
        parity: how near its vectors are to those of the model.
        quality: what was measured of it.

    Raises:
        Misconfigured: something is there, it cannot be written, or what was made is no bundle.
    """
    require_free(folder)
    described = tuple(_describe(path, content, origin) for path, content in files.items())
    manifest = Manifest(
        FORMAT, "", origin.name, version, dimensions, modalities, described, origin.languages, origin.training_data,
        quality, (), parity,
    )  # fmt: skip
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside:
            made = Path(beside) / "bundle"
            made.mkdir()
            for path, content in files.items():
                (made / path).parent.mkdir(parents=True, exist_ok=True)
                (made / path).write_bytes(content)
            (made / MANIFEST).write_bytes(encode_manifest(manifest))
            verified = verify_bundle(made)
            shutil.move(made, folder)
    except OSError as error:
        raise Misconfigured(
            error.strerror or "cannot be written",
            field=str(folder),
            remedy="name a folder that can be made",
            reason="file",
        ) from error
    return verified


def require_free(folder: Path) -> None:
    """Refuse to write where something is.

    Raises:
        Misconfigured: something is there.
    """
    if folder.exists() or folder.is_symlink():
        remedy = "name a folder that is not there yet, or remove it"
        raise Misconfigured("is there already", field=str(folder), remedy=remedy, reason="file")


def _describe(path: str, content: bytes, origin: Origin) -> BundleFile:
    graph = describe_graph(onnx.load_model_from_string(content)) if path.endswith(".onnx") else None
    digest = hashlib.sha256(content).hexdigest()
    return BundleFile(path, digest, len(content), origin.licence, origin.source, graph=graph)
