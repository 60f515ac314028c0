"""Which events of a partition count: each once, and of one person only so much.

The answer is a pure function of the offsets just before an event's own. So whoever begins in the midst of a partition
reads that many offsets first, without applying them, and decides as one who was there all the time.

*Repeats.* An event whose id one of the last `window` offsets had does not count again. A repeat that comes later than
that counts: the window is what is remembered, and memory is bounded by it.

*Hammering.* What a person does more than `clamp` times within the window does not count, and is suspicious: the same
action with the same item beside the same anchor, a slate of the same visible items beside the same anchor in whatever
order, a visit of the same items. An event that is sent again is done again, so nobody gets around the clamp by naming
one event twice. Whoever is not named cannot be told apart, and is not clamped.

*Complaints.* What a person holds against a pair (`COMPLAINTS`) counts once within the window, whatever the clamp: it is
no truer for being said again, and few of them hide a pair from everybody.

*Refusals.* Of an event that is refused though its id is known, the id is remembered and not what it says was done: its
person may say that again, under another id, and has not said it yet.

So one person's actions of a kind with a pair are bounded by the clamp. Exposures and co-visits of a pair are bounded
for each slate and each basket that holds it, and by the window where they all differ: whoever comes back often is shown
the same pair in many slates, and if those did not count while their clicks did, the pair would look better than it is.
"""

from array import array
from bisect import bisect_left
from enum import Enum
from hashlib import blake2b

from nearkin.core.feedback import Action, Impressions, Interaction, Visit

#: Actions that a person needs to do once.
COMPLAINTS = frozenset({Action.SKIP, Action.DISLIKE, Action.HIDE, Action.REPORT})

#: What an offset of the window takes, at most, where every event names a user; measured by
#: `tests/core/test_admission.py`.
BYTES_AN_OFFSET = 400

#: Stands for the deed of an event without a user.
_NOBODY = 0


class Verdict(Enum):
    """What becomes of an event."""

    COUNTS = "counts"
    REPEATED = "repeated"  # its id was there within the window
    CLAMPED = "clamped"  # its user did the same too often within the window


class Admission:
    """Decides which events of one partition count.

    Memory is bounded by the window: `BYTES_AN_OFFSET` for each of its offsets, whatever events hold. Ids and deeds are
    remembered as 64 bits of a hash that is the same in every process: of a million events, two have the same with a
    probability of 3e-8.

    Args:
        window: how many offsets before an event's own are looked at, from 1.
        clamp: how often a person may do the same within the window, from 1; complaints count once.
    """

    def __init__(self, window: int, clamp: int) -> None:
        for name, value in (("window", window), ("clamp", clamp)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        self.window, self.clamp = window, clamp
        # A ring of what the window and the newest event hold, oldest first: one event an offset, so it never overflows.
        self._size = window + 1
        self._offsets, self._ids, self._deeds = (array(kind, bytes(8 * self._size)) for kind in "qQQ")
        self._begin = self._end = 0
        # How often the window holds each id and each deed.
        self._seen: dict[int, int] = {}
        self._done: dict[int, int] = {}

    def admit(self, offset: int, event: Impressions | Interaction | Visit, *, refused: bool = False) -> Verdict:
        """Decide of the next event of the partition, and remember it.

        To refill, call it with what the `window` offsets before the first event hold, and ignore the answers.

        Args:
            offset: where the event stands, after the one before.
            event: what keeps its contract, and nothing that only some readers hold to be timely is left out: what is
                remembered must not depend on when it is read.
            refused: whether it is known not to count, whoever reads it: its id alone is remembered.

        Raises:
            ValueError: the offset is not after the one before.
        """
        if self._end > self._begin and offset <= self._offsets[(self._end - 1) % self._size]:
            raise ValueError(f"offset {offset} does not come after the one before")
        self._forget(offset - self.window)
        event_id, deed = _hash(event.event_id), _NOBODY if refused else _deed(event)
        if event_id in self._seen:
            verdict = Verdict.REPEATED
        elif deed != _NOBODY and self._done.get(deed, 0) >= self._most(event):
            verdict = Verdict.CLAMPED
        else:
            verdict = Verdict.COUNTS
        place = self._end % self._size
        self._offsets[place], self._ids[place], self._deeds[place] = offset, event_id, deed
        self._end += 1
        self._seen[event_id] = self._seen.get(event_id, 0) + 1
        if deed != _NOBODY:
            self._done[deed] = self._done.get(deed, 0) + 1
        return verdict

    def take_back(self, offset: int) -> None:
        """Remember of an event its id alone, as it turned out not to count; one that the window has left is forgotten.

        Args:
            offset: where it stands.
        """
        held = range(self._begin, self._end)
        at = bisect_left(held, offset, key=lambda number: self._offsets[number % self._size])
        place = (self._begin + at) % self._size
        if at < len(held) and self._offsets[place] == offset and self._deeds[place] != _NOBODY:
            _take_one(self._done, self._deeds[place])
            self._deeds[place] = _NOBODY

    def _most(self, event: Impressions | Interaction | Visit) -> int:
        """How often a person may do what the event says."""
        return 1 if is_complaint(event) else self.clamp

    def _forget(self, before: int) -> None:
        """Forget what stands at offsets before one."""
        while self._begin < self._end:
            place = self._begin % self._size
            if self._offsets[place] >= before:
                return
            _take_one(self._seen, self._ids[place])
            if self._deeds[place] != _NOBODY:
                _take_one(self._done, self._deeds[place])
            self._begin += 1


def is_complaint(event: Impressions | Interaction | Visit) -> bool:
    """Whether an event is what its person needs to do once."""
    return isinstance(event, Interaction) and event.action in COMPLAINTS


def _take_one(counts: dict[int, int], key: int) -> None:
    if counts[key] == 1:
        del counts[key]
    else:
        counts[key] -= 1


def _deed(event: Impressions | Interaction | Visit) -> int:
    """What a person may do so often: a hash of who and what."""
    match event:
        case _ if event.user is None:
            return _NOBODY
        case Interaction():
            return _hash(event.user, event.anchor, event.item_id, event.action)
        case Impressions():
            shown = sorted(place.item_id for place in event.positions if place.visible)
            return _hash(event.user, event.anchor, "", *shown)  # where an action has its item, which is never empty
        case Visit():
            return _hash(event.user, *sorted(event.items))


def _hash(*texts: str) -> int:
    """64 bits of some texts; a control character, which no id may hold, stands between them."""
    return int.from_bytes(blake2b("\n".join(texts).encode(), digest_size=8).digest(), "little")
