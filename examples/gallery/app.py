"""The gallery's tasks. Start a worker on them with `jobq worker jobq.gallery.app:q`.

Every task may run twice (a worker can die after the work and before the record of it), so each is idempotent:
files are replaced whole, rows inserted on conflict, and a mail's Message-ID is made from the upload's token.
"""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, selectinload

from jobq import Backoff, Cancel, Fail, JobQ, NodeOutcome, current_job
from jobq.gallery import pictures, settings
from jobq.gallery.files import written_whole
from jobq.gallery.models import Album, File, Photo, Upload
from jobq.gallery.receipts import compose
from jobq.gallery.sheet import Entry
from jobq.gallery.sheet import make_contact_sheet as draw_contact_sheet

q = JobQ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactSheet:
    """What the receipt tells of the contact sheet."""

    path: str
    """Below the gallery's home."""
    pages: int
    made: int
    """How many pictures were made from the photos of this upload."""


@q.task(queue="pictures", timeout=120, max_attempts=5, backoff=Backoff(base=2, cap=60))
def make_thumbnail(photo_id: int) -> str:
    """Make the photo's thumbnail; return its path below the gallery's home."""
    return _make(photo_id, "thumbnail", pictures.make_thumbnail)


@q.task(queue="pictures", timeout=120, max_attempts=5, backoff=Backoff(base=2, cap=60))
def make_web_size(photo_id: int) -> str:
    """Make the size that is published: upright, without EXIF; return its path below the gallery's home."""
    return _make(photo_id, "web", pictures.make_web_size)


@q.task(queue="documents", timeout=300, max_attempts=5, backoff=Backoff(base=2, cap=60))
def make_contact_sheet(
    album_id: int, thumbnails: Sequence[NodeOutcome[str]], web_sizes: Sequence[NodeOutcome[str]]
) -> ContactSheet:
    """Make the album's contact sheet as PDF, after the pictures of one upload have been made or refused.

    Photos of another upload that are still being made are left out: the sheet of that upload has them.
    """
    with _session() as session, session.begin():
        # Two runs for one album (an upload came during the first) must not finish in the wrong order.
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"sheet {album_id}", 0))))
        album = session.get(Album, album_id)
        if album is None:
            raise Cancel(f"album {album_id} is gone")
        photos = _photos(session, Photo.album_id == album_id)
        entries = [_entry(photo) for photo in photos if photo.settled]
        relative = f"sheets/album-{album_id}.pdf"
        pages = draw_contact_sheet(album.title, entries, _path(relative), progress=current_job().progress)
        album.sheet_path = relative
    made = sum(each.succeeded for outcomes in (thumbnails, web_sizes) for each in outcomes)
    return ContactSheet(path=relative, pages=pages, made=made)


@q.task(queue="mail", timeout=30, max_attempts=8, backoff=Backoff(base=1, cap=300))
def mail_receipt(token: str, sheet: ContactSheet) -> str:
    """Mail the outcome of an upload to its sender; return the mail's Message-ID.

    A server's 4xx answer is an ordinary error, so jobq tries again; a 5xx answer is final.
    """
    with _session() as session:
        upload = session.get(Upload, token)
        if upload is None:
            raise Cancel(f"upload {token} is gone")
        photos = _photos(session, Photo.upload_token == token)
        message = compose(upload, photos, made=sheet.made, pages=sheet.pages)
        mailed = upload.mailed_at is not None
    if not mailed:
        try:
            with smtplib.SMTP(*settings.current().smtp, local_hostname="localhost", timeout=15) as server:
                server.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            code, answer = next(iter(error.recipients.values()))
            if code >= 500:
                raise Fail(f"the mail server refuses the address for good: {code} {answer!r}") from error
            raise
        except smtplib.SMTPResponseException as error:
            if error.smtp_code >= 500:
                raise Fail(f"the mail server refuses the mail: {error.smtp_code} {error.smtp_error!r}") from error
            raise
        with _session() as session, session.begin():
            session.execute(update(Upload).where(Upload.token == token).values(mailed_at=func.now()))
    return str(message["Message-ID"])


@q.schedule("0 3 * * *")
@q.task(queue="documents", timeout=60)
def nightly_report() -> str:
    """Write a report: how many albums and photos, and what was refused in the last day; return its path."""
    with _session() as session:
        albums = session.scalar(select(func.count()).select_from(Album))
        photos = session.scalar(select(func.count()).select_from(Photo))
        recent = Upload.created_at > func.now() - func.make_interval(0, 0, 0, 1)
        refused = session.execute(
            select(Photo.name, Photo.refused).join(Photo.upload).where(recent, Photo.refused.is_not(None))
        ).all()
    relative = f"reports/{datetime.now(UTC):%Y-%m-%d}.txt"
    lines = [f"{albums} albums, {photos} photos; refused in the last day: {len(refused)}"]
    lines += [f"  {name}: {reason}" for name, reason in refused]
    with written_whole(_path(relative)) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return relative


def _make(photo_id: int, kind: str, scale: Callable[[Path, Path], tuple[int, int]]) -> str:
    with _session() as session:
        photo = session.get(Photo, photo_id)
        if photo is None:
            raise Cancel(f"photo {photo_id} is gone")
        if photo.refused is not None and photo.refused_by != current_job().id:
            raise Cancel(f"the picture was refused by job {photo.refused_by}: {photo.refused}")
        source = _path(photo.original_path)
    relative = f"{kind}/{photo_id}.jpg"
    try:
        width, height = scale(source, _path(relative))
    except pictures.Refused as error:
        _refuse(photo_id, str(error))
    with _session() as session, session.begin():
        made = insert(File).values(photo_id=photo_id, kind=kind, path=relative, width=width, height=height)
        size = {"width": made.excluded.width, "height": made.excluded.height}
        session.execute(made.on_conflict_do_update(index_elements=["photo_id", "kind"], set_=size))
        # Retried by an operator: what this job once refused is good now.
        mine = Photo.id == photo_id, Photo.refused_by == current_job().id
        session.execute(update(Photo).where(*mine).values(refused=None, refused_by=None))
    return relative


def _refuse(photo_id: int, reason: str) -> NoReturn:
    """Record that the picture is refused, then raise: Fail in the job that says so first, else Cancel.

    So one broken picture is one failed job, although two jobs work on it at the same time.
    """
    job = current_job().id
    with _session() as session, session.begin():
        first = session.execute(
            update(Photo)
            .where(Photo.id == photo_id, or_(Photo.refused.is_(None), Photo.refused_by == job))
            .values(refused=reason, refused_by=job)
            .returning(Photo.id)
        ).first()
    if first is not None:
        raise Fail(reason)
    raise Cancel(f"the picture was refused by its other job: {reason}")


def _photos(session: Session, which: ColumnElement[bool]) -> list[Photo]:
    return list(session.scalars(select(Photo).where(which).order_by(Photo.id).options(selectinload(Photo.files))))


def _entry(photo: Photo) -> Entry:
    thumbnail = photo.file("thumbnail")
    if photo.refused is not None or thumbnail is None:
        return Entry(name=photo.name, refused=photo.refused)
    return Entry(name=photo.name, thumbnail=_path(thumbnail.path))


def _session() -> Session:
    return Session(settings.engine(settings.current().database_url))


def _path(relative: str) -> Path:
    return settings.current().path(relative)
