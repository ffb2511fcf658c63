"""Taking an upload in: files, rows and the run of its workflow. The rows and the run are one transaction."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobq.gallery import app
from jobq.gallery.files import written_whole
from jobq.gallery.models import Album, Photo, Upload
from jobq.gallery.settings import GallerySettings, engine

MAX_FILES = 200
# Nodes of the workflow. The items of a map are in the order of the photos.
THUMBNAILS, WEB_SIZES, SHEET, RECEIPT = "thumbnails", "web sizes", "contact sheet", "receipt"
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

    A second press of the button brings the same token. It waits at the insert of the upload's row until the
    first transaction has committed; then it finds the row, and stores nothing.
    """
    _check(token, email, files)
    originals: list[Path] = []
    with Session(engine(settings.database_url)) as session:
        try:
            album = _album(session, album_id, title)
            session.flush()
            row = insert(Upload).values(token=token, album_id=album.id, email=email)
            upload = session.scalar(row.on_conflict_do_nothing().returning(Upload))
            if upload is None:
                session.rollback()
                return Taken(album_id=session.get_one(Upload, token).album_id, repeated=True)
            photos = [_photo(settings, upload, file, originals) for file in files]
            session.add_all(photos)
            session.flush()
            upload.run = _enqueue(session, upload, photos)
            session.flush()
            taken = Taken(album_id=album.id, repeated=False)
        except BaseException:
            for original in originals:
                original.unlink(missing_ok=True)
            raise
        # Beyond this point the originals stay: a commit whose answer was lost may have happened.
        session.commit()
        return taken


def _enqueue(session: Session, upload: Upload, photos: Sequence[Photo]) -> int:
    """Insert the run of an upload's workflow, and return its id.

    The sheet and the receipt run however the pictures ended: a broken one is reported, and holds up nothing.
    """
    ids = [photo.id for photo in photos]
    with app.q.workflow("upload", key=upload.token) as workflow:
        thumbnails = app.make_thumbnail.map(ids).named(THUMBNAILS)
        web_sizes = app.make_web_size.map(ids).named(WEB_SIZES)
        sheet = app.make_contact_sheet.node(upload.album_id, thumbnails.outcomes, web_sizes.outcomes).named(SHEET)
        app.mail_receipt.node(upload.token, sheet.result).named(RECEIPT)
    return workflow.enqueue(session).id


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
