import pytest

from nearkin.core.errors import Misconfigured
from nearkin.ops.media_sources import MediaSources, Source
from nearkin.ops.settings import load_settings


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("", ()),
        ("cdn.test", (Source("https", "cdn.test", 443),)),
        (" CDN.test ,, *.shops.test ", (Source("https", "cdn.test", 443), Source("https", "*.shops.test", 443))),
        ("*", (Source("https", "*", 443),)),
        ("http://old.test", (Source("http", "old.test", 80),)),
        ("https://cdn.test:8443/a/b/", (Source("https", "cdn.test", 8443, "/a/b/"),)),
        ("10.0.0.5:9000/bucket/", (Source("https", "10.0.0.5", 9000, "/bucket/"),)),
        ("[::1]:9000", (Source("https", "::1", 9000),)),
        ("s3://a=https://s3.test/a/", (Source("https", "s3.test", 443, "/a/"),)),
    ],
)
def test_sources_are_read(text, sources):
    assert MediaSources.parse(text).sources == sources


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("SOURCES", "ftp://a.test", "is no source"),
        ("SOURCES", "https://", "is no source"),
        ("SOURCES", "https://me:x@a.test", "is no source"),
        ("SOURCES", "a.test?b", "is no source"),
        ("SOURCES", "a b", "is no source"),
        ("SOURCES", "a.test:0", "is not from 1 to 65535"),
        ("SOURCES", "a.test:99999", "is not from 1 to 65535"),
        ("SOURCES", "a.test/b", "does not end in /"),
        ("SOURCES", "a.test/b/../", "steps elsewhere"),
        ("SOURCES", "a.*.test", "the host of 'a.*.test' is none"),
        ("SOURCES", "*a.test", "is none"),
        ("SOURCES", "*.10.0.0.1", "a star stands before names alone"),
        ("SOURCES", "127.1", "'127.1' is not an address as it is commonly written"),
        ("SOURCES", "bücher.test", "a name in ASCII"),
        ("SOURCES", "s3://a=https://*.test/", "maps a bucket to more than one host"),
        ("SOURCES", "s3://a", "is no source"),
        ("NETWORKS", "10.0.0.1/8", "'10.0.0.1/8' is not a network"),
        ("NETWORKS", "inside", "'inside' is not a network"),
        ("NETWORKS", "0.0.0.0/0", "is none that can be admitted"),
        ("NETWORKS", "169.254.0.0/16", "is none that can be admitted"),
        ("NETWORKS", "8.8.8.0/24", "is none that can be admitted"),
        ("NETWORKS", "::/0", "is none that can be admitted"),
    ],
)
def test_what_is_none_is_refused_at_the_start_with_its_setting(monkeypatch, name, value, problem):
    monkeypatch.setenv(f"NEARKIN_MEDIA_{name}", value)

    with pytest.raises(Misconfigured) as refusal:
        load_settings()

    assert refusal.value.field == f"NEARKIN_MEDIA_{name}"
    assert problem in refusal.value.problem
    assert refusal.value.remedy


def test_a_source_that_names_its_host_stands_above_one_that_does_not():
    sources = MediaSources.parse("*, *.test, cdn.test")

    assert sources.find("https", "cdn.test", 443, "/a").exact
    assert not sources.find("https", "other.test", 443, "/a").exact
