"""The embedded index by TLS and with a key, asked by the adapter that asks a Qdrant server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from certificates import Authority, Pair
from nearkin.core.errors import Misconfigured, NearkinError, Unavailable
from nearkin.embedded.programs import free_port
from nearkin.ops import grpc_tls
from nearkin.ops.settings import Settings
from nearkin.stores.qdrant import connect
from waiting import until

KEY = "s3cret-index"


class Owner:
    """The owner of an index at a port that only TLS is spoken at, with a key."""

    def __init__(self, data: Path, shown: Pair) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.log = data.parent / "index.log"
        self._command = [sys.executable, "-m", "nearkin.embedded.index_owner", "--data", str(data)]
        self._command += ["--listen", self.address]
        self._environment = os.environ | {
            "NEARKIN_INDEX_CERT": str(shown.cert),
            "NEARKIN_INDEX_KEY": str(shown.key),
            "NEARKIN_QDRANT_API_KEY": KEY,
        }

    def serves(self, ca: Path) -> bool:
        """Whether its health, which is told to everybody, says so."""
        credentials = grpc.ssl_channel_credentials(ca.read_bytes())
        with grpc.secure_channel(self.address, credentials) as channel:
            try:
                asked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.RpcError:
                assert self.process.poll() is None, self.log.read_text()
                return False
            return bool(asked.status == health_pb2.HealthCheckResponse.SERVING)

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def shown(authority: Authority) -> Pair:
    return authority.issue()


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory, authority: Authority, shown: Pair) -> Iterator[Owner]:
    with Owner(tmp_path_factory.mktemp("owner") / "index", shown) as owner:
        until(lambda: owner.serves(authority.file), "the index serves by TLS")
        yield owner


async def problem(owner: Owner, authority: Authority, **settings: object) -> NearkinError | None:
    """What the adapter meets that is to make a collection; None where it is made."""
    chosen = {"qdrant_url": f"https://{owner.address}", "qdrant_ca": authority.file, "qdrant_api_key": KEY}
    index = connect(Settings(**(chosen | settings)))
    try:
        await index.prepare("bundle", 8)
        await index.serving()
    except NearkinError as error:
        return error
    finally:
        await index.close()
    return None


async def test_a_collection_is_made_by_tls_with_the_key(owner: Owner, authority: Authority) -> None:
    assert await problem(owner, authority) is None


@pytest.mark.parametrize("key", [None, "s3cret-wrong", KEY[:-1]])
async def test_without_the_key_nothing_is_answered_and_the_setting_is_named(
    owner: Owner, authority: Authority, key: str | None
) -> None:
    told = await problem(owner, authority, qdrant_api_key=key)

    assert isinstance(told, Misconfigured)
    assert told.field == "NEARKIN_QDRANT_API_KEY"
    assert "s3cret" not in str(told) + owner.log.read_text()


@pytest.mark.parametrize("wrong", ["in the open", "another authority", "gRPC's own authorities"])
async def test_who_does_not_speak_tls_or_does_not_trust_it_says_what_to_look_at(
    owner: Owner, authority: Authority, tmp_path: Path, wrong: str
) -> None:
    settings: dict[str, dict[str, object]] = {
        "in the open": {"qdrant_url": f"http://{owner.address}"},
        "another authority": {"qdrant_ca": Authority(tmp_path / "other").file},
        "gRPC's own authorities": {"qdrant_ca": None},
    }

    told = await problem(owner, authority, **settings[wrong])

    assert isinstance(told, Unavailable)
    if wrong != "in the open":
        assert "NEARKIN_QDRANT_CA" in str(told)


async def test_its_certificate_and_whom_the_adapter_trusts_are_exchanged_while_both_go_on(
    owner: Owner, authority: Authority, shown: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_tls, "LOOK_EVERY_S", 0.0)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    index = connect(Settings(qdrant_url=f"https://{owner.address}", qdrant_ca=trusted, qdrant_api_key=KEY))
    await index.prepare("bundle", 8)
    coming = Authority(tmp_path / "coming")

    shown.become(coming.issue())
    trusted.write_bytes(coming.file.read_bytes())

    try:
        assert (await index.serving()).bundle == "bundle"
        assert await problem(owner, coming) is None
        assert isinstance(await problem(owner, authority), Unavailable)
    finally:
        await index.close()
        shown.become(authority.issue())


@pytest.mark.parametrize(
    ("listen", "environment", "told"),
    [
        ("0.0.0.0:0", {}, "NEARKIN_INDEX_CERT"),
        ("127.0.0.1:0", {"NEARKIN_INDEX_CERT": "away.pem"}, "away.pem"),
        ("127.0.0.1:0", {"NEARKIN_INDEX_KEY": "key.pem"}, "NEARKIN_INDEX_CERT"),
    ],
)
def test_it_does_not_start_unprotected_beyond_this_machine_nor_with_half_of_it(
    tmp_path: Path, listen: str, environment: dict[str, str], told: str
) -> None:
    command = [sys.executable, "-m", "nearkin.embedded.index_owner", "--data", str(tmp_path / "i"), "--listen", listen]

    ended = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 2
    assert told in ended.stderr
