"""How Redis is reached, one server or a cluster, and what its refusals mean to Nearkin.

A call is a tuple of a command and its arguments; calls go out together, and a cluster's client sends each to the master
of its key's slot. That client follows a slot which moves, and asks for the map of slots again once a master is gone.
"""

import re
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from redis import asyncio as redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    ConnectionError,  # noqa: A004 - redis-py's own
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)

from nearkin.core.errors import Misconfigured, NearkinError, Unavailable
from nearkin.ops.addresses import split_addresses
from nearkin.ops.tls import Tls

#: Follows `redis` or `rediss` where the addresses are of nodes of a cluster.
_CLUSTER = "+cluster"

Client = redis.Redis | RedisCluster
Call = tuple[Any, ...]

#: What a refusal is known to mean for now. Its word stands in the text, in the midst of a script's own words too, or
#: redis-py has made a class of it.
_REFUSALS = {
    "OOM": "it has no memory left; raise its maxmemory, writes resume by themselves",
    "MISCONF": "it cannot write to its disk; free some space, writes resume by themselves",
    "READONLY": "it is a replica, which takes no writes",
    "LOADING": "it loads its data",
    "BUSY": "it is busy with a script",
    "NOREPLICAS": "too few replicas are there",
    "CLUSTERDOWN": "the cluster does not serve this shard",
    "MASTERDOWN": "it is a replica that has lost its master",
    "TRYAGAIN": "the cluster moves this shard",
    "NOSCRIPT": "it has just lost its scripts",
}
_WORDS: dict[type[Exception], str] = {
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    BusyLoadingError: "LOADING",
    ClusterDownError: "CLUSTERDOWN",
    SlotNotCoveredError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    NoScriptError: "NOSCRIPT",
    TryAgainError: "TRYAGAIN",
    ClusterError: "TRYAGAIN",  # after so many redirections that no end of them was in sight
}


class _Following(redis.SSLConnection):
    """A connection that opens by a context of ours, which follows its files; redis-py would keep the first."""

    def __init__(self, following: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = following


class _User(CredentialProvider):
    """Who we are to Redis: asked whenever a connection is opened, so that the password may be exchanged."""

    def __init__(self, username: str, password: Callable[[], str]) -> None:
        self._username, self._password = username, password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        return (self._username, self._password()) if self._username else (self._password(),)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


def open_redis(
    url: str,
    timeout_s: float = 5.0,
    *,
    tls: Tls | None = None,
    username: str = "",
    password: Callable[[], str] | None = None,
) -> Client:
    """The Redis of a URL; nothing is sent before the first call.

    Args:
        url: as the setting `redis_url` has it.
        timeout_s: how long a call may take, in seconds.
        tls: whom a connection to rediss trusts, and what it shows.
        username: the user; the default one where it is empty.
        password: gives the user's password, which counts more than one of the URL.

    Raises:
        Misconfigured: it is no URL of a Redis, or a file of TLS cannot be used.
    """
    try:
        return _opened(url, timeout_s, tls or Tls(), username, password)
    except (ValueError, RedisClusterException) as error:
        raise Misconfigured(
            "it is no URL of a Redis",
            field="NEARKIN_REDIS_URL",
            remedy="give redis://HOST:PORT/DATABASE, of a cluster redis+cluster://HOST:PORT,HOST:PORT; rediss for TLS",
        ) from error


def _opened(url: str, timeout_s: float, tls: Tls, username: str, password: Callable[[], str] | None) -> Client:
    # Once more, at once, for a connection that broke while it was idle; a batch that is sent twice counts once.
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 1),
    }
    scheme, _, rest = url.partition("://")
    user, addresses, tail = re.fullmatch(r"(.*@)?([^/?]*)(.*)", rest, re.DOTALL).groups("")  # type: ignore[union-attr]
    if password is not None:
        # redis-py takes a user either from the URL or from a provider.
        user, options["credential_provider"] = "", _User(username, password)
    following = {"following": tls.context()} if scheme.startswith("rediss") else {}
    if not scheme.endswith(_CLUSTER):
        client = redis.Redis.from_url(f"{scheme}://{user}{addresses}{tail}", **options)
        if following:
            client.connection_pool.connection_class = _Following
            client.connection_pool.connection_kwargs |= following
        return client
    nodes = [ClusterNode(host, port) for host, port in split_addresses(addresses)]
    # Where a master is gone and has no replica, the shards of the others are served.
    options |= {"startup_nodes": nodes, "require_full_coverage": False}
    first, _, _ = addresses.partition(",")
    cluster = RedisCluster.from_url(f"{scheme.removesuffix(_CLUSTER)}://{user}{first.strip()}{tail}", **options)
    if following:
        cluster.nodes_manager.connection_kwargs |= {**following, "connection_class": _Following}
        for node in cluster.nodes_manager.startup_nodes.values():
            node.connection_class = _Following
            node.connection_kwargs |= following
    return cluster


async def send(client: Client, calls: Sequence[Call]) -> list[Any]:
    """The answers to some calls, a refusal in the place of its answer, in one round trip to each server.

    Raises:
        NearkinError: as `translated`, where nothing came back at all.
    """
    answers = await _send(client, calls)
    # A cluster's client gives the loss of an idle connection for an answer, where that of one server tries again.
    lost = [place for place, answer in enumerate(answers) if type(answer) is ConnectionError]
    for place, answer in zip(lost, await _send(client, [calls[place] for place in lost]), strict=True):
        answers[place] = answer
    return answers


async def _send(client: Client, calls: Sequence[Call]) -> list[Any]:
    if not calls:
        return []
    try:
        async with client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command(*call)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
            return answers
    except (RedisError, RedisClusterException) as error:
        raise translated(error) from error


async def ask(client: Client, calls: Sequence[Call]) -> list[Any]:
    """The answers to some calls, in one round trip to each server.

    Raises:
        NearkinError: as `translated`, of the first refusal.
    """
    answers = await send(client, calls)
    for answer in answers:
        if isinstance(answer, Exception):
            raise translated(answer) from answer
    return answers


async def ask_masters(client: Client, *call: Any) -> list[Any]:
    """The answers of every server that takes writes to a call that names no key; errors as `ask`."""
    try:
        if not isinstance(client, RedisCluster):
            return [await client.execute_command(*call)]  # type: ignore[no-untyped-call]
        await client.initialize()
        return [await client.execute_command(*call, target_nodes=[master]) for master in client.get_primaries()]
    except (RedisError, RedisClusterException) as error:
        raise translated(error) from error


def translated(error: Exception) -> NearkinError:
    """What a failed call means to Nearkin, in words of its own: Redis may quote what was sent to it."""
    while isinstance(error, RedisClusterException) and isinstance(
        cause := error.__cause__ or error.__context__, Exception
    ):
        error = cause
    if isinstance(error, AuthenticationError | NoPermissionError):
        return Misconfigured(
            "Redis refuses the user or the password",
            field="NEARKIN_REDIS_PASSWORD",
            remedy="give a user that may run scripts and INFO (of a cluster also CLUSTER SLOTS and COMMAND), and write "
            "keys that begin with nk:",
        )
    if isinstance(error, AskError) or "cluster support disabled" in str(error):
        is_cluster = isinstance(error, AskError)  # and a MovedError, which is one
        return Misconfigured(
            "it is a node of a Redis Cluster" if is_cluster else "it is no Redis Cluster",
            field="NEARKIN_REDIS_URL",
            remedy=f"give redis{_CLUSTER if is_cluster else ''}://HOST:PORT",
            reason="redis_cluster",
        )
    said = {_WORDS.get(type(error)), *re.findall("[A-Z]+", str(error))}
    for word, meaning in _REFUSALS.items():
        if word in said:
            return Unavailable("evidence", meaning)
    if isinstance(error, ResponseError):
        return Misconfigured(
            "Redis refuses the request",
            field="NEARKIN_REDIS_URL",
            remedy="check that it is a Redis of version 6.2 or newer, where no other program uses keys that begin "
            "with nk:",
            reason="redis_refuses",
        )
    return Unavailable("evidence", type(error).__name__)
