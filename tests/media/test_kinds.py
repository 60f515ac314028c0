import hashlib

import pytest

from media import made_pictures as made
from nearkin.core.errors import UnusableMedia
from nearkin.media.kinds import Kind, Media, recognise

FTYP = b"\0\0\0\x1cftyp"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_a_picture_is_known_by_its_bytes(kind):
    content = made.plain(kind)

    media = Media.of(content)

    assert media.kind is Kind[kind]
    assert media.kind.is_picture
    assert media.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (FTYP + b"isom\0\0\2\0isomiso2mp41", Kind.MP4),
        (FTYP + b"mp42\0\0\0\0mp42isom\0\0\0\0", Kind.MP4),
        (FTYP + b"qt  \0\0\0\0qt  \0\0\0\0\0\0\0\0", Kind.MP4),
        (FTYP + b"mif1\0\0\0\0mif1avifmiaf", Kind.AVIF),
        (FTYP + b"avis\0\0\0\0avismsf1miaf", Kind.AVIF),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x84webm", Kind.WEBM),
        (b"\x1aE\xdf\xa3\xa3B\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x88matroska", Kind.WEBM),
    ],
)
def test_a_video_is_known_by_its_first_box(content, kind):
    assert recognise(content) is kind


@pytest.mark.parametrize(
    ("content", "called"),
    [
        (b"hello, I am a text named .jpg", "text"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf <html>", "HTML"),
        (b"<?xml version='1.0'?><svg/>", "XML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b'{"error": "not found"}', "JSON"),
        (b"%PDF-1.7", "PDF"),
        (b"BM\0\0\0\0", "BMP"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"PK\x03\x04", "a ZIP archive"),
        (FTYP + b"heic\0\0\0\0mif1heic\0\0\0\0", "HEIC"),
        (FTYP + b"crx \0\0\0\1crx isom\0\0\0\0", "another kind of MP4"),
        (b"RIFF\0\0\0\0WAVE", "something unknown"),
        (b"\x1aE\xdf\xa3\0\0\0\0", "something unknown"),
        (b"\0", "something unknown"),
    ],
)
def test_what_is_none_of_them_is_refused_by_its_name(content, called):
    with pytest.raises(UnusableMedia, match=f"by its bytes it is {called}") as refusal:
        Media.of(content, "content.images.2")

    assert (refusal.value.field, refusal.value.reason) == ("content.images.2", "unknown_kind")


def test_nothing_is_no_picture():
    with pytest.raises(UnusableMedia, match="it is empty"):
        Media.of(b"")
