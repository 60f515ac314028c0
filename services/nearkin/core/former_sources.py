"""Which guards a store may forget: those of topics that are gone, once no event can come from there any more.

Where a guard is missing it is 0, and whatever its partition still held would count again. That a broker has no topic of
an id is not enough: another broker may be asked than the one before, for a while. So a guard goes only once its topic
was not there, and it did not move, for longer than a topic keeps anything. When that began is noted beside the guards,
and how often it was looked at since: a clock that jumps ahead makes no time pass, and a look is about an hour.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from nearkin.core.evidence import Source


class Standstill(NamedTuple):
    """Since when the guards of a former source have not moved.

    Attributes:
        total: their sum, which a move changes.
        since_ms: when it was first seen, in milliseconds since the epoch.
        looks: how often it was seen, the first time included.
    """

    total: int
    since_ms: int
    looks: int = 0


def former_sources(
    totals: Mapping[Source, int],
    noted: Mapping[Source, Standstill],
    present: Collection[str],
    now_ms: int,
    still_ms: int,
    least_looks: int,
) -> tuple[dict[Source, Standstill], frozenset[Source]]:
    """What to note of former sources, and which of them to forget.

    Args:
        totals: of each source that guards are kept of, their sum over all shards.
        noted: what was noted the last time.
        present: the ids of the topics that are there.
        now_ms: the wall's time.
        still_ms: for how long a guard must not have moved.
        least_looks: how often, this time included, it must have been seen so.
    """
    standing: dict[Source, Standstill] = {}
    due = set()
    for source, total in totals.items():
        if source.topic_id in present:
            continue
        before = noted.get(source)
        if before is None or before.total != total:
            before = Standstill(total, now_ms)
        still = Standstill(total, min(before.since_ms, now_ms), before.looks + 1)
        if now_ms - still.since_ms >= still_ms and still.looks >= least_looks:
            due.add(source)
        else:
            standing[source] = still
    return standing, frozenset(due)
