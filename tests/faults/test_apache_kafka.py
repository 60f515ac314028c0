"""What only Apache Kafka can show: a broker that dies keeps its records, its topics and what was acknowledged."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.item_stream import make_stream, reference, require_exactly
from faults.running_parts import PARTITIONS, Parts
from nearkin.core.ports import ContentEncoder
from nearkin.ops.topics import check_topics
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def parts(tmp_path: Path, apache_kafka: Path) -> Iterator[Parts]:
    with Parts(tmp_path / "parts", apache_kafka) as running:
        yield running


def test_a_broker_that_is_killed_under_load_and_started_again_costs_nothing_but_time(
    parts: Parts, encoder: ContentEncoder, seed: int
) -> None:
    stream = make_stream(seed, items=300)
    parts.start(parts.broker, parts.index)
    parts.start(parts.live)
    third = len(stream) // 3
    parts.streams.publish(stream[:third])
    parts.streams.until_drained("live")
    parts.streams.publish(stream[third : 2 * third])
    parts.streams.close()

    parts.broker.kill()
    until(lambda: parts.live.waits_for("broker"), "the indexer says that the broker is away")
    parts.start(parts.broker)
    assert check_topics(parts.bootstrap, PARTITIONS, replication=1).agrees

    parts.streams.publish(stream[2 * third :])
    parts.streams.until_drained("live")
    until(lambda: parts.live.is_ready, "the indexer is ready again")
    parts.look_inside(lambda items: require_exactly(items, reference(stream), encoder))
