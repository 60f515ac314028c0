"""Words become term weights that an index can match, whatever the script they are written in.

A text is folded (NFKC, case, Latin accents), cut into words by Unicode's letters, marks and digits, and each term is
named by a stable 32-bit hash, so that there is no vocabulary to train, ship or outgrow. Scripts that put no spaces
between words become overlapping pairs of characters. The index multiplies by the inverse document frequency, which it
alone knows.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise

import numpy as np
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from nearkin.core.similarity import SparseVector

#: Changes whenever the same text would give other terms or weights; a bundle names the scheme it was made for.
SCHEME = 1

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
# A run of an unspaced script, a word, or a lone symbol (an emoji may be all that a title holds).
_WORDS = Split(
    Regex(
        rf"[{_UNSPACED}][{_UNSPACED}\p{{M}}ー]*|(?![{_UNSPACED}])[\p{{L}}\p{{N}}](?:(?![{_UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}])*|\p{{So}}"
    ),
    behavior="removed",
    invert=True,
)
_CHARACTERS = Split(Regex(r"\P{M}\p{M}*"), behavior="isolated")
_IS_UNSPACED = Split(Regex(rf"[{_UNSPACED}]"), behavior="removed", invert=True)


def fold(text: str) -> str:
    """The form in which two spellings of a word are equal."""
    decomposed = unicodedata.normalize("NFKD", text.encode("utf-8", "replace").decode()).casefold()
    without_accents = "".join(char for char in decomposed if not "\u0300" <= char <= "\u036f")
    return unicodedata.normalize("NFKC", without_accents)


def find_terms(text: str) -> Iterator[str]:
    """The terms of a text in order, repeats included."""
    for word, _ in _WORDS.pre_tokenize_str(fold(text)):
        if _IS_UNSPACED.pre_tokenize_str(word[0]):
            characters = [character for character, _ in _CHARACTERS.pre_tokenize_str(word)]
            if len(characters) == 1:
                yield word
            for left, right in pairwise(characters):
                yield left + right
        else:
            yield word


def hash_term(term: str) -> int:
    """The index of a term: the same on every machine, in every process, for ever."""
    return int.from_bytes(blake2b(term.encode(), digest_size=4).digest(), "little")


def encode_lexical(text: str) -> SparseVector:
    """Weigh the terms of a text: the logarithm damps repeats, and unit length keeps long texts from winning."""
    counts = Counter(hash_term(term) for term in find_terms(text))
    indices = np.array(sorted(counts), np.uint32)
    values = np.array([1 + math.log(counts[int(index)]) for index in indices], np.float32)
    if len(values):
        values /= np.linalg.norm(values)
    return SparseVector(indices, values)
