"""docs/operations.md names settings, topics, groups, files and commands that there are."""

import re

import click
import pytest

from deploy.compose_file import ROOT, SERVICES
from nearkin.cli.main import main
from nearkin.contracts.topics import GROUPS, TOPICS
from nearkin.ops.settings import Settings

PAGE = (ROOT / "docs" / "operations.md").read_text()
COMMANDS = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
KNOWN = {f"NEARKIN_{name.upper()}" for name in Settings.model_fields} | {"NEARKIN_SECRETS_DIR"}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(NEARKIN_[A-Z_]+)", PAGE))))
def test_a_setting_that_is_named_is_there(name):
    assert name in KNOWN


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)", PAGE))))
def test_a_page_that_is_linked_is_there(link):
    assert (ROOT / "docs" / link).exists()


@pytest.mark.parametrize("anchor", sorted(set(re.findall(r"\]\(#([^)]+)\)", PAGE))))
def test_a_section_that_is_linked_is_there(anchor):
    titles = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)

    assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (benchmarks\.\w+)", PAGE))))
def test_a_measurement_that_is_named_is_there(module):
    assert (ROOT / f"{module.replace('.', '/')}.py").exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:deploy|tests)/[\w./-]+)`", PAGE))))
def test_a_file_that_is_named_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`nearkin (\w+)", PAGE))))
def test_a_command_that_is_named_is_there(command):
    assert command in main.list_commands(click.Context(main))


def test_partitions_are_added_to_every_topic():
    (named,) = re.findall(r"^for topic in (.*); do$", COMMANDS, re.MULTILINE)

    assert named.split() == [topic.name for topic in TOPICS]


def test_the_positions_that_are_put_back_are_those_of_the_indexers():
    (named,) = re.findall(r"^for group in (.*); do$", COMMANDS, re.MULTILINE)
    groups = {f"nearkin-indexer-{pair.partition('=')[0]}": pair.partition("=")[2] for pair in named.split()}

    assert groups == {group: topic.name for topic, group in GROUPS.items() if "indexer" in group}


def test_every_service_is_upgraded_once_and_is_in_the_compose_file():
    (named,) = re.findall(r"^for service in (.*?); do ", COMMANDS, re.MULTILINE)
    ours = {name for name, service in SERVICES.items() if service["image"].startswith("nearkin:")}

    assert set(named.split()) == ours - {"topics"}
    assert set(re.findall(r"docker compose exec (?:-T )?(?:-e \S+ )?([\w-]+)", COMMANDS)) <= set(SERVICES)


def test_the_secrets_of_the_cluster_are_those_of_the_services():
    named = set(re.findall(r"--from-file=(?:deploy/secrets/)?(nearkin_\w+)", COMMANDS))

    assert all(name.removeprefix("nearkin_") in Settings.model_fields for name in named)
