"""What media are, read from their own first bytes: neither a name nor what a server says of them is believed.

A file that is two things at once is the one thing that it begins as, and is only ever read as that.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import Self

from nearkin.core.errors import UnusableMedia


class Kind(Enum):
    """The kinds of media that are taken."""

    JPEG = "jpeg"
    PNG = "png"
    GIF = "gif"
    WEBP = "webp"
    AVIF = "avif"
    MP4 = "mp4"
    WEBM = "webm"

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture, not a video."""
        return self not in (Kind.MP4, Kind.WEBM)


#: Brands in the first box of what is built like MP4. Others of that build are other things, such as HEIC or raw photos.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_MP4_BRANDS = frozenset(
    {
        b"isom", b"iso2", b"iso3", b"iso4", b"iso5", b"iso6", b"iso7", b"iso8", b"iso9", b"mp41", b"mp42", b"mp71",
        b"avc1", b"hvc1", b"av01", b"dash", b"M4V ", b"M4VH", b"M4VP", b"MSNV", b"f4v ", b"3gp4", b"3gp5", b"3gp6",
        b"3gp7", b"mmp4", b"qt  ", b"cmfc", b"msdh", b"XAVC",
    }
)  # fmt: skip

#: What is often there instead, to be told by name.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"{", "JSON"),
    (b"%pdf", "PDF"),
    (b"bm", "BMP"),
    (b"ii*\0", "TIFF"),
    (b"mm\0*", "TIFF"),
    (b"\0\0\1\0", "an icon"),
    (b"pk\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "gzip"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjxl ", "JPEG XL"),
    (b"\0\0\0\x0cjp  ", "JPEG 2000"),
)


def recognise(content: bytes) -> Kind | None:
    """What a content begins as; None where it is nothing that is taken."""
    if content.startswith(b"\xff\xd8\xff"):
        return Kind.JPEG
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return Kind.PNG
    if content.startswith((b"GIF87a", b"GIF89a")):
        return Kind.GIF
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return Kind.WEBP
    if content.startswith(b"\x1aE\xdf\xa3"):
        # Matroska of which WebM is a part says which it is in its header, within a few bytes.
        return Kind.WEBM if b"webm" in content[:64] or b"matroska" in content[:64] else None
    if content[4:8] == b"ftyp":
        return _by_brand(content)
    return None


def _by_brand(content: bytes) -> Kind | None:
    end = min(int.from_bytes(content[:4]), 256)
    major = content[8:12]
    brands = {major, *(content[at : at + 4] for at in range(16, end, 4))}
    if brands & _AVIF_BRANDS:
        return Kind.AVIF
    return Kind.MP4 if major in _MP4_BRANDS else None


def _looks_like(content: bytes) -> str:
    start = content[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, name in _OTHERS:
        if start.startswith(beginning):
            return name
    if content[4:8] == b"ftyp":
        return "HEIC" if content[8:10] in (b"he", b"mi") else "another kind of MP4"
    return "text" if content[:256].isascii() and b"\0" not in content[:256] else "something unknown"


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or a video as it was fetched.

    Attributes:
        content: its bytes.
        kind: what they begin as.
        sha256: of them, in hexadecimal digits.
    """

    content: bytes
    kind: Kind
    sha256: str

    @classmethod
    def of(cls, content: bytes, field: str = "") -> Self:
        """The media that some bytes are.

        Args:
            content: the bytes.
            field: what an error names.

        Raises:
            UnusableMedia: they are nothing that is taken.
        """
        if not content:
            raise UnusableMedia("it is empty", field=field, remedy="put the picture or the video there", reason="empty")
        kind = recognise(content)
        if kind is None:
            raise UnusableMedia(
                f"it is no picture or video that is taken: by its bytes it is {_looks_like(content)}",
                field=field,
                remedy="send JPEG, PNG, GIF, WebP, AVIF, MP4 or WebM",
                reason="unknown_kind",
            )
        return cls(content, kind, hashlib.sha256(content).hexdigest())
