import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from certificates import Authority, Pair
from nearkin.monitor.watch_certificates import expires_at, shown_by, watch_certificates
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import Settings, load_settings

DAY_S = 86_400.0


@contextlib.asynccontextmanager
async def showing(pair: Pair) -> AsyncIterator[str]:
    """A server's host:port, which shows a certificate to whoever connects."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0, ssl=context) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def of_look_ups(address: str, authority: Authority) -> Settings:
    return load_settings(lookup_address=address, lookup_tls=True, lookup_ca=authority.file)


async def test_a_certificate_is_seen_where_it_is_shown(tmp_path):
    authority = Authority(tmp_path)
    async with showing(authority.issue()) as address:
        (shown,) = shown_by(of_look_ups(address, authority))
        assert shown.part == "lookup"
        assert 0 < await asyncio.to_thread(expires_at, shown) - time.time() <= DAY_S


async def test_one_that_is_expired_or_not_there_is_no_news(tmp_path):
    authority, metrics = Authority(tmp_path), Metrics(CollectorRegistry())

    def told(address: str) -> float | None:
        labels = {"part": "lookup", "address": address}
        return metrics.registry.get_sample_value("nearkin_monitor_certificate_expires_timestamp_seconds", labels)

    async with showing(authority.issue()) as good, showing(authority.issue(expired=True)) as expired:
        for address in (good, expired, "127.0.0.1:1"):
            settings = of_look_ups(address, authority)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(watch_certificates(settings, metrics, 0.01), 1)
        assert told(good)
        assert told(expired) is None
        assert told("127.0.0.1:1") is None


async def test_a_host_that_cannot_be_resolved_does_not_end_the_monitor():
    settings = load_settings(redis_url="rediss://a..b:6379/0")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch_certificates(settings, Metrics(CollectorRegistry()), 0.01), 1)


@pytest.mark.parametrize(
    ("set_to", "looked_at"),
    [
        ({}, []),
        ({"kafka_protocol": "tls", "kafka_bootstrap": "a:9093,b:9093"}, [("broker", "a", 9093), ("broker", "b", 9093)]),
        ({"redis_url": "rediss://user:word@c/0"}, [("redis", "c", 6379)]),
        ({"redis_url": "rediss+cluster://c:7000,d:7001"}, [("redis", "c", 7000), ("redis", "d", 7001)]),
        ({"qdrant_url": "https://e"}, [("index", "e", 6334)]),
        ({"redis_url": "rediss://[::1]/0"}, [("redis", "::1", 6379)]),
        ({"lookup_tls": True, "lookup_address": "dns:///f:7700"}, [("lookup", "f", 7700)]),
        ({"lookup_tls": True, "lookup_address": "dns:f:7700"}, [("lookup", "f", 7700)]),
        (
            {"lookup_tls": True, "lookup_address": "ipv4:10.0.0.1:7700,10.0.0.2:7700"},
            [("lookup", "10.0.0.1", 7700), ("lookup", "10.0.0.2", 7700)],
        ),
    ],
)
def test_every_address_with_tls_is_looked_at_and_no_other(set_to, looked_at):
    shown = shown_by(load_settings(**set_to))
    assert [(one.part, one.host, one.port) for one in shown] == looked_at
