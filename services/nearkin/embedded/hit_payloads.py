"""Remembers the payload fields that searches asked for, by point: Edge parses a point's whole payload for one field.

Most of the time of a search went into that. What is remembered of a point is forgotten when the point may have changed;
the owner serves one call at a time, so nothing is remembered that was read before a change and kept after it.

A point is remembered as the bytes of a `BatchResult` that holds it alone. Encoded messages that are joined are one
message with all their hits (protobuf's rule of merging), so hits are put together without being taken apart; and
because a found point and a read point number their first fields alike, the same bytes make a `GetResponse`.
"""

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from nearkin.embedded.edge_messages import PointId

#: So many bytes are remembered at most: some 60,000 points with facts of a usual length, and what Python adds to each.
MOST_BYTES = 25_000_000
_OVERHEAD_BYTES = 180


class HitPayloads:
    """A bounded memory of points' payload fields, for one selection of fields at a time.

    It has two halves: what is asked for is in the younger one or moves there, and when that is full the older one is
    dropped and the younger one is the older. So what was not asked for of late goes first, and an access costs nothing.

    Args:
        read: reads these points with these fields: for each that is held, its id and its bytes.
    """

    def __init__(self, read: Callable[[Sequence[PointId], Sequence[str]], Iterable[tuple[PointId, bytes]]]) -> None:
        self._read = read
        self.fields: Sequence[str] = ()
        self._young: dict[int, bytes] = {}
        self._old: dict[int, bytes] = {}
        self._young_bytes = 0

    def of(self, ids: Sequence[PointId], fields: Sequence[str]) -> list[bytes | None]:
        """For each of these points its bytes with these payload fields; None where it is not held."""
        if fields != self.fields:
            self.forget_all()
            self.fields = fields
        keys = [_key(point_id) for point_id in ids]
        found = [self._young.get(key) for key in keys]
        if None not in found:
            return found
        self._remember({key: point_id for key, point_id, one in zip(keys, ids, found, strict=True) if one is None})
        found = [one or self._young.get(key) for key, one in zip(keys, found, strict=True)]
        if self._young_bytes > MOST_BYTES // 2:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        return found

    def forget(self, ids: Iterable[PointId]) -> None:
        """These points may have changed."""
        for point_id in ids:
            key = _key(point_id)
            self._old.pop(key, None)
            if (gone := self._young.pop(key, None)) is not None:
                self._young_bytes -= len(gone) + _OVERHEAD_BYTES

    def forget_all(self) -> None:
        """Any point may have changed."""
        self._young, self._old, self._young_bytes = {}, {}, 0

    def _remember(self, missing: dict[int, PointId]) -> None:
        """Put points into the younger half, from the older one or by reading them."""
        again = {key: packed for key in missing if (packed := self._old.pop(key, None)) is not None}
        unread = [point_id for key, point_id in missing.items() if key not in again]
        read = {_key(point_id): packed for point_id, packed in self._read(unread, self.fields)} if unread else {}
        for key, packed in (again | read).items():
            self._young[key] = packed
            self._young_bytes += len(packed) + _OVERHEAD_BYTES


def _key(point_id: PointId) -> int:
    """A number for each id, which is found faster than a UUID; numbers that are ids become negative."""
    if isinstance(point_id, UUID):
        return point_id.int
    return UUID(point_id).int if isinstance(point_id, str) else -1 - point_id
