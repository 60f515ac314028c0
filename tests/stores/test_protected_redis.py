"""Evidence in a Redis by mutual TLS and as a user: a server and a cluster, what is wrong, and what is exchanged."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from certificates import Authority, Pair
from engines.tls_redis import PASSWORD, USER, NoTlsRedis, TlsRedis, tls_redis_binary
from nearkin.core.errors import Misconfigured, NearkinError, Unavailable
from nearkin.ops import credential
from nearkin.ops.settings import Settings, load_settings
from nearkin.stores.evidence import RedisEvidence, connect
from stores.counted_offsets import ANCHORS, AT, RULES, events

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def binary() -> Path:
    try:
        return tls_redis_binary()
    except NoTlsRedis as error:
        if os.environ.get("NEARKIN_REQUIRE_ENGINES"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "files")


@pytest.fixture
def shown(authority: Authority) -> Pair:
    return authority.issue()


@pytest.fixture
def callers(authority: Authority, tmp_path: Path) -> Path:
    file = tmp_path / "callers.pem"
    file.write_bytes(authority.file.read_bytes())
    return file


@pytest.fixture(params=["server", "cluster"])
def redis(
    request: pytest.FixtureRequest, tmp_path: Path, authority: Authority, shown: Pair, callers: Path
) -> Iterator[TlsRedis]:
    cluster = request.param == "cluster"
    with TlsRedis(tmp_path / "redis", shown, callers, authority.issue(), cluster=cluster) as running:
        yield running


@pytest.fixture
def mine(authority: Authority) -> Pair:
    return authority.issue()


def settings_for(redis: TlsRedis, authority: Authority, mine: Pair | None, **others: object) -> Settings:
    files = {"redis_cert": mine.cert, "redis_key": mine.key} if mine else {}
    chosen = {"redis_url": redis.url, "redis_ca": authority.file, "redis_username": USER, "redis_password": PASSWORD}
    return load_settings(**(chosen | files | others))


async def counts(store: RedisEvidence, start: int = 0) -> int:
    """Apply one event, and read it; the offset after it."""
    (outcome,) = await store.apply([events(ANCHORS[0], start)])
    found = (await store.read(ANCHORS[:1], ANCHORS[:1], AT)).anchors[ANCHORS[0]]
    assert found.visits == outcome.guard
    return outcome.guard


async def problem(settings: Settings) -> NearkinError | None:
    """What a store by these settings meets; None where it counts."""
    store = connect(settings, RULES)
    try:
        await store.check()
        await counts(store)
    except NearkinError as error:
        return error
    finally:
        await closed(store, settings)
    return None


async def closed(store: RedisEvidence, settings: Settings) -> None:
    """Close it, and wait until TLS has said goodbye: redis-py does not wait for a connection that was refused."""
    await store.close()
    here, port = psutil.Process(), urlsplit(settings.redis_url).port

    def is_open() -> bool:
        connections = here.net_connections("tcp")
        return any(one.raddr and one.raddr.port == port and one.status != psutil.CONN_TIME_WAIT for one in connections)

    while is_open():  # noqa: ASYNC110  # nothing sets an event for it
        await asyncio.sleep(0.01)


async def test_evidence_is_counted_by_mutual_tls_as_a_user_with_no_more_rights_than_documented(
    redis: TlsRedis, authority: Authority, mine: Pair
) -> None:
    assert await problem(settings_for(redis, authority, mine)) is None


def test_that_user_may_neither_empty_nor_disturb_what_others_have_there(redis: TlsRedis) -> None:
    for command in ("FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "KEYS *", "CLIENT KILL TYPE normal", "SET other 1"):
        assert "no permissions" in redis.ask("ACL", "DRYRUN", USER, *command.split()), command
    assert redis.ask("ACL", "DRYRUN", USER, "SET", "nk:own", "1") == "OK"


async def test_a_password_of_the_url_serves_too(redis: TlsRedis, authority: Authority, mine: Pair) -> None:
    url = redis.url.replace("://", f"://{USER}:{PASSWORD}@")

    assert (
        await problem(settings_for(redis, authority, mine, redis_url=url, redis_username="", redis_password=None))
        is None
    )


@pytest.mark.parametrize("wrong", ["password", "user", "nobody"])
async def test_a_wrong_user_is_told_with_the_setting_and_never_quoted(
    redis: TlsRedis, authority: Authority, mine: Pair, wrong: str
) -> None:
    others = {
        "password": {"redis_password": "s3cret-wrong"},
        "user": {"redis_username": "s3cret-somebody"},
        "nobody": {"redis_username": "", "redis_password": None},
    }[wrong]

    told = await problem(settings_for(redis, authority, mine, **others))

    assert isinstance(told, Misconfigured)
    assert told.field == "NEARKIN_REDIS_PASSWORD"
    assert "s3cret" not in f"{told}{told.__cause__}"


@pytest.mark.parametrize("wrong", ["authority", "no certificate", "expired certificate", "in the open"])
async def test_without_the_right_certificates_nothing_is_sent(
    redis: TlsRedis, authority: Authority, mine: Pair, tmp_path: Path, wrong: str
) -> None:
    settings = {
        "authority": lambda: settings_for(redis, Authority(tmp_path / "other"), mine),
        "no certificate": lambda: settings_for(redis, authority, None),
        "expired certificate": lambda: settings_for(redis, authority, authority.issue(expired=True)),
        "in the open": lambda: settings_for(redis, authority, mine, redis_url=redis.url.replace("rediss", "redis")),
    }[wrong]()

    assert isinstance(await problem(settings), Unavailable)


async def test_an_expired_server_is_not_spoken_to(
    redis: TlsRedis, authority: Authority, mine: Pair, shown: Pair
) -> None:
    shown.become(authority.issue(expired=True))
    redis.reload()

    assert isinstance(await problem(settings_for(redis, authority, mine)), Unavailable)


async def test_certificates_authorities_and_the_password_are_exchanged_under_a_store_that_goes_on(
    redis: TlsRedis,
    authority: Authority,
    mine: Pair,
    shown: Pair,
    callers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credential, "AGE_S", 0.0)
    monkeypatch.setenv("NEARKIN_SECRETS_DIR", str(tmp_path))
    (tmp_path / "nearkin_redis_password").write_text(PASSWORD)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    settings = load_settings(
        redis_url=redis.url, redis_ca=trusted, redis_cert=mine.cert, redis_key=mine.key, redis_username=USER
    )
    store = connect(settings, RULES)
    after = await counts(store)

    coming = Authority(tmp_path / "coming")
    shown.become(coming.issue())
    callers.write_bytes(coming.file.read_bytes())  # noqa: ASYNC240  # a small file
    redis.write_users("s3cret-coming")
    redis.reload(coming.issue())
    trusted.write_bytes(coming.file.read_bytes())
    mine.become(coming.issue())
    (tmp_path / "nearkin_redis_password").write_text("s3cret-coming")

    try:
        assert await counts(store, after) == after + 1
    finally:
        await closed(store, settings)
