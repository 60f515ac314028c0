"""A manifest is read strictly: whatever is not as format 2 says is refused by the path of its field, with a remedy."""

import contextlib
import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.errors import Misconfigured
from nearkin.encoders.bundle import DEFAULT_BUNDLE
from nearkin.encoders.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    ManifestError,
    decode_manifest,
    encode_manifest,
    misconfigured,
)

WHOLE: dict[str, Any] = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())


def refused(change: Callable[[dict[str, Any]], object]) -> ManifestError:
    """What is said of the default bundle's manifest after a change."""
    manifest = copy.deepcopy(WHOLE)
    change(manifest)
    with pytest.raises(ManifestError) as error:
        decode_manifest(json.dumps(manifest).encode())
    assert error.value.remedy
    return error.value


def changed(change: Callable[[dict[str, Any]], object]) -> Manifest:
    """The manifest of another space: the default bundle's after a change, with the id that this gives it."""
    manifest = copy.deepcopy(WHOLE)
    change(manifest)
    with contextlib.suppress(ManifestError):
        return decode_manifest(json.dumps(manifest).encode())
    error = refused(change)
    assert error.where == "id"
    manifest["id"] = error.problem.rsplit("'", 2)[1]
    return decode_manifest(json.dumps(manifest).encode())


def paths(value: Any, path: str = "") -> list[str]:
    """Every field of a JSON document, as its dotted path."""
    if isinstance(value, dict):
        here = [f"{path}.{name}" if path else name for name in value]
        return here + [at for name in value for at in paths(value[name], f"{path}.{name}" if path else name)]
    if isinstance(value, list):
        return [at for place, one in enumerate(value) for at in paths(one, f"{path}[{place}]")]
    return []


def hold(manifest: Any, path: str) -> tuple[Any, str]:
    """The object that has a field, and the field's name."""
    *above, name = path.replace("[", ".[").split(".")
    for part in above:
        manifest = manifest[int(part[1:-1])] if part.startswith("[") else manifest[part]
    return manifest, name


#: What a manifest may leave out.
OPTIONAL = {"text", "lexical", "package", "graph", "processor"}


@pytest.mark.parametrize("path", [path for path in paths(WHOLE) if path.split(".")[-1] not in OPTIONAL])
def test_a_field_that_is_missing_is_named_by_its_path(path: str) -> None:
    def leave_out(manifest: dict[str, Any]) -> None:
        above, name = hold(manifest, path)
        del above[name]

    error = refused(leave_out)
    assert error.where == path
    assert error.problem == "is missing"


@pytest.mark.parametrize("path", paths(WHOLE))
@pytest.mark.parametrize("value", [True, [None], {"a": {}}], ids=["true", "a list", "an object"])
def test_a_field_of_another_type_is_named_by_its_path(path: str, value: object) -> None:
    def put(manifest: dict[str, Any]) -> None:
        above, name = hold(manifest, path)
        above[name] = value

    error = refused(put)
    assert error.where.startswith(path)


@pytest.mark.parametrize("path", ["", *(path for path in paths(WHOLE) if isinstance(hold(WHOLE, path)[0], dict))])
def test_a_field_that_format_2_does_not_have_is_named_by_its_path(path: str) -> None:
    above = hold(WHOLE, path)[0] if path else WHOLE
    inside = path.rpartition(".")[0] if path else ""
    assert isinstance(above, dict)

    def add(manifest: dict[str, Any]) -> None:
        (hold(manifest, path)[0] if path else manifest)["invented"] = 1

    error = refused(add)
    assert error.where == (f"{inside}.invented" if inside else "invented")
    assert "no field of format 2" in error.problem


@pytest.mark.parametrize(
    "path",
    [
        "../model.onnx",
        "/model.onnx",
        "a/../b.onnx",
        "./model.onnx",
        ".hidden",
        "a//b",
        "a\\b",
        "C:x",
        "a\n",
        "a b",
        "",
        "~",
    ],
)
def test_a_path_that_could_leave_the_folder_is_refused(path: str) -> None:
    assert refused(lambda manifest: manifest["files"][0].update(path=path)).where == "files[0].path"


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("name", lambda manifest: manifest.update(name="Mini LM")),
        ("name", lambda manifest: manifest.update(name="a/b")),
        ("name", lambda manifest: manifest.update(name="a\n")),
        ("version", lambda manifest: manifest.update(version="1.0")),
        ("dimensions", lambda manifest: manifest.update(dimensions=0)),
        ("files[0].sha256", lambda manifest: manifest["files"][0].update(sha256="0" * 63)),
        ("files[0].sha256", lambda manifest: manifest["files"][0].update(sha256="0" * 64 + "\n")),
        ("files[0].size", lambda manifest: manifest["files"][0].update(size=0)),
        ("files[0].size", lambda manifest: manifest["files"][0].update(size=2 << 30)),
        ("files[0].package", lambda manifest: manifest["files"][0].update(package="os.path")),
        ("files[0].graph.opset", lambda manifest: manifest["files"][0]["graph"].update(opset=0)),
        ("files[0].graph", lambda manifest: manifest["files"][0]["graph"].update(inputs=[])),
        ("files[0].graph", lambda manifest: manifest["files"][0].pop("graph")),
        ("files[1].graph", lambda manifest: manifest["files"][1].update(graph=manifest["files"][0]["graph"])),
        ("files[0].graph.outputs[0].type", lambda manifest: type_of(manifest, "float128")),
        ("modalities.text.max_tokens", lambda manifest: manifest["modalities"]["text"].update(max_tokens=0)),
        ("modalities.text.products", lambda manifest: manifest["modalities"]["text"].update(products="fast")),
        ("modalities.text", lambda manifest: manifest["modalities"]["text"].update(model="another.onnx")),
        ("modalities.text.model", lambda manifest: manifest["modalities"]["text"].update(model="tokenizer.json")),
        ("files[1].path", lambda manifest: manifest["files"][1].update(path="manifest.json")),
        ("files[1].path", lambda manifest: manifest["files"][1].update(path="MODEL.onnx")),
        ("files[2].path", lambda manifest: manifest["files"].append(manifest["files"][1])),
        ("parity[0].cosine_mean", lambda manifest: manifest["parity"][0].update(cosine_mean=1.1)),
        ("parity[0].samples", lambda manifest: manifest["parity"][0].update(samples=0)),
        ("id", lambda manifest: manifest.update(id="minilm-l6-int8-00000000")),
    ],
)
def test_what_no_bundle_may_say_is_refused_by_its_path(where: str, change: Callable[[dict[str, Any]], object]) -> None:
    assert refused(change).where == where


def type_of(manifest: dict[str, Any], kind: str) -> None:
    manifest["files"][0]["graph"]["outputs"][0]["type"] = kind


@pytest.mark.parametrize("found", [0, 1, 3, 99])
def test_another_format_is_refused_before_anything_else_of_it_is_read(found: int) -> None:
    with pytest.raises(ManifestError) as error:
        decode_manifest(json.dumps({"format": found}).encode())
    assert error.value.where == "format"
    assert "this version of Nearkin reads 2" in error.value.problem


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"2"',
        b"\xff\xfe",
        b"{}",
        b'{"format": "2"}',
        b'{"format": 2}',
        b"[" * 100_000,
        b"\x00",
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestError) as error:
        decode_manifest(content)
    assert error.value.remedy


@pytest.mark.parametrize("name", ["version", "sha256", "max_tokens"])
def test_a_field_that_is_there_twice_is_refused(name: str) -> None:
    whole = (DEFAULT_BUNDLE / "manifest.json").read_text()
    twice = re.sub(rf'("{name}": [^,}}\n]+)', r"\1, \1", whole, count=1)
    with pytest.raises(ManifestError, match="twice") as error:
        decode_manifest(twice.encode())
    assert error.value.where == name


def test_a_manifest_of_more_than_a_megabyte_is_refused_unread() -> None:
    with pytest.raises(ManifestError, match=f"may have {MAX_MANIFEST_BYTES}"):
        decode_manifest(b" " * MAX_MANIFEST_BYTES + json.dumps(WHOLE).encode())


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    with pytest.raises(ManifestError):
        decode_manifest(content)


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_changes_no_vector(at: int, byte: int) -> None:
    content = bytearray((DEFAULT_BUNDLE / "manifest.json").read_bytes())
    content[at % len(content)] = byte
    try:
        manifest = decode_manifest(bytes(content))
    except ManifestError:
        return
    assert manifest.expected_id() == WHOLE["id"]


def test_what_is_written_is_what_is_read() -> None:
    manifest = decode_manifest(json.dumps(WHOLE).encode())
    assert decode_manifest(encode_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(dimensions=256),
        lambda manifest: manifest["modalities"]["text"].update(max_tokens=128),
        lambda manifest: manifest["modalities"]["text"].update(recipe=2),
        lambda manifest: manifest["modalities"]["text"].update(products="as_stored"),
        lambda manifest: manifest["modalities"]["text"].update(pooling="first"),
        lambda manifest: manifest["modalities"]["text"].update(prefix="passage: "),
        lambda manifest: manifest["modalities"]["lexical"].update(scheme=2),
        lambda manifest: manifest["files"][0].update(sha256="0" * 64),
        lambda manifest: manifest["files"][1].update(sha256="0" * 64),
        lambda manifest: manifest.update(name="another"),
    ],
)
def test_what_shapes_vectors_changes_the_id(change: Callable[[dict[str, Any]], object]) -> None:
    assert changed(change).id != WHOLE["id"]


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(version="1.0.1", languages=["en", "de"], training_data="more is known of it"),
        lambda manifest: manifest.update(quality=[], speed=[], parity=[]),
        lambda manifest: manifest["files"][0].update(licence="MIT", source="elsewhere"),
        lambda manifest: manifest["files"][0].pop("package"),
        lambda manifest: manifest["files"].append(
            {"path": "LICENCE.txt", "sha256": "0" * 64, "size": 1, "licence": "MIT", "source": "its author"}
        ),
        lambda manifest: manifest["modalities"]["text"].update(pooling="mean", prefix=""),
    ],
)
def test_what_only_describes_them_leaves_the_id_as_it_is(change: Callable[[dict[str, Any]], object]) -> None:
    assert changed(change).id == WHOLE["id"]


def test_the_id_of_the_default_bundle_is_that_of_the_collections_that_there_are() -> None:
    assert WHOLE["id"] == "minilm-l6-int8-3661a69b"


def test_a_process_ends_with_the_file_the_field_and_the_remedy() -> None:
    error = misconfigured("/bundles/a/manifest.json", refused(lambda manifest: manifest.pop("version")))
    assert isinstance(error, Misconfigured)
    assert str(error) == "/bundles/a/manifest.json: version: is missing; write it as docs/bundles.md says"
