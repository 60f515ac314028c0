"""What a bundle says of itself in its `manifest.json`, format 2, read strictly.

Nothing is guessed: a field that is missing, of the wrong type or not known is refused with its path, so that a bundle
never means more to who made it than to who loads it. How a modality is read of an item (`modalities`) is data, because
what shapes the vectors must be part of the bundle's id: two spaces never share one. What only describes them (figures,
sources) may change under the same id, and the vectors stay valid.

Another modality is one more settings struct in `Modalities`, None where a bundle lacks it.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from nearkin.contracts.wrong_type import field_of, wrong_type
from nearkin.core.errors import Misconfigured

FORMAT = 2

#: A larger manifest is none: the default one has 3 KB.
MAX_MANIFEST_BYTES = 1 << 20

#: The most bytes of one file: what a graph may have whole in memory of a process that serves.
MAX_FILE_BYTES = 1 << 30

# Names are of a few plain characters, because they become parts of paths, of addresses and of collections' names.
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
BundleName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]*\Z", max_length=64)]
Version = Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?\Z", max_length=64)]
RelativePath = Annotated[str, Meta(pattern=rf"^{_PART}(/{_PART})*\Z", max_length=200)]
Package = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z", max_length=100)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Text = Annotated[str, Meta(min_length=1, max_length=2000)]
Positive = Annotated[int, Meta(ge=1, le=1 << 20)]
ElementType = Literal["float32", "float16", "uint8", "int8", "int32", "int64", "bool"]
Level = Annotated[float, Meta(ge=0, le=1)]
Share = Annotated[float, Meta(gt=0, le=1)]


class Tensor(Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of a graph; a number in its shape is fixed, a name stands for any."""

    name: Text
    type: ElementType
    shape: tuple[Positive | Text, ...]


class Graph(Struct, frozen=True, forbid_unknown_fields=True):
    """What an ONNX graph must be like; it is held against the graph itself before that is loaded."""

    opset: Positive
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class BundleFile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One file of a bundle, in its folder or in the installed package named; `graph` where it is an ONNX graph."""

    path: RelativePath
    sha256: Sha256
    size: Annotated[int, Meta(ge=1, le=MAX_FILE_BYTES)]
    licence: Text
    source: Text
    package: Package | None = None
    graph: Graph | None = None


class Settings(Protocol):
    """How one modality is read; what has its default is no part of the id, so that a later field changes no id."""

    def named_files(self) -> tuple[str, ...]:
        """The paths of the files that it is read with."""


class TextSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the text graph is used.

    Attributes:
        model: its path.
        tokenizer: the path of its tokenizer, as the library `tokenizers` saves it.
        recipe: how an item becomes a text (`content.py`).
        max_tokens: texts are cut to so many tokens.
        products: how int8 weights are multiplied (`integer_graph.py`).
        pooling: how a text's token vectors become one: their mean, the first, or the graph did it itself.
        prefix: stands before each text, for a model that was trained with one.
    """

    model: RelativePath
    tokenizer: RelativePath
    recipe: int
    max_tokens: Positive
    products: Literal["as_stored", "int8_by_token"]
    pooling: Literal["mean", "first", "none"] = "mean"
    prefix: Annotated[str, Meta(max_length=200)] = ""

    def named_files(self) -> tuple[str, ...]:
        """The graph and its tokenizer."""
        return self.model, self.tokenizer


class LexicalSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How terms are made (`lexical.py`)."""

    scheme: int

    def named_files(self) -> tuple[str, ...]:
        """None: terms are hashed."""
        return ()


class View(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What of a picture is read as a square.

    Attributes:
        fit: "cut" reads the middle square, "whole" puts bars beside what is not square, "stretch" distorts it.
        kept: with "cut", how much of the shorter side is read.
        background: with "whole", the grey of the bars, from 0 to 1.
    """

    fit: Literal["cut", "whole", "stretch"] = "cut"
    kept: Share = 1.0
    background: Level = 1.0


class Preparation(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What becomes of a picture's pixels before the image graph reads them (`image.py`).

    Attributes:
        size: the side in pixels of the square that the graph reads.
        mean: by colour (red, green, blue), subtracted from pixels that go from 0 to 1.
        spread: by colour, what the rest is divided by.
        views: what is read of a picture; its vector is the mean of theirs.
        resampling: how a view is resized.
    """

    size: Annotated[int, Meta(ge=16, le=1024)]
    mean: tuple[Level, Level, Level]
    spread: tuple[Share, Share, Share]
    views: Annotated[tuple[View, ...], Meta(min_length=1, max_length=8)] = (View(),)
    resampling: Literal["box", "bilinear", "bicubic", "lanczos"] = "bicubic"


class ImageSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the image graph is used.

    Attributes:
        model: its path.
        preparation: what becomes of a picture's pixels before.
    """

    model: RelativePath
    preparation: Preparation

    def named_files(self) -> tuple[str, ...]:
        """The graph."""
        return (self.model,)


class Modalities(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What of an item is encoded, and how; None for what the bundle does not encode."""

    text: TextSettings | None = None
    lexical: LexicalSettings | None = None
    image: ImageSettings | None = None

    def present(self) -> dict[str, Settings]:
        """By name what this bundle encodes, in the order of this class."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


class Figure(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One measured figure of quality or speed: what, on which data and processor, and the command that shows it."""

    what: Text
    value: float
    on: Text
    by: Text
    low: float | None = None
    high: float | None = None
    processor: Text | None = None


class Parity(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How near the vectors are to those of a reference, on one processor: integer products differ between them."""

    modality: Text
    reference: Text
    processor: Text
    on: Text
    samples: Annotated[int, Meta(ge=1)]
    cosine_mean: Annotated[float, Meta(ge=-1, le=1)]
    cosine_p1: Annotated[float, Meta(ge=-1, le=1)]
    equal_neighbours_at_10: Annotated[float, Meta(ge=0, le=1)] | None = None


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle says of itself.

    Attributes:
        format: of this file.
        id: the name of the vector space: the bundle's name and a digest of all that shapes the vectors.
        name: of the bundle.
        version: of the bundle, semantic.
        dimensions: of the dense vector of an item.
        modalities: what of an item is encoded, and how.
        files: every file of the bundle.
        languages: BCP 47 tags of what its text model was trained for.
        training_data: what it was trained on.
        quality: what was measured of how good its neighbours are.
        speed: what was measured of how fast it encodes.
        parity: on which processors its vectors were compared with their reference, and how near they are.
    """

    format: int
    id: Annotated[str, Meta(min_length=1, max_length=80)]
    name: BundleName
    version: Version
    dimensions: Positive
    modalities: Modalities
    files: tuple[BundleFile, ...]
    languages: tuple[Text, ...]
    training_data: Text
    quality: tuple[Figure, ...]
    speed: tuple[Figure, ...]
    parity: tuple[Parity, ...]

    def expected_id(self) -> str:
        """The id that this manifest must carry."""
        present = self.modalities.present()
        named = {path for settings in present.values() for path in settings.named_files()}
        shas = {file.path: file.sha256 for file in self.files if file.path in named}
        shaping = (self.dimensions, *present.values(), shas)
        digest = hashlib.sha256(msgspec.json.encode(shaping, order="deterministic"))
        return f"{self.name}-{digest.hexdigest()[:8]}"

    def file(self, path: str) -> BundleFile:
        """The file of that path.

        Raises:
            KeyError: the bundle has none.
        """
        for file in self.files:
            if file.path == path:
                return file
        raise KeyError(path)


class ManifestError(ValueError):
    """A manifest is not as it must be.

    Args:
        where: the field, as a dotted path; empty where it is the whole.
        problem: what is wrong with it.
        remedy: what to do.
    """

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        self.where, self.problem, self.remedy = where, problem, remedy
        super().__init__(f"{where}: {problem}" if where else problem)


class _AnyFormat(Struct, frozen=True):
    format: int


#: What to do with a bundle that another version of Nearkin made.
OF_ANOTHER_VERSION = "use a bundle made for this version of Nearkin"


def decode_manifest(content: bytes) -> Manifest:
    """Read a manifest, and check it in itself.

    Raises:
        ManifestError: it is not one of this format, or contradicts itself.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestError("", f"has {len(content)} bytes, and may have {MAX_MANIFEST_BYTES}", "make it anew")
    try:
        found = msgspec.json.decode(content, type=_AnyFormat).format
        if found != FORMAT:
            raise ManifestError("format", f"is {found}; this version of Nearkin reads {FORMAT}", OF_ANOTHER_VERSION)
        manifest = msgspec.json.decode(content, type=Manifest)
        json.loads(content, object_pairs_hook=_require_distinct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(str(error)) from error
    for where, problem, remedy in _contradictions(manifest):
        raise ManifestError(where, problem, remedy)
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The file's content, for a person too, with the id that its contents give."""
    named = replace(manifest, id=manifest.expected_id())
    return msgspec.json.format(msgspec.json.encode(named), indent=2) + b"\n"


def _contradictions(manifest: Manifest) -> Iterator[tuple[str, str, str]]:
    """Where, what and the remedy of all that the types do not say."""
    modalities = manifest.modalities
    paths = [file.path for file in manifest.files]
    for place, file in enumerate(manifest.files):
        at = f"files[{place}]"
        # Folders of some systems tell no case apart, and would hold one file where the manifest names two.
        if file.path.lower() in (path.lower() for path in paths[:place]) or file.path.lower() == "manifest.json":
            yield f"{at}.path", f"{file.path!r} is named twice", "name each file once, and not the manifest"
        if (file.graph is not None) != file.path.endswith(".onnx"):
            remedy = "give its opset, inputs and outputs to each .onnx file, and to no other"
            yield f"{at}.graph", f"does not fit {file.path!r}", remedy
        if file.graph is not None and not (file.graph.inputs and file.graph.outputs):
            yield f"{at}.graph", "has no inputs or no outputs", "name them as the graph does"
    for modality, settings in modalities.present().items():
        for path in settings.named_files():
            if path not in paths:
                yield f"modalities.{modality}", f"names {path!r}, and files lists no such file", "list it"
    if modalities.text is None and modalities.image is None:
        yield "modalities", "names neither text nor image", "name what the bundle encodes"
    for modality, model in (("text", modalities.text), ("image", modalities.image)):
        if model is not None and manifest.file(model.model).graph is None:
            yield f"modalities.{modality}.model", f"{model.model!r} is no graph", "name an .onnx file"
    if manifest.id != manifest.expected_id():
        problem = f"the manifest was altered: its id is {manifest.id!r}, its contents give {manifest.expected_id()!r}"
        yield "id", problem, "take the whole bundle anew, or give it its new id if you changed it: it is another space"


def _require_distinct(pairs: list[tuple[str, object]]) -> None:
    """Refuse an object that names a field twice: one reader takes the first, another the last."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ManifestError(name, "is there twice in one object", "leave one of them out")


_MISSING = re.compile(r"^Object missing required field `([^`]+)`")
_UNKNOWN = re.compile(r"^Object contains unknown field `([^`]+)`")
_OTHER_TYPE = re.compile(r"^Expected `[^`]+`, got `[^`]+`")


def _refused(message: str) -> ManifestError:
    """What msgspec says, with the path of the field that is wrong."""
    where = field_of(message)
    remedy = "write it as docs/bundles.md says"
    if missing := _MISSING.match(message):
        return ManifestError(".".join(filter(None, (where, missing[1]))), "is missing", remedy)
    if unknown := _UNKNOWN.match(message):
        return ManifestError(".".join(filter(None, (where, unknown[1]))), f"is no field of format {FORMAT}", remedy)
    if _OTHER_TYPE.match(message):
        return ManifestError(where, wrong_type(message), remedy)
    return ManifestError(where, message.partition(" - at ")[0], remedy)


def misconfigured(path: str, error: ManifestError, remedy: str = "") -> Misconfigured:
    """The error as a process ends with it: the file, the field in it, and what to do."""
    problem = f"{error.where}: {error.problem}" if error.where else error.problem
    return Misconfigured(problem, field=path, remedy=remedy or error.remedy, reason="bundle")
