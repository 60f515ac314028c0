"""Counts what the index holds, as the index says, without the monitor's own probes."""

from nearkin.core.ports import IndexCounts, ItemIndex
from nearkin.monitor.probe import IDS


async def count_points(index: ItemIndex) -> IndexCounts:
    """The points of the collection that serves: items and tombstones.

    Raises:
        NearkinError: the index does not answer, or nothing serves.
    """
    collection = await index.serving()
    counts = await collection.count()
    probes = await collection.read(IDS)
    present = sum(one.state.is_present for one in probes.values())
    return IndexCounts(
        points=max(0, counts.points - present), tombstones=max(0, counts.tombstones - (len(probes) - present))
    )
