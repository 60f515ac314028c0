import pytest
from pydantic import SecretStr

from nearkin.ops import credential
from nearkin.ops.credential import Credential
from nearkin.ops.settings import load_settings


@pytest.fixture(autouse=True)
def read_at_once(monkeypatch):
    monkeypatch.setattr(credential, "AGE_S", 0.0)


@pytest.fixture
def secrets(monkeypatch, tmp_path):
    monkeypatch.setenv("NEARKIN_SECRETS_DIR", str(tmp_path))
    (tmp_path / "nearkin_lookup_token").write_text("first\n")
    return tmp_path


def test_a_secret_of_a_file_is_what_the_file_says_now(secrets):
    token = Credential("lookup_token", load_settings().lookup_token)
    assert token() == "first"

    (secrets / "nearkin_lookup_token").write_text("second\n")
    assert token() == "second"

    (secrets / "nearkin_lookup_token").unlink()
    assert token() == "second"


def test_a_secret_of_the_environment_counts_more_than_a_file(secrets, monkeypatch):
    monkeypatch.setenv("NEARKIN_LOOKUP_TOKEN", "mine")

    assert Credential("lookup_token", load_settings().lookup_token)() == "mine"


def test_a_secret_that_was_given_otherwise_stays(secrets):
    assert Credential("lookup_token", SecretStr("given"))() == "given"
    assert Credential("lookup_token", None)() == ""


def test_it_does_not_show_itself(secrets):
    assert "first" not in repr(Credential("lookup_token", load_settings().lookup_token))
