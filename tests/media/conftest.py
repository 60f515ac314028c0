import pytest
from prometheus_client import CollectorRegistry

from nearkin.ops.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), "test")
