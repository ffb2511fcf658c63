"""The receipt that the sender of an upload gets by mail."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import EmailMessage

from jobq.gallery.models import Photo, Upload

SENDER = "gallery@gallery.invalid"


def message_id(token: str) -> str:
    """Return the receipt's Message-ID: the same at every attempt, so a repeated mail can be told."""
    return f"<receipt-{token}@gallery.invalid>"


def compose(upload: Upload, photos: Sequence[Photo], *, made: int, pages: int) -> EmailMessage:
    """Return the receipt for `upload`: what was taken, what was refused and why.

    `made`: how many pictures were made from the photos. `pages`: of the album's contact sheet.
    """
    taken = [photo for photo in photos if photo.refused is None]
    refused = [photo for photo in photos if photo.refused is not None]
    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = upload.email
    message["Subject"] = _line(f"{len(taken)} of {len(photos)} pictures are in “{upload.album.title}”")
    message["Message-ID"] = message_id(upload.token)
    lines = ["Thank you for your pictures.", ""]
    if taken:
        lines += ["In the album:", *(f"  - {_line(photo.name)}" for photo in taken), ""]
    if refused:
        lines += ["Refused:", *(f"  - {_line(photo.name)}: {photo.refused}" for photo in refused), ""]
    lines += [f"Sizes made: {made}. Pages of the album's contact sheet: {pages}.", ""]
    lines.append("Places, names and everything else in EXIF were removed from what is published.")
    message.set_content("\n".join(lines) + "\n")
    return message


def _line(text: str) -> str:
    """Return `text` on one line: a header with a line break in it is refused, and rightly."""
    return " ".join(text.split())
