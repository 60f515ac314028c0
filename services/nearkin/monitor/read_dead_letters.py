"""Which dead letters lie on the broker, by reason: read from the topics themselves, so no worker need be there to say.

Of each partition the newest records are kept count of, a bounded number. A letter that is settled, or that the broker
has dropped, is none any more.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from nearkin.contracts.topics import SOURCES
from nearkin.core.errors import Unavailable
from nearkin.monitor.read_lag import BrokerSide
from nearkin.ops.letters import Letter, Marker, read_letter
from nearkin.ops.record import Place

#: So many of the newest records of a partition are looked at.
NEWEST = 1_000

#: So many are read at a time; fewer mean that all is read which the broker gave.
AT_ONCE = 500

TOPICS = tuple(topic.dead_letters.name for topic in SOURCES)


@dataclass(slots=True)
class _Tail:
    """The newest letters of a partition that are open: their reasons by offset; where to read on; the end told last."""

    next: int = 0
    end: int = 0
    reasons: dict[int, str] = field(default_factory=dict)


class ReadDeadLetters:
    """Keeps count of the newest dead letters.

    Args:
        broker: is asked.
    """

    def __init__(self, broker: BrokerSide) -> None:
        self._broker = broker
        self._tails: dict[Place, _Tail] = {}

    async def __call__(self) -> Mapping[tuple[str, str], int]:
        """How many letters lie there, by topic and reason; where there were some and are none any more, 0.

        Raises:
            Unavailable: the broker does not answer.
        """
        counts = Counter(dict.fromkeys(self._known(), 0))
        bounds = await self._broker.bounds(TOPICS)
        self._tails = {place: self._tails.get(place, _Tail()) for place in bounds}
        for place, (begin, end) in bounds.items():
            await self._read(place, self._tails[place], begin, end)
        counts.update(self._known())
        return counts

    def _known(self) -> list[tuple[str, str]]:
        return [(topic, reason) for (topic, _), tail in self._tails.items() for reason in tail.reasons.values()]

    async def _read(self, place: Place, tail: _Tail, begin: int, end: int) -> None:
        if tail.end > end:  # the topic was made again
            tail.next, tail.reasons = 0, {}
        tail.end = end
        first = max(begin, end - NEWEST)
        tail.reasons = {offset: reason for offset, reason in tail.reasons.items() if offset >= first}
        tail.next = max(tail.next, first)
        more = tail.next < end
        while more:
            records = await self._broker.read_some(place, tail.next, AT_ONCE)
            if not records:
                if tail.next >= end:
                    return
                raise Unavailable("broker", f"{place[0]}[{place[1]}] gives nothing at offset {tail.next}")
            for record in records:
                match read_letter(record):
                    case Letter() as letter:
                        tail.reasons[record.offset] = letter.reason
                    case Marker() as marker:
                        tail.reasons.pop(marker.letter.offset, None)
            tail.next = records[-1].offset + 1
            # A broker may name the last batch's beginning as the end (Tansu does): all that came with it is read.
            more = tail.next < end or len(records) == AT_ONCE
