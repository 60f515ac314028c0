from itertools import pairwise

from prometheus_client import CollectorRegistry

import nearkin
from nearkin.ops.metrics import FRESHNESS_BUCKETS, Metrics


def test_two_processes_in_one_test_do_not_mix():
    first, second = Metrics(CollectorRegistry(), "first"), Metrics(CollectorRegistry(), "second")

    first.events.labels(topic="items.v1", outcome="applied").inc()

    sample = {"topic": "items.v1", "outcome": "applied"}
    assert first.registry.get_sample_value("nearkin_events_total", sample) == 1
    assert second.registry.get_sample_value("nearkin_events_total", sample) is None


def test_the_build_is_told_with_its_process_and_version():
    metrics = Metrics(CollectorRegistry(), "indexer-live")

    labels = {"version": nearkin.__version__, "process": "indexer-live"}
    assert metrics.registry.get_sample_value("nearkin_build_info", labels) == 1


def test_an_age_is_counted_in_its_stage():
    metrics = Metrics(CollectorRegistry())

    metrics.age("broker_to_consumed", 0.012)

    stage = {"stage": "broker_to_consumed"}
    assert metrics.registry.get_sample_value("nearkin_freshness_seconds_sum", stage) == 0.012


def test_a_negative_age_counts_as_nothing_and_is_told():
    metrics = Metrics(CollectorRegistry())

    metrics.age("occurred_to_broker", -3.0)

    stage = {"stage": "occurred_to_broker"}
    assert metrics.registry.get_sample_value("nearkin_freshness_seconds_sum", stage) == 0
    assert metrics.registry.get_sample_value("nearkin_freshness_clamped_total", stage) == 1


def test_freshness_is_resolved_from_ten_milliseconds_to_ten_minutes():
    assert FRESHNESS_BUCKETS[0] <= 0.01
    assert FRESHNESS_BUCKETS[-1] == 600
    assert all(upper <= 3 * lower for lower, upper in pairwise(FRESHNESS_BUCKETS))


def test_what_the_process_uses_is_told_under_the_names_that_dashboards_know():
    read = Metrics(CollectorRegistry()).registry.get_sample_value

    assert read("process_cpu_seconds_total") > 0
    assert read("process_resident_memory_bytes") > 2**20
    assert read("process_open_fds") > 0
    assert read("python_gc_collections_total", {"generation": "0"}) is not None
