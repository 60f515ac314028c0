"""One partition of feedback or visits as the worker knows it: what was applied, and what has come and is not yet.

Which of its events count, and what, follows from the log and the guards: from an event, from those at the `window`
offsets before its own, and from the time of its record. So a worker that begins in the midst of it, after a crash or in
the place of another one, first reads so many offsets back (`see`), and then decides as the one before it would have.

What its own record's time refuses, whoever reads it and whenever, is not remembered: it may come again under its id.
That is an event of more than 30 days before that time, be the record from the future or not, one that is ahead of it,
and one whose record has no time. There is one exception to all this: where a record claims to be from the future, its
event may be too early by now as well. One worker refuses it then and another, later, admits it, so both remember its id
and what it did; a complaint that comes again under a new id counts only after the window.

Of what is too late by the stream's own time the id alone is remembered, as that time hangs on such records: what it did
may be done under a new one. Whether it is late follows from the window before it, so by that clock two windows are read
back. The same is done with what fails as nobody foresaw, but the log does not say that it did: a worker that begins
later takes it for done.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from nearkin.contracts import limits
from nearkin.contracts.feedback import decode_feedback, decode_visit, require_timely
from nearkin.contracts.topics import FEEDBACK, VISITS
from nearkin.contracts.wire import refused
from nearkin.core.admission import Admission, Verdict, is_complaint
from nearkin.core.counting import Counting, count, most_pairs_of
from nearkin.core.errors import InvalidEvent
from nearkin.core.evidence import Effect, Outcome, ShardBatch, Source, Tally
from nearkin.core.feedback import Impressions, Interaction, Visit
from nearkin.ops.failures import NEW_EVENT_ID, unforeseen
from nearkin.ops.logs import fields
from nearkin.ops.record import Place, Record, Rejected

log = logging.getLogger(__name__)

FeedbackEvent = Impressions | Interaction | Visit

#: Pairs in one script call, but for a single event that has more: so many take Redis about 7 ms, in which it serves
#: nobody else (at 200,000 pair updates a second, see docs/decisions/0007-evidence-in-redis.md).
MOST_PAIRS = 1500

_DECODERS: Final[dict[str, Callable[[bytes | None, bytes | None], FeedbackEvent]]] = {
    FEEDBACK.name: decode_feedback,
    VISITS.name: decode_visit,
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides whether an event counts.

    Attributes:
        half_life_ms: of the store.
        window: offsets of a partition in which a repeat is known.
        clamp: how often a person may do the same within the window.
        clock: by what an event is late or early: the time of its record, or the newest event within the window.
    """

    half_life_ms: int
    window: int
    clamp: int
    clock: Literal["wall", "stream"] = "wall"

    @property
    def reach(self) -> int:
        """How many offsets before its own position whoever begins there has to see."""
        return 2 * self.window if self.clock == "stream" else self.window


class Waiting(NamedTuple):
    """An event that counts and is not applied yet."""

    record: Record
    event: FeedbackEvent


class Partition:
    """What has come of one partition, and what the store has of it.

    Args:
        place: topic and partition.
        source: how the store calls it.
        guards: of each shard, as the store has them.
        position: the offset of the next record; no guard is before it but those of shards that what lies between does
            not concern.
        rules: what counts.
        now_ms: the clock of this machine, in milliseconds since the epoch.

    Attributes:
        waiting: events that count, in order, and are not applied yet.
        refused: records that become dead letters before any guard passes them.
        passed: one more than the last offset that came again.
        outcomes: how many events were repeated or clamped, since it was last emptied.
        sampled: an anchor that something was counted of lately; empty where there is none.
    """

    def __init__(
        self,
        place: Place,
        source: Source,
        guards: Sequence[int],
        position: int,
        rules: Rules,
        now_ms: Callable[[], int],
    ) -> None:
        self.place, self.source, self.guards, self.position = place, source, list(guards), position
        self._rules, self._now_ms, self._decode = rules, now_ms, _DECODERS[place[0]]
        self._admission = Admission(rules.window, rules.clamp)
        self._newest = _Newest(rules.window)
        self.waiting: list[Waiting] = []
        self.refused: list[Rejected] = []
        self.outcomes: Counter[Verdict] = Counter()
        self.passed = 0
        self.sampled = ""
        self._until = 0
        self._failures = 0

    def see(self, record: Record) -> None:
        """Remember a record from before `position`: it decides about later ones and counts no more."""
        try:
            event = self._decode(record.key, record.value)
            self._require_timely_by_record(event, record.timestamp_ms)
        except Exception:  # it was refused in its time, for whatever reason
            return
        self._remember(record, event)

    def take(self, record: Record) -> None:
        """Take the record at `position`, or the first after it where the log has none there.

        Raises:
            Exception: so many in a row failed in a way nobody foresaw that the fault cannot be theirs.
        """
        offset = record.offset
        try:
            event = self._decode(record.key, record.value)
            self._require_timely_by_record(event, record.timestamp_ms)
            verdict, now_ms = self._remember(record, event)
            _require_timely_now(event, now_ms)
        except InvalidEvent as error:
            self.refused.append(Rejected(record, error))
        except Exception as error:  # one event must not stop the partition
            self._failures += 1
            self.refused.append(unforeseen(record, error, self._failures))
        else:
            self._failures = 0
            if verdict is Verdict.COUNTS:
                self.waiting.append(Waiting(record, event))
            else:
                self.outcomes[verdict] += 1
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("event %s", verdict.value, extra=fields(**told_of(record, event)))
        self.position = offset + 1

    def batches(self, by: Counting) -> list[ShardBatch]:
        """What the first of the waiting events add, for each shard that they concern and that has not counted them.

        They are as many as `MOST_PAIRS` lets into a call, and one at least. An event that cannot be counted is refused.
        So is told what must be sent before the batches are applied.
        """
        failures = 0
        while True:
            batches, failed = self._tally(by)
            if failed is None:
                return batches
            failures += 1
            most_fail = 2 * failures > len(self.waiting)
            self.refused.append(unforeseen(failed[0].record, failed[1], failures if most_fail else 1))
            self._admission.take_back(failed[0].record.offset)
            self.waiting = [each for each in self.waiting if each is not failed[0]]

    def settle(self, outcomes: Sequence[tuple[ShardBatch, Outcome]]) -> list[Waiting] | None:
        """Take note of what became of the last batches.

        Returns:
            The events that are applied now; those of which a part is not are waiting still. None where the store has
            lost what it once had: it must be read anew.
        """
        if any(outcome.guard < batch.start for batch, outcome in outcomes):
            return None
        for batch, outcome in outcomes:
            self.guards[batch.shard] = outcome.guard
        if any(outcome.effect is Effect.MISMATCH for _, outcome in outcomes):
            return []
        applied = [each for each in self.waiting if each.record.offset < self._until]
        self.waiting = self.waiting[len(applied) :]
        if applied:
            event = applied[-1].event
            self.sampled = event.items[0] if isinstance(event, Visit) else event.anchor
        return applied

    def idle_batches(self) -> list[ShardBatch]:
        """Batches without events, which move the guards of the shards that the last events did not concern.

        There are none while events wait, or dead letters: no guard may pass what is not done.
        """
        if self.waiting or self.refused:
            return []
        return [
            ShardBatch(self.source, shard, guard, self.position, 0)
            for shard, guard in enumerate(self.guards)
            if guard < self.position
        ]

    def _tally(self, by: Counting) -> tuple[list[ShardBatch], tuple[Waiting, Exception] | None]:
        """The batches, or the first event that cannot be counted: half of it may be in the sums, so none are given."""
        tallies: list[Tally | None] = [None] * len(self.guards)
        end, room = self.position, _Room(tallies)
        closed = sorted(((guard, shard) for shard, guard in enumerate(self.guards) if guard < end), reverse=True)
        for each in self.waiting:
            while closed and closed[-1][0] <= each.record.offset:
                tallies[closed.pop()[1]] = Tally(self._rules.half_life_ms)
            try:
                # Decided before it is counted: one visit may be hundreds of thousands of pairs.
                if not room.take(most_pairs_of(each.event, by)) and each is not self.waiting[0]:
                    end = each.record.offset
                    break
                count(each.event, tallies, by)
            except Exception as error:  # one event must not stop the partition
                return [], (each, error)
        self._until = end
        return [
            ShardBatch(
                self.source,
                shard,
                self.guards[shard],
                end,
                tally.landmark,
                tally.deltas(),
                tally.visits,
                tally.newest_ms,
            )
            for shard, tally in enumerate(tallies)
            if tally is not None and tally.newest_ms
        ], None

    def _remember(self, record: Record, event: FeedbackEvent) -> tuple[Verdict, int]:
        """Remember an event whose own record does not refuse it: whether it is a repeat or done too often, and now."""
        wall = self._wall(record)
        newest = self._newest.see(record.offset, event.occurred_at, wall)
        now_ms = newest if self._rules.clock == "stream" else wall
        # By the wall's time its record would have refused it.
        late = event.occurred_at < now_ms - limits.MAX_LATENESS_MS
        return self._admission.admit(record.offset, event, refused=late), now_ms

    def _require_timely_by_record(self, event: FeedbackEvent, stamped_ms: int) -> None:
        """Refuse what every worker refuses, as nothing decides about it but the event and its record's time.

        By the stream's own time an event is late beside others, which say nothing here. By the wall's it must not lie
        too long before the time of its record, which is taken as it is, also where it is in the future.

        Raises:
            InvalidEvent: the record has no time, or the event is too late or in the future by it.
        """
        if stamped_ms <= 0:
            raise refused("no_time", "", "its record has no time")
        on_time = self._rules.clock == "stream" and event.occurred_at < stamped_ms
        try:
            require_timely(event, event.occurred_at if on_time else stamped_ms)
        except InvalidEvent as error:
            if error.reason != "too_late":
                raise
            more = "if it was, the clock of its record (the producer's or the broker's) is ahead"
            raise _with_more(error, more) from None

    def _wall(self, record: Record) -> int:
        """By what an event is early: its record's own time, which is the same whenever it is read, and at most now."""
        return min(record.timestamp_ms, self._now_ms())


class _Room:
    """How many pairs the calls of shards may hold still.

    Args:
        tallies: what they hold, of each shard; None where nothing is added.
    """

    def __init__(self, tallies: Sequence[Tally | None]) -> None:
        self._tallies = tallies
        # At least so many, as events were held to add new pairs alone; looked up where that is too few.
        self._left: dict[int, int] = {}

    def take(self, pairs: Mapping[int, int]) -> bool:
        """Take room for an event's pairs; whether there was enough in each shard."""
        enough = True
        for shard, number in pairs.items():
            tally = self._tallies[shard]
            if tally is None:
                continue
            left = self._left.get(shard, MOST_PAIRS)
            if left < number:
                left = MOST_PAIRS - tally.size()
            enough = enough and left >= number
            self._left[shard] = left - number
        return enough


class _Newest:
    """The newest time that the events of a window of offsets told, their own included."""

    def __init__(self, window: int) -> None:
        self._window = window
        # Offsets and times, both rising: of the others, each has a later one that is newer.
        self._newest: deque[tuple[int, int]] = deque()

    def see(self, offset: int, occurred_at: int, wall: int) -> int:
        """Go on to an event; one from the future tells no time. The time that is in force for it."""
        newest = self._newest
        while newest and newest[0][0] < offset - self._window:
            newest.popleft()
        if occurred_at > wall + limits.MAX_AHEAD_MS:
            return wall
        while newest and newest[-1][1] <= occurred_at:
            newest.pop()
        newest.append((offset, occurred_at))
        return newest[0][1]


def _require_timely_now(event: FeedbackEvent, now_ms: int) -> None:
    """Refuse what is too late or in the future by the clock in force, when its id is remembered already."""
    try:
        require_timely(event, now_ms)
    except InvalidEvent as error:
        more = f"send it {NEW_EVENT_ID}, as this one is taken for one that came"
        if error.reason == "in_future" and is_complaint(event) and event.user is not None:
            more += " (and the complaint for made: it counts only after NEARKIN_FEEDBACK_WINDOW offsets without it)"
        raise _with_more(error, more) from None


def _with_more(error: InvalidEvent, more: str) -> InvalidEvent:
    """The same refusal with more in its remedy."""
    remedy = f"{error.remedy}; {more}"
    return InvalidEvent(error.problem, remedy=remedy, field=error.field, reason=error.reason)


def told_of(record: Record, event: FeedbackEvent) -> dict[str, object]:
    """What a line of the log says of an event: which it is, and where it lies."""
    return {
        "event_id": event.event_id,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
    }


def is_unexposed(event: FeedbackEvent) -> bool:
    """Whether it is an action on what was not logged as shown."""
    return isinstance(event, Interaction) and (event.request_id is None or event.position is None)
