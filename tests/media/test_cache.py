import hashlib

from hypothesis import given
from hypothesis import strategies as st

from nearkin.media import cache as cache_module
from nearkin.media.cache import MediaCache
from nearkin.media.kinds import Kind, Media


def media(content):
    return Media(content, Kind.PNG, hashlib.sha256(content).hexdigest())


def test_equal_contents_are_kept_once():
    cache = MediaCache(100, 60, lambda: 0.0)

    first = cache.keep("a", media(b"x" * 60))
    second = cache.keep("b", media(b"x" * 60))

    assert first is second
    assert cache.bytes_held == 60
    assert cache.recall("a") is cache.recall("b")


def test_a_reference_is_forgotten_after_its_time():
    now = [0.0]
    cache = MediaCache(100, 60, lambda: now[0])
    cache.keep("a", media(b"x"))

    now[0] = 59.0
    assert cache.recall("a") is not None
    now[0] = 60.0
    assert cache.recall("a") is None


def test_references_that_nobody_asks_for_again_are_let_go_after_their_time():
    now = [0.0]
    cache = MediaCache(100, 60, lambda: now[0])
    for number in range(100):
        cache.keep(str(number), media(b"x"))

    now[0] = 60.0
    cache.keep("last", media(b"x"))

    assert len(cache._references) == 1


def test_a_lifetime_of_nothing_remembers_no_reference():
    cache = MediaCache(100, 0, lambda: 0.0)

    cache.keep("a", media(b"x"))

    assert cache.recall("a") is None


def test_what_was_used_longest_ago_goes_first():
    cache = MediaCache(100, 60, lambda: 0.0)
    for name in "abc":
        cache.keep(name, media(name.encode() * 30))
    cache.recall("a")

    cache.keep("d", media(b"d" * 30))

    assert [name for name in "abcd" if cache.recall(name)] == ["a", "c", "d"]


def test_a_size_of_nothing_keeps_nothing():
    cache = MediaCache(0, 60, lambda: 0.0)

    cache.keep("a", media(b"x"))

    assert cache.recall("a") is None


def test_references_are_bounded_too(monkeypatch):
    monkeypatch.setattr(cache_module, "MOST_REFERENCES", 10)
    cache = MediaCache(100, 60, lambda: 0.0)

    for number in range(100):
        cache.keep(str(number), media(b"x"))

    assert [number for number in range(100) if cache.recall(str(number))] == list(range(90, 100))


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.binary(max_size=50))))
def test_it_never_holds_more_than_it_may_and_never_the_wrong_content(steps):
    cache, last = MediaCache(100, 60, lambda: 0.0), {}
    for name, content in steps:
        cache.keep(name, media(content))
        last[name] = content
        assert cache.bytes_held <= 100
        for known, expected in last.items():
            found = cache.recall(known)
            assert found is None or found.content == expected
