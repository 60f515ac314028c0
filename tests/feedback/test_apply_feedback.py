"""What the use case does with what befalls it, on logs and a store of this process."""

import time

from feedback.feedback_stage import EVIDENCE, as_sent
from feedback.made_logs import Made
from nearkin.contracts.topics import VISITS
from nearkin.feedback import partition as module
from nearkin.ops.record import Record
from nearkin.ops.watchdog import Judge, Progress
from nearkin.stores.memory_evidence import MemoryEvidence

NOW = int(time.time() * 1000)
VISITED = (VISITS.name, 0)


def basket(offset, *items, **fields):
    event = {"kind": "visit", "event_id": f"visit-{offset}", "visit_id": f"v-{offset}", "visit_kind": "basket"}
    _, key, value = as_sent(event | {"occurred_at": NOW, "items": items} | fields)
    return Record(VISITS.name, 0, offset, NOW, key, value)


def large_basket(offset, size=30):
    return basket(offset, *(f"item-{offset}-{number}" for number in range(size)))


async def test_a_batch_of_large_baskets_on_a_slow_store_is_no_stall_however_long_it_takes(monkeypatch):
    monkeypatch.setattr(module, "MOST_PAIRS", 40)
    clock, verdicts = [100.0], []
    progress, judge = Progress(in_flight_since=100.0), Judge(timeout_s=5)

    class SlowStore(MemoryEvidence):
        async def apply(self, batches):
            clock[0] += 4
            verdicts.append(judge.verdict(clock[0], progress, {VISITED: 20}))
            return await super().apply(batches)

    def advance():
        progress.advanced_at = clock[0]

    made = Made(SlowStore(EVIDENCE), advance=advance)
    records = [large_basket(offset) for offset in range(20)]
    made.logs.hold(records)
    await made.apply.begin(frozenset({VISITED}))

    await made.apply(records)

    assert len(verdicts) > 5
    assert set(verdicts) == {""}
    assert made.counted("events_total", topic=VISITS.name, outcome="applied") == 20
