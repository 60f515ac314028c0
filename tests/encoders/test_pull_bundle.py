"""A bundle comes from a folder or an S3-compatible store, and is kept under its id only once it is proved whole."""

import hashlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from made_bundles import make_bundle
from nearkin.core.errors import Misconfigured, NearkinError, Unavailable
from nearkin.encoders.bundle import DEFAULT_BUNDLE, load_encoder, verify_bundle
from nearkin.encoders.pull_bundle import pull_bundle
from s3_store import KEY, s3_store


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3-compatible store."""
    with s3_store() as address:
        yield address


@pytest.fixture
def credentials(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment in which the store is reached."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(credentials: None, tmp_path: Path) -> S3Store:
    """A bucket of the store that no other test has."""
    return S3Store(f"b{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]}", client_options={"allow_http": True})


@pytest.fixture(params=["a folder", "a bucket"])
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> "Origin":
    """Where a whole bundle is pulled from."""
    folder = tmp_path / "made"
    make_bundle(folder)
    return Origin(folder, request.getfixturevalue("bucket") if request.param == "a bucket" else None)


class Origin:
    """A bundle in a folder, or in a bucket; what is changed of it is changed where it is pulled from."""

    def __init__(self, folder: Path, bucket: S3Store | None) -> None:
        self.folder, self.bucket = folder, bucket
        for path in folder.iterdir():
            self.put(path.name, path.read_bytes())

    @property
    def url(self) -> str:
        if self.bucket is None:
            return str(self.folder)
        return f"s3://{self.bucket.config['bucket']}/some/where"

    def put(self, name: str, content: bytes) -> None:
        if self.bucket is None:
            (self.folder / name).write_bytes(content)
        else:
            obstore.put(self.bucket, f"some/where/{name}", content)

    def drop(self, name: str) -> None:
        if self.bucket is None:
            (self.folder / name).unlink()
        else:
            obstore.delete(self.bucket, f"some/where/{name}")

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "bundles"


def refusal(origin: Origin, bundles: Path, **options: str) -> Misconfigured:
    with pytest.raises(Misconfigured) as refused:
        pull_bundle(origin.url, bundles, **options)
    assert refused.value.remedy
    assert not bundles.exists() or not list(bundles.iterdir()), "nothing is left of what was refused"
    return refused.value


def test_a_pulled_bundle_is_whole_lies_under_its_id_and_encodes(origin: Origin, bundles: Path) -> None:
    manifest, folder = pull_bundle(origin.url, bundles)
    assert folder == bundles / manifest.id
    assert verify_bundle(folder) == manifest
    assert load_encoder(folder, 1).bundle == manifest.id
    assert [path.name for path in bundles.iterdir()] == [manifest.id]


def test_others_may_read_what_was_pulled(origin: Origin, bundles: Path) -> None:
    _, folder = pull_bundle(origin.url, bundles)
    assert folder.stat().st_mode & 0o555 == 0o555


def test_a_bundle_that_is_there_already_is_proved_and_left_as_it_is(origin: Origin, bundles: Path) -> None:
    _, folder = pull_bundle(origin.url, bundles)
    before = (folder / "model.onnx").stat().st_mtime_ns
    assert pull_bundle(origin.url, bundles)[1] == folder
    assert (folder / "model.onnx").stat().st_mtime_ns == before
    (folder / "model.onnx").write_bytes(b"harmed since")
    with pytest.raises(Misconfigured, match="has 12 bytes"):
        pull_bundle(origin.url, bundles)


def test_another_description_of_a_space_that_is_there_is_not_put_over_it(origin: Origin, bundles: Path) -> None:
    _, folder = pull_bundle(origin.url, bundles)
    origin.put("manifest.json", origin.read("manifest.json").replace(b"made by a test", b"made elsewhere"))
    with pytest.raises(Misconfigured, match="another description"):
        pull_bundle(origin.url, bundles)
    assert b"made by a test" in (folder / "manifest.json").read_bytes()


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "tokenizer.json"])
def test_a_missing_file_is_named_and_nothing_is_kept(origin: Origin, bundles: Path, name: str) -> None:
    origin.drop(name)
    assert refusal(origin, bundles).field == f"{origin.url}/{name}"


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: whole + b"x", lambda _: b""])
def test_a_file_of_another_length_is_refused_and_nothing_is_kept(origin: Origin, bundles: Path, change) -> None:
    origin.put("model.onnx", change(origin.read("model.onnx")))
    error = refusal(origin, bundles)
    assert error.field == f"{origin.url}/model.onnx"
    assert "bytes" in error.problem


def test_a_file_of_the_right_length_with_another_content_is_refused_by_where_it_came_from(
    origin: Origin, bundles: Path
) -> None:
    origin.put("model.onnx", bytes(len(origin.read("model.onnx"))))
    error = refusal(origin, bundles)
    assert error.field == f"{origin.url}/model.onnx"
    assert "SHA-256" in error.problem


def test_a_manifest_that_is_none_is_refused(origin: Origin, bundles: Path) -> None:
    origin.put("manifest.json", b"<html>not found</html>")
    assert refusal(origin, bundles).field == f"{origin.url}/manifest.json"


def test_a_manifest_that_is_too_large_is_not_read(origin: Origin, bundles: Path) -> None:
    origin.put("manifest.json", b" " * (2 << 20))
    assert "may have" in refusal(origin, bundles).problem


def test_only_the_manifest_that_was_asked_for_is_taken(origin: Origin, bundles: Path) -> None:
    assert "was asked for" in refusal(origin, bundles, sha256="0" * 64).problem
    digest = hashlib.sha256(origin.read("manifest.json")).hexdigest()
    assert pull_bundle(origin.url, bundles, sha256=digest)[1].is_dir()


def test_files_of_packages_are_not_pulled(bundles: Path) -> None:
    manifest, folder = pull_bundle(str(DEFAULT_BUNDLE), bundles)
    assert not (folder / "model.onnx").exists()
    assert load_encoder(folder, 1).bundle == manifest.id


def test_a_folder_that_cannot_be_written_is_named(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="cannot be written"):
        pull_bundle(origin.url, tmp_path / "file" / "bundles")


def test_a_large_file_comes_in_portions(
    bucket: S3Store, tmp_path: Path, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearkin.encoders.pull_bundle._PORTION", 97)
    make_bundle(tmp_path / "made")
    manifest, folder = pull_bundle(Origin(tmp_path / "made", bucket).url, bundles)
    assert verify_bundle(folder) == manifest


@pytest.mark.parametrize("url", ["ftp://host/bundle", "s3://", "s3://key:secret@bucket/b", "s3://bucket/b?x=1", "://x"])
def test_an_address_that_is_none_is_refused(bundles: Path, url: str) -> None:
    with pytest.raises(Misconfigured, match="s3://BUCKET/PATH"):
        pull_bundle(url, bundles)


def test_a_store_without_tls_must_be_allowed(credentials: None, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(Misconfigured, match="AWS_ALLOW_HTTP=true"):
        pull_bundle("s3://bucket/bundle", bundles)


def test_a_store_that_does_not_answer_is_unavailable(
    credentials: None, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(Unavailable) as away:
            pull_bundle("s3://bucket/bundle", bundles)
    assert "s3://bucket/bundle/manifest.json" in str(away.value)


def test_a_bucket_that_is_not_there_is_told_and_no_secret(credentials: None, bundles: Path) -> None:
    with pytest.raises(NearkinError) as refused:
        pull_bundle("s3://no-such-bucket/bundle", bundles)
    assert "s3://no-such-bucket/bundle" in str(refused.value)
    assert "nobody-may-see" not in str(refused.value)


def test_who_may_not_read_is_told_which_settings_there_are_and_no_secret(
    credentials: None, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
    with pytest.raises(Misconfigured) as refused:
        pull_bundle("s3://bucket/bundle", bundles)
    assert "AWS_ACCESS_KEY_ID" in refused.value.remedy
    assert "nobody-may-see" not in str(refused.value)


def test_without_the_extra_it_is_said_how_to_get_it(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(Misconfigured, match=r"pip install -e '\.\[s3\]'"):
        pull_bundle("s3://bucket/bundle", bundles)


def test_a_pull_that_somebody_else_finished_first_is_as_good(
    origin: Origin, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nearkin.encoders.pull_bundle as module

    prove = module._prove

    def prove_late(folder: Path, url: str) -> None:
        prove(folder, url)
        shutil.copytree(folder, bundles / folder.name)

    monkeypatch.setattr(module, "_prove", prove_late)
    manifest, folder = pull_bundle(origin.url, bundles)
    assert verify_bundle(folder) == manifest
