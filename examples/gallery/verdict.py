"""Whether everything that a run of the demo should have made is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from PIL import Image
from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from jobq._postgres.tables import metadata
from jobq.gallery import pictures
from jobq.gallery.models import KINDS, Album, Photo, Upload
from jobq.gallery.receipts import message_id
from jobq.gallery.runs import RunState, RunStates, run_states
from jobq.gallery.settings import engine
from jobq.gallery.stage import Stage


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


def read(stage: Stage, sent: Sequence[Sent]) -> list[RunStates]:
    """Return the states of the runs of these uploads, by album."""
    with Session(engine(stage.settings.database_url)) as session:
        return [run_states(session, album, stage.settings.schema) for album in _albums(session, sent)]


def judge(stage: Stage, sent: Sequence[Sent], seconds: float, problems: Sequence[str] = ()) -> Summary:
    """Look at every row, file and mail of these uploads, and return what was found. `problems`: known before."""
    found = list(problems)
    with Session(engine(stage.settings.database_url)) as session:
        albums = _albums(session, sent)
        runs = {
            token: run
            for album in albums
            for token, run in run_states(session, album, stage.settings.schema).runs.items()
        }
        jobs = [job for run in runs.values() for job in run.jobs.values()]
        states = Counter(job.state for job in jobs)
        photos = [photo for album in albums for photo in album.photos]
        uploads = {upload.token: upload for album in albums for upload in album.uploads}
        files = _judge_sheets(stage, albums, found)
        for photo in photos:
            files += _judge_photo(stage, photo, runs.get(photo.upload_token), found)
        for one in sent:
            _judge_upload(stage, one, uploads.get(one.token), runs.get(one.token), found)
        retried = _retried(session, stage.settings.schema, [job.id for job in jobs if job.id is not None])
    if unfinished := sum(not job.finished for job in jobs):
        found.append(f"{unfinished} jobs have not ended")
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


def _judge_photo(stage: Stage, photo: Photo, run: RunState | None, found: list[str]) -> int:
    """Return how many files the photo has."""
    own = () if run is None else run.of_photo(photo.id)
    failed = [job for job in own if job.state == "failed"]
    if photo.refused is not None:
        if len(failed) != 1:
            found.append(f"{photo.name}: refused, but {len(failed)} jobs failed; expected one")
        elif photo.refused not in (failed[0].error or ""):
            found.append(f"{photo.name}: job {failed[0].id} does not give the reason: {failed[0].error}")
        return len(photo.files)
    for kind, job in zip(KINDS, own, strict=False):
        file = photo.file(kind)
        if file is None:
            if job.finished:  # the others are counted as not ended
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


def _judge_upload(stage: Stage, one: Sent, upload: Upload | None, run: RunState | None, found: list[str]) -> None:
    if upload is None:
        found.append(f"upload {one.token}: no row")
        return
    if run is None:
        found.append(f"upload {one.token}: no run")
    elif run.state != "succeeded":
        found.append(f"upload {one.token}: its run {run.id} is {run.state}: {run.reason}")
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
