"""A reference to media: a URL that a stranger wrote, read in one way, once; what was read is what is asked for.

Whatever readers of URLs are known to disagree about is refused: credentials, control characters, backslashes, addresses
in odd forms, paths that step elsewhere. Of a URL only scheme, host and path are ever told, never its query.
"""

from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote, urljoin

from yarl import URL

from nearkin.core.errors import UnusableMedia
from nearkin.ops.media_sources import (
    BUCKET_SCHEMES,
    PORTS,
    Address,
    MediaSources,
    Source,
    has_dots,
    is_name,
    literal,
)

#: Most of a reference that is told.
SHOWN = 160


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference that may be asked for.

    Attributes:
        url: what is asked for, without a fragment.
        source: the allowed source that it lies in.
        host: its host, in lower case.
        address: the host, where it is an address.
    """

    url: URL
    source: Source
    host: str
    address: Address | None

    @classmethod
    def parse(cls, text: str, sources: MediaSources) -> Self:
        """Read and judge a reference.

        Raises:
            UnusableMedia: it is none, or leads where nothing may be fetched.
        """
        scheme = text.partition(":")[0].lower()
        if scheme in BUCKET_SCHEMES:
            text, scheme = _in_bucket(text, sources), "https"
        if scheme not in PORTS or "://" not in text[:8]:
            raise UnusableMedia(
                "its scheme is not https", remedy="send a URL that begins with https://", reason="scheme"
            )
        if "\\" in text or any(ord(char) <= 0x20 or 0x7F <= ord(char) <= 0x9F for char in text):
            raise _malformed("it holds a blank, a control character or a backslash")
        try:
            # What is ASCII is kept to the letter: a signature is made over it.
            url = URL(text, encoded=text.isascii())
            host, port = (url.raw_host or "").lower(), url.port
            credentials = "@" in url.raw_authority
        except ValueError:
            raise _malformed("it is not a URL") from None  # the parser's words quote it
        if credentials:
            raise UnusableMedia(
                "it carries credentials",
                remedy="leave out what stands before the @; a private object needs a signed URL",
                reason="credentials",
            )
        try:
            address = literal(host)
        except ValueError:
            raise _malformed("its host is an address in an odd form") from None
        if (address is None and not is_name(host)) or port is None or not 1 <= port <= 65_535:
            raise _malformed("its host or its port is none")
        path = url.raw_path or "/"
        if has_dots(path):
            raise _malformed("its path steps elsewhere")
        host = str(address) if address else host
        source = sources.find(url.scheme, host, port, path)
        if source is None:
            raise _not_allowed(url.scheme, host, port, sources)
        built = URL.build(
            scheme=url.scheme,
            host=f"[{host}]" if ":" in host else host,
            port=port,
            path=path,
            query_string=url.raw_query_string,
            encoded=True,
        )
        return cls(built, source, host, address)

    def follow(self, location: str, sources: MediaSources) -> "Reference":
        """Where a redirect leads, judged as any reference.

        Raises:
            UnusableMedia: it leads where nothing may be fetched, or away from TLS.
        """
        try:
            target = Reference.parse(urljoin(str(self.url), location), sources)
        except ValueError:
            raise _malformed("it is redirected to what is not a URL") from None
        except UnusableMedia as error:
            raise UnusableMedia(
                f"it is redirected, and there {error.problem}", remedy=error.remedy, reason=error.reason
            ) from error
        if self.url.scheme == "https" and target.url.scheme != "https":
            raise UnusableMedia(
                "it is redirected from https to http", remedy="serve it by https alone", reason="downgrade"
            )
        return target

    @property
    def shown(self) -> str:
        """It, as it may be told."""
        return shown(str(self.url))


def shown(text: str) -> str:
    """A reference without what may be secret: no credentials, query or fragment, no line breaks, and not too long."""
    scheme, separator, rest = text.partition("://")
    plain = rest.partition("?")[0].partition("#")[0] if separator else ""
    authority, slash, path = plain.partition("/")
    told = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}" if separator else f"{scheme.partition(':')[0]}:"
    printable = "".join(char if char.isprintable() else "?" for char in told)
    return printable if len(printable) <= SHOWN else f"{printable[: SHOWN - 1]}…"


def _in_bucket(text: str, sources: MediaSources) -> str:
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    name = f"{scheme.lower()}://{bucket}/"
    for known, url in sources.buckets:
        if known == name and key:
            if has_dots(unquote(key)):
                raise _malformed("its key steps elsewhere")
            return url + quote(key)
    raise UnusableMedia(
        "its bucket is not one that media may be fetched from",
        remedy="allow it in NEARKIN_MEDIA_SOURCES as s3://BUCKET=https://HOST/FOLDER/",
        reason="source",
    )


def _not_allowed(scheme: str, host: str, port: int, sources: MediaSources) -> UnusableMedia:
    if scheme == "http" and sources.find("https", host, PORTS["https"], "/"):
        problem, remedy = "its scheme is http, which is not allowed for its host", "send it with https://"
    elif not sources.sources:
        problem, remedy = "nothing is fetched as it is set", "name the hosts of media in NEARKIN_MEDIA_SOURCES"
    else:
        at = "" if port == PORTS[scheme] else f":{port}"
        problem = f"media may not be fetched from {shown(f'{scheme}://{host}')}{at}, or not from this folder of it"
        remedy = "send a URL of an allowed host, or allow it in NEARKIN_MEDIA_SOURCES"
    return UnusableMedia(problem, remedy=remedy, reason="source")


def _malformed(problem: str) -> UnusableMedia:
    return UnusableMedia(problem, remedy="send a plain URL: https://HOST/PATH", reason="malformed")
