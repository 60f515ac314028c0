"""Reads what is remembered of the anchors of look-ups: their pairs, and how often the candidates were visited at all.

Pairs are read anew for every look-up, in one round trip. A marginal changes by
a small part of itself in a minute, and the same items are candidates again and again: it is remembered for some
seconds, and only what is not remembered is asked for.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

from nearkin.core.evidence import AnchorEvidence
from nearkin.core.ports import EvidenceStore

#: How long a marginal is believed at most, in seconds; then all are forgotten at once, which is the cheapest to ask.
VISITS_AGE_S = 10.0


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
