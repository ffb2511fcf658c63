"""The gallery's picture code, on good and on hostile files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobq.gallery import pictures, samples
from jobq.gallery.files import written_whole
from jobq.gallery.pictures import Refused, make_thumbnail, make_web_size, metadata_left
from jobq.gallery.sheet import Entry, make_contact_sheet
from tests.support.checks import some

RED, GREEN, BLUE, WHITE = (250, 20, 20), (20, 200, 20), (20, 20, 250), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def made(tmp_path: Path, data: bytes, make: Any = make_web_size) -> Image.Image:
    source, target = tmp_path / "source", tmp_path / "made" / "target.jpg"
    source.write_bytes(data)
    size = make(source, target)
    with Image.open(target) as image:
        image.load()
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        assert image.size == size
        assert metadata_left(target) == []
        return image.copy()


def refusal(tmp_path: Path, data: bytes) -> str:
    source, target = tmp_path / "source", tmp_path / "target.jpg"
    source.write_bytes(data)
    reasons = set()
    for make in (make_web_size, make_thumbnail):
        with pytest.raises(Refused) as caught:
            make(source, target)
        reasons.add(str(caught.value))
    assert sorted(tmp_path.iterdir()) == [source], "a refused picture leaves no file"
    return reasons.pop()


def near(pixel: Any, colour: tuple[int, ...], off: int = 30) -> bool:
    return all(abs(a - b) <= off for a, b in zip(pixel, colour, strict=True))


def test_every_good_sample_is_taken(tmp_path: Path) -> None:
    for sample in some(samples.good_samples()):
        web = made(tmp_path, sample.data)
        small = made(tmp_path, sample.data, make_thumbnail)
        assert max(web.size) <= 1600
        assert max(small.size) <= 320


def test_every_bad_sample_is_refused_with_a_reason(tmp_path: Path) -> None:
    expected = {
        "cut-off.jpg": "cut off",
        "bomb.png": "too large to decode: 2,500,000,000 pixels",
        "notes.jpg": "not a picture",
        "nothing.jpg": "empty",
    }
    for sample in some(samples.bad_samples()):
        assert expected[sample.name] in refusal(tmp_path, sample.data)


def test_a_small_bomb_is_a_valid_picture(tmp_path: Path) -> None:
    assert made(tmp_path, samples.bomb(1001)).size == (1001, 1001)


def corners(orientation: int) -> bytes:
    """A picture that is red, green, blue and white in its corners once it is shown as `orientation` says."""
    upright = Image.new("RGB", (400, 200), "black")
    for box, colour in (
        ((0, 0), RED),
        ((300, 0), GREEN),
        ((0, 150), BLUE),
        ((300, 150), WHITE),
    ):
        upright.paste(colour, (*box, box[0] + 100, box[1] + 50))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = upright.transpose(undo) if undo is not None else upright
    return encoded(stored, "JPEG", quality=95, exif=samples.turned_exif(orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("make", [make_web_size, make_thumbnail])
def test_the_orientation_is_applied_before_exif_goes(tmp_path: Path, orientation: int, make: Any) -> None:
    image = made(tmp_path, corners(orientation), make)
    w, h = image.size
    assert w == 2 * h
    seen = [image.getpixel(at) for at in ((10, 10), (w - 10, 10), (10, h - 10), (w - 10, h - 10))]
    assert all(near(pixel, colour) for pixel, colour in zip(seen, (RED, GREEN, BLUE, WHITE), strict=True)), seen


@pytest.mark.parametrize("orientation", [0, 9, 77, 65535])
def test_a_senseless_orientation_is_ignored(tmp_path: Path, orientation: int) -> None:
    data = encoded(Image.new("RGB", (60, 30), RED), "JPEG", exif=samples.turned_exif(orientation))
    assert made(tmp_path, data).size == (60, 30)


def test_the_place_comment_and_xmp_go(tmp_path: Path) -> None:
    image = Image.new("RGB", (80, 60), GREEN)
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>secret street 5</x:xmpmeta>"
    data = encoded(image, "JPEG", exif=samples.place_exif(), comment=b"secret street 5", xmp=packet)
    assert b"secret street 5" in data
    assert b"A. Person" in data
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    assert {"exif", "comment"} <= set(metadata_left(source))
    make_web_size(source, target)
    left = target.read_bytes()
    assert b"secret" not in left
    assert b"Person" not in left
    assert b"Exif" not in left


def test_a_png_with_five_megabytes_of_exif_and_text_is_taken(tmp_path: Path) -> None:
    plain = encoded(Image.new("RGB", (50, 40), BLUE), "PNG")
    exif = b"MM\0*\0\0\0\x08\0\0" + b"\0" * 5_000_000
    text = b"Comment\0" + b"long " * 200_000
    end = plain.rindex(b"\0\0\0\0IEND")
    extra = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"eXIf", exif), (b"tEXt", text))
    )
    image = made(tmp_path, plain[:33] + extra + plain[33:end] + plain[end:])
    assert near(image.getpixel((20, 20)), BLUE)


@pytest.mark.parametrize("junk", [b"Exif\0\0" + b"\xff" * 500, b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_unreadable_exif_does_not_refuse_a_picture(tmp_path: Path, junk: bytes) -> None:
    plain = encoded(Image.new("RGB", (60, 30), RED), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk
    assert made(tmp_path, plain[:2] + segment + plain[2:]).size == (60, 30)


def test_sixteen_bits_keep_their_greys(tmp_path: Path) -> None:
    image = made(tmp_path, samples.sixteen_bits(256, 32))
    for x in (5, 64, 128, 192, 250):
        assert near(image.getpixel((x, 16)), (x, x, x), off=4)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_float_tiff_is_taken(tmp_path: Path, value: float) -> None:
    made(tmp_path, encoded(Image.new("F", (40, 40), value), "TIFF"))


def test_transparency_becomes_white(tmp_path: Path) -> None:
    for data in (
        samples.palette_with_alpha(),
        encoded(Image.new("RGBA", (600, 600), (0, 0, 0, 0)), "PNG"),
        encoded(Image.new("LA", (600, 600), (0, 0)), "PNG"),
        encoded(Image.new("RGB", (600, 600), "black"), "PNG", transparency=(0, 0, 0)),
    ):
        assert near(made(tmp_path, data).getpixel((5, 5)), WHITE, off=3)


def test_cmyk_keeps_its_colour(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (64, 64), RED).convert("CMYK"), "JPEG", quality=95)
    assert near(made(tmp_path, data).getpixel((30, 30)), RED, off=40)


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in (GREEN, RED, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert near(made(tmp_path, data).getpixel((30, 30)), GREEN)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_odd_shapes_are_taken(tmp_path: Path, shape: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", shape, RED), "PNG")
    for make in (make_web_size, make_thumbnail):
        assert min(made(tmp_path, data, make).size) >= 1


def test_small_pictures_are_not_enlarged(tmp_path: Path) -> None:
    assert made(tmp_path, encoded(Image.new("RGB", (40, 30), RED), "PNG")).size == (40, 30)


@pytest.mark.parametrize("side", [8_000, 10_000])
def test_more_pixels_than_allowed_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    # There is no pixel to decode: only the header can have been the reason.
    data = b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert "too large to decode" in refusal(tmp_path, data)


def test_a_file_with_too_many_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    assert "takes at most 100" in refusal(tmp_path, encoded(Image.new("RGB", (64, 64), RED), "BMP"))


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"%PDF-1.4\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"MZ" + bytes(100),
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40,
        bytes(1000),
    ],
    ids=["eps", "pdf", "svg", "program", "jpeg-start", "png-start", "gif-start", "webp-start", "tiff-junk", "zeros"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    assert refusal(tmp_path, data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_are_taken_or_refused_and_nothing_else(tmp_path: Path, kind: str) -> None:
    whole = encoded(Image.linear_gradient("L").convert("RGB"), kind)
    source, target = tmp_path / "source", tmp_path / "target.jpg"
    for step in range(120):
        data = bytearray(whole)
        data[(step * 7919) % len(data)] ^= 1 << step % 8
        source.write_bytes(data if step % 3 else data[: len(data) * (step + 1) // 121])
        try:
            make_thumbnail(source, target)
        except Refused as error:
            assert str(error)  # noqa: PT017 - either outcome is right


def test_a_missing_file_is_an_error_to_try_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_web_size(tmp_path / "gone", tmp_path / "target")


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "below" / "file"

    def write(text: str, *, fail: bool) -> None:
        with written_whole(target) as temporary:
            temporary.write_text(text)
            if fail:
                raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write("half", fail=True)
    assert list(target.parent.iterdir()) == []
    write("first", fail=False)
    with pytest.raises(RuntimeError):
        write("half", fail=True)
    write("second", fail=False)
    assert target.read_text() == "second"
    assert list(target.parent.iterdir()) == [target]


def test_the_contact_sheet_has_a_page_for_every_twenty(tmp_path: Path) -> None:
    thumbnail, target = tmp_path / "thumbnail.jpg", tmp_path / "sheets" / "sheet.pdf"
    Image.new("RGB", (320, 200), BLUE).save(thumbnail)
    entries = [
        Entry(name=f"picture {n} with a name that is too long for its place.jpg", thumbnail=thumbnail)
        for n in range(20)
    ]
    entries.append(Entry(name="утро 朝.jpg", refused="the picture is cut off: " + "verylongword" * 30))
    told: list[tuple[int, int]] = []
    pages = make_contact_sheet("A day\nat sea", entries, target, progress=lambda *at: told.append(at))
    assert pages == 2
    assert told == [(n, 21) for n in range(1, 22)]
    data = target.read_bytes()
    assert data.startswith(b"%PDF-")
    assert data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") == 2


def test_an_album_without_pictures_has_an_empty_sheet(tmp_path: Path) -> None:
    assert make_contact_sheet("Nothing", [], tmp_path / "sheet.pdf") == 1
