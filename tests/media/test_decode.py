import asyncio
import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image, ImageCms
from prometheus_client import CollectorRegistry

from media import made_pictures as made
from nearkin.core.errors import Unavailable, UnusableMedia
from nearkin.media.decode import DecodeLimits, Decoder
from nearkin.media.kinds import Media
from nearkin.media.picture import fit
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import load_settings
from waiting import until

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


# One process serves all tests but those that are about processes: to start one takes longer than most pictures do.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def counts():
    return Metrics(CollectorRegistry(), "test")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoder(counts):
    async with Decoder(counts) as decoder:
        yield decoder


def corners(picture):
    """The colours of the four quarters, row by row."""
    height, width, _ = picture.rgb.shape
    return [
        tuple(int(colour) for colour in picture.rgb[y, x])
        for y in (height // 4, 3 * height // 4)
        for x in (width // 4, 3 * width // 4)
    ]


def near(found, expected, by=12):
    return np.abs(np.subtract(found, expected, dtype=int)).max() <= by


def counted(metrics, kind, outcome):
    return metrics.registry.get_sample_value("nearkin_media_decodes_total", {"kind": kind, "outcome": outcome}) or 0


async def process_of(decoder):
    """The process id of a decoder's only process, once it has one that waits."""
    process = await decoder._idle.get()
    decoder._idle.put_nowait(process)
    return process.pid if process else None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
async def test_each_kind_becomes_plain_pixels(decoder, counts, kind):
    known = counted(counts, kind.lower(), "decoded")

    picture = await decoder.decode(Media.of(made.encoded(made.quarters(400, 200), kind)), edge=100)

    assert picture.rgb.shape == (100, 200, 3)
    assert picture.rgb.dtype == np.uint8
    assert (picture.width, picture.height) == (400, 200)
    assert near(corners(picture), [RED, GREEN, BLUE, WHITE], by=20)
    assert counted(counts, kind.lower(), "decoded") == known + 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
async def test_a_photo_stands_as_its_camera_was_held(decoder, kind):
    stored = {
        1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
    }  # fmt: skip
    for orientation, steps in stored.items():
        turned = made.quarters()
        for step in steps:
            turned = turned.transpose(step)
        exif = Image.Exif()
        exif[0x0112] = orientation

        picture = await decoder.decode(Media.of(made.encoded(turned, kind, exif=exif)), edge=20)

        assert picture.rgb.shape == (20, 40, 3)
        assert near(corners(picture), [RED, GREEN, BLUE, WHITE], by=40), orientation


async def test_every_way_to_store_colours_becomes_rgb_over_white(decoder):
    for image, kind, colour in (
        (Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG", RED),
        (Image.new("L", (20, 20), 77), "JPEG", (77, 77, 77)),
        (Image.new("L", (20, 20), 77), "PNG", (77, 77, 77)),
        (Image.new("1", (20, 20), 1), "PNG", WHITE),
        (Image.new("RGBA", (20, 20), (0, 0, 0, 0)), "PNG", WHITE),
        (Image.new("RGBA", (20, 20), (0, 0, 0, 128)), "PNG", (127, 127, 127)),
        (Image.new("RGBA", (20, 20), (0, 0, 255, 0)), "WEBP", WHITE),
        (Image.new("RGBA", (20, 20), (0, 0, 255, 255)), "AVIF", BLUE),
        (Image.new("LA", (20, 20), (0, 128)), "PNG", (127, 127, 127)),
        (Image.new("RGB", (20, 20), RED).quantize(4), "PNG", RED),
        (Image.new("I;16", (20, 20), 128 * 256), "PNG", (128, 128, 128)),
    ):
        picture = await decoder.decode(Media.of(made.encoded(image, kind)), edge=10)

        assert near(corners(picture), [colour] * 4, by=6), (image.mode, kind)


async def test_a_palette_with_a_transparent_colour_stands_over_white(decoder):
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])

    picture = await decoder.decode(Media.of(made.encoded(image, "PNG", transparency=1)), edge=20)

    assert corners(picture) == [WHITE] * 4


async def test_colours_of_a_wide_profile_are_those_of_srgb(decoder):
    # In this profile red and blue have changed places, so that nobody can overlook whether it was applied.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"

    picture = await decoder.decode(Media.of(made.plain("PNG", colour=RED, icc_profile=bytes(profile))), edge=20)

    assert near(corners(picture), [BLUE] * 4, by=30)


@pytest.mark.parametrize("profile", [b"not a profile", b"\0" * 5_000_000])
async def test_a_profile_that_is_none_changes_nothing(decoder, profile):
    picture = await decoder.decode(
        Media.of(made.plain("WEBP", colour=RED, lossless=True, icc_profile=profile)), edge=20
    )

    assert near(corners(picture), [RED] * 4)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
async def test_of_an_animation_the_first_frame_counts(decoder, kind):
    frames = [Image.new("RGB", (40, 30), colour) for colour in (RED, GREEN, BLUE)]
    content = made.encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    with Image.open(io.BytesIO(content)) as read:
        assert read.n_frames == 3

    picture = await decoder.decode(Media.of(content), edge=20)

    assert near(corners(picture), [RED] * 4, by=20)


async def test_a_picture_is_brought_to_a_bounded_size_and_never_made_larger(decoder):
    for size, edge, shape in (
        ((1, 1), 256, (1, 1)),
        ((100, 50), 256, (50, 100)),
        ((1000, 500), 250, (250, 500)),
        ((3000, 20), 100, (3, 400)),
        ((5, 9000), 100, (400, 1)),
    ):
        picture = await decoder.decode(Media.of(made.plain("PNG", size)), edge=edge)

        assert picture.rgb.shape[:2] == shape
        assert (picture.width, picture.height) == size
        assert fit(*size, edge) == shape[::-1]


@pytest.mark.parametrize("content", [made.html_in_gif(), made.jpeg_and_zip(), made.png_with_small_text()])
async def test_what_is_something_else_too_is_the_picture_that_it_begins_as(decoder, content):
    picture = await decoder.decode(Media.of(content), edge=20)

    assert picture.rgb.shape[2] == 3


async def test_a_hostile_picture_is_refused_with_its_reason_and_costs_no_process(decoder, counts):
    before = await process_of(decoder)
    for name, (content, reason) in made.HOSTILE.items():
        media = Media.of(content)
        known = counted(counts, media.kind.value, reason)

        with pytest.raises(UnusableMedia) as refusal:
            await decoder.decode(media, edge=256, field="content.images.0")

        assert (refusal.value.reason, refusal.value.field) == (reason, "content.images.0"), name
        assert refusal.value.remedy
        assert counted(counts, media.kind.value, reason) == known + 1

    assert (await decoder.decode(Media.of(made.plain("PNG")), edge=20)).rgb.shape == (20, 27, 3)
    assert await process_of(decoder) == before


async def test_a_picture_that_hangs_its_decoder_costs_itself_alone(metrics):
    async with Decoder(metrics, limits=DecodeLimits(timeout_s=1)) as decoder:
        before = await process_of(decoder)
        with pytest.raises(UnusableMedia, match="takes longer than 1 s") as refusal:
            await decoder.decode(Media.of(made.many_scans()), edge=256)

        assert refusal.value.reason == "hang"
        assert (await decoder.decode(Media.of(made.plain("PNG")), edge=20)).rgb.shape == (20, 27, 3)
        assert await process_of(decoder) != before


async def decoding(decoder, times, signalled):
    """Decode what takes long with a decoder that did nothing yet, and have so many processes die while they do."""
    killed = at_work()
    task = asyncio.create_task(decoder.decode(Media.of(made.many_scans()), edge=256))
    for _ in range(times):
        for pid in await asyncio.to_thread(until, lambda: at_work() - killed, "a process that decodes"):
            killed.add(pid)
            os.kill(pid, signalled)
    return await task


def at_work():
    """The decoders' processes that have begun with a picture, which limits their processor time."""
    found = Path("/proc/self/task").glob("*/children")
    return {
        int(pid) for each in found for pid in each.read_text().split() if limits_of(pid)["Max cpu time"].isdecimal()
    }


def limits_of(pid):
    """The limits of a process."""
    return {line[:25].strip(): line[25:].split()[0] for line in _proc(pid, "limits").splitlines()}


@pytest.mark.parametrize("signalled", [signal.SIGSEGV, signal.SIGKILL])
async def test_a_picture_that_crashes_its_decoder_twice_costs_itself_alone(metrics, signalled):
    async with Decoder(metrics) as decoder:
        with pytest.raises(UnusableMedia, match="makes its decoder crash"):
            await decoding(decoder, 2, signalled)

        assert (await decoder.decode(Media.of(made.plain("PNG")), edge=20)).rgb.shape == (20, 27, 3)
    assert counted(metrics, "jpeg", "crash") == 1


async def test_a_picture_is_not_blamed_for_a_process_that_dies_of_something_else(metrics):
    async with Decoder(metrics, limits=DecodeLimits(timeout_s=1)) as decoder:
        with pytest.raises(UnusableMedia) as refusal:
            await decoding(decoder, 1, signal.SIGKILL)

    assert refusal.value.reason == "hang"  # what it does by itself


async def test_a_decoder_that_is_closed_refuses_those_who_wait(metrics):
    decoder = Decoder(metrics, limits=DecodeLimits(timeout_s=1))
    waiting = [asyncio.create_task(decoder.decode(Media.of(made.many_scans()), edge=256)) for _ in range(3)]
    await asyncio.sleep(0)
    await decoder.close()

    found = await asyncio.gather(*waiting, return_exceptions=True)

    assert {type(error) for error in found} <= {UnusableMedia, Unavailable}
    with pytest.raises(Unavailable, match="it is closed"):
        await decoder.decode(Media.of(made.plain("PNG")), edge=20)


async def test_a_process_that_dies_while_idle_is_replaced_unnoticed(decoder):
    await decoder.decode(Media.of(made.plain("PNG")), edge=20)
    process = await decoder._idle.get()
    decoder._idle.put_nowait(process)
    os.kill(process.pid, signal.SIGKILL)
    await process._process.wait()

    assert (await decoder.decode(Media.of(made.plain("PNG")), edge=20)).rgb.shape == (20, 27, 3)


async def test_whoever_gives_up_waiting_leaves_no_answer_for_the_next_one(decoder):
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await decoder.decode(Media.of(made.many_scans()), edge=256)

    picture = await decoder.decode(Media.of(made.plain("PNG", (20, 20), RED)), edge=20)

    assert corners(picture) == [RED] * 4


async def test_a_picture_that_takes_too_much_memory_is_refused(metrics):
    limits = DecodeLimits(memory_bytes=256 * 2**20, most_pixels=500_000_000)
    async with Decoder(metrics, limits=limits) as decoder:
        with pytest.raises(UnusableMedia, match="more memory") as refusal:
            await decoder.decode(Media.of(made.png_of_header(12_000, 12_000)), edge=256)

        assert refusal.value.reason == "memory"
        assert (await decoder.decode(Media.of(made.plain("PNG")), edge=20)).rgb.shape == (20, 27, 3)


async def test_a_process_is_renewed_after_so_many_pictures(metrics):
    async with Decoder(metrics, limits=DecodeLimits(renew_after=2)) as decoder:
        first = await process_of(decoder)
        for _ in range(2):
            await decoder.decode(Media.of(made.plain("PNG")), edge=20)
        await decoder.decode(Media.of(made.plain("PNG")), edge=20)

        assert await process_of(decoder) != first


async def test_several_processes_decode_side_by_side(metrics):
    pictures = [made.plain("PNG", (20, 20), (10 * each, 0, 0)) for each in range(12)]
    async with Decoder(metrics, processes=2) as decoder:
        found = await asyncio.gather(*(decoder.decode(Media.of(each), edge=20) for each in pictures))

    assert [int(picture.rgb[0, 0, 0]) for picture in found] == [10 * each for each in range(12)]


async def test_a_process_has_nothing_that_could_be_taken(metrics, monkeypatch):
    monkeypatch.setenv("NEARKIN_REDIS_PASSWORD", "secret")
    decoder = Decoder(metrics)
    await decoder.start()
    pid = await process_of(decoder)

    environment = _proc(pid, "environ")
    limits = limits_of(pid)

    await decoder.close()
    assert "NEARKIN" not in environment
    assert limits["Max open files"] == "0"
    assert limits["Max file size"] == "0"
    assert limits["Max core file size"] == "0"
    assert limits["Max address space"] == str(2**30)


async def test_a_process_ends_with_its_decoder(metrics):
    async with Decoder(metrics) as decoder:
        pid = await process_of(decoder)

    assert not _runs(pid)


async def test_a_process_that_cannot_be_started_is_no_fault_of_the_picture(metrics, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    decoder = Decoder(metrics)

    with pytest.raises(Unavailable, match="picture decoder"):
        await decoder.decode(Media.of(made.plain("PNG")), edge=20)

    await decoder.close()


async def test_a_video_is_no_picture(decoder):
    with pytest.raises(UnusableMedia, match="it is a video"):
        await decoder.decode(Media.of(b"\0\0\0\x18ftypisom\0\0\0\0isommp42"), edge=20)


async def test_the_settings_say_what_a_picture_may_cost(metrics, monkeypatch):
    monkeypatch.setenv("NEARKIN_MEDIA_MAX_PIXELS", "1000")
    async with Decoder.of(load_settings(), metrics) as decoder:
        with pytest.raises(UnusableMedia, match=r"more than 1000 pixels; .* NEARKIN_MEDIA_MAX_PIXELS"):
            await decoder.decode(Media.of(made.plain("PNG")), edge=20)


def _proc(pid, name):
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _runs(pid):
    return _proc(pid, "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])
