"""What a look-up's neighbours come from, and what decides their order. Knows no numpy, so that a client needs none."""

from enum import StrEnum


class Retrieval(StrEnum):
    """How candidates are found: by meaning, by words, or by both and then fused."""

    FUSED = "fused"
    DENSE = "dense"
    LEXICAL = "lexical"


class Ranking(StrEnum):
    """Which part of the weights counts."""

    COMBINED = "combined"  # all of them
    CONTENT = "content"  # fusion alone
    EVIDENCE = "evidence"  # what people did alone
