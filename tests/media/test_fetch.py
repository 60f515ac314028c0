import asyncio
import logging
import ssl

import pytest

from certificates import Authority
from media import made_pictures as made
from media import media_host as answers
from media.media_host import MediaHost
from nearkin.core.errors import MediaUnavailable, UnusableMedia
from nearkin.media.fetch import Fetcher, FetchLimits, retry_after_s
from nearkin.media.kinds import Kind
from nearkin.ops.media_sources import MediaSources
from nearkin.ops.settings import load_settings

PICTURE = made.plain("PNG")
LOOPBACK = "127.0.0.0/8,::1/128"
OK = b"HTTP/1.1 200 OK\r\n"

#: What no good answer of this machine takes, however busy it is.
PATIENT = FetchLimits(most_bytes=200_000, timeout_s=100, idle_s=50, redirects=3)
#: For what is waited for to its end.
SHORT = FetchLimits(most_bytes=200_000, timeout_s=20, idle_s=2.5, least_rate=4096)


class Names:
    """A DNS of a test's own: each name's answers, one after the other, the last for ever."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked = []

    async def __call__(self, host):
        self.asked.append(host)
        found = self.answers.get(host, [["127.0.0.1"]])
        addresses = found.pop(0) if len(found) > 1 else found[0]
        if addresses is None:
            raise OSError("no such name")
        return addresses


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert "secret" not in caplog.text


@pytest.fixture
def fetching(metrics):
    """Makes fetchers that may reach loopback by the hosts that are named, and nothing else that is not public."""

    def make(*hosts, networks=LOOPBACK, limits=PATIENT, names=None, **options):
        sources = ",".join(each if isinstance(each, str) else each.source for each in hosts)
        return Fetcher(
            MediaSources.parse(sources, networks), metrics, limits=limits, look_up=names or Names(), **options
        )

    return make


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def serving(pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


def counted(metrics, outcome, reason=""):
    return metrics.registry.get_sample_value("nearkin_media_fetches_total", {"outcome": outcome, "reason": reason}) or 0


async def refusal_of(fetcher, reference):
    with pytest.raises((UnusableMedia, MediaUnavailable)) as refusal:
        await fetcher.fetch(reference, "content.images.0")
    error = refusal.value
    assert error.field == "content.images.0"
    assert error.remedy
    assert "secret" not in str(error)
    causes, cause = [], error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__
    assert not any("secret" in f"{each} {each!r}" for each in causes)
    return error


async def test_a_picture_is_fetched_with_its_kind_and_hash(fetching, metrics):
    async with (
        MediaHost({"/a.jpg": answers.whole(PICTURE, headers="Content-Type: image/jpeg\r\n")}) as host,
        fetching(host) as fetcher,
    ):
        media = await fetcher.fetch(f"http://media.test:{host.port}/a.jpg?width=3")

    assert (media.content, media.kind) == (PICTURE, Kind.PNG)
    assert host.paths == ["/a.jpg?width=3"]
    assert counted(metrics, "fetched") == 1
    assert metrics.registry.get_sample_value("nearkin_media_fetched_bytes_total") == len(PICTURE)


async def test_nothing_of_ours_goes_along(fetching, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine media.test login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    cookie = answers.whole(PICTURE, headers="Set-Cookie: a=b; Path=/\r\n")
    async with MediaHost({"/a": cookie, "/b": cookie}) as host, fetching(host) as fetcher:
        for path in "ab":
            await fetcher.fetch(f"http://media.test:{host.port}/{path}#fragment")

    assert len(host.requests) == 2
    for head in host.requests:
        names = {line.partition(":")[0].lower() for line in head.splitlines()[1:] if line}
        assert names == {"host", "accept", "accept-encoding", "user-agent"}
        assert "fragment" not in head


async def test_a_signed_url_is_asked_for_to_the_letter(fetching):
    target = "/a%2Fb%20c.png?X-Amz-Credential=AK%2F2026%2Fs3&sig=a+b%3D&x=%7E"
    async with MediaHost({"/a%2Fb%20c.png": answers.whole(PICTURE)}) as host, fetching(host) as fetcher:
        await fetcher.fetch(f"http://media.test:{host.port}{target}")

    assert host.paths == [target]


async def test_https_shows_the_name_and_checks_the_certificate_by_it(fetching, authority, metrics):
    shown = []
    context = serving(authority.issue(hosts=("media.test",)))
    context.sni_callback = lambda _, name, __: shown.append(name)
    async with (
        MediaHost({"/a": answers.whole(PICTURE)}, tls=context) as host,
        fetching(host, f"https://other.test:{host.port}", tls=authority.client()) as fetcher,
    ):
        media = await fetcher.fetch(f"https://media.test:{host.port}/a")
        error = await refusal_of(fetcher, f"https://other.test:{host.port}/a?secret")

    assert media.content == PICTURE
    assert shown == ["media.test", "other.test"]
    assert error.reason == "tls"
    assert "no certificate that is trusted for its name" in error.problem
    assert counted(metrics, "unavailable", "tls") == 1


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(fetching, authority):
    async with MediaHost({}, tls=serving(authority.issue(hosts=("media.test",)))) as host, fetching(host) as fetcher:
        error = await refusal_of(fetcher, f"https://media.test:{host.port}/a")

    assert error.reason == "tls"
    assert host.requests == []


async def test_a_handshake_that_never_ends_is_given_up(fetching):
    # A host without TLS waits for the end of a head that the handshake is not.
    async with MediaHost({}) as host, fetching(f"https://media.test:{host.port}", limits=SHORT) as fetcher:
        error = await refusal_of(fetcher, f"https://media.test:{host.port}/a?secret")

    assert error.reason == "idle"
    assert host.connections == 1


@pytest.mark.parametrize(
    ("addresses", "word"),
    [
        (["10.0.0.1"], "private"),
        (["169.254.169.254"], "of a cloud's metadata"),
        (["93.184.216.34", "192.168.1.1"], "private"),
        (["::ffff:127.0.0.1"], "an IPv4 address in disguise"),
        (["64:ff9b::7f00:1"], "an IPv4 address in disguise"),
        (["fe80::1%lo"], "link-local"),
        (["224.0.0.1"], "multicast"),
        (["0.0.0.0"], "of this network"),
    ],
)
async def test_a_name_that_leads_inside_is_refused(fetching, addresses, word):
    async with fetching("media.test", names=Names(media_test=[addresses])) as fetcher:
        error = await refusal_of(fetcher, "https://media.test/a?secret")

    assert error.reason == "address"
    assert f"the address of media.test is {word}" in error.problem
    assert not any(address in str(error) for address in addresses)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_address_that_is_named_is_reached_where_its_network_is_admitted_too(fetching, address):
    async with MediaHost({"/a": answers.whole(PICTURE)}, address=address) as host:
        at = f"http://[{address}]:{host.port}" if ":" in address else f"http://{address}:{host.port}"
        async with fetching(at) as fetcher:
            media = await fetcher.fetch(f"{at}/a")
        async with fetching(at, networks="10.0.0.0/8") as fetcher:
            error = await refusal_of(fetcher, f"{at}/a?secret")

    assert media.content == PICTURE
    assert error.reason == "address"
    assert len(host.requests) == 1


async def test_under_a_wildcard_no_name_leads_to_a_network_that_is_admitted(fetching):
    async with MediaHost({"/a": answers.whole(PICTURE)}) as host, fetching(f"http://*:{host.port}") as fetcher:
        error = await refusal_of(fetcher, f"http://media.test:{host.port}/a")

    assert error.reason == "address"
    assert host.connections == 0


async def test_the_address_that_was_judged_is_the_one_that_is_connected_to(fetching):
    # The second answer is an address that must not be reached; who looks the name up twice goes there.
    names = Names(media_test=[["127.0.0.1"], ["127.0.0.2"]])
    async with (
        MediaHost({"/a": answers.whole(PICTURE)}) as host,
        MediaHost({"/a": answers.whole(PICTURE)}, address="127.0.0.2", port=host.port) as victim,
        fetching(host, networks="127.0.0.1/32", names=names) as fetcher,
    ):
        await fetcher.fetch(f"http://media.test:{host.port}/a")

        assert names.asked == ["media.test"]
        assert (host.connections, victim.connections) == (1, 0)


async def test_a_name_that_leads_elsewhere_the_next_time_is_judged_anew(fetching):
    closing = answers.raw(OK + b"Content-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE)
    names = Names(media_test=[["127.0.0.1"], ["127.0.0.2"]])
    async with (
        MediaHost({"/a": closing}) as host,
        MediaHost({"/a": closing}, address="127.0.0.2", port=host.port) as victim,
        fetching(host, networks="127.0.0.1/32", names=names) as fetcher,
    ):
        await fetcher.fetch(f"http://media.test:{host.port}/a")
        error = await refusal_of(fetcher, f"http://media.test:{host.port}/a")

        assert error.reason == "address"
        assert victim.connections == 0


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/b",
        "http://[::1]:{port}/b",
        "http://localhost:{port}/b",
        "http://169.254.169.254/latest/meta-data",
        "//127.0.0.1:{port}/b",
        "http://2130706433:{port}/b",
        "http://0x7f000001:{port}/b",
        "http://127.1:{port}/b",
        "http://evil.test:{port}/b",
        "http://user:secret@media.test:{port}/b",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "gopher://media.test:{port}/b",
        "http://media.test:{port}\\@evil.test/b",
        "http://[::1",
    ],
)
async def test_a_redirect_is_judged_as_any_reference(fetching, target):
    async with MediaHost({"/b": answers.whole(PICTURE)}) as host:
        host.answers["/a"] = answers.redirect(target.format(port=host.port))
        async with fetching(host) as fetcher:
            error = await refusal_of(fetcher, f"http://media.test:{host.port}/a?secret")

    assert isinstance(error, UnusableMedia)
    assert error.reason in ("source", "scheme", "credentials", "malformed")
    assert host.paths == ["/a?secret"]


async def test_a_redirect_to_a_name_that_leads_inside_is_refused(fetching):
    async with (
        MediaHost({"/a": answers.redirect("https://inner.test/b")}) as host,
        fetching(host, "https://inner.test", names=Names(inner_test=[["192.168.0.7"]])) as fetcher,
    ):
        error = await refusal_of(fetcher, f"http://media.test:{host.port}/a")

    assert error.reason == "address"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_followed(fetching, status):
    async with (
        MediaHost({"/x/a": answers.redirect("../b?sig=1", status), "/b": answers.whole(PICTURE)}) as host,
        fetching(host) as fetcher,
    ):
        media = await fetcher.fetch(f"http://media.test:{host.port}/x/a")

    assert media.content == PICTURE
    assert host.paths == ["/x/a", "/b?sig=1"]


async def test_redirects_in_a_circle_and_without_end_are_refused(fetching):
    async with MediaHost({"/a": answers.redirect("/b"), "/b": answers.redirect("/a")}) as host:
        host.answers |= {f"/{step}": answers.redirect(f"/{step + 1}") for step in range(10)}
        async with fetching(host) as fetcher:
            circle = await refusal_of(fetcher, f"http://media.test:{host.port}/a?secret")
            endless = await refusal_of(fetcher, f"http://media.test:{host.port}/0")

    assert circle.reason == "redirect_loop"
    assert endless.reason == "redirects"
    assert host.paths[-4:] == ["/0", "/1", "/2", "/3"]


async def test_a_redirect_from_https_to_http_is_refused(fetching, authority):
    async with MediaHost({"/b": answers.whole(PICTURE)}) as plain:
        protected = MediaHost(
            {"/a": answers.redirect(f"http://media.test:{plain.port}/b")},
            tls=serving(authority.issue(hosts=("media.test",))),
        )
        async with protected as host, fetching(host, plain, tls=authority.client()) as fetcher:
            error = await refusal_of(fetcher, f"https://media.test:{host.port}/a")

    assert error.reason == "downgrade"
    assert plain.requests == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answers.whole(b"\x89PNG\r\n\x1a\n" + b"\0" * 200_000), "too_large"),
        (answers.endless(OK + b"\r\n"), "too_large"),
        (answers.raw(OK + b"Content-Length: 99999999999999\r\n\r\n"), "too_large"),
        (
            answers.raw(OK + b"Transfer-Encoding: chunked\r\n\r\n40000\r\n" + b"\0" * 0x40000 + b"\r\n0\r\n\r\n"),
            "too_large",
        ),
        (answers.whole(b""), "empty"),
        (answers.whole(b"<html>not found</html>", headers="Content-Type: image/png\r\n"), "unknown_kind"),
        (answers.whole(PICTURE, headers="Content-Encoding: gzip\r\n"), "encoding"),
        (answers.whole(PICTURE, headers="Content-Encoding: identity, br\r\n"), "encoding"),
        (answers.whole(b"no", status="403 Forbidden"), "forbidden"),
        (answers.whole(b"no", status="410 Gone"), "status"),
        (answers.whole(b"", status="304 Not Modified"), "status"),
        (answers.whole(PICTURE, status="206 Partial Content"), "status"),
        (answers.whole(b"", status="302 Found"), "status"),
    ],
)
async def test_what_cannot_be_used_is_refused_for_good(fetching, metrics, answer, reason):
    async with MediaHost({"/a": answer}) as host, fetching(host) as fetcher:
        error = await refusal_of(fetcher, f"http://media.test:{host.port}/a?secret")

    assert isinstance(error, UnusableMedia)
    assert error.reason == reason
    assert counted(metrics, "refused", reason) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answers.raw(OK + b"Content-Length: 100000\r\n\r\nabc"), "truncated"),
        (answers.raw(b""), "protocol"),
        (answers.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "protocol"),
        (answers.raw(OK + b"X: " + b"a" * 100_000 + b"\r\n\r\n"), "protocol"),
        (answers.raw(OK + b"Content-Length: -1\r\n\r\n"), "protocol"),
        (answers.whole(b"", status="503 Unavailable"), "busy"),
        (answers.whole(b"", status="429 Too Many Requests"), "busy"),
        (answers.whole(b"", status="404 Not Found"), "not_found"),
    ],
)
async def test_what_cannot_be_had_for_now_is_told_as_that(fetching, metrics, answer, reason):
    async with MediaHost({"/a": answer}) as host, fetching(host) as fetcher:
        error = await refusal_of(fetcher, f"http://media.test:{host.port}/a?secret")

    assert isinstance(error, MediaUnavailable)
    assert error.reason == reason
    assert counted(metrics, "unavailable", reason) == 1


async def test_a_host_that_drips_is_given_up_wherever_it_does(fetching):
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    slow = {
        "/nothing": (answers.silent, "idle"),
        "/headers": (answers.dripping(OK + b"X: ", b"a", 0.1), "idle"),
        "/content": (answers.dripping(OK + b"Content-Length: 100000\r\n\r\n", b"a", 0.1), "too_slow"),
        "/chunks": (answers.dripping(chunked, b"1\r\na\r\n", 0.1), "too_slow"),
        "/a-chunks-head": (answers.dripping(chunked + b"1;", b"a", 0.1), "idle"),
        "/no-more": (answers.raw(OK + b"Content-Length: 100000\r\n\r\nabc", pause_s=60), "idle"),
    }
    async with (
        MediaHost({path: answer for path, (answer, _) in slow.items()}) as host,
        fetching(host, at_once_per_host=len(slow), limits=SHORT) as fetcher,
    ):
        errors = await asyncio.gather(
            *(refusal_of(fetcher, f"http://media.test:{host.port}{path}?secret") for path in slow)
        )

    assert [error.reason for error in errors] == [reason for _, reason in slow.values()]


async def test_the_whole_time_is_limited_however_steadily_it_comes(fetching):
    limits = FetchLimits(most_bytes=10**9, timeout_s=2, idle_s=50, least_rate=0)
    steady = answers.dripping(OK + b"\r\n", b"a" * 100, 0.05)
    async with MediaHost({"/a": steady}) as host, fetching(host, limits=limits) as fetcher:
        error = await refusal_of(fetcher, f"http://media.test:{host.port}/a?secret")

    assert error.reason == "timeout"


async def test_a_name_or_a_host_that_is_not_there_is_told_as_that(fetching):
    async with MediaHost({}) as host:
        port = host.port
    async with fetching(f"http://media.test:{port}", "https://gone.test", names=Names(gone_test=[None])) as fetcher:
        nobody = await refusal_of(fetcher, f"http://media.test:{port}/a?secret")
        nameless = await refusal_of(fetcher, "https://gone.test/a?secret")

    assert (nobody.reason, nameless.reason) == ("unreachable", "name")


async def test_the_systems_own_names_are_judged_too(metrics):
    async with Fetcher(MediaSources.parse("https://localhost"), metrics) as fetcher:
        error = await refusal_of(fetcher, "https://localhost/a")

    assert error.reason == "address"
    assert "loopback" in error.problem


async def test_those_who_ask_for_the_same_share_one_fetch(fetching, metrics):
    asked = asyncio.Event()

    async def slowly(reader, writer):
        asked.set()
        await asyncio.sleep(0.2)
        await answers.whole(PICTURE)(reader, writer)

    async with MediaHost({"/a": slowly}) as host, fetching(host) as fetcher:
        url = f"http://media.test:{host.port}/a"
        gone, *others = (asyncio.create_task(fetcher.fetch(url)) for _ in range(5))
        await asked.wait()
        gone.cancel()
        found = await asyncio.gather(*others)

    assert all(media.content == PICTURE for media in found)
    assert len(host.requests) == 1


async def test_a_fetch_that_nobody_waits_for_any_more_is_given_up(fetching):
    asked, left = asyncio.Event(), asyncio.Event()

    async def waiting(reader, writer):
        asked.set()
        await reader.read()
        left.set()

    async with MediaHost({"/a": waiting}) as host, fetching(host) as fetcher:
        task = asyncio.create_task(fetcher.fetch(f"http://media.test:{host.port}/a"))
        await asked.wait()
        task.cancel()
        async with asyncio.timeout(30):
            await left.wait()


async def test_what_was_fetched_a_moment_ago_is_remembered(fetching, metrics):
    now = [0.0]
    async with (
        MediaHost({"/a": answers.whole(PICTURE), "/b": answers.whole(PICTURE)}) as host,
        # The clock stands still, so that only this test decides what a moment is.
        fetching(host, cache_bytes=10_000, cache_s=60, clock=lambda: now[0]) as fetcher,
    ):
        first = await fetcher.fetch(f"http://media.test:{host.port}/a")
        again = await fetcher.fetch(f"http://media.test:{host.port}/a")
        other = await fetcher.fetch(f"http://media.test:{host.port}/b")
        now[0] = 61.0
        await fetcher.fetch(f"http://media.test:{host.port}/a")

    assert first is again
    assert first is other
    assert host.paths == ["/a", "/b", "/a"]
    assert counted(metrics, "remembered") == 1


async def test_a_host_that_fails_is_left_alone_and_holds_up_no_other(fetching):
    async with (
        MediaHost({"/a": answers.whole(b"", status="503 Unavailable", headers="Retry-After: 30\r\n")}) as bad,
        MediaHost({"/a": answers.whole(PICTURE)}) as good,
    ):
        sources = (f"http://bad.test:{bad.port}", f"http://good.test:{good.port}")
        async with fetching(*sources) as fetcher:
            first = await refusal_of(fetcher, f"http://bad.test:{bad.port}/a")
            second = await refusal_of(fetcher, f"http://bad.test:{bad.port}/a")
            media = await fetcher.fetch(f"http://good.test:{good.port}/a")

    assert (first.reason, first.retry_after_s) == ("busy", 30)
    assert second.reason == "resting"
    assert 0 < second.retry_after_s <= 30
    assert len(bad.requests) == 1
    assert media.content == PICTURE


async def test_so_many_are_fetched_at_a_time_and_no_more(fetching):
    running, most = set(), []

    async def watched(reader, writer):
        me = object()
        running.add(me)
        most.append(len(running))
        await asyncio.sleep(0.05)
        running.discard(me)
        await answers.whole(PICTURE)(reader, writer)

    async with (
        MediaHost({f"/{each}": watched for each in range(12)}) as host,
        fetching(host, at_once=8, at_once_per_host=3) as fetcher,
    ):
        await asyncio.gather(*(fetcher.fetch(f"http://media.test:{host.port}/{each}") for each in range(12)))

    assert max(most) == 3


async def test_the_settings_say_where_from_and_at_what_cost(metrics, monkeypatch):
    async with MediaHost({"/shop/a": answers.whole(PICTURE), "/b": answers.whole(PICTURE)}) as host:
        monkeypatch.setenv("NEARKIN_MEDIA_SOURCES", f"s3://shop=http://127.0.0.1:{host.port}/shop/")
        monkeypatch.setenv("NEARKIN_MEDIA_NETWORKS", "127.0.0.0/8")
        monkeypatch.setenv("NEARKIN_MEDIA_MAX_BYTES", "1024")
        async with Fetcher.of(load_settings(), metrics) as fetcher:
            media = await fetcher.fetch("s3://shop/a")
            elsewhere = await refusal_of(fetcher, f"http://127.0.0.1:{host.port}/b")
            other = await refusal_of(fetcher, "s3://other/a")
            host.answers["/shop/b"] = answers.whole(PICTURE + b"\0" * 1024)
            large = await refusal_of(fetcher, "s3://shop/b")

    assert media.content == PICTURE
    assert (elsewhere.reason, other.reason) == ("source", "source")
    assert host.paths == ["/shop/a", "/shop/b"]
    assert large.reason == "too_large"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 5 ", 5),
        ("99999999999999999999", 999_999_999),
        ("-1", 0),
        ("soon", 0),
        ("", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("٣", 0),
    ],
)
def test_the_rest_that_a_host_asks_for_is_read_where_it_can_be(header, seconds):
    assert retry_after_s(header) == seconds
