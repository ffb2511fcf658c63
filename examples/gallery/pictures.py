"""What the gallery does with pictures, and which ones it refuses. Pillow only: no database, no jobs.

Every function reads a file that a stranger sent. Sizes are read from the header and checked before anything
is decoded; only formats with decoders inside Pillow are tried; whatever a decoder raises becomes one Refused
with a sentence for the sender.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from jobq.gallery.files import written_whole

MAX_BYTES = 50 * 1024 * 1024
MAX_PIXELS = 60_000_000  # above what phones make by default; decoded, 240 MB at most
THUMBNAIL_SIZE = (320, 320)
WEB_SIZE = (1600, 1600)

# No EPS, PDF or PSD: their decoders start other programs, or are seldom fuzzed.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF")
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow refuses above twice this and warns above it; both end as Refused below.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class Refused(Exception):
    """The gallery does not take this file. The message is for its sender; trying again cannot help."""


def make_web_size(source: Path, target: Path) -> tuple[int, int]:
    """Write `source` as an upright JPEG without EXIF, at most 1600 x 1600; return its size in pixels.

    Raises Refused.
    """
    return _scale(source, target, WEB_SIZE, quality=86)


def make_thumbnail(source: Path, target: Path) -> tuple[int, int]:
    """Write `source` as an upright JPEG without EXIF, at most 320 x 320; return its size in pixels.

    Raises Refused.
    """
    return _scale(source, target, THUMBNAIL_SIZE, quality=80)


def metadata_left(path: Path) -> list[str]:
    """Return the names of the metadata (EXIF, XMP, comment, …) that the picture at `path` still carries."""
    with Image.open(path) as image:
        found = [name for name in ("exif", "xmp", "comment", "photoshop") if image.info.get(name)]
        if len(image.getexif()) and "exif" not in found:
            found.append("exif")
        return found


def _scale(source: Path, target: Path, size: tuple[int, int], *, quality: int) -> tuple[int, int]:
    with _opened(source) as image:
        profile = image.info.get("icc_profile") if image.mode == "RGB" else None
        turn = _TURNS.get(_orientation(image))
        # JPEG only: decodes at 1/2 to 1/8 when that is still large enough, for a fraction of time and memory.
        image.draft("RGB", _within(image.size, size))
        image.load()
        small = _plain_rgb(image)
        small.thumbnail(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if turn is not None:
        small = small.transpose(turn)
    # Pillow writes comment and XMP out of `info` by itself. The colour profile stays: it identifies no one.
    small.info = {}
    with written_whole(target) as temporary:
        small.save(temporary, "JPEG", quality=quality, progressive=True, icc_profile=profile)
    return small.size


@contextmanager
def _opened(source: Path) -> Iterator[Image.Image]:
    """Open the picture, its header judged, nothing decoded; turn every fault of the file into Refused."""
    size = source.stat().st_size
    if size == 0:
        raise Refused("the file is empty")
    if size > MAX_BYTES:
        raise Refused(f"the file has {size:,} bytes; the gallery takes at most {MAX_BYTES:,}")
    try:
        with Image.open(source, formats=_FORMATS) as image:
            _judge_size(image.width, image.height)
            yield image
    except UnidentifiedImageError:
        raise Refused("the file is not a picture that the gallery can read (JPEG, PNG, GIF, WebP or TIFF)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\d+", str(error))
        raise Refused(_too_many(f"{int(count[0]):,} pixels" if count else "too many pixels")) from None
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the picture's: worth another attempt
        if "truncated" in str(error):
            raise Refused("the picture is cut off: its data ends before the picture does") from error
        raise Refused(f"the picture is damaged: {error}") from error


def _judge_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise Refused(f"the picture says it is {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise Refused(_too_many(f"{width:,} x {height:,} pixels"))


def _too_many(what: str) -> str:
    return f"the picture is too large to decode: {what}; the gallery takes at most {MAX_PIXELS:,}"


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8. Unreadable EXIF is no reason to refuse a picture: then it is 1."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the parser meets arbitrary bytes
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _plain_rgb(image: Image.Image) -> Image.Image:
    """Return the first frame as 8-bit RGB, transparency laid on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        ground.alpha_composite(layer)
        return ground.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _within(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    ratio = min(1.0, box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a grey picture of 16 or 32 bits as 8 bits; `convert` alone would clip all above 255 to white."""
    wide = image.convert("F")
    low, high = wide.getextrema()
    if not isinstance(low, float) or not isinstance(high, float):
        raise Refused(f"the picture has values that cannot be shown (mode {image.mode})")
    if low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0 if image.mode != "F" or high > 255 else 255.0
    scale = 255.0 / (high - low) if high > low else 1.0
    return wide.point(lambda value: value * scale + (-low * scale)).convert("L")
