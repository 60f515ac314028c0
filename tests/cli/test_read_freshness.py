import math

import pytest
from prometheus_client import CollectorRegistry

from nearkin.cli.read_freshness import ages_between, read_counts
from nearkin.core.errors import Unavailable
from nearkin.embedded.programs import free_port
from nearkin.ops.health import Health, HealthServer
from nearkin.ops.metrics import Metrics


def test_only_what_happened_between_two_readings_counts():
    metrics = Metrics(CollectorRegistry())
    with HealthServer("127.0.0.1:0", Health(metrics), metrics) as server:
        metrics.age("occurred_to_visible", 99.0)
        before = read_counts(server.address)
        for age in (0.012, 0.013, 0.014, 0.035):
            metrics.age("occurred_to_visible", age)
        (ages,) = ages_between(before, read_counts(server.address))
    assert (ages.stage, ages.count) == ("occurred_to_visible", 4)
    assert 0.010 <= ages.p50 <= 0.015
    assert 0.030 <= ages.p95 <= ages.at_most == 0.04


def test_quantiles_are_interpolated_within_a_bucket():
    counts = {"stage": {1.0: 0.0, 2.0: 10.0, math.inf: 10.0}}
    (ages,) = ages_between({}, counts)
    assert (ages.p50, ages.at_most) == (1.5, 2.0)
    assert ages.p95 == pytest.approx(1.95)


def test_a_process_that_does_not_answer_is_unavailable():
    with pytest.raises(Unavailable, match="no metrics at"):
        read_counts(f"127.0.0.1:{free_port()}")
