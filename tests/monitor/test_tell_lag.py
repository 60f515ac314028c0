"""What the monitor tells of lag, by what waits."""

from prometheus_client import CollectorRegistry

from nearkin.monitor.__main__ import tell_lag
from nearkin.monitor.read_lag import Waiting
from nearkin.ops.metrics import Metrics


def test_the_lag_of_a_partition_that_is_gone_is_told_no_longer():
    metrics = Metrics(CollectorRegistry())

    def lag(partition: int) -> float | None:
        labels = {"group": "indexers", "topic": "items.v1", "partition": str(partition)}
        return metrics.registry.get_sample_value("nearkin_monitor_lag_events", labels)

    waits = [Waiting(("items.v1", partition), "indexers", 0, 7 + partition) for partition in range(2)]
    told = tell_lag(waits, (), metrics)
    assert (lag(0), lag(1)) == (7, 8)
    told = tell_lag(waits[:1], told, metrics)
    assert (lag(0), lag(1)) == (7, None)
    tell_lag(waits, told, metrics)
    assert lag(1) == 8
