"""Where media may be fetched from, as the settings name it; whatever they do not name is refused.

A source is a host, or the folder of a host that a bucket is, with its scheme and port. A network that is not public is
reached only where a setting admits it, and only by a source that names its host in full: under a wildcard anybody could
let a name of their own point there.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PORTS = {"https": 443, "http": 80}

#: Schemes of object stores, whose buckets a setting maps to https.
BUCKET_SCHEMES = ("s3", "gs")

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_ENTRY = re.compile(r"(?:(https?)://)?(\[[^\]]*\]|[^\[\]:/@?#\s]+)(?::([0-9]{1,5}))?(/[^?#\s]*)?", re.IGNORECASE)
_BUCKET = re.compile(rf"({'|'.join(BUCKET_SCHEMES)})://([A-Za-z0-9._-]+)/?=(\S+)")

#: What a setting may admit: loopback, the private networks, those of carriers, and unique local ones.
PRIVATE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(each)
    for each in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7"
    )
)  # fmt: skip

#: Where clouds tell a machine its credentials, outside the link-local addresses too: no setting admits these.
METADATA: frozenset[Address] = frozenset(
    ipaddress.ip_address(each)
    for each in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)


@dataclass(frozen=True, slots=True)
class Source:
    """A place that media may be fetched from.

    Attributes:
        scheme: https or http.
        host: in lower case; ``*`` for any name, ``*.NAME`` for any below a name.
        port: its port.
        prefix: what the path must begin with.
    """

    scheme: str
    host: str
    port: int
    prefix: str = "/"

    @property
    def exact(self) -> bool:
        """Whether it names its host in full."""
        return "*" not in self.host

    def holds(self, scheme: str, host: str, port: int, path: str) -> bool:
        """Whether a URL of these parts lies in it."""
        if (scheme, port) != (self.scheme, self.port) or not path.startswith(self.prefix):
            return False
        if self.host == "*":
            return literal(host) is None
        if self.host.startswith("*."):
            return host.endswith(self.host[1:])
        return host == self.host


@dataclass(frozen=True, slots=True)
class MediaSources:
    """The sources and the networks that settings name.

    Attributes:
        sources: where media may be fetched from.
        buckets: by scheme and name, the URL that stands for a bucket, which is one of the sources.
        networks: networks beside the public one that sources which name their host may lie in.
    """

    sources: tuple[Source, ...] = ()
    buckets: tuple[tuple[str, str], ...] = ()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, sources: str, networks: str = "") -> Self:
        """Read the settings.

        Raises:
            ValueError: an entry is none; its text says which and why.
        """
        found, buckets = [], []
        for entry in _entries(sources):
            bucket = _BUCKET.fullmatch(entry)
            if bucket is None:
                found.append(_source(entry))
                continue
            stands_for = _source(bucket[3])
            if not stands_for.exact:
                raise ValueError(f"{entry!r} maps a bucket to more than one host")
            found.append(stands_for)
            host = f"[{stands_for.host}]" if ":" in stands_for.host else stands_for.host
            url = f"{stands_for.scheme}://{host}:{stands_for.port}{stands_for.prefix}"
            buckets.append((f"{bucket[1]}://{bucket[2]}/", url))
        return cls(tuple(found), tuple(buckets), parse_networks(networks))

    def find(self, scheme: str, host: str, port: int, path: str) -> Source | None:
        """The source that a URL of these parts lies in, one that names its host before others."""
        return max(
            (source for source in self.sources if source.holds(scheme, host, port, path)),
            key=lambda source: source.exact,
            default=None,
        )


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks separated by commas.

    Raises:
        ValueError: one is none, or none that may be admitted; says which.
    """
    found: list[Network] = []
    for entry in _entries(text):
        try:
            network = ipaddress.ip_network(entry)
        except ValueError:
            raise ValueError(f"{entry!r} is not a network such as 10.20.0.0/16") from None
        if not any(within(network, private) for private in PRIVATE):
            raise ValueError(
                f"{entry!r} is none that can be admitted: loopback, 10/8, 172.16/12, 192.168/16, 100.64/10, fc00::/7"
            )
        found.append(network)
    return tuple(found)


def within(network: Network, other: Network) -> bool:
    """Whether a network lies in another one."""
    if isinstance(network, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return network.subnet_of(other)
    if isinstance(network, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return network.subnet_of(other)
    return False


def literal(host: str) -> Address | None:
    """The address that a host is, where it is one and no name; without brackets.

    Raises:
        ValueError: it is an address in a form that some read otherwise, such as 127.1, or with a zone.
    """
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        if ":" in host or last.isdecimal() or re.fullmatch("0x[0-9a-f]*", last):
            raise ValueError(f"{host!r} is not an address as it is commonly written") from None
        return None
    if getattr(found, "scope_id", None):
        raise ValueError(f"{host!r} is an address with a zone")
    return found


def is_name(host: str) -> bool:
    """Whether a host is a name as the DNS has them, in ASCII and lower case."""
    return _NAME.fullmatch(host) is not None


def has_dots(path: str) -> bool:
    """Whether a path has a segment that steps elsewhere, plainly or encoded: servers differ in what they make of it."""
    plain = unquote(path).replace("\\", "/")
    return any(segment in (".", "..") for segment in plain.split("/"))


def _entries(text: str) -> Sequence[str]:
    return [entry for part in text.split(",") if (entry := part.strip())]


def _source(entry: str) -> Source:
    parts = _ENTRY.fullmatch(entry)
    if parts is None:
        raise ValueError(
            f"{entry!r} is no source: HOST, *.HOST, * or HOST:PORT/FOLDER/, http:// before one without TLS, or "
            "s3://BUCKET=https://HOST/FOLDER/"
        )
    scheme, host, prefix = (parts[1] or "https").lower(), parts[2].lower().strip("[]"), parts[4] or "/"
    port = int(parts[3]) if parts[3] else PORTS[scheme]
    if not 1 <= port <= 65_535:
        raise ValueError(f"the port of {entry!r} is not from 1 to 65535")
    if has_dots(prefix):
        raise ValueError(f"the folder of {entry!r} steps elsewhere")
    if prefix != "/" and not prefix.endswith("/"):
        raise ValueError(f"the folder of {entry!r} does not end in /: it would admit others that begin so")
    named = host.removeprefix("*.") if host != "*" else "any"
    address = literal(named)
    if address is None and not is_name(named):
        raise ValueError(f"the host of {entry!r} is none: a name in ASCII, *.NAME, *, or an address")
    if address is not None and named != host:
        raise ValueError(f"the host of {entry!r} is none: a star stands before names alone")
    return Source(scheme, str(address) if address else host, port, prefix)
