"""A stand-in for a real encoder: vectors from hashed words alone, so tests need no model.

Contents that share words are close, as with a real encoder; equal texts get equal vectors.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from nearkin.core.errors import NothingToEncode
from nearkin.core.item import Content
from nearkin.core.vectors import Vectors
from nearkin.encoders.content import compose_text, fingerprint_text, nothing_to_encode
from nearkin.encoders.lexical import encode_lexical, find_words


class HashingEncoder:
    """Implements `core.ports.ContentEncoder`: a word is a random direction seeded by its hash, a text their sum."""

    def __init__(self, dimensions: int = 32, bundle: str = "hashing") -> None:
        self.bundle, self.dimensions = bundle, dimensions

    def fingerprint(self, content: Content) -> str:
        """A hash of exactly what `encode` would read of a content."""
        return fingerprint_text(self.bundle, compose_text(content))

    def encode(self, contents: Sequence[Content]) -> list[Vectors | NothingToEncode]:
        """Encode each content, in order; one without text gets its error in its place."""
        return [self._encode(text) if text else nothing_to_encode() for text in map(compose_text, contents)]

    def _encode(self, text: str) -> Vectors:
        total = np.zeros(self.dimensions)
        for word in list(find_words(text)) or [text]:
            seed = blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
            total += np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(self.dimensions)
        return Vectors((total / np.linalg.norm(total)).astype(np.float32), encode_lexical(text))
