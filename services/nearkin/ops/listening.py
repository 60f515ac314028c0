"""Whether a process may listen where it is told to: on this machine always, beyond it by TLS or by an explicit word."""

import ipaddress

from nearkin.core.errors import Misconfigured
from nearkin.ops.addresses import split_address


def is_local(address: str) -> bool:
    """Whether only this machine can connect to host:port; a name counts as such only where it is localhost."""
    host, _ = split_address(address, least_port=0)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def require_protected(address: str, setting: str, *, by_tls: bool, insecure: bool, remedy: str = "") -> None:
    """Refuse to listen beyond this machine where whoever is on the way could read along, or speak too.

    Args:
        address: host:port.
        setting: what names it.
        by_tls: whether only TLS is spoken there.
        insecure: whether the operator said that this may be, by NEARKIN_LISTEN_INSECURE.
        remedy: how TLS is had there.

    Raises:
        Misconfigured: it is so.
    """
    if by_tls or insecure or is_local(address):
        return
    raise Misconfigured(
        f"{address} can be reached from other machines, and TLS is not spoken there",
        field=setting,
        remedy=f"{remedy}listen on 127.0.0.1, or set NEARKIN_LISTEN_INSECURE=true where the network is private",
        reason="insecure",
    )
