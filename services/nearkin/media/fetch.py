"""Fetches media from where a stranger's URL says: hostile until its bytes are here, and bounded in everything.

Every hop of the way is judged anew: its source (`reference.py`), its addresses, to which the connection then goes
(`resolve.py`), and its host's turns (`hosts.py`). Nothing of ours goes along: no cookie, no credential, no proxy of the
environment. What comes is counted as it comes, whatever was announced.
"""

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import aiohttp

import nearkin
from nearkin.core.errors import MediaUnavailable, UnusableMedia
from nearkin.media.cache import MediaCache
from nearkin.media.hosts import Hosts
from nearkin.media.kinds import Media
from nearkin.media.reference import Reference
from nearkin.media.resolve import CheckedResolver, LookUp, SystemLookUp, require_public
from nearkin.ops.media_sources import MediaSources
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import Settings
from nearkin.ops.tls import Tls

HEADERS = {
    "Accept": "image/avif,image/webp,image/png,image/jpeg,image/gif,video/mp4,video/webm,*/*;q=0.1",
    "Accept-Encoding": "identity",
    "User-Agent": f"Nearkin/{nearkin.__version__}",
}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: A host that answers so has trouble of its own.
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})

#: How long an idle connection is kept for the next request to its host.
KEEP_ALIVE_S = 10.0


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one fetch may cost.

    Attributes:
        most_bytes: of a content.
        timeout_s: for all of it, redirects included.
        idle_s: until a host has answered, and then without a byte of the content.
        least_rate: bytes a second, on average from `idle_s` after the content began.
        redirects: how many are followed.
    """

    most_bytes: int = 20 * 2**20
    timeout_s: float = 15.0
    idle_s: float = 5.0
    least_rate: int = 4096
    redirects: int = 3


@dataclass(slots=True)
class _Shared:
    task: asyncio.Task[Media]
    waiting: int = 0


class Fetcher:
    """Fetches media; to be closed.

    Args:
        sources: where from.
        metrics: where fetches are counted.
        limits: what one may cost.
        tls: whom hosts at https must be certified by.
        at_once: fetches at a time.
        at_once_per_host: fetches at a time from one host.
        cache_bytes: contents that are remembered.
        cache_s: how long a reference stands for what it gave.
        look_up: gives the addresses of a name; the system's where it is None.
        clock: the time in seconds.
    """

    def __init__(
        self,
        sources: MediaSources,
        metrics: Metrics,
        *,
        limits: FetchLimits | None = None,
        tls: Tls | None = None,
        at_once: int = 16,
        at_once_per_host: int = 4,
        cache_bytes: int = 0,
        cache_s: float = 300.0,
        look_up: LookUp | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources, self._metrics, self._limits = sources, metrics, limits or FetchLimits()
        self._context, self._clock = (tls or Tls()).context(), clock
        self._system = None if look_up else SystemLookUp(at_once)
        self._resolver = CheckedResolver(sources, look_up or self._system)  # type: ignore[arg-type]  # one of them is there
        self._hosts = Hosts(at_once, at_once_per_host, clock)
        self._cache = MediaCache(cache_bytes, cache_s, clock)
        self._under_way: dict[str, _Shared] = {}
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics) -> Self:
        """The fetcher that the settings describe."""
        return cls(
            MediaSources.parse(settings.media_sources, settings.media_networks),
            metrics,
            limits=FetchLimits(
                most_bytes=settings.media_max_bytes,
                timeout_s=settings.media_timeout_s,
                idle_s=settings.media_idle_s,
                least_rate=settings.media_least_rate,
                redirects=settings.media_redirects,
            ),
            tls=Tls(settings.media_ca),
            at_once=settings.media_fetches,
            at_once_per_host=settings.media_fetches_per_host,
            cache_bytes=settings.media_cache_bytes,
            cache_s=settings.media_cache_s,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up what is under way, and every connection."""
        tasks = [shared.task for shared in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._system is not None:
            self._system.close()

    async def fetch(self, reference: str, field: str = "") -> Media:
        """Fetch what a reference names.

        Those who ask for the same reference at a time share one fetch.

        Args:
            reference: the URL, as a stranger wrote it.
            field: where it stands, for errors.

        Raises:
            UnusableMedia: it is refused, or what is there cannot be used.
            MediaUnavailable: it cannot be had for now.
        """
        try:
            media = self._cache.recall(reference)
            if media is not None:
                self._metrics.media_fetches.labels(outcome="remembered", reason="").inc()
                return media
            media = await self._together(reference)
        except UnusableMedia as error:
            self._metrics.media_fetches.labels(outcome="refused", reason=error.reason).inc()
            raise UnusableMedia(error.problem, remedy=error.remedy, field=field, reason=error.reason) from error
        except MediaUnavailable as error:
            self._metrics.media_fetches.labels(outcome="unavailable", reason=error.reason).inc()
            raise MediaUnavailable(
                error.problem,
                remedy=error.remedy,
                field=field,
                reason=error.reason,
                retry_after_s=error.retry_after_s,
            ) from error
        self._metrics.media_fetches.labels(outcome="fetched", reason="").inc()
        return media

    async def _together(self, reference: str) -> Media:
        shared = self._under_way.get(reference)
        if shared is None:
            shared = _Shared(asyncio.create_task(self._fetch(reference), name="media-fetch"))
            self._under_way[reference] = shared
            shared.task.add_done_callback(lambda _: self._forget(reference, shared))
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():  # the last who asked for it has gone
                shared.task.cancel()
                self._forget(reference, shared)

    def _forget(self, reference: str, shared: _Shared) -> None:
        if self._under_way.get(reference) is shared:
            del self._under_way[reference]

    async def _fetch(self, reference: str) -> Media:
        at = Reference.parse(reference, self._sources)
        began, left, seen = self._clock(), self._limits.timeout_s, {at.url}
        for _ in range(self._limits.redirects + 1):
            async with self._hosts.turn(at.host):
                hop_began = self._clock()
                found = await self._within(at, left)
                left -= self._clock() - hop_began
            if isinstance(found, bytes):
                # In a thread, as the hash of a large one takes longer than the event loop should hang.
                media = await asyncio.to_thread(Media.of, found) if len(found) > 2**20 else Media.of(found)
                self._metrics.media_fetch_seconds.observe(self._clock() - began)
                self._metrics.media_fetched_bytes.inc(len(found))
                return self._cache.keep(reference, media)
            if found.url in seen:
                raise UnusableMedia(
                    f"{at.shown} redirects in a circle", remedy="send the URL of the object", reason="redirect_loop"
                )
            seen.add(found.url)
            at = found
        raise UnusableMedia(
            f"it is redirected more than {self._limits.redirects} times",
            remedy="send the URL of the object, or raise NEARKIN_MEDIA_REDIRECTS",
            reason="redirects",
        )

    async def _within(self, at: Reference, left: float) -> bytes | Reference:
        """One hop: what is there, or where it leads."""
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await self._ask(at)
        except TimeoutError:
            raise MediaUnavailable(
                f"{at.shown} took longer than {self._limits.timeout_s:g} s",
                remedy="serve it faster, or raise NEARKIN_MEDIA_TIMEOUT_S",
                reason="timeout",
            ) from None
        # The client's exceptions quote URLs whole, so none of them is kept as a cause.
        except aiohttp.ClientConnectorDNSError:
            raise _unavailable(at, f"the name {at.host} cannot be resolved", "name") from None
        except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch) as error:
            certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)
            problem = "it shows no certificate that is trusted for its name" if certificate else "TLS fails"
            raise _unavailable(at, problem, "tls") from None
        except aiohttp.ServerDisconnectedError:
            raise _unavailable(at, "it hangs up without an answer", "protocol") from None
        except aiohttp.ClientOSError as error:
            raise _unavailable(at, f"it cannot be reached ({error.strerror or 'no answer'})", "unreachable") from None
        except aiohttp.ClientPayloadError:
            raise _unavailable(at, "it hangs up before the end of the content", "truncated") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise _unavailable(at, "it answers with what is not HTTP", "protocol") from None

    async def _ask(self, at: Reference) -> bytes | Reference:
        if at.address is not None:
            require_public(at.host, str(at.address), self._sources.networks if at.source.exact else ())
        session = self._session = self._session or self._open()
        try:
            async with asyncio.timeout(self._limits.idle_s) as answering:
                response = await session.get(at.url, allow_redirects=False)
        except TimeoutError:
            if answering.expired():
                raise self._idle(at, "has not answered") from None
            raise
        try:
            return await self._read(at, response)
        finally:
            response.close()  # whatever is left of it is not waited for

    async def _read(self, at: Reference, response: aiohttp.ClientResponse) -> bytes | Reference:
        if response.status in REDIRECTS and (location := response.headers.get("Location")):
            return at.follow(location, self._sources)
        if response.status != 200:
            raise _status(at, response)
        if _encodings(response) - {"identity", "chunked", ""}:
            raise UnusableMedia(
                f"{at.shown} comes compressed, which was not asked for",
                remedy="have its host send pictures and videos as they are",
                reason="encoding",
            )
        if (response.content_length or 0) > self._limits.most_bytes:
            raise self._too_large(at)
        return await self._drain(at, response.content)

    async def _drain(self, at: Reference, stream: aiohttp.StreamReader) -> bytes:
        content, began = bytearray(), self._clock()
        while True:
            try:
                async with asyncio.timeout(self._limits.idle_s) as waiting:
                    chunk = await stream.readany()
            except TimeoutError:
                if waiting.expired():
                    raise self._idle(at, "has sent nothing") from None
                raise
            if not chunk:
                return bytes(content)
            content += chunk
            if len(content) > self._limits.most_bytes:
                raise self._too_large(at)
            took = self._clock() - began
            if took > self._limits.idle_s and len(content) < took * self._limits.least_rate:
                raise MediaUnavailable(
                    f"{at.shown} comes at less than {self._limits.least_rate} bytes a second",
                    remedy="serve it faster, or lower NEARKIN_MEDIA_LEAST_RATE",
                    reason="too_slow",
                )

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            ssl=self._context,
            limit=0,  # turns are given by hosts.py
            keepalive_timeout=KEEP_ALIVE_S,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            timeout=aiohttp.ClientTimeout(total=None),  # each step has its own here
            auto_decompress=False,
            trust_env=False,
        )

    def _idle(self, at: Reference, what: str) -> MediaUnavailable:
        return MediaUnavailable(
            f"{at.shown} {what} for {self._limits.idle_s:g} s",
            remedy="serve it faster, or raise NEARKIN_MEDIA_IDLE_S",
            reason="idle",
        )

    def _too_large(self, at: Reference) -> UnusableMedia:
        return UnusableMedia(
            f"{at.shown} has more than {self._limits.most_bytes} bytes",
            remedy="send a smaller one, or raise NEARKIN_MEDIA_MAX_BYTES",
            reason="too_large",
        )


def _unavailable(at: Reference, problem: str, reason: str) -> MediaUnavailable:
    return MediaUnavailable(
        f"{at.shown}: {problem}", remedy="it is tried again; look at the host where this lasts", reason=reason
    )


def _encodings(response: aiohttp.ClientResponse) -> set[str]:
    said = [
        *response.headers.getall("Content-Encoding", []),
        *response.headers.getall("Transfer-Encoding", []),
    ]
    return {word.strip().lower() for each in said for word in each.split(",")}


def _status(at: Reference, response: aiohttp.ClientResponse) -> MediaUnavailable | UnusableMedia:
    problem = f"{at.shown} is answered with status {response.status}"
    if response.status in BUSY or response.status > 504:
        return MediaUnavailable(
            problem,
            remedy="it is tried again; look at the host where this lasts",
            reason="busy",
            retry_after_s=retry_after_s(response.headers.get("Retry-After", "")),
        )
    if response.status == 404:
        # An item is often published a moment before its picture has been uploaded.
        return MediaUnavailable(problem, remedy="upload it; it is tried again", reason="not_found")
    if response.status in (401, 403):
        remedy = "send a URL that anybody may read, or one whose signature is valid for long enough"
        return UnusableMedia(problem, remedy=remedy, reason="forbidden")
    return UnusableMedia(problem, remedy="send a URL that is answered with status 200", reason="status")


def retry_after_s(header: str) -> float:
    """The rest that a host asks for, in seconds; 0 where it does not, or not in a way that can be read."""
    word = header.strip()
    if word.isascii() and word.isdecimal():
        return float(word[:9])
    try:
        then = parsedate_to_datetime(word)
    except ValueError:
        return 0.0
    aware = then if then.tzinfo else then.replace(tzinfo=dt.UTC)
    return max(0.0, (aware - dt.datetime.now(dt.UTC)).total_seconds())
