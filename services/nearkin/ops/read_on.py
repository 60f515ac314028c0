"""Which offset of each partition comes next, so that nothing that was fetched and thrown away stays unread.

A consumer's own place moves when records are handed out, whatever becomes of them: a rebalance, a seek, or an answer
that nobody waits for any more throws them away. What is acknowledged must follow, without a gap, upon where the
consumer was sent. So what leaves a gap is thrown away and asked for again from there; where the same comes again, it is
the log that is so (its older records were deleted), and it is taken. What lies before is taken as it comes: to read too
much changes nothing, and the broker sends the consumer back where the log ends before its place.
"""

from collections.abc import Iterable, Mapping

from nearkin.ops.record import Place


class ReadOn:
    """The offset that comes next in each partition."""

    def __init__(self) -> None:
        self._next: dict[Place, int] = {}
        # What was thrown away is asked for again before more is taken.
        self._again: set[Place] = set()
        # What came too late: the offset that should have come, and the one that did.
        self._odd: dict[Place, tuple[int, int]] = {}

    def forget(self) -> None:
        """Partitions are assigned anew: nothing is taken until the consumer is sent to where it begins."""
        self._next.clear()
        self._again.clear()
        self._odd.clear()

    def sent(self, positions: Mapping[Place, int]) -> None:
        """The consumer was sent there. What is on its way may be from before that, so it is sent there once more."""
        self._next.update(positions)
        self._again.update(positions)

    def drop(self, places: Iterable[Place]) -> None:
        """What was fetched of these partitions is thrown away."""
        self._again.update(places)

    def take(self, place: Place, first: int, last: int) -> bool:
        """Whether the records from the first offset to the last are what comes next; they are thrown away if not."""
        expected = self._next.get(place)
        if expected is None or place in self._again:
            self._again.add(place)
            return False
        if first > expected and self._odd.get(place) != (expected, first):
            self._odd[place] = expected, first
            self._again.add(place)
            return False
        self._next[place] = last + 1
        self._odd.pop(place, None)
        return True

    def give_back(self, place: Place, first: int, last: int) -> None:
        """What was taken found no room after all."""
        if self._next.get(place) == last + 1:
            self._next[place] = first
        self._again.add(place)

    def to_ask_again(self, places: Iterable[Place]) -> Mapping[Place, int]:
        """Of these partitions, those to which the consumer is to be sent again, and from which offset."""
        return {place: self._next[place] for place in places if place in self._again and place in self._next}

    def asked_again(self, positions: Mapping[Place, int]) -> None:
        """The consumer was sent there; a partition for which another offset holds by now is to be asked for again."""
        for place, offset in positions.items():
            if self._next.get(place) == offset:
                self._again.discard(place)
