"""Reads what is remembered of the anchors of look-ups: their pairs, and how often the candidates were visited at all.

Pairs are read anew for every look-up, in one round trip; those of a large batch in a few, one after the other, so that
it does not make others wait. A marginal changes by a small part of itself in a minute, and the same items are
candidates again and again: it is remembered for a minute, and only what is not remembered is asked for. That of a new
item changes by more; a pair that was counted more often than its item was visited gives that away, and it is read anew.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

from nearkin.core.evidence import AnchorEvidence
from nearkin.core.ports import EvidenceStore

#: How long a marginal is believed at most, in seconds; then all are forgotten at once, which is the cheapest to ask.
VISITS_AGE_S = 60.0

#: Of so many items marginals are remembered, some 30 MB; then all are forgotten, too.
MOST_VISITS = 200_000

#: A count is more than another one only if it is by this factor: they are decayed to moments up to a minute apart.
_MORE = 1.001

#: Round trips are cut, so that none holds the loop, nor Redis, for more than some milliseconds.
ANCHORS_PER_CALL = 16
VISITS_PER_CALL = 2_000


class RecallEvidence:
    """What look-ups read of the evidence.

    Args:
        store: where it is.
        visits_age_s: how long a marginal is believed at most.
    """

    def __init__(self, store: EvidenceStore, *, visits_age_s: float = VISITS_AGE_S) -> None:
        self._store, self._visits_age_s = store, visits_age_s
        self._visits: dict[str, float] = {}
        self._doubted: dict[str, float] = {}
        self._since, self._at_ms = time.monotonic(), 0

    async def pairs(self, anchors: Sequence[str], at_ms: int) -> Mapping[str, AnchorEvidence]:
        """What is remembered of each anchor, decayed to a moment; a round trip for each `ANCHORS_PER_CALL`.

        Raises:
            Unavailable: the store does not answer.
        """
        found: dict[str, AnchorEvidence] = {}
        for start in range(0, len(anchors), ANCHORS_PER_CALL):
            found.update((await self._store.read(anchors[start : start + ANCHORS_PER_CALL], [], at_ms)).anchors)
        return found

    async def visits(
        self, item_ids: Iterable[str], at_ms: int, at_least: Mapping[str, float] | None = None
    ) -> Mapping[str, float]:
        """The marginals of these items, and of others; decayed to a moment, and read, at most `visits_age_s` away.

        A round trip only for new ones. The moments may be of a stream's own clock, on which an hour's replay takes a
        second.

        Args:
            item_ids: of the items.
            at_ms: the moment.
            at_least: how often some of them were visited beside another item. A marginal that is remembered to be less
                is read anew, once for each such number: where a visit was large, the pair's count is a sample's, and
                may be more than all visits.

        Raises:
            Unavailable: the store does not answer.
        """
        now = time.monotonic()
        age_s = max(now - self._since, abs(at_ms - self._at_ms) / 1000)
        if age_s > self._visits_age_s or len(self._visits) > MOST_VISITS:
            self._visits, self._doubted, self._since, self._at_ms = {}, {}, now, at_ms
        remembered = self._visits
        unknown = [item_id for item_id in item_ids if item_id not in remembered]
        for item_id, least in (at_least or {}).items():
            if least > _MORE * remembered.get(item_id, least) and least > _MORE * self._doubted.get(item_id, 0.0):
                self._doubted[item_id] = least
                unknown.append(item_id)
        for start in range(0, len(unknown), VISITS_PER_CALL):
            remembered.update((await self._store.read([], unknown[start : start + VISITS_PER_CALL], at_ms)).marginals)
        return remembered
