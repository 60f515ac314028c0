"""From a host's name to the addresses that are connected to: what is looked up is judged, and what was judged is used.

The HTTP client has no look-up of its own, so no second answer of the DNS can slip in between. If one of a name's
addresses may not be connected to, none is: an answer that mixes them is how rebinding begins.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from nearkin.core.errors import UnusableMedia
from nearkin.media.address import why_refused
from nearkin.ops.media_sources import MediaSources, Network

#: Gives the addresses of a name, as text.
LookUp = Callable[[str], Awaitable[Sequence[str]]]


class SystemLookUp:
    """The system's own resolver, in threads of its own: one that hangs holds up nothing else of the process.

    Args:
        threads: how many names are looked up at a time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="media-names")

    async def __call__(self, host: str) -> Sequence[str]:
        """The addresses of a name.

        Raises:
            OSError: it has none, or the DNS does not answer.
        """
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _addresses, host)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Let go of the threads; what they still look up is thrown away."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(address[4][0]) for address in found]


class CheckedResolver(AbstractResolver):
    """The resolver of the HTTP client.

    Args:
        sources: whose hosts may lie in networks that are not public.
        look_up: gives the addresses of a name.
    """

    def __init__(self, sources: MediaSources, look_up: LookUp) -> None:
        self._sources, self._look_up = sources, look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name, all of which may be connected to.

        Raises:
            UnusableMedia: one of them may not.
            OSError: there is none.
        """
        found = await self._look_up(host)
        if not found:
            raise OSError("the name has no address")
        admitted = self._admitted(host, port)
        for address in found:
            require_public(host, address, admitted)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""

    def _admitted(self, host: str, port: int) -> Sequence[Network]:
        named = any(source.exact and (source.host, source.port) == (host, port) for source in self._sources.sources)
        return self._sources.networks if named else ()


def require_public(host: str, address: str, admitted: Sequence[Network] = ()) -> None:
    """Have an address be one that may be connected to.

    Raises:
        UnusableMedia: it is not; the host is told, the address is not: it says how a network looks inside.
    """
    word = why_refused(ipaddress.ip_address(address), admitted)
    if word is not None:
        raise UnusableMedia(
            f"the address of {host} is {word}, not public",
            remedy="serve it from a public address; for a store of your own name its host in full in "
            "NEARKIN_MEDIA_SOURCES, and its network in NEARKIN_MEDIA_NETWORKS",
            reason="address",
        )
