"""Files that are exchanged while somebody uses what they hold."""

import pytest

from nearkin.core.errors import Misconfigured
from nearkin.ops.followed import Followed


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "token"
    file.write_text("first")
    return file


def test_what_has_not_changed_is_not_read_again(file):
    reads = []
    followed = Followed("the tokens", [file], lambda: reads.append(file.read_text()))
    assert [followed.look() for _ in range(3)] == [False] * 3
    assert reads == ["first"]


def test_what_has_changed_is_held_from_the_next_look_on(file):
    followed = Followed("the tokens", [file], file.read_text)
    coming = file.with_name("coming")
    coming.write_text("other")
    coming.replace(file)
    assert (followed.look(), followed.held) == (True, "other")
    assert (followed.look(), followed.held) == (False, "other")


def test_what_cannot_be_read_changes_nothing_until_it_is_there_again(file, caplog):
    followed = Followed("the tokens", [file], file.read_text)
    file.unlink()
    assert (followed.look(), followed.held) == (False, "first")
    assert "the tokens have changed and cannot be used" in caplog.text
    file.write_text("second")
    assert (followed.look(), followed.held) == (True, "second")


def test_what_cannot_be_used_is_told_and_changes_nothing(file, caplog):
    def load() -> str:
        if file.read_text() != "first":
            raise Misconfigured("it is none", field="token", remedy="write one", reason="setting")
        return "first"

    followed = Followed("the tokens", [file], load)
    file.write_text("none")
    assert (followed.look(), followed.held) == (False, "first")
    assert caplog.text.count("cannot be used") == 1
    followed.look()
    assert caplog.text.count("cannot be used") == 1


def test_it_is_looked_at_no_more_often_than_is_said(file):
    followed = Followed("the tokens", [file], file.read_text, every_s=3600)
    file.write_text("second")
    assert (followed.look(), followed.held) == (False, "first")
