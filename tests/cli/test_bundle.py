"""`nearkin bundle`: what is installed, what each bundle says of itself, and whether it is whole."""

import json
from pathlib import Path

import pytest

from made_bundles import make_bundle
from nearkin.encoders.bundle import DEFAULT_BUNDLE

DEFAULT = "minilm-l6-int8-3661a69b"


@pytest.fixture
def bundles(tmp_path, monkeypatch) -> Path:
    """A folder of bundles with one in it."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    manifest = make_bundle(tmp_path / "made")
    (tmp_path / "made").rename(folder / manifest.id)
    monkeypatch.setenv("NEARKIN_BUNDLES_DIR", str(folder))
    return folder


@pytest.fixture
def tiny(bundles) -> Path:
    """The folder of that one."""
    (folder,) = bundles.iterdir()
    return folder


def test_the_list_shows_what_is_installed_and_stars_what_serves(nearkin, tiny):
    listed = nearkin("bundle", "list")
    assert listed.exit_code == 0, listed.output
    (default,) = (line for line in listed.output.splitlines() if DEFAULT in line)
    assert "*" in default
    assert "text, lexical" in default
    assert tiny.name in listed.output


def test_the_list_as_json(nearkin, tiny, monkeypatch):
    monkeypatch.setenv("NEARKIN_BUNDLE_PATH", str(tiny))
    rows = {row["id"]: row for row in json.loads(nearkin("bundle", "list", "--json").output)}
    assert [row["id"] for row in rows.values() if row["serves"]] == [tiny.name]
    assert all(row["problem"] is None for row in rows.values())
    assert rows[DEFAULT]["modalities"] == rows[tiny.name]["modalities"] == ["text", "lexical"]
    assert rows[tiny.name]["dimensions"] == 4


def test_what_serves_from_elsewhere_is_listed_too(nearkin, tmp_path, monkeypatch):
    make_bundle(tmp_path / "elsewhere")
    monkeypatch.setenv("NEARKIN_BUNDLE_PATH", str(tmp_path / "elsewhere"))
    rows = json.loads(nearkin("bundle", "list", "--json").output)
    assert [row["source"] for row in rows if row["serves"]] == ["NEARKIN_BUNDLE_PATH"]


def test_a_broken_bundle_is_listed_with_what_is_wrong(nearkin, tiny):
    (tiny / "manifest.json").write_text('{"format": 9}')
    listed = nearkin("bundle", "list")
    assert listed.exit_code == 0
    assert DEFAULT in listed.output
    assert "format: is 9" in listed.output


def test_a_bundle_is_shown_with_what_it_encodes_and_what_was_measured(nearkin):
    shown = nearkin("bundle", "show")
    assert shown.exit_code == 0, shown.output
    for said in (DEFAULT, "384 dimensions", "max_tokens 256", "model.onnx", "Apache-2.0", "NDCG@10", "AVX-512 VNNI"):
        assert said in shown.output


def test_a_bundle_is_shown_as_json_with_its_whole_manifest(nearkin, tiny):
    shown = json.loads(nearkin("bundle", "show", "tiny", "--json").output)
    assert shown["manifest"]["id"] == tiny.name
    assert shown["folder"] == str(tiny)
    assert len(shown["manifest_sha256"]) == 64
    whole = json.loads(nearkin("bundle", "show", "--json").output)
    assert whole["manifest"] == json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())


def test_a_bundle_that_is_not_installed_is_wrong_usage(nearkin):
    shown = nearkin("bundle", "show", "no-such-bundle")
    assert shown.exit_code == 2
    assert DEFAULT in shown.output


def test_what_is_whole_verifies(nearkin, tiny):
    verified = nearkin("bundle", "verify")
    assert verified.exit_code == 0, verified.output
    assert f"{DEFAULT}: whole" in verified.output
    assert f"{tiny.name}: whole" in verified.output


@pytest.mark.parametrize("named", [[], ["minilm-l6-int8", "tiny"]], ids=["all", "by name"])
def test_what_is_broken_is_told_beside_what_is_whole(nearkin, tiny, named):
    (tiny / "tokenizer.json").write_bytes(b"{}")
    verified = nearkin("bundle", "verify", *named)
    assert verified.exit_code == 2
    assert f"{DEFAULT}: whole" in verified.output
    assert f"broken: {tiny / 'tokenizer.json'}: has 2 bytes" in verified.output
    rows = json.loads(nearkin("bundle", "verify", "--json", *named).output)
    assert [row["folder"] for row in rows if row["problem"] is not None] == [str(tiny)]


def test_what_serves_is_verified_too(nearkin, tmp_path, monkeypatch):
    make_bundle(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "more").write_text("")
    monkeypatch.setenv("NEARKIN_BUNDLE_PATH", str(tmp_path / "elsewhere"))
    verified = nearkin("bundle", "verify")
    assert verified.exit_code == 2
    assert "the manifest does not name it" in verified.output


def test_a_bundle_is_pulled_and_may_be_served(nearkin, bundles, tmp_path):
    manifest = make_bundle(tmp_path / "other", "other")
    pulled = nearkin("bundle", "pull", str(tmp_path / "other"))
    assert pulled.exit_code == 0, pulled.output
    assert f"NEARKIN_BUNDLE_PATH={bundles / manifest.id}" in pulled.output
    assert nearkin("bundle", "verify", "other").exit_code == 0


def test_where_to_keep_a_pulled_bundle_must_be_said(nearkin, tmp_path, monkeypatch):
    monkeypatch.delenv("NEARKIN_BUNDLES_DIR", raising=False)
    make_bundle(tmp_path / "other")
    refused = nearkin("bundle", "pull", str(tmp_path / "other"))
    assert refused.exit_code == 2
    assert "NEARKIN_BUNDLES_DIR" in refused.output
    kept = nearkin("bundle", "pull", str(tmp_path / "other"), "--to", str(tmp_path / "kept"))
    assert kept.exit_code == 0, kept.output


def test_what_a_bundle_says_cannot_steer_the_terminal(nearkin, tiny):
    manifest = (tiny / "manifest.json").read_text()
    (tiny / "manifest.json").write_text(manifest.replace("nothing", "\\u001b[2Jnothing [red]"))
    shown = nearkin("bundle", "show", "tiny")
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.output
    assert "nothing [red]" in shown.output
