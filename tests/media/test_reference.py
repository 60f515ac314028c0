import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.core.errors import UnusableMedia
from nearkin.media.reference import SHOWN, Reference, shown
from nearkin.ops.media_sources import MediaSources

SOURCES = MediaSources.parse(
    "cdn.test, *.shops.test, http://old.test, store.test/bucket/, odd.test:8443, 93.184.216.34, [2606:4700::1], "
    "s3://pictures=https://s3.test/pictures/, gs://g=https://store.test/g/"
)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("https://cdn.test/a.jpg", "https://cdn.test/a.jpg"),
        ("https://CDN.test:443/a.jpg", "https://cdn.test/a.jpg"),
        ("HTTPS://cdn.test", "https://cdn.test/"),
        ("https://cdn.test/a.jpg?x=%2F&y=a+b#part", "https://cdn.test/a.jpg?x=%2F&y=a+b"),
        ("https://cdn.test/ä ö.jpg".replace(" ", "%20"), "https://cdn.test/%C3%A4%20%C3%B6.jpg"),
        ("https://a.b.shops.test/x", "https://a.b.shops.test/x"),
        ("http://old.test/x", "http://old.test/x"),
        ("https://store.test/bucket/x/y", "https://store.test/bucket/x/y"),
        ("https://odd.test:8443/x", "https://odd.test:8443/x"),
        ("https://93.184.216.34/x", "https://93.184.216.34/x"),
        ("https://[2606:4700:0:0::1]/x", "https://[2606:4700::1]/x"),
        ("s3://pictures/2026/a b?.jpg", "https://s3.test/pictures/2026/a%20b%3F.jpg"),
        ("gs://g/a", "https://store.test/g/a"),
    ],
)
def test_a_reference_to_an_allowed_source_is_asked_for_as_it_stands(text, asked):
    assert str(Reference.parse(text, SOURCES).url) == asked


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://cdn.test/a", "source"),
        ("https://old.test/a", "source"),
        ("https://cdn.test:444/a", "source"),
        ("https://cdn.test.evil.test/a", "source"),
        ("https://evilcdn.test/a", "source"),
        ("https://shops.test/a", "source"),
        ("https://evilshops.test/a", "source"),
        ("https://store.test/other/x", "source"),
        ("https://store.test/bucket", "source"),
        ("https://store.test/Bucket/x", "source"),
        ("https://store.test/%62ucket/x", "source"),
        ("https://93.184.216.35/x", "source"),
        ("s3://other/a", "source"),
        ("s3://pictures", "source"),
        ("gs://pictures/a", "source"),
        ("https://store.test/bucket/../other/x", "malformed"),
        ("https://store.test/bucket/%2e%2e/other/x", "malformed"),
        ("https://store.test/bucket/..%2fother/x", "malformed"),
        ("https://store.test/bucket/..%5cother/x", "malformed"),
        ("s3://pictures/../other/a", "malformed"),
        ("s3://pictures/%2e%2e/other/a", "malformed"),
        ("https://user:secret@cdn.test/a", "credentials"),
        ("https://@cdn.test/a", "credentials"),
        ("https://cdn.test@evil.test/a", "credentials"),
        ("https://cdn.test\\@evil.test/a", "malformed"),
        ("https://cdn.test\\evil", "malformed"),
        ("https://evil.test#@cdn.test/", "source"),
        ("https://evil.test?@cdn.test/", "source"),
        ("https://cdn.test /a", "malformed"),
        ("https://cdn.test/a\r\nX: y", "malformed"),
        ("https://cdn.test/a\x00", "malformed"),
        ("https://cdn.test/\x85", "malformed"),
        ("https://127.1/a", "malformed"),
        ("https://0x7f.0.0.1/a", "malformed"),
        ("https://0177.0.0.1/a", "malformed"),
        ("https://2130706433/a", "malformed"),
        ("https://[::1%25lo]/a", "malformed"),
        ("https://[::1/a", "malformed"),
        ("https://cdn.test:0/a", "malformed"),
        ("https://cdn.test:99999/a", "malformed"),
        ("https://cdn.test:4x3/a", "malformed"),
        ("https://cdn%2etest/a", "malformed"),
        ("https://cdn.test./a", "malformed"),
        ("https://①.test/a", "source"),
        ("https:///a", "malformed"),
        ("https:/cdn.test/a", "scheme"),
        ("//cdn.test/a", "scheme"),
        ("cdn.test/a", "scheme"),
        ("ftp://cdn.test/a", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("data:image/png;base64,AAAA", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("", "scheme"),
    ],
)
def test_whatever_else_is_refused_with_its_reason(text, reason):
    with pytest.raises(UnusableMedia) as refusal:
        Reference.parse(text, SOURCES)

    assert refusal.value.reason == reason
    assert refusal.value.remedy
    assert "secret" not in str(refusal.value)


def test_a_star_stands_for_every_name_and_for_no_address():
    every = MediaSources.parse("*")

    assert Reference.parse("https://any.test/a", every).host == "any.test"
    with pytest.raises(UnusableMedia, match="may not be fetched from"):
        Reference.parse("https://8.8.8.8/a", every)


def test_where_nothing_is_allowed_the_refusal_names_the_setting():
    with pytest.raises(UnusableMedia, match="NEARKIN_MEDIA_SOURCES"):
        Reference.parse("https://cdn.test/a", MediaSources())


@given(st.text() | st.text(alphabet="htps:/@[]%.?#\\0127cdn*est ", max_size=40).map("https://".__add__))
def test_any_text_is_a_reference_to_an_allowed_source_or_refused(text):
    try:
        found = Reference.parse(text, SOURCES)
    except UnusableMedia:
        return
    assert found.source in SOURCES.sources
    assert found.url.host == found.host
    assert found.url.user is None
    assert found.url.scheme == found.source.scheme


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://cdn.test/a.jpg?sig=secret#x", "https://cdn.test/a.jpg"),
        ("https://me:secret@cdn.test/a", "https://cdn.test/a"),
        ("https://cdn.test/a\nb", "https://cdn.test/a?b"),
        ("data:image/png;base64,secret", "data:"),
    ],
)
def test_what_is_told_of_a_reference_holds_no_secret(text, told):
    assert shown(text) == told


def test_what_is_told_of_a_reference_is_short():
    assert len(shown("https://cdn.test/" + "a" * 2000)) == SHOWN
