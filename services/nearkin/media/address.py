"""Which addresses may be connected to: those of the public network, and those that a setting admits.

IANA's registries of special addresses are written out, as what the standard library calls global differs between its
versions. Of IPv6 only 2000::/3 is public, which leaves out every form that carries an IPv4 address in its end (mapped,
compatible, NAT64); those that carry one in the midst (6to4, Teredo) are named.
"""

import ipaddress
from collections.abc import Sequence

from nearkin.ops.media_sources import METADATA, Address, Network

_SPECIAL: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "of this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "private to a carrier"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.31.196.0/24", "reserved"),
    ("192.52.193.0/24", "reserved"),
    ("192.88.99.0/24", "a relay of 6to4"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "reserved"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "of this network"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "an IPv4 address in disguise"),
    ("64:ff9b::/96", "an IPv4 address in disguise"),
    ("64:ff9b:1::/48", "an IPv4 address in disguise"),
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "an IPv4 address in disguise"),
    ("2620:4f:8000::/48", "reserved"),
    ("3fff::/20", "for documentation"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "private"),
    ("ff00::/8", "multicast"),
)
SPECIAL = tuple((ipaddress.ip_network(network), word) for network, word in _SPECIAL)
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")


def why_refused(address: Address, admitted: Sequence[Network] = ()) -> str | None:
    """What is wrong with an address, in a few words; None where it may be connected to.

    Args:
        address: as it will be connected to.
        admitted: networks that are not public and may be reached all the same.
    """
    if address in METADATA:
        return "of a cloud's metadata"
    if getattr(address, "scope_id", None):
        return "link-local"
    if any(address in network for network in admitted):
        return None
    for network, word in SPECIAL:
        if address in network:
            return word
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC_6:
        return "reserved"
    return None
