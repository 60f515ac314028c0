"""The anchors of Online Retail as look-ups see them, cut by cut, without a service: `learning/offline_lookups.py`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearkin.cli.evaluate import SHIPPED_CUT, read_shipped
from nearkin.cli.fit import SHIPPED_CUTS, states_of
from nearkin.core.candidates import Candidates
from nearkin.core.evidence import DAY_MS, EvidenceRules
from nearkin.core.ports import ContentEncoder
from nearkin.core.ranking import DEFAULT_WEIGHTS, best_first, score
from nearkin.learning.offline_lookups import OfflineLookups
from nearkin.learning.truth import Truth
from nearkin.ops.settings import Settings

HALF_LIFE_DAYS: int = Settings.model_fields["evidence_half_life_days"].default


@dataclass(frozen=True, slots=True)
class RankedAnchor:
    """The candidates of one anchor, with their scores and their order by the shipped weights."""

    candidates: Candidates
    scores: NDArray[np.float64]
    order: list[int]

    def ids(self, rows: Sequence[int]) -> list[str]:
        """The ids of some of the candidates."""
        return [self.candidates.facts[row].id for row in rows]


@dataclass(frozen=True, slots=True)
class RetailCut:
    """What is known before one cut.

    Attributes:
        name: the cut.
        truth: what is right after it.
        look_up: what look-ups would see.
        ranked: of the anchors of all slices that can be looked up.
    """

    name: str
    truth: Truth
    look_up: OfflineLookups
    ranked: Mapping[str, RankedAnchor]


def retail_cuts(encoder: ContentEncoder, *, last_only: bool = False) -> Iterator[RetailCut]:
    """Each cut in order: those that settings are chosen on, and the last, which nothing was chosen on."""
    earlier = [] if last_only else [(f"{cut:%Y-%m-%d}", read_shipped(cut, until)) for cut, until in SHIPPED_CUTS]
    for name, known in [*earlier, (f"{SHIPPED_CUT:%Y-%m-%d}", read_shipped(SHIPPED_CUT))]:
        rules = EvidenceRules(half_life_ms=HALF_LIFE_DAYS * DAY_MS)
        look_up = OfflineLookups(states_of(known), known.evaluation.training, encoder, rules)
        ranked = {}
        for one in look_up(sorted({anchor for some in known.evaluation.truth.slices.values() for anchor in some})):
            scores = score(one.features, DEFAULT_WEIGHTS)
            ranked[one.anchor] = RankedAnchor(one.candidates, scores, best_first(scores, one.candidates))
        yield RetailCut(name, known.evaluation.truth, look_up, ranked)


def pooled(cuts: Sequence[RetailCut]) -> Truth:
    """The anchors of several cuts as one truth, named by their cut; only positives and slices."""
    positives = {f"{cut.name} {one}": grades for cut in cuts for one, grades in cut.truth.positives.items()}
    slices: dict[str, tuple[str, ...]] = {}
    for cut in cuts:
        for name, anchors in cut.truth.slices.items():
            slices[name] = (*slices.get(name, ()), *(f"{cut.name} {anchor}" for anchor in anchors))
    return Truth(positives, slices)
