"""Candidates as a test names them: only what it is about, the rest as it is by default."""

import numpy as np

from nearkin.core.candidates import Candidates, ItemFacts, SourcesOf
from nearkin.core.evidence import Metric


def candidates_of(*facts: ItemFacts, counts=()):
    """Candidates with these facts; `counts` are (row, metric, count)."""
    size = len(facts)
    table = np.zeros((size, len(Metric)))
    for row, metric, count in counts:
        table[row, metric] = count
    return Candidates(
        facts=tuple(facts),
        sources=SourcesOf([one.id for one in facts], {}),
        content=np.full(size, np.nan),
        lexical=np.zeros(size),
        counts=table,
        visits=np.zeros(size),
    )
