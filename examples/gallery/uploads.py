"""Taking an upload in: files, rows and jobs. The rows and the jobs are one transaction."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlalchemy.orm import Session

from jobq.gallery import app
from jobq.gallery.files import written_whole
from jobq.gallery.models import Album, Photo, Upload
from jobq.gallery.settings import GallerySettings, engine

SHEET_DELAY = 1.0  # seconds without another upload before the contact sheet is begun
MAX_FILES = 200
_TOKEN = re.compile(r"[0-9a-f]{32}")
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class BadUpload(ValueError):
    """The form cannot be used; the message tells the sender why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One file of the form: the name that the browser gave, and its bytes."""

    name: str
    stream: IO[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The outcome of an upload. `repeated`: the token was known already, so nothing was stored again."""

    album_id: int
    repeated: bool


def new_token() -> str:
    """Return a token for one upload form."""
    return secrets.token_hex(16)


def take(
    settings: GallerySettings,
    *,
    token: str,
    email: str,
    files: Sequence[Incoming],
    title: str = "",
    album_id: int | None = None,
) -> Taken:
    """Store an upload into the album `album_id`, or into a new one called `title`. Raises BadUpload.

    The receipt's job comes first: its key is what a second press of the button runs into. Until the first
    transaction has committed, the second waits there; then it finds the job, and stores nothing.
    """
    _check(token, email, files)
    originals: list[Path] = []
    with Session(engine(settings.database_url)) as session:
        try:
            receipt = app.mail_receipt.options(key=f"receipt:{token}").enqueue(session, token)
            known = session.get(Upload, token)
            if known is not None:
                return Taken(album_id=known.album_id, repeated=True)
            album = _album(session, album_id, title)
            upload = Upload(token=token, album=album, email=email, receipt_job=receipt.id)
            photos = [_photo(settings, upload, file, originals) for file in files]
            session.add_all(photos)
            session.flush()
            _enqueue_pictures(session, photos)
            album.sheet_job = _enqueue_sheet(session, album.id)
            session.flush()
            taken = Taken(album_id=album.id, repeated=False)
        except BaseException:
            for original in originals:
                original.unlink(missing_ok=True)
            raise
        # Beyond this point the originals stay: a commit whose answer was lost may have happened.
        session.commit()
        return taken


def _enqueue_pictures(session: Session, photos: Sequence[Photo]) -> None:
    jobs = [task.job(photo.id) for photo in photos for task in (app.make_thumbnail, app.make_web_size)]
    ids = iter([job.id for job in app.q.enqueue_many(session, jobs)])
    for photo in photos:
        photo.thumbnail_job, photo.web_size_job = next(ids), next(ids)


def _enqueue_sheet(session: Session, album_id: int) -> int:
    """One sheet for a burst of uploads: each puts the waiting job off. Once begun, another is due."""
    sheet = app.make_contact_sheet.options(
        key=f"sheet:{album_id}", key_holds="until_started", on_conflict="replace", delay=SHEET_DELAY
    )
    return sheet.enqueue(session, album_id).id


def display_name(name: str) -> str:
    """Return the file name that a browser gave as one that can be shown, stored and mailed."""
    return _shown(re.split(r"[/\\]", name)[-1]) or "without a name"


def _shown(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())[:150].strip()


def _check(token: str, email: str, files: Sequence[Incoming]) -> None:
    if not _TOKEN.fullmatch(token):
        raise BadUpload("The form is incomplete: load the page again.")
    if len(email) > 254 or not _EMAIL.fullmatch(email):
        raise BadUpload("Give an address for the receipt, such as you@example.org.")
    if not files:
        raise BadUpload("Choose at least one picture.")
    if len(files) > MAX_FILES:
        raise BadUpload(f"Choose at most {MAX_FILES} pictures at a time.")


def _album(session: Session, album_id: int | None, title: str) -> Album:
    if album_id is None:
        album = Album(title=_shown(title) or "Untitled")
        session.add(album)
        return album
    found = session.get(Album, album_id)
    if found is None:
        raise BadUpload("There is no such album.")
    return found


def _photo(settings: GallerySettings, upload: Upload, file: Incoming, originals: list[Path]) -> Photo:
    """Write the original and return its row. The file is whole before the commit, so no job can miss it."""
    relative = f"originals/{secrets.token_hex(16)}"
    path = settings.path(relative)
    originals.append(path)
    with written_whole(path) as temporary, temporary.open("wb") as target:
        shutil.copyfileobj(file.stream, target, 1024 * 1024)
        size = target.tell()
    return Photo(
        album=upload.album,
        upload=upload,
        name=display_name(file.name),
        original_path=relative,
        original_bytes=size,
    )
