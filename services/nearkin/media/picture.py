"""From the bytes of a picture to pixels: what runs in the decoder's processes, and nowhere else.

Sizes are read from the header and judged before anything is decoded. A picture is opened as the one kind that its
bytes begin as. Then it is made small, upright and plain: RGB, 8 bits, in sRGB, what is transparent over white; of an
animation the first frame.
"""

import io
import warnings
from dataclasses import dataclass

from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageColor,
    ImageFile,
    ImageFilter,
    ImagePalette,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from nearkin.core.errors import UnusableMedia
from nearkin.media.decode_messages import LONGEST_ASPECT

#: Every module that Pillow would load on its way: a decoder's process can open no file once it has begun.
LOADED = (
    AvifImagePlugin,
    GifImagePlugin,
    ImageColor,
    ImageFilter,
    ImagePalette,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

Image.preinit()  # what it would load when the first picture is opened

#: Pillow's names of the kinds; a photo of several pictures (MPO) is a JPEG whose first one counts.
FORMATS = {"jpeg": ("JPEG", "MPO"), "png": ("PNG",), "gif": ("GIF",), "webp": ("WEBP",), "avif": ("AVIF",)}

#: A colour profile beyond it is not applied.
MOST_PROFILE_BYTES = 4 * 2**20

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TOO_LARGE = ("too large", "exceeds limit", "could be decompression bomb")


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded picture.

    Attributes:
        width: of the pixels.
        height: of the pixels.
        rgb: them, row by row, three bytes each.
        full_width: of the picture as it is stored, before it was turned upright.
        full_height: the same.
    """

    width: int
    height: int
    rgb: bytes
    full_width: int
    full_height: int


def fit(width: int, height: int, edge: int) -> tuple[int, int]:
    """The size that a picture is brought to: its shorter edge at most `edge`, the longer one a few times that."""
    scale = min(1.0, edge / min(width, height), LONGEST_ASPECT * edge / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def decode_picture(content: bytes, kind: str, edge: int, most_pixels: int) -> Pixels:
    """Decode a picture.

    Args:
        content: its bytes.
        kind: what they begin as.
        edge: what its shorter edge is brought to, where it is longer.
        most_pixels: more are refused.

    Raises:
        UnusableMedia: it cannot be decoded, or it would cost too much.
    """
    Image.MAX_IMAGE_PIXELS = most_pixels  # Pillow looks too, where a frame is larger than its picture
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            if kind == "webp":  # its decoder takes memory for the whole picture as soon as it is opened
                _require_pixels(*webp_size(content), most_pixels)
            with Image.open(io.BytesIO(content), formats=FORMATS[kind]) as image:
                _require_pixels(*image.size, most_pixels)
                return _plain(image, edge)
        except UnusableMedia:
            raise
        except MemoryError:
            raise UnusableMedia(
                "it takes more memory to decode than a picture may",
                remedy="send a smaller one, or raise NEARKIN_MEDIA_DECODE_MEMORY_BYTES",
                reason="memory",
            ) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _too_many_pixels(most_pixels) from None
        except UnidentifiedImageError:
            raise _broken(kind, "its header cannot be read", "broken") from None
        except Exception as error:  # whatever a hostile file makes a decoder raise, it is the file's fault
            words = str(error).lower()
            if any(each in words for each in _TOO_LARGE):
                raise _broken(kind, "a part of it grows too large as it is unpacked", "bomb") from None
            if "truncated" in words or isinstance(error, EOFError):
                raise _broken(kind, "it ends too early", "truncated") from None
            raise _broken(kind, f"it cannot be decoded ({type(error).__name__})", "broken") from None


def webp_size(content: bytes) -> tuple[int, int]:
    """Width and height by the header of a WebP file.

    Raises:
        UnusableMedia: it has no such header.
    """
    chunk, start = content[12:16], content[20:30]
    if len(start) == 10:
        if chunk == b"VP8X":
            return 1 + int.from_bytes(start[4:7], "little"), 1 + int.from_bytes(start[7:10], "little")
        if chunk == b"VP8L" and start[0] == 0x2F:
            bits = int.from_bytes(start[1:5], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        if chunk == b"VP8 " and start[3:6] == b"\x9d\x01\x2a":
            return int.from_bytes(start[6:8], "little") & 0x3FFF, int.from_bytes(start[8:10], "little") & 0x3FFF
    raise _broken("webp", "its header cannot be read", "broken")


def _plain(image: Image.Image, edge: int) -> Pixels:
    full_width, full_height = image.size
    size = fit(full_width, full_height, edge)
    if image.format in FORMATS["jpeg"]:
        image.draft(None, (size[0] * 2, size[1] * 2))  # a large JPEG is decoded at a half, a quarter or an eighth
    orientation, profile = _orientation(image), image.info.get("icc_profile")
    image.load()
    plain = _eight_bits(image)
    if plain.size != size:
        plain = plain.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if plain.mode in ("RGBA", "LA"):
        white = Image.new("RGBA", plain.size, "white")
        white.alpha_composite(plain.convert("RGBA"))
        plain = white.convert("RGB")
    plain = _in_srgb(plain, profile)
    if orientation in _UPRIGHT:
        plain = plain.transpose(_UPRIGHT[orientation])
    return Pixels(plain.width, plain.height, plain.tobytes(), full_width, full_height)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The picture in a mode that can be resized: L, LA, RGB, RGBA or CMYK."""
    if image.mode.startswith(("I", "F")):
        # Converting would cut off whatever is brighter than 255.
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in ("P", "PA") or "transparency" in image.info:
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    return image if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK") else image.convert("RGB")


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    if isinstance(profile, bytes) and 0 < len(profile) <= MOST_PROFILE_BYTES:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            turned = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            turned = None  # a profile that is broken, or of another colour space, is as good as none
        if turned is not None:
            return turned
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # what a camera wrote beside a picture is no reason to refuse it
        return 1


def _require_pixels(width: int, height: int, most: int) -> None:
    if width < 1 or height < 1:
        raise UnusableMedia("it has no pixels", remedy="send a picture", reason="empty")
    if width * height > most:
        raise _too_many_pixels(most)


def _too_many_pixels(most: int) -> UnusableMedia:
    return UnusableMedia(
        f"it has more than {most} pixels",
        remedy="send a smaller one, or raise NEARKIN_MEDIA_MAX_PIXELS",
        reason="too_many_pixels",
    )


def _broken(kind: str, problem: str, reason: str) -> UnusableMedia:
    return UnusableMedia(f"as {kind} {problem}", remedy="send a whole file", reason=reason)


_SRGB = ImageCms.createProfile("sRGB")
