"""Remembers the payload fields that searches asked for, by point: Edge parses a point's whole payload for one field.

Half the time of a search went into that. What is remembered of a point is forgotten when the point may have changed;
the owner serves one call at a time, so nothing is remembered that was read before a change and kept after it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from qdrant_client import grpc as wire

from nearkin.embedded.edge_messages import PointId

#: So many bytes are remembered: some 100,000 points with titles of a usual length, and what Python adds to each.
MOST_BYTES = 25_000_000
_OVERHEAD_BYTES = 150


class HitPayloads:
    """A bounded memory of points' payload fields, for one selection of fields at a time.

    Args:
        read: reads these points with these fields: for each that is held, its id and the hit without its score.
    """

    def __init__(self, read: Callable[[Sequence[PointId], Sequence[str]], Iterable[tuple[PointId, bytes]]]) -> None:
        self._read = read
        self._fields: Sequence[str] = ()
        self._hits: OrderedDict[PointId, bytes] = OrderedDict()
        self._bytes = 0

    def of(self, ids: Iterable[PointId], fields: Sequence[str]) -> dict[PointId, wire.ScoredPoint]:
        """The hits of points with these payload fields, without scores; points that are not held are left out."""
        if fields != self._fields:
            self.forget_all()
            self._fields = fields
        wanted = list(dict.fromkeys(ids))
        if missing := [point_id for point_id in wanted if point_id not in self._hits]:
            for point_id, packed in self._read(missing, fields):
                self._hits[point_id] = packed
                self._bytes += len(packed) + _OVERHEAD_BYTES
        hits = {}
        for point_id in wanted:
            if (hit := self._hits.get(point_id)) is not None:
                self._hits.move_to_end(point_id)
                hits[point_id] = hit
        while self._bytes > MOST_BYTES:
            self._bytes -= len(self._hits.popitem(last=False)[1]) + _OVERHEAD_BYTES
        return {point_id: wire.ScoredPoint.FromString(hit) for point_id, hit in hits.items()}

    def forget(self, ids: Iterable[PointId]) -> None:
        """These points may have changed."""
        for point_id in ids:
            if (gone := self._hits.pop(point_id, None)) is not None:
                self._bytes -= len(gone) + _OVERHEAD_BYTES

    def forget_all(self) -> None:
        """Any point may have changed."""
        self._hits.clear()
        self._bytes = 0
