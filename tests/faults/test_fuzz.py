"""A flood of odd events: nothing but a refusal comes of the bad ones, none takes long, and no memory is lost.

NEARKIN_FUZZ_EVENTS says how many go through the readers and the merge (50,000; `make fuzz`: 1,000,000); a sample goes
through the whole pipeline, where every one must be accounted for.
"""

import functools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from faults.item_stream import Event, reference, require_exactly
from faults.odd_stream import OddEvent, odd_events
from faults.running_parts import Parts
from nearkin.contracts.events import ItemEvent, decode_item_event
from nearkin.contracts.feedback import decode_feedback, decode_visit, require_timely, without_users
from nearkin.contracts.stored import from_payload, to_payload
from nearkin.contracts.topics import ITEMS
from nearkin.contracts.wire import REMEDIES
from nearkin.core.errors import InvalidEvent, NothingToEncode
from nearkin.core.item import ItemState, merge
from nearkin.core.ports import ContentEncoder, IndexedItem

EVENTS = int(os.environ.get("NEARKIN_FUZZ_EVENTS") or 50_000)

#: Records of the sample that goes through the whole pipeline.
THROUGH = 2_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + EVENTS // 500)]

#: An event that takes longer to read than this could be sent to stall a worker; in seconds of the processor, so that
#: what else the machine does is no part of it.
STALL_S = 2.0

#: What the process may grow by while the last four fifths are read: it would be gigabytes if each event left 10 kB.
GROWTH_MIB = 48

NOW_MS = 1_760_000_000_000

_DECODERS: dict[str, Callable[[bytes | None, bytes | None], Any]] = {
    "items": decode_item_event,
    "feedback": decode_feedback,
    "visits": decode_visit,
}


def test_odd_events_are_read_or_refused_and_merge_in_any_order(seed: int) -> None:
    draw = random.Random(seed)
    states: dict[str, ItemState] = {}
    outcomes: Counter[str] = Counter()
    slowest_s, began, rss = 0.0, time.monotonic(), [0, 0]
    for number, odd in enumerate(islice(odd_events(draw), EVENTS)):
        if number == EVENTS // 5:
            rss[0] = psutil.Process().memory_info().rss
        started = time.thread_time()
        try:
            outcome = _outcome(odd, states)
        except Exception as error:
            raise AssertionError(f"event {number} on {odd.topic}: {odd.key!r} {odd.value!r}"[:5_000]) from error
        slowest_s = max(slowest_s, time.thread_time() - started)
        outcomes[outcome] += 1
        if len(states) > 10_000:
            states.clear()
    rss[1] = psutil.Process().memory_info().rss
    grown_mib = (rss[1] - rss[0]) / 2**20
    told = {
        "events": EVENTS,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "slowest_ms": round(1000 * slowest_s, 1),
        "grown_mib": round(grown_mib, 1),
        "crashes": 0,
        "outcomes": dict(outcomes.most_common()),
    }
    _tell("fuzz", told)
    assert slowest_s < STALL_S
    assert grown_mib < GROWTH_MIB
    assert outcomes["read"] > EVENTS / 10, "hardly any got through: the test shows less than it says"
    assert len(outcomes) > 15, "few reasons for refusal were met: the test shows less than it says"


def test_odd_events_are_all_accounted_for_by_the_whole_pipeline(
    parts: Parts, encoder: ContentEncoder, seed: int
) -> None:
    records, good = list[OddEvent](), list[Event]()
    for odd in _items(random.Random(seed)):
        if len(records) == THROUGH:
            break
        try:
            decoded = decode_item_event(odd.key, odd.value)
        except InvalidEvent:
            records.append(odd)
            continue
        event = Event(odd.key or b"", odd.value or b"", decoded.state, decoded.kind)
        # Whether one that says nothing is refused or passed over depends on what came before it.
        if not _says_nothing(event, encoder):
            records.append(odd)
            good.append(event)
    parts.start(parts.broker, parts.index)
    parts.start(parts.live)
    for start in range(0, THROUGH, 200):
        waiting = [
            parts.streams.producer.send(ITEMS.name, key=odd.key, value=odd.value)
            for odd in records[start : start + 200]
        ]
        for each in waiting:
            parts.streams.note(each.get(timeout=60))
    parts.streams.until_drained("live")

    count = functools.partial(parts.live.counted, "events_total")
    outcomes = {name: int(count(outcome=name)) for name in ("applied", "superseded", "dead_lettered")}
    _tell("fuzz-pipeline", {"events": THROUGH, "seed": seed, "outcomes": outcomes})
    assert sum(outcomes.values()) == THROUGH
    letters = Counter((letter.key, letter.value) for letter in parts.streams.records(ITEMS.dead_letters))
    sent = Counter((odd.key, odd.value) for odd in records)
    assert letters == sent - Counter((event.key, event.value) for event in good)
    assert letters.total() == outcomes["dead_lettered"]
    expected = reference(good)
    assert len(expected) > 100, "hardly any got through: the test shows less than it says"
    # Not searched for: so many of equal content are equally near.
    parts.look_inside(lambda items: require_exactly(items, expected, encoder, sample=0))
    assert parts.live.is_ready


def _outcome(odd: OddEvent, states: dict[str, ItemState]) -> str:
    """Read an event and all that is done with it before an engine is asked."""
    try:
        event = _DECODERS[odd.topic](odd.key, odd.value)
    except InvalidEvent as error:
        refused = error
    else:
        return _merged(event, states)
    assert refused.remedy == REMEDIES[refused.reason]
    if odd.topic != "items":
        without_users(odd.value)
    return refused.reason


def _merged(event: Any, states: dict[str, ItemState]) -> str:
    if not isinstance(event, ItemEvent):
        try:
            require_timely(event, NOW_MS)
        except InvalidEvent as error:
            return error.reason
        return "read"
    new = event.state
    old = states.get(new.id)
    if old is None:
        states[new.id] = new
        return "read"
    states[new.id] = merged = merge(old, new)
    assert merged == merge(new, old) == merge(merged, new) == merge(merged, old)
    kept = IndexedItem(merged, "a fingerprint", NOW_MS, event.occurred_at, b"")
    assert from_payload(to_payload(kept)) == kept
    return "read"


def _items(draw: random.Random) -> Iterator[OddEvent]:
    """Odd events of items that a producer can send."""
    for odd in odd_events(draw):
        if odd.topic == "items" and odd.value is not None and len(odd.value) < 500_000:
            yield odd


def _says_nothing(event: Event, encoder: ContentEncoder) -> bool:
    content = event.state.content
    return content is not None and isinstance(encoder.encode([content])[0], NothingToEncode)


def _tell(name: str, told: dict[str, Any]) -> None:
    print(told)
    if folder := os.environ.get("NEARKIN_CHAOS_RESULTS"):
        path = Path(folder) / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"fault": name, **told}, indent=1) + "\n")
