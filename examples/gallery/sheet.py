"""The contact sheet: an A4 PDF of an album's thumbnails, with the refused files named beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from jobq.gallery.files import written_whole

_PAGE = (1240, 1754)  # A4 at 150 dots per inch
_DPI = 150
_MARGIN, _COLUMNS, _ROWS, _CAPTION = 80, 4, 5, 44
_TOP = 190
_CELL = ((_PAGE[0] - 2 * _MARGIN) // _COLUMNS, (_PAGE[1] - _TOP - _MARGIN) // _ROWS)
_INK, _GREY, _RED, _FAINT = "#1c2430", "#6b7686", "#a8323a", "#f3d9da"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One picture on the sheet: its thumbnail, or the reason why it was refused."""

    name: str
    thumbnail: Path | None = None
    refused: str | None = None


def make_contact_sheet(
    title: str,
    entries: Sequence[Entry],
    target: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the sheet as a PDF to `target`, return its pages; `progress` hears of every picture."""
    per_page = _COLUMNS * _ROWS
    pages: list[Image.Image] = []
    for start in range(0, max(len(entries), 1), per_page):
        page, draw = _page(title, f"page {len(pages) + 1} of {max(1, -(-len(entries) // per_page))}")
        for slot, entry in enumerate(entries[start : start + per_page]):
            _draw_entry(page, draw, slot, entry)
            progress(start + slot + 1, len(entries))
        pages.append(page)
    with written_whole(target) as temporary:
        pages[0].save(
            temporary, "PDF", save_all=True, append_images=pages[1:], resolution=_DPI, title=title, quality=80
        )
    return len(pages)


def _page(title: str, subtitle: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("RGB", _PAGE, "white")
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, 66), _fit(draw, title, 44, _PAGE[0] - 2 * _MARGIN), fill=_INK, font=_font(44))
    draw.text((_MARGIN, 128), subtitle, fill=_GREY, font=_font(22))
    return page, draw


def _draw_entry(page: Image.Image, draw: ImageDraw.ImageDraw, slot: int, entry: Entry) -> None:
    row, column = divmod(slot, _COLUMNS)
    left, top = _MARGIN + column * _CELL[0], _TOP + row * _CELL[1]
    width, height = _CELL[0] - 20, _CELL[1] - _CAPTION - 10
    if entry.thumbnail is not None:
        with Image.open(entry.thumbnail) as thumbnail:
            thumbnail.thumbnail((width, height))
            place = (left + (width - thumbnail.width) // 2, top + (height - thumbnail.height) // 2)
            page.paste(thumbnail, place)
    else:
        draw.rectangle((left, top, left + width, top + height), fill=_FAINT)
        lines = ["refused:", *_wrapped(draw, entry.refused or "no reason was recorded", width - 30)]
        draw.multiline_text((left + 15, top + 15), "\n".join(lines[:9]), fill=_RED, font=_font(20), spacing=6)
    name = _fit(draw, entry.name, 20, width)
    draw.text((left, top + height + 8), name, fill=_RED if entry.refused else _INK, font=_font(20))


def _wrapped(draw: ImageDraw.ImageDraw, text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=_font(20)) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _fit(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> str:
    """Return `text`, on one line and shortened to `width` pixels."""
    line = " ".join(text.split())[:300]
    if draw.textlength(line, font=_font(size)) <= width:
        return line
    while line and draw.textlength(f"{line}…", font=_font(size)) > width:
        line = line[:-1]
    return f"{line}…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
