"""The pictures that the demo draws for itself: good ones of many kinds, broken ones, and one that attacks."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageDraw

_ORIENTATION, _MAKE, _ARTIST, _EXIF_IFD, _GPS_IFD, _USER_COMMENT = (
    0x0112,
    0x010F,
    0x013B,
    0x8769,
    0x8825,
    0x9286,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One file to upload. `good`: the gallery must take it; otherwise it must refuse it."""

    name: str
    data: bytes
    good: bool = True


def good_samples() -> list[Sample]:
    """Return pictures that must be taken: with a place in EXIF, turned, CMYK, 16 bits, …"""
    return [
        Sample(name="harbour.jpg", data=_jpeg(_landscape(1800, 1200, hue=210), exif=place_exif())),
        Sample(name="tower-turned.jpg", data=turned_jpeg()),
        Sample(name="dunes.jpg", data=_jpeg(_landscape(1600, 1067, hue=45))),
        Sample(name="forest.webp", data=_save(_landscape(1400, 933, hue=130), "WEBP", quality=85)),
        Sample(name="print-cmyk.jpg", data=_save(_landscape(1200, 800, hue=300).convert("CMYK"), "JPEG")),
        Sample(name="scan-16bit.png", data=sixteen_bits(900, 600)),
        Sample(name="badge-palette.png", data=palette_with_alpha()),
        Sample(name="wave.gif", data=animation()),
        Sample(name="long-story-exif.jpg", data=_jpeg(_landscape(1200, 900, hue=180), exif=giant_exif(60_000))),
    ]


def bad_samples() -> list[Sample]:
    """Return files that must be refused: cut off, a decompression bomb, a text, nothing."""
    return [
        Sample(name="cut-off.jpg", data=truncated_jpeg(), good=False),
        Sample(name="bomb.png", data=bomb(), good=False),
        Sample(name="notes.jpg", data=b"Buy milk. This is a text, whatever its name says.\n", good=False),
        Sample(name="nothing.jpg", data=b"", good=False),
    ]


def turned_jpeg() -> bytes:
    """Return a portrait that the camera stored on its side: orientation 6, to be turned when shown."""
    sideways = _landscape(1000, 1500, hue=20).transpose(Image.Transpose.ROTATE_90)
    return _jpeg(sideways, exif=turned_exif(6))


def truncated_jpeg() -> bytes:
    """Return a JPEG whose second half never arrived."""
    whole = _jpeg(_landscape(1200, 800, hue=0))
    return whole[: len(whole) // 2]


def bomb(side: int = 50_000) -> bytes:
    """Return a small, valid PNG of `side` x `side` black pixels: gigabytes once decoded as RGB."""
    # One row, packed so that it ends at a byte, and repeated: so 312 MB of zeros need not be packed.
    row = bytes(1 + (side + 7) // 8)
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(row) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (len(row) * side % 65521) << 16 | 1
    data = b"\x78\xda" + packed * side + b"\x03\x00" + struct.pack(">I", checksum)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join((_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")))


def sixteen_bits(width: int, height: int) -> bytes:
    """Return a grey PNG of 16 bits that runs from black at the left to white at the right."""
    row = b"\0" + b"".join(struct.pack(">H", x * 65535 // (width - 1)) for x in range(width))
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    data = zlib.compress(row * height)
    return b"\x89PNG\r\n\x1a\n" + b"".join((_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")))


def palette_with_alpha() -> bytes:
    """Return a palette PNG: a blue disc on a transparent ground."""
    image = Image.new("P", (600, 600), 0)
    image.putpalette([0, 0, 0, 40, 90, 200, 250, 250, 250])
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 60, 540, 540), fill=1)
    draw.ellipse((220, 220, 380, 380), fill=2)
    return _save(image, "PNG", transparency=0)


def animation() -> bytes:
    """Return an animated GIF of 12 frames."""
    frames = [Image.new("P", (480, 320), 0) for _ in range(12)]
    for step, frame in enumerate(frames):
        frame.putpalette([15, 40, 80, 120, 200, 240])
        points = [(x, 160 + 60 * math.sin(x / 60 + step * math.tau / 12)) for x in range(0, 481, 8)]
        ImageDraw.Draw(frame).line(points, fill=1, width=14)
    return _save(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=80, loop=0)


def place_exif() -> Image.Exif:
    """Return EXIF that tells where the picture was taken, by whom and with what: not to be published."""
    exif = Image.Exif()
    exif[_MAKE] = "Sample Camera"
    exif[_ARTIST] = "A. Person"
    exif.get_ifd(_GPS_IFD).update({1: "N", 2: (53.0, 32.0, 36.0), 3: "E", 4: (9.0, 59.0, 2.0)})
    return exif


def turned_exif(orientation: int) -> Image.Exif:
    """Return EXIF that says how the camera was held (1 to 8)."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return exif


def giant_exif(size: int) -> Image.Exif:
    """Return EXIF with a comment of `size` bytes (a JPEG holds just under 65,500)."""
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"ASCII\0\0\0" + b"once upon a time " * (size // 17)
    return exif


def _landscape(width: int, height: int, *, hue: int) -> Image.Image:
    """Draw hills under a sky. Drawn small and enlarged: a demo must not spend its time here."""
    w, h = width // 4, height // 4
    image = Image.new("RGB", (w, h))
    draw = ImageDraw.Draw(image)
    for y in range(h):
        draw.line((0, y, w, y), fill=_colour(hue, 55, 92 - 40 * y // h))
    draw.ellipse((w * 0.68, h * 0.14, w * 0.68 + h * 0.2, h * 0.34), fill=_colour((hue + 40) % 360, 90, 90))
    for layer, line in enumerate(_hills(w, h)):
        draw.polygon([(0, h), *line, (w, h)], fill=_colour((hue + 18 * layer) % 360, 45, 52 - 13 * layer))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _hills(width: int, height: int) -> Iterator[list[tuple[float, float]]]:
    for layer in range(4):
        base, swing = height * (0.5 + 0.13 * layer), height * 0.07
        yield [
            (
                x,
                base
                + swing * (math.sin(x / width * (5 + 2 * layer) + layer * 2) + 0.4 * math.sin(x / width * 19 + layer)),
            )
            for x in range(0, width + 4, 4)
        ]


def _colour(hue: int, saturation: int, lightness: int) -> str:
    return f"hsl({hue}, {saturation}%, {lightness}%)"


def _jpeg(image: Image.Image, exif: Image.Exif | None = None) -> bytes:
    return _save(image, "JPEG", quality=88, **({"exif": exif} if exif is not None else {}))


def _save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
