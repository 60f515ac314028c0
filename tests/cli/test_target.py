from collections.abc import Iterator
from pathlib import Path

import pytest

from nearkin.cli.target import settings_beside, target
from nearkin.embedded.endpoints import FORMAT, Endpoints, write_endpoints
from nearkin.embedded.owned_folder import OwnedFolder

STACK = Endpoints(
    kafka="127.0.0.1:1",
    lookup="127.0.0.1:2",
    qdrant="http://127.0.0.1:3",
    redis="redis://127.0.0.1:4/0",
    metrics={},
    partitions=4,
)


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a stack that runs, beside settings that say how engines elsewhere are spoken to."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "nearkin_kafka_sasl_password").write_text("s3cret")
    (secrets / "nearkin_redis_password").write_text("s3cret")
    monkeypatch.setenv("NEARKIN_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("NEARKIN_KAFKA_PROTOCOL", "sasl_tls")
    monkeypatch.setenv("NEARKIN_KAFKA_SASL_USERNAME", "nearkin")
    monkeypatch.setenv("NEARKIN_REDIS_USERNAME", "evidence")
    folder = OwnedFolder(tmp_path / "data", FORMAT, 0)
    folder.open()
    write_endpoints(tmp_path / "data", STACK)
    yield tmp_path / "data"
    folder.close()


def test_a_running_stack_is_spoken_to_in_the_open_whatever_is_set_of_engines_elsewhere(stack: Path) -> None:
    settings = target(stack)

    assert settings.kafka_bootstrap == STACK.kafka
    assert settings.kafka_security.protocol == "PLAINTEXT"
    assert (settings.redis_url, settings.redis_username, settings.redis_password) == (STACK.redis, "", None)


def test_an_engine_that_the_environment_names_is_spoken_to_as_it_says(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARKIN_UP_DATA", str(stack))
    monkeypatch.setenv("NEARKIN_KAFKA_BOOTSTRAP", "kafka:9093")
    monkeypatch.setenv("NEARKIN_REDIS_URL", "rediss://redis:6379/0")

    settings = target(None)

    assert settings.kafka_bootstrap == "kafka:9093"
    assert settings.kafka_security.protocol == "SASL_SSL"
    assert settings.redis_username == "evidence"
    assert settings.redis_password is not None
    assert settings.lookup_address == STACK.lookup


@pytest.mark.usefixtures("stack")
def test_a_stack_of_a_commands_own_is_spoken_to_in_the_open_and_a_kafka_that_it_was_given_as_the_environment_says() -> (
    None
):
    own, lent = settings_beside(STACK), settings_beside(STACK, own_broker=False)

    assert own.kafka_security.protocol == "PLAINTEXT"
    assert lent.kafka_security.protocol == "SASL_SSL"
    for settings in (own, lent):
        assert (settings.redis_url, settings.redis_username, settings.redis_password) == (STACK.redis, "", None)
        assert settings.clock == "stream"
