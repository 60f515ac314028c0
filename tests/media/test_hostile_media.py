"""A thousand hostile media, one after the other and many at a time: nothing dies, nothing stalls, nothing grows.

`NEARKIN_TEST_MEDIA_EVENTS` sets how many; `NEARKIN_TEST_SEED` draws the same again.
"""

import asyncio
import os
import random
import secrets
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from media import made_pictures as made
from media import media_host as answers
from media.media_host import MediaHost
from nearkin.core.errors import MediaUnavailable, UnusableMedia
from nearkin.media.decode import DecodeLimits, Decoder
from nearkin.media.fetch import Fetcher, FetchLimits
from nearkin.ops.media_sources import MediaSources

EVENTS = int(os.environ.get("NEARKIN_TEST_MEDIA_EVENTS", "1000"))
SEED = int(os.environ.get("NEARKIN_TEST_SEED") or secrets.randbelow(2**31))
#: Events at a time, after which sizes are read.
BATCH = 50
OK = b"HTTP/1.1 200 OK\r\n"
KINDS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF")

#: So many mebibytes a thousand events may add, by the slope over the second half: less than one of its pictures.
MOST_GROWTH_MIB = 6.0


def corpus(draw):
    """Answers by path: what can be shown, what cannot, and hosts that misbehave; and how often each is drawn."""
    good = {f"/good/{kind}": answers.whole(made.encoded(made.noise(1), kind)) for kind in KINDS}
    bad = {f"/bad/{number}": answers.whole(content) for number, (content, _) in enumerate(made.HOSTILE.values())}
    bad |= {
        "/bad/text.jpg": answers.whole(b"this is a text", headers="Content-Type: image/jpeg\r\n"),
        "/bad/empty": answers.whole(b""),
        "/bad/gzip": answers.whole(b"\x1f\x8b" + b"\0" * 100, headers="Content-Encoding: gzip\r\n"),
        "/bad/video": answers.whole(b"\0\0\0\x18ftypisom\0\0\0\0isommp42"),
        "/bad/loop": answers.redirect("/bad/loop-on"),
        "/bad/loop-on": answers.redirect("/bad/loop"),
        "/bad/loopback": answers.redirect("http://127.0.0.1:1/"),
        "/bad/metadata": answers.redirect("http://169.254.169.254/latest/meta-data"),
        "/bad/inner": answers.redirect("https://inner.test/"),
        "/bad/endless": answers.endless(OK + b"\r\n"),
        "/bad/short": answers.raw(OK + b"Content-Length: 9999\r\n\r\nabc"),
        "/bad/headers": answers.raw(OK + b"X: " + b"a" * 100_000 + b"\r\n\r\n"),
        "/bad/not-http": answers.raw(draw.randbytes(500) + b"\r\n\r\n"),
        "/bad/hang-up": answers.raw(b""),
        "/bad/status": answers.whole(b"no", status="500 Internal Server Error"),
        "/bad/1x1": answers.whole(made.plain("PNG", (1, 1))),
    }
    slow = {
        "/slow/silent": answers.silent,
        "/slow/head": answers.dripping(OK + b"X: ", b"a", 0.05),
        "/slow/content": answers.dripping(OK + b"Content-Length: 9999\r\n\r\n", b"\xff", 0.05),
    }
    return good, bad, slow


def resident_mib(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_after_a_thousand_hostile_media_everything_is_alive_and_no_larger(metrics):
    print(f"NEARKIN_TEST_SEED={SEED}")
    draw = random.Random(SEED)
    good, bad, slow = corpus(draw)
    whole = [made.encoded(made.noise(seed, (120, 90)), kind) for seed, kind in enumerate(KINDS)]
    whole.append(made.encoded(Image.new("CMYK", (90, 90)), "JPEG", progressive=True))

    async def altered(reader, writer):
        content = made.altered(draw.choice(whole), draw.randrange(2**31))
        await answers.whole(content)(reader, writer)

    async def names(host):
        return ["10.0.0.1"] if host == "inner.test" else ["127.0.0.1"]

    outcomes, sizes = Counter(), []
    async with MediaHost({**good, **bad, **slow, "/altered": altered}) as host:
        # Many names of one host, as a name that fails three times in a row is left alone.
        listed = [f"http://h{number}.test:{host.port}" for number in range(200)]
        fetcher = Fetcher(
            MediaSources.parse(",".join([*listed, "https://inner.test"]), "127.0.0.0/8"),
            metrics,
            limits=FetchLimits(most_bytes=300_000, timeout_s=5, idle_s=0.5, least_rate=2000),
            at_once=64,
            look_up=names,
            cache_bytes=100_000,
            cache_s=1,
        )
        limits = DecodeLimits(timeout_s=0.5, memory_bytes=512 * 2**20)
        async with fetcher, Decoder(metrics, limits=limits, processes=2) as decoder:

            async def one(number):
                paths = draw.choices([list(good), list(bad), list(slow), ["/altered"]], [1, 4, 0.3, 6])[0]
                reference = f"{listed[number % len(listed)]}{draw.choice(paths)}?{number}"
                try:
                    await decoder.decode(await fetcher.fetch(reference), edge=64)
                except (UnusableMedia, MediaUnavailable) as error:
                    outcomes[error.reason] += 1
                else:
                    outcomes["decoded"] += 1

            for began in range(0, EVENTS, BATCH):
                await asyncio.gather(*(one(number) for number in range(began, min(began + BATCH, EVENTS))))
                host.requests.clear()  # the test's own, not to be taken for growth
                idle = [decoder._idle.get_nowait() for _ in range(2)]
                for process in idle:
                    decoder._idle.put_nowait(process)
                running = [process.pid for process in idle if process is not None and process.alive]
                sizes.append((resident_mib(os.getpid()), max(map(resident_mib, running), default=0.0)))
            # By a fetcher of its own, to which no name has failed yet.
            async with Fetcher(MediaSources.parse(listed[0], "127.0.0.0/8"), metrics, look_up=names) as last:
                picture = await decoder.decode(await last.fetch(f"{listed[0]}/good/PNG"), edge=64)

    print(dict(outcomes), [tuple(round(size) for size in pair) for pair in sizes[:: max(1, len(sizes) // 8)]])
    assert picture.rgb.shape == (48, 64, 3)
    assert sum(outcomes.values()) == EVENTS
    assert {"decoded", "too_many_pixels", "bomb", "truncated", "redirect_loop", "source", "address"} <= set(outcomes)
    assert max(worker for _, worker in sizes) < 512
    settled = np.array([own for own, _ in sizes[len(sizes) // 2 :]])
    slope = np.polyfit(np.arange(len(settled)) * BATCH, settled, 1)[0]
    assert slope * 1000 < MOST_GROWTH_MIB, f"{slope * 1000:.1f} MiB in a thousand"
