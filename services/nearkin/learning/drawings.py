"""Drawings of Open Clipart that ship with Nearkin: image models are calibrated and compared on them.

All are in the public domain; `benchmarks/make_drawings.py` chose them.
"""

import io
import zipfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from nearkin.encoders.image import Pixels


class Drawing(msgspec.Struct, frozen=True):
    """A drawing, as its creator described it.

    Attributes:
        id: its path in the collection.
        title: its title.
        keywords: what a person said it shows.
        category_path: where it lies in the collection.
        creator: who drew it.
        image: its file in the archive, a JPEG of 96 pixels at most.
    """

    id: str
    title: str
    keywords: tuple[str, ...]
    category_path: tuple[str, ...]
    creator: str
    image: str


def load_drawings() -> list[Drawing]:
    """What the drawings are, in the order of their ids."""
    with _archive() as archive:
        return msgspec.json.Decoder(Drawing).decode_lines(archive.read("items.jsonl"))


def read_pictures(drawings: Sequence[Drawing]) -> list[Pixels]:
    """The pictures of drawings, decoded: these are known to be sound."""
    with _archive() as archive:
        return [_decode(archive.read(drawing.image)) for drawing in drawings]


def _archive() -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(files(__package__).joinpath("drawings.zip").read_bytes()))


def _decode(jpeg: bytes) -> Pixels:
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB"))


def read_folder(folder: Path, most: int) -> list[Pixels]:
    """Decode JPEG files of one's own, in the order of their names."""
    return [_decode(path.read_bytes()) for path in sorted(folder.glob("*.jp*g"))[:most]]
