"""Partitions added to every topic under load, as docs/operations.md says: nothing is lost, repeated or older."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from faults import running_parts
from faults.chaos import Chaos, run_chaos
from faults.running_parts import PARTITIONS, Parts
from nearkin.contracts.topics import FEEDBACK, ITEMS, TOPICS, VISITS
from nearkin.core.ports import ContentEncoder
from nearkin.ops.topics import check_topics

MORE = 2 * PARTITIONS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def chaos(
    tmp_path: Path, seed: int, request: pytest.FixtureRequest, apache_kafka: Path, encoder: ContentEncoder
) -> Iterator[Chaos]:
    with Parts(tmp_path / "parts", apache_kafka) as parts:
        yield from run_chaos(parts, seed, request.node.name, encoder, parts.index)


def test_partitions_that_are_added_cost_nothing_once_the_workers_were_started_again(
    chaos: Chaos, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = chaos.parts
    workers = [parts.live, parts.feedback]
    parts.start(*workers)
    with chaos.load():
        chaos.sleep(5)
    chaos.begin(f"{PARTITIONS} partitions become {MORE}")
    with KafkaAdminClient(bootstrap_servers=parts.bootstrap) as admin:
        admin.create_partitions({topic.name: MORE for topic in TOPICS})
    assert check_topics(parts.bootstrap, MORE, replication=1).agrees
    monkeypatch.setattr(running_parts, "PARTITIONS", MORE)
    parts.streams.close()  # a producer that is connected anew sees all of them
    with chaos.load():
        chaos.sleep(2)
        for worker in workers:
            assert worker.stop() == 0
            parts.start(worker)
        chaos.sleep(5)
    chaos.require_exact()
    for topic in (ITEMS, FEEDBACK, VISITS):
        assert all(parts.streams.ends(topic)[PARTITIONS:]), f"{topic.name} has partitions that nothing came to"
