"""Brings a bundle into the folder of bundles, from an S3-compatible store or from another folder.

What comes from elsewhere is not believed: no more bytes are taken than the manifest says, the whole is proved in a
folder beside, and only then it gets its name, in one step. So a folder of that name is a whole bundle, whatever was
interrupted. Credentials and the address of the store come from the environment, as every program for S3 takes them.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.encoders.bundle import MANIFEST, read_plain, verify_bundle
from nearkin.encoders.manifest import MAX_FILE_BYTES, MAX_MANIFEST_BYTES, Manifest, ManifestError, decode_manifest

#: Bytes of one call to a store: each call has a deadline of its own, so that a large file may take its time.
_PORTION = 8 << 20

_REMEDY = "nothing was installed: pull again, or have the whole bundle put there again"


class Origin(Protocol):
    """Where a bundle is pulled from."""

    def portions(self, path: str, most: int) -> Iterator[bytes]:
        """The bytes of a file of the bundle, in order; no more than one beyond `most`.

        Raises:
            Misconfigured: it is not there, or may not be read.
            Unavailable: the store does not answer.
        """


def pull_bundle(url: str, bundles_dir: Path, *, sha256: str | None = None) -> tuple[Manifest, Path]:
    """Bring a bundle into a folder of bundles, and prove it whole.

    Args:
        url: `s3://BUCKET/PATH`, or a folder, that holds the manifest.
        bundles_dir: gets a folder with the bundle's id as its name; is made where it is missing.
        sha256: of the manifest, where the caller knows which it must be.

    Returns:
        The manifest, and the bundle's folder; one that lay there already stays as it is.

    Raises:
        Misconfigured: the bundle is not there, not whole, or another one than asked for.
        Unavailable: the store does not answer.
    """
    origin = _origin(url)
    described = b"".join(origin.portions(MANIFEST, MAX_MANIFEST_BYTES))
    where = f"{url.rstrip('/')}/{MANIFEST}"
    digest = hashlib.sha256(described).hexdigest()
    if sha256 is not None and digest != sha256:
        raise _broken(where, f"has the SHA-256 {digest}, and {sha256} was asked for")
    try:
        manifest = decode_manifest(described)
    except ManifestError as error:
        raise _broken(where, str(error)) from error
    target = bundles_dir / manifest.id
    if target.exists():
        return _already(target, described, manifest)
    try:
        bundles_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=bundles_dir) as scratch:
            folder = Path(scratch) / manifest.id
            folder.mkdir()
            (folder / MANIFEST).write_bytes(described)
            for file in manifest.files:
                if file.package is None:
                    _save(origin, url, file.path, file.size, folder)
            _prove(folder, url)
            try:
                folder.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                return _already(target, described, manifest)  # somebody else pulled it meanwhile
    except OSError as error:
        raise Misconfigured(
            f"cannot be written ({error.strerror})",
            field=str(bundles_dir),
            remedy="name a folder that this user may write, on a disk that has room",
            reason="bundle",
        ) from error
    return manifest, target


def _already(target: Path, described: bytes, manifest: Manifest) -> tuple[Manifest, Path]:
    verify_bundle(target)
    if (target / MANIFEST).read_bytes() != described:
        raise Misconfigured(
            "holds the same vector space with another description of it",
            field=str(target),
            remedy="take that folder away to pull the other one: the collections of its id stay valid",
            reason="bundle",
        )
    return manifest, target


def _save(origin: Origin, url: str, path: str, size: int, folder: Path) -> None:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("wb") as stream:
        for portion in origin.portions(path, size):
            written += len(portion)
            stream.write(portion)
    if written != size:
        said = f"more than {size}" if written > size else str(written)
        raise _broken(f"{url.rstrip('/')}/{path}", f"has {said} bytes, the manifest says {size}")


def _prove(folder: Path, url: str) -> None:
    try:
        verify_bundle(folder)
    except Misconfigured as error:
        field = error.field.replace(str(folder), url.rstrip("/"))
        remedy = error.remedy if error.remedy.startswith("run `pip") else _REMEDY
        raise Misconfigured(error.problem, field=field, remedy=remedy, reason="bundle") from error


def _origin(url: str) -> Origin:
    if "://" not in url:
        return _Folder(Path(url))
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
        raise Misconfigured(
            "is no address of a bundle",
            field="URL",
            remedy="write s3://BUCKET/PATH, or the path of a folder; credentials come from the environment",
            reason="bundle",
        )
    return _Bucket(url)


class _Folder:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def portions(self, path: str, most: int) -> Iterator[bytes]:
        yield read_plain(self._folder / path, min(most, MAX_FILE_BYTES), "name a folder that holds a whole bundle")


class _Bucket:
    """A folder of an S3-compatible store."""

    def __init__(self, url: str) -> None:
        try:
            from obstore.store import S3Store
        except ModuleNotFoundError as error:
            raise Misconfigured(
                "a bundle of an S3-compatible store is asked for, and what reads one is not installed",
                field=url,
                remedy="run `pip install -e '.[s3]'` in the clone that Nearkin was installed from",
                reason="not_installed",
            ) from error
        from obstore.exceptions import BaseError

        self._url = url.rstrip("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
        open_to_all = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
        if endpoint.lower().startswith("http://") and not open_to_all:
            raise Misconfigured(
                "names a store without TLS: who stands between could put another bundle there",
                field="AWS_ENDPOINT_URL",
                remedy="give its https address, or set AWS_ALLOW_HTTP=true",
                reason="bundle",
            )
        try:
            self._store = S3Store.from_url(
                self._url,
                client_options={"allow_http": open_to_all, "connect_timeout": "5s", "timeout": "60s"},
                retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
            )
        except (BaseError, ValueError) as error:
            raise _refused(self._url, error) from error

    def portions(self, path: str, most: int) -> Iterator[bytes]:
        import obstore

        start = 0
        size = self._ask(obstore.head, path)["size"]
        if size > most:
            raise _broken(f"{self._url}/{path}", f"has {size} bytes, and may have {most}")
        while start < size:
            length = min(_PORTION, size - start)
            found = bytes(self._ask(obstore.get_range, path, start=start, length=length))
            if not found or len(found) > length:
                raise _broken(f"{self._url}/{path}", "changed while it was read")
            start += len(found)
            yield found

    def _ask(self, call: Callable[..., Any], path: str, **options: int) -> Any:
        from obstore import exceptions

        where = f"{self._url}/{path}"
        try:
            return call(self._store, path, **options)
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            raise _broken(where, "is not there") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
            raise _refused(where, error) from error
        except (exceptions.BaseError, ValueError, OSError) as error:
            raise Unavailable("bundle store", f"{where} cannot be read ({_first_line(error)})") from error


def _refused(where: str, error: Exception) -> Misconfigured:
    return Misconfigured(
        f"may not be read ({_first_line(error)})",
        field=where,
        remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL where it is not "
        "Amazon's store; AWS_SKIP_SIGNATURE=true reads a public bucket",
        reason="bundle",
    )


def _first_line(error: Exception) -> str:
    """What a store says, short: what follows may be a whole answer of it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _broken(where: str, problem: str) -> Misconfigured:
    return Misconfigured(problem, field=where, remedy=_REMEDY, reason="bundle")
