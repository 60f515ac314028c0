"""An item's content as vectors: which of its fields are read, and by which encoder of the bundle.

Both encoders read the same text. The fields stand in the order of how much they say, so that a cut at the end costs
least.
"""

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from nearkin.core.errors import NothingToEncode
from nearkin.core.item import Content
from nearkin.core.vectors import Vectors
from nearkin.encoders.lexical import encode_lexical
from nearkin.encoders.text import MAX_CHARACTERS, TextEncoder

#: Changes whenever the same content would give another text; a bundle names the recipe it was measured with.
RECIPE = 1


def compose_text(content: Content) -> str:
    """What is read of a content: title, maker, categories, tags, description, attributes; empty if that is nothing."""
    categories = dict.fromkeys(name for path in content.categories for name in path)
    parts = (
        content.title,
        content.maker,
        ", ".join(filter(str.strip, categories)),
        ", ".join(filter(str.strip, content.tags)),
        content.description,
        ", ".join(f"{name} {value}" for name, value in sorted(content.attributes.items())),
    )
    text = ". ".join(part.strip().rstrip(".") for part in parts if part.strip())[:MAX_CHARACTERS]
    return text if any(unicodedata.category(char)[0] not in "CZ" for char in text) else ""


def nothing_to_encode() -> NothingToEncode:
    """The error that stands in the place of a content without text."""
    return NothingToEncode(
        "the item has no text that can be encoded",
        field="content",
        remedy="give it a title, a description, categories or tags with at least one visible character",
        reason="nothing_to_encode",
    )


def not_finite() -> NothingToEncode:
    """The error that stands in the place of a content for which the model gives no direction."""
    return NothingToEncode(
        "the text model gives no finite vector for the item's text",
        field="content",
        remedy="report the text with the bundle's id; another wording may be encoded",
        reason="not_finite",
    )


def fingerprint_text(bundle: str, text: str) -> str:
    """Names what a bundle read of a content."""
    digest = blake2b(digest_size=16)
    for part in (bundle, text):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


class TextContentEncoder:
    """Encodes the texts of contents (`core.ports.ContentEncoder`).

    Args:
        bundle: the id of the bundle.
        text: the bundle's text encoder.
    """

    def __init__(self, bundle: str, text: TextEncoder) -> None:
        self.bundle, self.dimensions, self._text = bundle, text.dimensions, text

    def fingerprint(self, content: Content) -> str:
        """A hash of exactly what `encode` would read of a content."""
        return fingerprint_text(self.bundle, compose_text(content))

    def encode(self, contents: Sequence[Content]) -> list[Vectors | NothingToEncode]:
        """Encode each content, in order; one without text gets its error in its place."""
        texts = [compose_text(content) for content in contents]
        dense = iter(self._text.encode([text for text in texts if text]))
        return [_join(next(dense), text) if text else nothing_to_encode() for text in texts]


def _join(dense: NDArray[np.float32], text: str) -> Vectors | NothingToEncode:
    return Vectors(dense, encode_lexical(text)) if np.isfinite(dense).all() else not_finite()
