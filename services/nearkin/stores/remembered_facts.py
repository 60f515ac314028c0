"""Remembers the facts of points by their versions, so that a hit need not carry them: they are most of its bytes.

An engine gives a point another version with every change of it, so what is remembered of a version stays true. Replicas
of a shard count for themselves, so a version may, rarely, mean something else some day, and nothing is believed for
longer than an hour. A collection that is made again counts from the start: who finds it gone forgets all.
"""

import time
from collections.abc import Callable, Sequence

from nearkin.core.candidates import ItemFacts

#: A point's UUID and its version.
PointVersion = tuple[str, int]

#: Of so many points facts are remembered, some 90 MB.
MOST_POINTS = 2**17

#: How long they are believed at most, in seconds.
AGE_S = 3600.0


class RememberedFacts:
    """A bounded memory of facts.

    It has two halves: what is asked for is in the younger one or moves there, and when that is full the older one is
    dropped and the younger one is the older. So what was not asked for of late goes first, and an access costs nothing.

    Args:
        most: of how many points facts are remembered.
        age_s: after how many seconds all is forgotten.
        now: tells the seconds of a steady clock.
    """

    def __init__(
        self, most: int = MOST_POINTS, age_s: float = AGE_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._age_s, self._now = most, age_s, now
        self._young: dict[PointVersion, ItemFacts] = {}
        self._old: dict[PointVersion, ItemFacts] = {}
        self._since = now()

    def of(self, points: Sequence[PointVersion]) -> list[ItemFacts | None]:
        """For each point at a version its facts; None where they are not remembered."""
        if self._now() - self._since > self._age_s:
            self._young, self._old, self._since = {}, {}, self._now()
        found = list(map(self._young.get, points))
        if self._old and None in found:
            for place, point in enumerate(points):
                if found[place] is None and (facts := self._old.get(point)) is not None:
                    found[place] = facts
                    self._keep(point, facts)
        return found

    def remember(self, point: PointVersion, facts: ItemFacts) -> None:
        """Keep the facts of a point at a version; version 0 says nothing, as some engines give no other."""
        if point[1]:
            self._keep(point, facts)

    def _keep(self, point: PointVersion, facts: ItemFacts) -> None:
        if len(self._young) >= self._most // 2:
            self._young, self._old = {}, self._young
        self._young[point] = facts
