"""Which searches a look-up's neighbours come from."""

from enum import StrEnum


class Retrieval(StrEnum):
    """How candidates are found: by meaning, by words, or by both and then fused."""

    FUSED = "fused"
    DENSE = "dense"
    LEXICAL = "lexical"
