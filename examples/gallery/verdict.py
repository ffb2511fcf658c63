"""Whether everything that a run of the demo should have made is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image
from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from jobq.gallery import pictures
from jobq.gallery.jobstates import JobState, job_ids, read_jobs
from jobq.gallery.models import KINDS, Album, Photo, Upload
from jobq.gallery.receipts import message_id
from jobq.gallery.settings import engine
from jobq.gallery.stage import Stage
from jobq.schema import metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One upload as it was sent. `refused`: the names that must be refused; None when they are not known beforehand."""

    token: str
    album_id: int
    names: tuple[str, ...]
    refused: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did. `ok`: nothing in `problems`. `seconds`: from the first upload to the last job's end."""

    pictures: int
    jobs_done: int
    jobs_retried: int
    jobs_failed: int
    jobs_cancelled: int
    files_made: int
    mails: int
    mails_refused: int
    seconds: float
    refused: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything was as it should be."""
        return not self.problems


def jobs_of(stage: Stage, sent: Sequence[Sent]) -> set[int]:
    """Return the ids of the jobs that work for these uploads, as far as the rows name them."""
    with Session(engine(stage.settings.database_url)) as session:
        return set().union(*(job_ids(album) for album in _albums(session, sent)))


def read(stage: Stage, ids: Collection[int]) -> dict[int, JobState]:
    """Return the states of these jobs."""
    with Session(engine(stage.settings.database_url)) as session:
        return read_jobs(session, ids, stage.settings.schema)


def judge(
    stage: Stage, sent: Sequence[Sent], ids: Collection[int], seconds: float, problems: Sequence[str] = ()
) -> Summary:
    """Look at every row, file and mail of these uploads, and return what was found. `problems`: known before."""
    found = list(problems)
    with Session(engine(stage.settings.database_url)) as session:
        jobs = read_jobs(session, ids, stage.settings.schema)
        states = Counter(job.state for job in jobs.values())
        albums = _albums(session, sent)
        photos = [photo for album in albums for photo in album.photos]
        uploads = {upload.token: upload for album in albums for upload in album.uploads}
        files = _judge_sheets(stage, albums, found)
        for photo in photos:
            files += _judge_photo(stage, photo, jobs, found)
        for one in sent:
            _judge_upload(stage, one, uploads.get(one.token), found)
        retried = _retried(session, stage.settings.schema, ids)
    if unfinished := sorted(job.id for job in jobs.values() if not job.finished):
        found.append(f"{len(unfinished)} jobs have not ended, job {unfinished[0]} among them")
    if missing := len(set(ids) - set(jobs)):
        found.append(f"{missing} jobs are neither live nor in history")
    failed = [photo for photo in photos if photo.refused is not None]
    if states["failed"] != len(failed):
        found.append(f"{states['failed']} jobs failed for {len(failed)} refused pictures")
    if stage.mail.refusals and not retried:
        found.append("the mail server refused a mail, but no job was retried")
    return Summary(
        pictures=len(photos),
        jobs_done=states["succeeded"],
        jobs_retried=retried,
        jobs_failed=states["failed"],
        jobs_cancelled=states["cancelled"],
        files_made=files,
        mails=len(stage.mail.accepted()),
        mails_refused=stage.mail.refusals,
        seconds=round(seconds, 2),
        refused=[{"name": photo.name, "reason": photo.refused or ""} for photo in failed],
        problems=found,
    )


def _albums(session: Session, sent: Sequence[Sent]) -> Sequence[Album]:
    wanted = select(Album).where(Album.id.in_({one.album_id for one in sent})).order_by(Album.id)
    photos = selectinload(Album.photos).selectinload(Photo.files)
    return session.scalars(wanted.options(photos, selectinload(Album.uploads))).all()


def _judge_photo(stage: Stage, photo: Photo, jobs: Mapping[int, JobState], found: list[str]) -> int:
    """Return how many files the photo has."""
    own = [jobs.get(job) for job in (photo.thumbnail_job, photo.web_size_job) if job is not None]
    failed = [job for job in own if job is not None and job.state == "failed"]
    if photo.refused is not None:
        if len(failed) != 1:
            found.append(f"{photo.name}: refused, but {len(failed)} jobs failed; expected one")
        elif photo.refused not in (failed[0].error or ""):
            found.append(f"{photo.name}: job {failed[0].id} does not give the reason: {failed[0].error}")
        return len(photo.files)
    for kind in KINDS:
        file = photo.file(kind)
        if file is None:
            job = jobs.get((photo.thumbnail_job if kind == "thumbnail" else photo.web_size_job) or 0)
            if job is None or job.finished:  # the others are counted as not ended
                found.append(f"{photo.name}: no {kind}")
            continue
        path = stage.settings.path(file.path)
        try:
            with Image.open(path) as image:
                image.load()
                size = image.size
            left = pictures.metadata_left(path)
        except OSError as error:
            found.append(f"{photo.name}: the {kind} cannot be read: {error}")
            continue
        if size != (file.width, file.height):
            found.append(f"{photo.name}: the {kind} has {size}, its row says {(file.width, file.height)}")
        if left:
            found.append(f"{photo.name}: the {kind} still has {', '.join(left)}")
    return len(photo.files)


def _judge_sheets(stage: Stage, albums: Sequence[Album], found: list[str]) -> int:
    """Return how many contact sheets there are."""
    made = 0
    for album in albums:
        path = stage.settings.path(album.sheet_path) if album.sheet_path else None
        if path is None or not path.is_file() or not path.read_bytes().startswith(b"%PDF-"):
            found.append(f"album “{album.title}”: no contact sheet")
        else:
            made += 1
    return made


def _judge_upload(stage: Stage, one: Sent, upload: Upload | None, found: list[str]) -> None:
    if upload is None:
        found.append(f"upload {one.token}: no row")
        return
    photos = {photo.id: photo for photo in upload.photos}.values()
    if Counter(photo.name for photo in photos) != Counter(one.names):
        found.append(f"upload {one.token}: {len(one.names)} pictures were sent, {len(photos)} are stored")
    refused = {photo.name for photo in photos if photo.refused is not None}
    if one.refused is not None:
        found.extend(f"{name}: was taken, but had to be refused" for name in sorted(one.refused - refused))
        found.extend(f"{name}: was refused, but is good" for name in sorted(refused - one.refused))
    mails = [mail for mail in stage.mail.accepted() if mail["Message-ID"] == message_id(one.token)]
    if len(mails) != 1:
        found.append(f"upload {one.token}: {len(mails)} mails; expected exactly one")
    for mail in mails:
        text = mail.get_content()
        found.extend(f"{name}: the receipt does not mention it" for name in sorted(refused) if name not in text)


def _retried(session: Session, schema: str, ids: Collection[int]) -> int:
    attempts = metadata(schema).tables[f"{schema}.job_attempt"]
    count = select(func.count(attempts.c.job_id.distinct())).where(
        attempts.c.job_id.in_(ids), attempts.c.outcome.in_(("error", "timeout", "crashed"))
    )
    return session.scalar(count) or 0
