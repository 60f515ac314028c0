"""Reads what is remembered of the anchors of look-ups: their pairs, and how often the candidates were visited at all.

Pairs are read anew for every look-up, in one round trip. A marginal changes by
a small part of itself in a minute, and the same items are candidates again and again: it is remembered for some
seconds, and only what is not remembered is asked for.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nearkin.core.evidence import AnchorEvidence, Array, Metric
from nearkin.core.ports import EvidenceStore

#: How long a marginal is believed at most, in seconds; then all are forgotten at once, which is the cheapest to ask.
VISITS_AGE_S = 10.0

#: What makes a pair a candidate: exposures alone do not, as whatever was shown before would be shown for ever.
_ACTIONS = [
    metric for metric in Metric if metric.name in {"CLICKS", "LONG_VIEWS", "LIKES", "SAVES", "PURCHASES", "UNEXPOSED"}
]


#: An exposure more or less says little beside so many.
_FEW_EXPOSURES = 10.0


class RecallEvidence:
    """What look-ups read of the evidence.

    Args:
        store: where it is.
        visits_age_s: how long a marginal is believed at most.
    """

    def __init__(self, store: EvidenceStore, *, visits_age_s: float = VISITS_AGE_S) -> None:
        self._store, self._visits_age_s = store, visits_age_s
        self._visits: dict[str, float] = {}
        self._since = time.monotonic()

    async def pairs(self, anchors: Sequence[str], at_ms: int) -> Mapping[str, AnchorEvidence]:
        """What is remembered of each anchor, decayed to a moment; one round trip.

        Raises:
            Unavailable: the store does not answer.
        """
        return (await self._store.read(anchors, [], at_ms)).anchors if anchors else {}

    async def visits(self, item_ids: Iterable[str], at_ms: int) -> Mapping[str, float]:
        """The marginals of items, decayed to a moment at most `visits_age_s` ago; a round trip only for new ones.

        Raises:
            Unavailable: the store does not answer.
        """
        if time.monotonic() - self._since > self._visits_age_s:
            self._visits, self._since = {}, time.monotonic()
        remembered = self._visits
        known: dict[str, float] = {}
        unknown = []
        for item_id in item_ids:
            held = remembered.get(item_id)
            if held is None:
                unknown.append(item_id)
            else:
                known[item_id] = held
        if unknown:
            read = (await self._store.read([], unknown, at_ms)).marginals
            remembered.update(read)
            known.update(read)
        return known


def partners_by_action(evidence: AnchorEvidence, most: int) -> list[tuple[str, float]]:
    """The candidates that somebody chose beside the anchor, best first: actions an exposure, few exposures damped."""
    actions = evidence.counts[:, _ACTIONS].sum(axis=1)
    return _best(evidence, actions / (evidence.counts[:, Metric.EXPOSURES] + _FEW_EXPOSURES), most)


def partners_by_visits(evidence: AnchorEvidence, most: int) -> list[tuple[str, float]]:
    """The candidates that share most visits with the anchor; how many are to be expected, ranking knows."""
    return _best(evidence, evidence.counts[:, Metric.CO_VISITS], most)


def _best(evidence: AnchorEvidence, scores: Array, most: int) -> list[tuple[str, float]]:
    order = np.argsort(-scores, kind="stable")[:most]
    return [
        (evidence.candidates[row], score) for row, score in zip(order, scores[order].tolist(), strict=True) if score
    ]
