"""Clocks that jump while everything runs: newest versions win as before, figures are clamped and told, nobody stops.

Producers' clocks are wrong as well (`feedback_stream.py`). The feedback worker's clock is never behind here: more than
5 minutes behind, it refuses feedback as from the future (`tests/feedback/test_partition.py`, docs/operations.md).
"""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engines.set_clock import SetClock
from faults.chaos import Chaos, rounds, run_chaos
from faults.item_stream import Event, event_of
from faults.running_parts import Part, Parts
from nearkin.contracts.events import encode_upserted
from nearkin.core.item import Content
from nearkin.core.ports import ContentEncoder
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 30 * rounds(3))]

HOUR_S, DAY_S = 3600, 86_400

#: A process that uses more of a core than this, under the little load of these tests, turns for nothing.
BUSY = 0.9


@pytest.fixture
def chaos(tmp_path: Path, seed: int, request: pytest.FixtureRequest, encoder: ContentEncoder) -> Iterator[Chaos]:
    with Parts(tmp_path / "parts") as parts:
        yield from run_chaos(parts, seed, request.node.name, encoder, parts.index)


def test_clocks_that_jump_under_load_change_no_result_and_stop_nobody(
    chaos: Chaos, faketime: Path, tmp_path: Path
) -> None:
    parts = chaos.parts
    clocks = {
        part.name: SetClock(faketime, tmp_path / part.name) for part in (parts.live, parts.feedback, parts.lookup)
    }
    for part in (parts.live, parts.feedback, parts.lookup):
        part.environment |= clocks[part.name].environment
    parts.start(parts.live, parts.feedback, parts.lookup)
    jumps = [-HOUR_S, 30 * DAY_S, 0, HOUR_S, -2 * DAY_S]
    with chaos.load():
        for ahead_s in (jumps * rounds(3))[: rounds(3)]:
            seen = _samples(parts.live)
            since = chaos.begin(
                f"clocks are set {ahead_s:+d} s from the right time, of feedback {max(0, ahead_s):+d} s"
            )
            for name, clock in clocks.items():
                clock.set(max(0, ahead_s) if name == parts.feedback.name else ahead_s)
            time.sleep(1.5)
            chaos.require_recovery(since, parts.live, parts.feedback, parts.lookup)
            until(lambda: _samples(parts.live) > seen, "samples of freshness go on")  # noqa: B023
            _require_idle(parts.live, parts.feedback, parts.lookup)
    chaos.require_exact()
    assert parts.live.counted("freshness_clamped_total", stage="broker_to_consumed") > 0
    for worker in (parts.live, parts.feedback):
        assert worker.counted("rebalances_total") == 1, f"{worker.name} left its group"
    assert all(part.runs for part in (parts.live, parts.feedback, parts.lookup))


def test_events_of_producers_whose_clocks_are_wrong_are_ordered_by_version_and_their_ages_clamped(parts: Parts) -> None:
    parts.start(parts.broker, parts.index)
    parts.start(parts.live)
    now_ms = time.time_ns() // 1_000_000
    # The newer the version, the older its time.
    stream = [_lamp("item", version, now_ms + (10 - version) * HOUR_S * 1000) for version in range(20)]
    early = _lamp("early", 1, now_ms + HOUR_S * 1000)
    for event in (*stream[::2], *stream[1::2], early):
        parts.streams.publish([event])
    parts.streams.until_drained("live")
    held = parts.look_inside(lambda items: items.read(["item", "early"]))
    assert {item_id: one.state for item_id, one in held.items()} == {"item": stream[-1].state, "early": early.state}
    assert parts.live.counted("freshness_clamped_total", stage="occurred_to_broker") > 0


def _lamp(item_id: str, version: int, occurred_at: int) -> Event:
    content = Content(title=f"a lamp of form {version}")
    named = {"event_id": f"{item_id}-{version}", "occurred_at": occurred_at}
    return event_of(*encode_upserted(item_id, content, version, **named))


def _samples(indexer: Part) -> float:
    """How many items were searched for until they were found."""
    return indexer.counted("freshness_seconds_count", stage="occurred_to_visible")


def _require_idle(*parts: Part) -> None:
    """Processes have some time to spare."""
    processes = [psutil.Process(part.process.pid) for part in parts]
    before, began = [sum(process.cpu_times()[:2]) for process in processes], time.monotonic()
    time.sleep(2)
    took = time.monotonic() - began
    for part, process, used in zip(parts, processes, before, strict=True):
        share = (sum(process.cpu_times()[:2]) - used) / took
        assert share < BUSY, f"{part.name} turns for nothing: it uses {share:.2f} of a core"
