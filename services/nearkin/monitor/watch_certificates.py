"""Until when the certificates are valid that engines and look-ups show: seen as whoever connects sees them.

A file that was renewed and is not shown yet does not count here, nor one that nobody told the monitor of.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from nearkin.core.errors import Misconfigured
from nearkin.ops.addresses import split_addresses, split_target
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import Settings
from nearkin.ops.tls import Tls

log = logging.getLogger(__name__)

#: How often they are looked at, in seconds, and how long one look may take.
EVERY_S, LOOK_S = 30.0, 5.0

#: gRPC's servers show theirs to nobody who does not offer to speak HTTP/2.
_GRPC = ["h2"]


@dataclass(frozen=True, slots=True)
class Shown:
    """Where a certificate is shown.

    Attributes:
        part: who shows it, as `nearkin_monitor_part_up` names parts.
        host: where.
        port: where.
        tls: whom the monitor trusts there, and what it shows itself.
    """

    part: str
    host: str
    port: int
    tls: Tls


def shown_by(settings: Settings) -> Iterator[Shown]:
    """Every address that the settings name with TLS."""
    if (tls := settings.kafka_security.tls) is not None:
        yield from (Shown("broker", *at, tls) for at in split_addresses(settings.kafka_bootstrap))
    if settings.redis_url.startswith("rediss"):
        nodes = urlsplit(settings.redis_url).netloc.rpartition("@")[2]
        # The colons of an IPv6 address stand in brackets.
        at_ports = ",".join(node if ":" in node.rpartition("]")[2] else f"{node}:6379" for node in nodes.split(","))
        with contextlib.suppress(ValueError):  # of an address that is none the part itself tells
            yield from [Shown("redis", *at, settings.redis_tls) for at in split_addresses(at_ports)]
    if (tls := settings.qdrant_tls) is not None:
        index = urlsplit(settings.qdrant_url)
        yield Shown("index", index.hostname or "", index.port or 6334, tls)
    if (tls := settings.lookup_caller_tls) is not None:
        yield from (Shown("lookup", *at, tls) for at in split_target(settings.lookup_address))


def expires_at(shown: Shown) -> float:
    """When the certificate that is shown there expires, in seconds since the epoch.

    Raises:
        OSError: nobody is there, or what is shown is not to be trusted; an expired one is not.
        Misconfigured: a file of TLS cannot be used.
    """
    context = shown.tls.load()
    context.set_alpn_protocols(_GRPC)
    with (
        socket.create_connection((shown.host, shown.port), timeout=LOOK_S) as connection,
        context.wrap_socket(connection, server_hostname=shown.host) as protected,
    ):
        certificate = protected.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))


async def watch_certificates(settings: Settings, metrics: Metrics, every_s: float = EVERY_S) -> None:
    """Look at every certificate again and again, until cancelled.

    What cannot be seen keeps what was seen of it last: who does not answer is told as a part that is down.
    """
    while True:
        for shown in shown_by(settings):
            address = f"{shown.host}:{shown.port}"
            try:
                expires = await asyncio.to_thread(expires_at, shown)
            except (OSError, Misconfigured) as error:
                log.debug("a certificate cannot be seen", extra={"fields": {"part": shown.part, "problem": str(error)}})
            else:
                metrics.monitor_certificate_expires.labels(shown.part, address).set(expires)
        await asyncio.sleep(every_s)
