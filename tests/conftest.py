"""What every test may ask for."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from engines.apache_kafka import NoApacheKafka, apache_kafka_jars
from engines.set_clock import NoFaketime, faketime_library
from engines.toxiproxy import NoToxiproxy, toxiproxy_binary

# A busy machine is slow, not wrong.
settings.register_profile("nearkin", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nearkin")


@pytest.fixture(scope="session")
def evaluation_data() -> Path:
    """The folder of data sets that the project does not ship: NEARKIN_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("NEARKIN_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if folder.is_dir():
        return folder
    message = f"no evaluation data at {folder}: set NEARKIN_DATA to the folder that holds it"
    if os.environ.get("NEARKIN_REQUIRE_DATA"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def apache_kafka() -> Path:
    """The folder of Apache Kafka's jars; NEARKIN_REQUIRE_ENGINES makes a failure of a machine that cannot run it."""
    try:
        return apache_kafka_jars()
    except NoApacheKafka as error:
        message = f"no Apache Kafka: {error}"
    if os.environ.get("NEARKIN_REQUIRE_ENGINES"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def prometheus() -> str:
    """Prometheus's server; NEARKIN_REQUIRE_ENGINES makes a failure of a machine without it."""
    return _program("prometheus")


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus's tool that checks rules; NEARKIN_REQUIRE_ENGINES makes a failure of a machine without it."""
    return _program("promtool")


def _program(name: str) -> str:
    if found := shutil.which(name):
        return found
    message = f"no {name}: install it (Debian's package prometheus; make engines)"
    if os.environ.get("NEARKIN_REQUIRE_ENGINES"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def toxiproxy() -> Path:
    """Toxiproxy's program; NEARKIN_REQUIRE_ENGINES makes a failure of a machine that cannot run it."""
    try:
        return toxiproxy_binary()
    except NoToxiproxy as error:
        message = f"no Toxiproxy: {error}"
    if os.environ.get("NEARKIN_REQUIRE_ENGINES"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def faketime() -> Path:
    """libfaketime; NEARKIN_REQUIRE_ENGINES makes a failure of a machine that does not have it."""
    try:
        return faketime_library()
    except NoFaketime as error:
        message = str(error)
    if os.environ.get("NEARKIN_REQUIRE_ENGINES"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def train_extra() -> None:
    """PyTorch and what exports its networks; NEARKIN_REQUIRE_TRAIN makes a failure of an installation without it."""
    missing = [
        name
        for name in ("torch", "onnxscript", "sentence_transformers", "efficientnet_lite_pytorch")
        if importlib.util.find_spec(name) is None
    ]
    if not missing:
        return
    message = f"no {', '.join(missing)}: install the extra train (make train)"
    if os.environ.get("NEARKIN_REQUIRE_TRAIN"):
        pytest.fail(message)
    pytest.skip(message)
