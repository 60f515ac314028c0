"""What the tests of faults share: real parts in a folder of their own, and the encoder that they use."""

import os
import random
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from faults.chaos import tell
from faults.running_parts import Parts
from nearkin.core.ports import ContentEncoder
from nearkin.encoders.bundle import load_encoder

#: What became of a test.
BECAME = pytest.StashKey[dict[str, object]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Which broker a test stands on: `make chaos` runs the whole suite on Apache Kafka too, `.ci/run` what is marked.

    Tests that need Apache Kafka, as the embedded broker keeps nothing over its death, have `parts` of their own.
    """
    if "broker" in metafunc.fixturenames:
        both = os.environ.get("NEARKIN_CHAOS_ROUNDS") or metafunc.definition.get_closest_marker("apache_kafka")
        metafunc.parametrize("broker", ["embedded broker", "Apache Kafka"] if both else ["embedded broker"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What became of each test is told in a file of its own, where a folder is named: seed, outcome and seconds."""
    report = yield
    if report.when == "setup":
        tell(item.name, {})
    if report.when == "call" or report.failed:
        item.stash[BECAME] = {"outcome": report.outcome, "seconds": round(report.duration, 1)}
    if report.when == "teardown" and BECAME in item.stash:
        tell(item.name, {**dict(item.user_properties), **item.stash[BECAME]})
    return report


@pytest.fixture
def parts(tmp_path: Path, broker: str, request: pytest.FixtureRequest) -> Iterator[Parts]:
    jars = request.getfixturevalue("apache_kafka") if broker == "Apache Kafka" else None
    with Parts(tmp_path / "parts", jars) as running:
        yield running


@pytest.fixture(scope="session")
def encoder() -> ContentEncoder:
    """The encoder of the default bundle, as the indexers have it."""
    return load_encoder(None, threads=1)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of everything that a test draws; told where it fails, and taken from NEARKIN_TEST_SEED to repeat it."""
    drawn = int(os.environ.get("NEARKIN_TEST_SEED") or random.randrange(10**6))
    request.node.user_properties.append(("seed", drawn))
    print(f"to draw the same again: NEARKIN_TEST_SEED={drawn}")
    return drawn
