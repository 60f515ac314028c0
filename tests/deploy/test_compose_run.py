"""The stack of docker-compose.yml comes up by its own commands and health checks, serves, and goes down in order."""

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.compose_file import OURS
from deploy.compose_run import ComposeRun, machines_path
from nearkin.client.lookup import BlockingLookupClient
from nearkin.client.producer import Producer
from nearkin.core.errors import NearkinError
from nearkin.core.item import Content
from waiting import HUNG_S, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def targets(stack: ComposeRun) -> dict[str, str]:
    """Which jobs Prometheus reads, and how that goes."""
    with urllib.request.urlopen(f"http://{stack.address('prometheus', 9090)}/api/v1/targets", timeout=10) as answer:
        return {target["labels"]["job"]: target["health"] for target in json.load(answer)["data"]["activeTargets"]}


@pytest.fixture
def stack(tmp_path: Path, apache_kafka: Path) -> Iterator[ComposeRun]:
    for program in ("redis-server", "redis-cli", "prometheus", "wget", "bash", "openssl"):
        if shutil.which(program, path=machines_path()) is None:
            message = f"there is no {program} on the PATH"
            if os.environ.get("NEARKIN_REQUIRE_ENGINES"):
                pytest.fail(message)
            pytest.skip(message)
    with ComposeRun(tmp_path, apache_kafka) as run:
        yield run


def test_the_stack_becomes_healthy_by_its_own_checks_finds_a_new_item_and_ends_in_good_order(stack: ComposeRun) -> None:
    reached = stack.up(HUNG_S * 2)

    assert reached.index("kafka") < reached.index("topics") < reached.index("indexer-live")
    with Producer(bootstrap=stack.address("kafka", 9094)) as producer:
        producer.upsert("mug-1", Content(title="Red enamel mug")).result(timeout=30)
        producer.upsert("mug-2", Content(title="Blue enamel mug")).result(timeout=30)

    def neighbours() -> list[str]:
        with BlockingLookupClient(stack.address("lookup", 7700)) as lookups:
            try:
                return [found.id for found in lookups.similar(item_id="mug-1", k=5).neighbours]
            except NearkinError:
                return []

    until(lambda: neighbours() == ["mug-2"], "the new item has its neighbour")
    watched = {name: "up" for name in OURS if name != "topics"}
    until(lambda: targets(stack) == watched, "Prometheus reads every service", every_s=1)
    assert stack.over_its_limits() == []

    statuses = stack.down()
    ours = {name: status for name, status in statuses.items() if name not in ("kafka", "qdrant", "redis", "prometheus")}
    assert ours == dict.fromkeys(ours, 0), {name: stack.services[name].written() for name in ours}
    assert None not in statuses.values(), "something did not end within the grace that the file gives it"
