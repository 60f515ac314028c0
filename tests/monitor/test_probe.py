"""What becomes of a probe, by what the service says of it."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from nearkin.client.lookup import ItemRecord, ItemStatus, Neighbour, SimilarItems
from nearkin.client.producer import Published
from nearkin.core import item
from nearkin.core.errors import InvalidRequest, Unavailable
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content, Offer
from nearkin.core.ports import IndexedItem, ItemWrite
from nearkin.core.probe import PROBE_MARKET, is_probe
from nearkin.encoders.fake import HashingEncoder
from nearkin.monitor import probe
from nearkin.monitor.count_points import count_points
from nearkin.monitor.probe import IDS, Outcome, Probed, Prober, count, keep_probing
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import load_settings
from nearkin.stores.memory import MemoryIndex


@dataclass
class Service:
    """Broker, indexer, index and look-ups in one: what is published is found after so many questions.

    Attributes:
        slow: how many questions say nothing of it first.
        searches: whether a search finds what is there.
        keeps_newest: whether older versions than it holds change nothing.
        lookup_problem: what every question meets.
        broker_problems: what the next publications meet, one after the other.
    """

    slow: int = 0
    searches: bool = True
    keeps_newest: bool = False
    lookup_problem: Exception | None = None
    broker_problems: list[Exception] = field(default_factory=list)
    held: dict[str, ItemRecord] = field(default_factory=dict)
    published: list[tuple[str, str]] = field(default_factory=list)
    producers: int = 0
    filters: list[ItemFilter | None] = field(default_factory=list)
    _asked: int = 0

    def make_producer(self, *_: Any, may_probe: bool, **__: Any) -> "Service":
        assert may_probe
        self.producers += 1
        return self

    def upsert(self, item_id: str, content: Content, version: int, *, offer: Offer) -> "Future[Published]":
        assert offer.markets == (PROBE_MARKET,)
        return self._take(item_id, ItemRecord(item_id, ItemStatus.HIDDEN, content_version=version, indexed_at_ms=1))

    def delete(self, item_id: str, version: int) -> "Future[Published]":
        return self._take(item_id, ItemRecord(item_id, ItemStatus.DELETED, deleted_version=version))

    def _take(self, item_id: str, record: ItemRecord) -> "Future[Published]":
        done: Future[Published] = Future()
        if self.broker_problems:
            done.set_exception(self.broker_problems.pop(0))
            return done
        self._asked = 0
        self.published.append((item_id, record.status.value))
        before = self.held.get(item_id, record)
        if not self.keeps_newest or _newest(record) >= _newest(before):
            self.held[item_id] = record
        done.set_result(Published("items.v1", 0, 0))
        return done

    def close(self, _timeout_s: float | None = None) -> None:
        """As a producer does."""

    async def items(self, ids: Sequence[str]) -> list[ItemRecord]:
        self._asked += 1
        if self.lookup_problem:
            raise self.lookup_problem
        if self._asked <= self.slow:
            return [ItemRecord(one, ItemStatus.UNKNOWN) for one in ids]
        return [self.held.get(one, ItemRecord(one, ItemStatus.UNKNOWN)) for one in ids]

    async def similar(self, *, filter: ItemFilter | None, **_: Any) -> SimilarItems:  # noqa: A002
        self.filters.append(filter)
        there = [one for one, held in self.held.items() if held.status is ItemStatus.HIDDEN and self.searches]
        return SimilarItems(tuple(Neighbour(one, 1.0, "") for one in there), "", "")


def _newest(record: ItemRecord) -> int:
    return max(record.content_version or 0, record.deleted_version or 0)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    monkeypatch.setattr(probe, "Producer", service.make_producer)
    return service


def prober(service: Service, late_s: float = 5.0) -> Prober:
    return Prober(load_settings(probe_late_s=late_s), service)  # type: ignore[arg-type]  # what it needs of a client


async def test_a_probe_that_comes_and_goes_is_proved_in_the_market_of_probes(service: Service):
    probed = await prober(service).probe()
    assert probed.outcome is Outcome.PROVED
    assert probed.visible_s is not None
    assert probed.gone_s is not None
    (item_id, _), (gone_id, _) = service.published
    assert item_id == gone_id
    assert is_probe(item_id)
    assert {one.market for one in service.filters if one} == {PROBE_MARKET}


async def test_probes_are_proved_at_once_after_the_clock_was_set_back(service: Service):
    service.keeps_newest = True
    day_ms = 86_400_000
    ahead = Prober(load_settings(probe_late_s=1.0), service, clock=lambda: 11 * day_ms)  # type: ignore[arg-type]
    for _ in IDS:
        assert (await ahead.probe()).outcome is Outcome.PROVED
    right = Prober(load_settings(probe_late_s=1.0), service, clock=lambda: 10 * day_ms)  # type: ignore[arg-type]
    await right.clear(0)
    assert (await right.probe()).outcome is Outcome.PROVED


async def test_ids_are_used_in_turn_and_there_are_few(service: Service):
    one = prober(service)
    for _ in range(len(IDS) + 1):
        await one.probe()
    assert set(service.held) == set(IDS)
    assert service.producers == 1


async def test_one_that_takes_longer_than_it_may_is_late(service: Service):
    service.slow = 3
    assert (await prober(service, late_s=0.02).probe()).outcome is Outcome.LATE


async def test_one_that_no_search_finds_has_failed_though_the_index_holds_it_and_is_deleted(service: Service):
    service.searches = False
    probed = await prober(service, late_s=0.02).probe()
    assert (probed.outcome, probed.visible_s) == (Outcome.FAILED, None)
    assert "look-ups do not show it" in probed.problem
    assert [status for _, status in service.published] == ["hidden", "deleted"]


@pytest.mark.parametrize(
    "problem", [Unavailable("look-up service", "gone"), InvalidRequest("is wrong", remedy="mend it", reason="test")]
)
async def test_one_that_cannot_be_looked_up_has_failed_and_says_why(service: Service, problem: Exception):
    service.lookup_problem = problem
    probed = await prober(service, late_s=0.02).probe()
    assert probed.outcome is Outcome.FAILED
    assert str(problem) in probed.problem


async def test_what_the_broker_does_not_take_has_failed_and_the_next_one_has_another_producer(service: Service):
    service.broker_problems = [Unavailable("broker", "gone")] * 2
    one = prober(service, late_s=0.5)
    assert (await one.probe()).outcome is Outcome.FAILED
    assert (await one.probe()).outcome is Outcome.PROVED
    assert service.producers == 3


async def test_what_is_left_behind_is_deleted_once_it_is_old(service: Service):
    service.held = {
        IDS[0]: ItemRecord(IDS[0], ItemStatus.HIDDEN, content_version=2**52, indexed_at_ms=1_000_000),
        IDS[1]: ItemRecord(IDS[1], ItemStatus.HIDDEN, content_version=5, indexed_at_ms=1_900_000),
        IDS[2]: ItemRecord(IDS[2], ItemStatus.DELETED, deleted_version=5),
    }
    one = Prober(load_settings(), service, clock=lambda: 2_000_000)  # type: ignore[arg-type]
    assert await one.clear(older_than_s=500) == [IDS[0]]
    assert service.held[IDS[0]].deleted_version == 2**52, "a version below what it has would delete nothing"
    assert await one.clear(older_than_s=0) == [IDS[1]]


def test_outcomes_and_times_are_counted_and_the_last_one_that_was_found_is_kept():
    metrics = Metrics(CollectorRegistry())
    value = metrics.registry.get_sample_value
    count(Probed(Outcome.PROVED, 0.5, 0.25), metrics)
    at = value("nearkin_monitor_last_probe_timestamp_seconds")
    count(Probed(Outcome.FAILED, 7.0, None, "not gone"), metrics)
    assert value("nearkin_monitor_last_probe_timestamp_seconds") == at
    assert value("nearkin_monitor_last_probe_seconds", {"step": "visible"}) == 0.5
    assert value("nearkin_monitor_probe_seconds_count", {"step": "visible"}) == 2
    assert value("nearkin_monitor_probe_seconds_count", {"step": "gone"}) == 1
    assert value("nearkin_monitor_probes_total", {"outcome": "failed"}) == 1


async def test_a_change_is_told_once_and_a_failure_that_nobody_foresaw_stops_nothing(caplog):
    caplog.set_level(logging.INFO)

    class Ended(BaseException):
        """The test has seen enough."""

    class Made:
        outcomes = iter(
            [
                Probed(Outcome.PROVED, 0.1, 0.1),
                ZeroDivisionError(),
                Probed(Outcome.FAILED, problem="gone"),
                Probed(Outcome.LATE, 6.753862801997457, 0.1),
            ]
        )

        async def clear(self, older_than_s: float) -> list[str]:
            raise Unavailable("look-up service", "gone")

        async def probe(self) -> Probed:
            one = next(self.outcomes, None)
            if one is None:
                raise Ended
            if isinstance(one, Exception):
                raise one
            return one

    metrics = Metrics(CollectorRegistry())
    with pytest.raises(Ended):
        await keep_probing(Made(), metrics, 0.0, 5.0)  # type: ignore[arg-type]
    assert [record.message for record in caplog.records] == ["a probe has failed", "a probe is late"]
    failed, late = (vars(record)["fields"] for record in caplog.records)
    assert failed.keys() == {"problem"}
    assert late == {"visible_s": 6.754, "gone_s": 0.1}
    assert metrics.registry.get_sample_value("nearkin_monitor_probes_total", {"outcome": "failed"}) == 2


async def test_points_are_counted_without_probes():
    index, encoder = MemoryIndex(), HashingEncoder()
    collection = await index.prepare(encoder.bundle, encoder.dimensions)
    content = Content(title="a mug")
    (vectors,) = encoder.encode([content])
    for item_id in ("mug", "bowl", IDS[3]):
        await collection.write([ItemWrite(IndexedItem(item.upserted(item_id, content, 1)), None, vectors)])  # type: ignore[arg-type]
    for item_id in ("gone", IDS[4], IDS[5]):
        await collection.write([ItemWrite(IndexedItem(item.deleted(item_id, 1)), None, None)])
    counts = await count_points(index)
    assert (counts.points, counts.tombstones) == (2, 1)
