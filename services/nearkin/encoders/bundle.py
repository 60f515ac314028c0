"""A bundle is a folder whose `manifest.json` says which files make up one vector space, and how to prove them whole.

Every file is named with its size and SHA-256 and is verified before it is loaded: a truncated download or a swapped
model must not put items into the wrong space. The bundle's id ends in a digest of the manifest, so two spaces never
share an id. A file may lie in an installed package instead of the folder, as the model of the default bundle does.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import Literal

import msgspec

from nearkin.core.errors import Misconfigured
from nearkin.core.ports import ContentEncoder
from nearkin.encoders import content, lexical
from nearkin.encoders.content import TextContentEncoder
from nearkin.encoders.text import TextEncoder

FORMAT = 1

DEFAULT_BUNDLE = Path(__file__).parent / "minilm_l6_int8"


class BundleFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a bundle; in the folder, or in the installed package named."""

    sha256: str
    size: int
    licence: str
    source: str
    package: str = ""


class TextSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the text graph is used; `products` says how its int8 weights are multiplied (`integer_graph.py`)."""

    model: str
    tokenizer: str
    recipe: int
    max_tokens: int
    products: Literal["as_stored", "int8_by_token"]


class LexicalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How terms are made."""

    scheme: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle says of itself."""

    format: int
    id: str
    name: str
    dimensions: int
    text: TextSettings
    lexical: LexicalSettings
    files: dict[str, BundleFile]
    measured_on: str

    def expected_id(self) -> str:
        """The id that this manifest must carry: its name, and a digest of all that shapes the vectors."""
        shaping = (
            self.dimensions,
            self.text,
            self.lexical,
            {name: file.sha256 for name, file in self.files.items()},
        )
        digest = hashlib.sha256(msgspec.json.encode(shaping, order="deterministic"))
        return f"{self.name}-{digest.hexdigest()[:8]}"


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
    files = {name: verify_file(folder, name, file) for name, file in manifest.files.items()}
    for name in (manifest.text.model, manifest.text.tokenizer):
        if name not in files:
            raise _broken(folder / "manifest.json", f"names {name!r}, but lists no such file", "rebuild the bundle")
    text = TextEncoder(
        files[manifest.text.model],
        files[manifest.text.tokenizer],
        max_tokens=manifest.text.max_tokens,
        threads=threads,
        integer_products=manifest.text.products == "int8_by_token",
    )
    if text.dimensions != manifest.dimensions:
        problem = f"gives {text.dimensions} dimensions where the manifest says {manifest.dimensions}"
        raise _broken(files[manifest.text.model], problem, "rebuild the bundle")
    return TextContentEncoder(manifest.id, text)


def read_manifest(folder: Path) -> Manifest:
    """Read and check a bundle's manifest, not its files.

    Raises:
        Misconfigured: it is missing, malformed, altered, or made for another version of Nearkin.
    """
    path = folder / "manifest.json"
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise _broken(path, f"cannot be read ({error.strerror})", _remedy(folder)) from error
    except msgspec.DecodeError as error:
        raise _broken(path, f"is not a manifest of format {FORMAT} ({error})", _remedy(folder)) from error
    if (manifest.format, manifest.text.recipe, manifest.lexical.scheme) != (FORMAT, content.RECIPE, lexical.SCHEME):
        problem = (
            f"is not of format {FORMAT} with text recipe {content.RECIPE} and lexical scheme {lexical.SCHEME}, "
            "the ones that this version of Nearkin knows"
        )
        raise _broken(path, problem, "use a bundle made for this version of Nearkin")
    if manifest.id != manifest.expected_id():
        problem = f"was altered: its id is {manifest.id!r}, its contents give {manifest.expected_id()!r}"
        raise _broken(path, problem, _remedy(folder))
    return manifest


def verify_file(folder: Path, name: str, file: BundleFile) -> Path:
    """Where a file of a bundle lies, once it is proved whole.

    Raises:
        Misconfigured: it is missing, or not the file that the manifest names.
    """
    path = _locate(folder, name, file)
    remedy = (
        f"run `pip install --force-reinstall {file.package.replace('_', '-')}`" if file.package else _remedy(folder)
    )
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    except OSError as error:
        raise _broken(path, f"cannot be read ({error.strerror})", remedy) from error
    if size != file.size:
        raise _broken(path, f"has {size} bytes, the manifest says {file.size}", remedy)
    if digest != file.sha256:
        raise _broken(path, f"has the SHA-256 {digest}, the manifest says {file.sha256}", remedy)
    return path


def _locate(folder: Path, name: str, file: BundleFile) -> Path:
    if not file.package:
        return folder / name
    spec = importlib.util.find_spec(file.package)
    if spec is None or spec.origin is None:
        raise _broken(
            folder / name,
            f"comes from the package {file.package}, which is not installed",
            f"run `pip install {file.package.replace('_', '-')}`",
        )
    return Path(spec.origin).parent / name


def _remedy(folder: Path) -> str:
    if folder == DEFAULT_BUNDLE:
        return "run `pip install --force-reinstall --no-deps .` in a whole clone of Nearkin"
    return "set NEARKIN_BUNDLE_PATH to a whole bundle"


def _broken(path: Path, problem: str, remedy: str) -> Misconfigured:
    return Misconfigured(problem, field=str(path), remedy=remedy, reason="bundle")
