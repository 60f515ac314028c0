"""docker-compose.yml holds what it promises, as far as that can be seen without Docker."""

import re
import subprocess

import pytest
from jsonschema.validators import validator_for

from deploy.compose_file import COMPOSE, OURS, ROOT, SERVICES, bytes_of, seconds_of, specification, words_of
from nearkin.ops.settings import Settings, load_settings

SETTINGS = (ROOT / "docs" / "settings.md").read_text()


def test_it_is_a_compose_file_by_the_specification():
    schema = specification()

    problems = [f"{list(error.path)}: {error.message}" for error in validator_for(schema)(schema).iter_errors(COMPOSE)]

    assert not problems


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned(name):
    image = SERVICES[name]["image"].partition("@")[0]

    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*", image), f"{image} may be another one tomorrow"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not re.match("(root|0)(:|$)", service["user"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded(name):
    limits = SERVICES[name]["deploy"]["resources"]["limits"]

    assert bytes_of(limits["memory"]) >= 128 * 2**20
    assert float(limits["cpus"]) > 0
    assert limits["pids"] > 0
    assert SERVICES[name]["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_published_is_published_on_this_machine_alone(name):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "topics"])
def test_a_service_says_whether_it_is_healthy_and_comes_back(name):
    service = SERVICES[name]

    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_can_come_true(name):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[other]["healthcheck"]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert SERVICES[other]["restart"] == "no"


@pytest.mark.parametrize("name", SERVICES)
def test_whom_a_service_speaks_to_is_in_one_of_its_networks(name):
    networks = set(SERVICES[name]["networks"])
    told = " ".join(map(str, words_of(SERVICES[name])))

    for other in set(re.findall(rf"\b({'|'.join(SERVICES)}):\d+", told)):
        assert networks & set(SERVICES[other]["networks"]), f"{name} cannot reach {other}"


@pytest.mark.parametrize("name", OURS)
def test_a_setting_is_one_that_there_is_with_a_value_that_is_taken(name, monkeypatch):
    environment = SERVICES[name]["environment"]
    known = {f"NEARKIN_{field.upper()}" for field in Settings.model_fields} | {"NEARKIN_SECRETS_DIR"}
    assert set(environment) <= known
    assert all(f"`{variable}`" in SETTINGS for variable in environment)

    for variable, value in environment.items():
        if variable != "NEARKIN_SECRETS_DIR":
            monkeypatch.setenv(variable, value)
    settings = load_settings()

    for variable in set(environment) - {"NEARKIN_SECRETS_DIR"}:
        taken = getattr(settings, variable.removeprefix("NEARKIN_").lower())
        assert str(taken).lower() == environment[variable].lower()


@pytest.mark.parametrize("name", OURS)
def test_a_service_looks_for_secrets_where_it_has_any_and_nowhere_else(name):
    assert bool(SERVICES[name]["secrets"]) == bool(SERVICES[name]["environment"]["NEARKIN_SECRETS_DIR"])


@pytest.mark.parametrize("name", OURS)
def test_a_service_has_longer_to_end_than_it_may_take(name):
    grace = seconds_of(SERVICES[name]["stop_grace_period"])

    assert grace > Settings.model_fields["lookup_grace_s"].default + 10


def test_a_secret_is_a_file_that_one_command_draws_and_that_git_does_not_see(tmp_path):
    drawn = tmp_path / "deploy"
    drawn.mkdir()
    script = drawn / "make-secrets"
    script.write_text((ROOT / "deploy" / "make-secrets").read_text())

    for _ in range(2):
        subprocess.run(["sh", script], check=True, capture_output=True)
    files = {f"deploy/secrets/{path.name}": path.read_text() for path in (drawn / "secrets").iterdir()}
    subprocess.run(["sh", script], check=True, capture_output=True)

    assert {secret["file"] for secret in COMPOSE["secrets"].values()} == set(files)
    assert files == {f"deploy/secrets/{path.name}": path.read_text() for path in (drawn / "secrets").iterdir()}
    assert files["deploy/secrets/nearkin_redis_password"] not in files["deploy/secrets/redis_users.acl"]
    assert len(set(files.values())) == len(files)
    assert (drawn / "secrets").stat().st_mode & 0o077 == 0
    ignored = subprocess.run(["git", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(ignored.stdout.split()) == set(files)


def test_no_secret_stands_in_the_file_but_as_a_file():
    secret = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]

    assert secret
    for name in OURS:
        assert not {f"NEARKIN_{field.upper()}" for field in secret} & set(SERVICES[name]["environment"])
        for mounted in SERVICES[name]["secrets"]:
            assert mounted.removeprefix("nearkin_") in secret


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_from_here_is_here(name):
    for volume in SERVICES[name].get("volumes", []):
        source = volume.partition(":")[0]
        assert (ROOT / source).is_dir() if source.startswith("./") else source in COMPOSE["volumes"]
    for config in SERVICES[name].get("configs", []):
        assert (ROOT / COMPOSE["configs"][config["source"]]["file"]).is_file()


def test_kafka_is_of_the_version_that_the_tests_run():
    pom = (ROOT / "tests" / "engines" / "pom.xml").read_text()
    tested = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)</version>", pom)

    assert tested
    assert SERVICES["kafka"]["image"].startswith(f"apache/kafka:{tested[1]}@")
