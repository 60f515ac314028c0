"""Reads the age of events by stage from an indexer's own /metrics.

A histogram knows only between which two bounds an age lies, so quantiles are interpolated and the greatest age is told
as the bound that it does not exceed.
"""

import http.client
import math
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from nearkin.core.errors import Unavailable

_NAME = "nearkin_freshness_seconds"

#: For each stage, the number of events that were at most so old, by bound in seconds.
Counts = Mapping[str, Mapping[float, float]]


@dataclass(frozen=True, slots=True)
class StageAges:
    """The ages of events at one stage, in seconds.

    Attributes:
        stage: the stage's name.
        count: how many events.
        p50: the median.
        p95: the 95th percentile.
        at_most: a bound that none exceeds.
    """

    stage: str
    count: int
    p50: float
    p95: float
    at_most: float


def read_counts(address: str) -> Counts:
    """The histograms as they are now.

    Args:
        address: host:port of the process's /metrics.

    Raises:
        Unavailable: the process does not answer.
    """
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable("indexer", f"no metrics at {address} ({error})") from error
    finally:
        connection.close()
    counts: dict[str, dict[float, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name == _NAME else ():
            if sample.name == f"{_NAME}_bucket":
                counts.setdefault(sample.labels["stage"], {})[float(sample.labels["le"])] = sample.value
    return counts


def ages_between(before: Counts, after: Counts) -> list[StageAges]:
    """The ages that were recorded between two readings, in the order of the stages; stages without any are left out."""
    ages = []
    for stage, buckets in after.items():
        counts = {bound: value - before.get(stage, {}).get(bound, 0) for bound, value in sorted(buckets.items())}
        total = int(counts.get(math.inf, 0))
        if total:
            ages.append(
                StageAges(stage, total, _quantile(counts, 0.5), _quantile(counts, 0.95), _quantile(counts, 1.0))
            )
    return ages


def _quantile(counts: Mapping[float, float], share: float) -> float:
    """Interpolated within the bucket that holds it; the whole share gives the last bucket's bound."""
    wanted = share * counts[math.inf]
    low, below = 0.0, 0.0
    for bound, count in counts.items():
        if count >= wanted:
            if math.isinf(bound):
                return low
            return bound if share == 1.0 else low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return low
