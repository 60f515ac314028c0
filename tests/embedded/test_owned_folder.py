import fcntl
import subprocess
import sys

import pytest

from nearkin.core.errors import Misconfigured
from nearkin.embedded.endpoints import FORMAT, Endpoints, read_endpoints, remove_endpoints, write_endpoints
from nearkin.embedded.owned_folder import OwnedFolder

ENDPOINTS = Endpoints("127.0.0.1:1", "127.0.0.1:2", "http://127.0.0.1:3", "", {"lookup": "127.0.0.1:4"}, 4)


@pytest.fixture
def folder(tmp_path):
    made = OwnedFolder(tmp_path / "data", FORMAT)
    yield made
    made.close()


def test_a_folder_is_made_says_its_format_and_is_taken_again(folder):
    folder.open()
    folder.close()
    assert (folder.path / "FORMAT").read_text() == f"{FORMAT}\n"
    folder.open()


def test_a_folder_has_one_owner_at_a_time(folder):
    folder.open()
    assert folder.is_owned()
    with pytest.raises(Misconfigured, match="another process owns"):
        OwnedFolder(folder.path, FORMAT).open()
    folder.close()
    assert not folder.is_owned()


def test_whoever_just_looks_whether_a_folder_is_owned_does_not_keep_it_from_its_owner(folder, monkeypatch):
    folder.open()
    folder.close()
    looking = (folder.path / "LOCK").open()
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `is_owned` does, caught between its two steps
    monkeypatch.setattr("nearkin.embedded.owned_folder.time.sleep", lambda _: looking.close())

    folder.open()

    assert looking.closed
    assert folder.is_owned()


def test_an_owner_that_was_killed_owns_no_longer(folder):
    code = (
        "import os, signal, pathlib; from nearkin.embedded.owned_folder import OwnedFolder\n"
        f"OwnedFolder(pathlib.Path({str(folder.path)!r}), {FORMAT!r}).open(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert not folder.is_owned()
    folder.open()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: (path / "FORMAT").write_text("nearkin-stack 99\n"), "nearkin-stack 99"),
        (lambda path: (path / "holiday.jpg").touch(), r"holiday\.jpg"),
    ],
    ids=["another version", "something else"],
)
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(folder, spoil, said):
    folder.path.mkdir()
    spoil(folder.path)
    before = list(folder.path.iterdir())
    with pytest.raises(Misconfigured, match=said):
        folder.open()
    assert list(folder.path.iterdir()) == before


def test_a_disk_without_space_is_refused_with_what_is_needed_and_nothing_is_written(tmp_path):
    folder = OwnedFolder(tmp_path / "data", FORMAT, min_free_bytes=2**60)
    with pytest.raises(Misconfigured, match="MiB left, and 1099511627776 MiB are needed"):
        folder.open()
    assert not folder.path.exists()


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match=r"(?s)file.*cannot be used.*give a folder"):
        OwnedFolder(tmp_path / "file" / "data", FORMAT).open()


def test_endpoints_are_found_only_while_a_stack_runs(folder):
    folder.open()
    write_endpoints(folder.path, ENDPOINTS)
    assert read_endpoints(folder.path) == ENDPOINTS
    folder.close()
    assert read_endpoints(folder.path) is None
    folder.open()
    remove_endpoints(folder.path)
    assert read_endpoints(folder.path) is None


def test_a_folder_that_is_not_there_has_no_endpoints(tmp_path):
    assert read_endpoints(tmp_path / "nowhere") is None
