"""Words become term weights that an index can match, whatever the script they are written in.

A text is folded (NFKC, case, accents), cut into words by Unicode's letters, marks and digits, and each term is named by
a stable 32-bit hash, so that there is no vocabulary to train, ship or outgrow. Scripts that put no spaces between words
become overlapping pairs of characters.

Beside each whole word of a title stand its pieces, overlapping runs of five characters: they match plurals, compounds
and misspellings in any language, where a stemmer knows one. The words that open a text count a little more, because a
title opens with its brand or series. What each choice gained: docs/decisions/0004-fusion.md. The index multiplies by
the inverse document frequency, which it alone knows.
"""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import islice, pairwise

import numpy as np
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from nearkin.core.vectors import SparseVector

#: Changes whenever the same text would give other terms or weights; a bundle names the scheme it was made for.
SCHEME = 1

#: How many words are read, and of how many of them the pieces: bounds what one text costs the index.
WORDS_READ, WORDS_IN_PIECES = 512, 32

#: Characters of a piece, the word's edges counted as one each.
PIECE_LENGTH = 5

#: What a piece weighs beside its word.
PIECE_WEIGHT = 0.5

#: What the first and the second word weigh beside the later ones.
OPENING_WEIGHTS = (1.3, 1.15)

#: BM25's saturation: the n-th repeat of a term adds ever less.
SATURATION = 1.2

#: Longer words are cut.
WORD_LENGTH = 64

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
# A run of an unspaced script, else a word, else a lone symbol: an emoji may be all that a title holds.
_WORDS = Split(
    Regex(
        rf"[{_UNSPACED}][{_UNSPACED}\p{{M}}ー]*"
        rf"|(?![{_UNSPACED}])[\p{{L}}\p{{N}}](?:(?![{_UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}])*"
        r"|\p{So}"
    ),
    behavior="removed",
    invert=True,
)
_STARTS_UNSPACED = Split(Regex(rf"^[{_UNSPACED}]"), behavior="isolated")
_FIRST_UNSPACED = "\u0e00"
_CHARACTERS = Split(Regex(r"\P{M}\p{M}*"), behavior="isolated")


def fold(text: str) -> str:
    """The form in which two spellings of a word are equal."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.encode("utf-8", "replace").decode()).casefold()
    without_accents = "".join(char for char in decomposed if not "\u0300" <= char <= "\u036f")
    return unicodedata.normalize("NFKC", without_accents)


def find_words(text: str) -> Iterator[str]:
    """The words of a text in order, repeats included; pairs of characters where a script has no spaces."""
    for run, _ in _WORDS.pre_tokenize_str(fold(text)):
        if run[0] < _FIRST_UNSPACED or len(_STARTS_UNSPACED.pre_tokenize_str(run)[0][0]) != 1:
            yield run[:WORD_LENGTH]
            continue
        characters = [character for character, _ in _CHARACTERS.pre_tokenize_str(run)]
        if len(characters) == 1:
            yield run
        for left, right in pairwise(characters):
            yield left + right


def hash_term(term: str) -> int:
    """The index of a term: the same on every machine, in every process, for ever."""
    return int.from_bytes(blake2b(term.encode(), digest_size=4).digest(), "little")


@lru_cache(maxsize=65_536)
def _hash_word(word: str) -> tuple[int, tuple[int, ...]]:
    """The indices of a word and of its pieces; a piece never shares a word's name, as no word holds these marks."""
    edged = f"<{word}>"
    starts = range(len(edged) - PIECE_LENGTH + 1)
    return hash_term(word), tuple(hash_term(f"~{edged[start : start + PIECE_LENGTH]}") for start in starts)


def encode_lexical(text: str) -> SparseVector:
    """Weigh the terms of a text; unit length keeps long texts from winning."""
    weights: dict[int, float] = {}
    counts: dict[int, int] = {}
    for position, word in enumerate(islice(find_words(text), WORDS_READ)):
        weight = OPENING_WEIGHTS[position] if position < len(OPENING_WEIGHTS) else 1.0
        index, pieces = _hash_word(word)
        weights.setdefault(index, weight)
        counts[index] = counts.get(index, 0) + 1
        for piece in pieces if position < WORDS_IN_PIECES else ():
            weights.setdefault(piece, weight * PIECE_WEIGHT)
            counts[piece] = counts.get(piece, 0) + 1
    indices = np.fromiter(sorted(weights), np.uint32, len(weights))
    count = np.array([counts[index] for index in indices.tolist()])
    values = np.array([weights[index] for index in indices.tolist()]) * count * (1 + SATURATION) / (count + SATURATION)
    if len(values):
        values /= np.linalg.norm(values)
    return SparseVector(indices, values.astype(np.float32))
