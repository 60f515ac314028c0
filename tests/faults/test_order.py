"""Whatever the order in which events come, and on whichever lane: the index holds every item's newest state."""

import random

import pytest

from faults.item_stream import make_stream, reference, require_exactly
from faults.running_parts import Parts
from nearkin.contracts.topics import ITEMS, ITEMS_BULK
from nearkin.core.ports import ContentEncoder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.apache_kafka
def test_shuffled_and_repeated_events_of_the_same_items_on_both_lanes_at_once_leave_the_newest_state(
    parts: Parts, encoder: ContentEncoder, seed: int
) -> None:
    stream = make_stream(seed, items=700)
    expected = reference(stream)
    draw = random.Random(seed)
    live = [event for event in stream if draw.random() < 0.6]
    bulk = [event for event in stream if draw.random() < 0.6]
    sent = {id(event) for event in (*live, *bulk)}
    bulk += [event for event in stream if id(event) not in sent]
    parts.start(parts.broker, parts.index)
    parts.start(parts.live, parts.bulk)
    for start in range(0, max(len(live), len(bulk)), 200):
        parts.streams.publish(live[start : start + 200], ITEMS)
        parts.streams.publish(bulk[start : start + 200], ITEMS_BULK)
    parts.streams.until_drained()
    parts.look_inside(lambda items: require_exactly(items, expected, encoder))
    assert parts.streams.records(ITEMS.dead_letters) == parts.streams.records(ITEMS_BULK.dead_letters) == []
    assert parts.live.counted("write_conflicts_total") + parts.bulk.counted("write_conflicts_total") > 0, (
        "the lanes never met: the test shows less than it says"
    )


def test_the_same_stream_twice_changes_nothing_the_second_time(
    parts: Parts, encoder: ContentEncoder, seed: int
) -> None:
    stream = make_stream(seed, items=150)
    parts.start(parts.broker, parts.index)
    parts.start(parts.live)
    parts.streams.publish(stream)
    parts.streams.until_drained("live")
    encoded = parts.live.counted("encoded_items_sum")
    applied = parts.live.counted("events_total", outcome="applied")
    random.Random(seed).shuffle(stream)
    parts.streams.publish(stream)
    parts.streams.until_drained("live")
    assert parts.live.counted("events_total", outcome="applied") == applied
    assert parts.live.counted("encoded_items_sum") == encoded
    parts.look_inside(lambda items: require_exactly(items, reference(stream), encoder))
