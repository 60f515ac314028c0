"""Pictures as shops have them, and as nobody should: bombs, polyglots, broken and mislabelled ones."""

import functools
import io
import random
import struct
import zlib
from typing import Any

from PIL import Image, PngImagePlugin


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(kind: str, size: tuple[int, int] = (40, 30), colour: Any = (200, 30, 60), **options: Any) -> bytes:
    """A picture of one colour."""
    return encoded(Image.new("RGB", size, colour), kind, **options)


def quarters(width: int = 40, height: int = 20) -> Image.Image:
    """Red, green; blue, white: no two ways up look alike."""
    image = Image.new("RGB", (width, height), "white")
    half = (width // 2, height // 2)
    image.paste("red", (0, 0, *half))
    image.paste((0, 255, 0), (half[0], 0, width, half[1]))
    image.paste("blue", (0, half[1], half[0], height))
    return image


def noise(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture that does not compress."""
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has nothing of it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


def png_with_large_text(mebibytes: int = 64) -> bytes:
    """A small PNG with a text that unpacks to very much more."""
    whole = plain("PNG")
    text = b"Comment\0\0" + zlib.compress(b"\0" * (mebibytes * 2**20), 9)
    return whole[:33] + png_chunk(b"zTXt", text) + whole[33:]


def png_with_small_text() -> bytes:
    """A PNG with the texts that programs write."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "a program", zip=True)
    info.add_itxt("Title", "ein Bild", "de", "Titel", zip=True)
    return encoded(quarters(), "PNG", pnginfo=info)


def jpeg_of_header(width: int, height: int) -> bytes:
    """A JPEG whose header says another size than its content has."""
    whole = bytearray(plain("JPEG"))
    at = whole.index(b"\xff\xc0")
    whole[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def webp_of_header(width: int, height: int) -> bytes:
    """A WebP whose canvas is said to be of another size."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    whole = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    assert whole[12:16] == b"VP8X"
    whole[24:27], whole[27:30] = (width - 1).to_bytes(3, "little"), (height - 1).to_bytes(3, "little")
    return bytes(whole)


def gif_of_frame(width: int, height: int) -> bytes:
    """A small GIF whose only frame is larger than the picture says."""
    whole = bytearray(encoded(Image.new("P", (16, 16)), "GIF"))
    at = whole.index(b"\x2c", 13)
    whole[at + 5 : at + 9] = struct.pack("<HH", width, height)
    return bytes(whole)


@functools.cache
def many_scans(size: int = 3000, scans: int = 2000) -> bytes:
    """A progressive JPEG of a few kilobytes that asks its decoder to go over the whole picture thousands of times."""
    whole = encoded(Image.new("L", (size, size)), "JPEG", progressive=True, quality=50)
    last = whole.rindex(b"\xff\xda")
    scan = whole[last : whole.rindex(b"\xff\xd9")]
    return whole[:last] + scan * scans + b"\xff\xd9"


def html_in_gif() -> bytes:
    """A GIF that a browser may take for a page with a script."""
    return plain("GIF") + b"<html><script>alert(1)</script></html>"


def jpeg_and_zip() -> bytes:
    """A JPEG with a ZIP archive behind it."""
    return plain("JPEG") + b"PK\x05\x06" + b"\0" * 18


def gif_that_begins_as_jpeg() -> bytes:
    """What only begins as a JPEG, and is a whole GIF behind that."""
    return b"\xff\xd8\xff\xe0" + plain("GIF")


def altered(content: bytes, seed: int) -> bytes:
    """The same, with some bytes behind its first ones altered, left out, doubled, or the end cut off."""
    draw = random.Random(seed)
    out = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(12, max(13, len(out)))
        match draw.randrange(4):
            case 0:
                out[at : at + 1] = draw.randbytes(1)
            case 1:
                del out[at : at + draw.randint(1, 64)]
            case 2:
                out[at:at] = out[at : at + draw.randint(1, 64)]
            case _:
                out[at : at + 4] = draw.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"])
    return bytes(out[: draw.randint(12, len(out))] if draw.random() < 0.2 else out)


#: By what they are: what no item may be shown by, and the reason that is told.
HOSTILE = {
    "30,000 × 30,000 by its header": (png_of_header(30_000, 30_000), "too_many_pixels"),
    "a JPEG of 65,000 × 65,000 by its header": (jpeg_of_header(65_000, 65_000), "too_many_pixels"),
    "a WebP of 16,000 × 16,000 by its header": (webp_of_header(16_000, 16_000), "too_many_pixels"),
    "a GIF whose frame is larger than itself": (gif_of_frame(60_000, 60_000), "too_many_pixels"),
    "a text that unpacks to 64 MiB": (png_with_large_text(), "bomb"),
    "no pixels": (png_of_header(0, 0), "broken"),
    "a PNG without its content": (png_of_header(4000, 3000), "truncated"),
    "a JPEG cut in half": (encoded(noise(1), "JPEG")[:2000], "truncated"),
    "a PNG cut in half": (encoded(noise(2), "PNG")[:3000], "truncated"),
    "a GIF behind what begins as JPEG": (gif_that_begins_as_jpeg(), "truncated"),
    "a header alone": (b"\xff\xd8\xff", "broken"),
    "a PNG's signature alone": (b"\x89PNG\r\n\x1a\n", "broken"),
}
