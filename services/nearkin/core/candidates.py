"""The candidates of one look-up before they are ranked: who named each of them, and all that is known to rank it by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearkin.core.evidence import AnchorEvidence, Metric
from nearkin.core.item import Availability

Array = NDArray[np.float64]


class CandidateSource(StrEnum):
    """Who named a candidate."""

    CONTENT = "content"  # the search by meaning
    LEXICAL = "lexical"  # the search by words
    PAIRS = "pairs"  # what people did with it beside this anchor
    CO_VISITS = "co_visits"  # visits that hold both
    POPULAR = "popular"  # what is visited most in the anchor's category
    PINNED = "pinned"  # a rule
    EXPLORED = "explored"  # the last draw put it there; its score is the propensity, its rank the position


class Source(NamedTuple):
    """What one source said of a candidate: its score there (scores of two sources do not compare), its rank, from 1."""

    name: CandidateSource
    score: float
    rank: int


#: What each source named: ids with their scores, best first.
Named = Mapping[CandidateSource, Mapping[str, float]]


class SourcesOf:
    """Who named each candidate, told when asked: of some 250 candidates, a look-up wants to know it of ten.

    Args:
        ids: of the candidates.
        named: what each source named; may name what is no candidate.
    """

    def __init__(self, ids: Sequence[str], named: Named) -> None:
        self._ids, self._named = ids, named
        self._ranks: Mapping[CandidateSource, Mapping[str, int]] | None = None

    def __iter__(self) -> Iterator[tuple[Source, ...]]:
        return map(self.__getitem__, range(len(self._ids)))

    def has(self, row: int, name: CandidateSource) -> bool:
        """Whether a source named a candidate."""
        return self._ids[row] in self._named.get(name, ())

    def __getitem__(self, row: int) -> tuple[Source, ...]:
        if self._ranks is None:
            self._ranks = {name: dict(zip(listed, count(1), strict=False)) for name, listed in self._named.items()}
        item_id = self._ids[row]
        return tuple(
            [
                Source(name, self._named[name][item_id], ranks[item_id])
                for name, ranks in self._ranks.items()
                if item_id in ranks
            ]
        )


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What ranking and rules need to know of an item; the index keeps it beside the whole item.

    Attributes:
        id: the item's id.
        title: its title.
        categories: the keys of its whole category paths (`core.item.category_key`).
        price: of the offer in force; None where it has none.
        currency: of the price, ISO 4217.
        availability: of the offer in force.
        markets: where it is sold; none means everywhere.
        maker: who makes it.
        variant_group: what it shares with the other variants of one product; empty where it is none.
        first_seen: when the oldest event of it that the index knows occurred, in milliseconds; 0 where not known.
        sketch: signs of random projections of its dense vector (`core.sketch`); empty where it is not known.
    """

    id: str
    title: str = ""
    categories: tuple[str, ...] = ()
    price: float | None = None
    currency: str = ""
    availability: Availability = Availability.IN_STOCK
    markets: tuple[str, ...] = ()
    maker: str = ""
    variant_group: str = ""
    first_seen: int = 0
    sketch: bytes = b""


@dataclass(frozen=True, slots=True)
class AnchorContext:
    """What is known of the anchor of a look-up.

    Attributes:
        facts: of the anchor; None where it is not in the index.
        visits: its marginal, decayed to the moment of the look-up.
        all_visits: of all items, decayed to the same moment.
        at_ms: the moment, on the clock in force.
    """

    facts: ItemFacts | None
    visits: float
    all_visits: float
    at_ms: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates of one look-up as columns, a row for each; distinct, and never the anchor.

    Attributes:
        facts: (n) of each.
        sources: (n) who named it.
        content: (n,) cosine of its dense vector with the anchor's; NaN where it is not known.
        lexical: (n,) its score by words; 0 where the search did not return it.
        counts: (n, metrics) what people did with the pair, by `evidence.Metric`, decayed.
        visits: (n,) its marginal, decayed.
    """

    facts: tuple[ItemFacts, ...]
    sources: SourcesOf
    content: Array
    lexical: Array
    counts: Array
    visits: Array

    def __len__(self) -> int:
        return len(self.facts)


#: What makes a pair a candidate: exposures alone do not, as whatever was shown before would be shown for ever.
_ACTIONS = [Metric.CLICKS, Metric.LONG_VIEWS, Metric.LIKES, Metric.SAVES, Metric.PURCHASES, Metric.UNEXPOSED]

#: An exposure more or less says little beside so many.
_FEW_EXPOSURES = 10.0


def partners_by_action(evidence: AnchorEvidence, most: int) -> dict[str, float]:
    """What somebody chose beside the anchor, best first, with actions an exposure, few exposures damped."""
    actions = evidence.counts[:, _ACTIONS].sum(axis=1)
    return _best(evidence, actions / (evidence.counts[:, Metric.EXPOSURES] + _FEW_EXPOSURES), most)


def partners_by_visits(evidence: AnchorEvidence, most: int) -> dict[str, float]:
    """What shares most visits with the anchor, most first; how many are to be expected, ranking knows."""
    return _best(evidence, evidence.counts[:, Metric.CO_VISITS], most)


def _best(evidence: AnchorEvidence, scores: Array, most: int) -> dict[str, float]:
    order = np.argsort(-scores, kind="stable")[:most]
    ordered = scores[order]
    some = int(np.count_nonzero(ordered))  # none is below 0, so those without any stand last
    return {
        evidence.candidates[row]: score for row, score in zip(order[:some].tolist(), ordered.tolist(), strict=False)
    }
