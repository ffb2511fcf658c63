"""How far the jobs of an album are: read from jobq's tables by the ids in the gallery's rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import BigInteger, any_, bindparam, null, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from jobq.gallery.models import Album
from jobq.schema import FINISHED_STATES, metadata

_WORDS = {
    "ready": "waiting",
    "parked": "waiting",
    "waiting": "waiting",
    "running": "in work",
    "succeeded": "done",
    "failed": "failed",
    "cancelled": "dropped",
    "expired": "expired",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """One job as a page shows it. `attempts` counts those that have begun."""

    id: int
    state: str
    attempts: int = 0
    error: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the job has ended, well or not."""
        return self.state in FINISHED_STATES

    @property
    def word(self) -> str:
        """The state in a visitor's words."""
        if self.state == "ready" and self.attempts:
            return "trying again"
        return _WORDS.get(self.state, self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStates:
    """The jobs of one album, by id."""

    jobs: Mapping[int, JobState]

    def __getitem__(self, job_id: int | None) -> JobState | None:
        return None if job_id is None else self.jobs.get(job_id)

    @property
    def finished(self) -> int:
        """How many have ended."""
        return sum(job.finished for job in self.jobs.values())

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.jobs)

    @property
    def pending(self) -> bool:
        """Whether any is still to end."""
        return self.finished < self.total


def job_ids(album: Album) -> set[int]:
    """Return the ids of the jobs that work for `album`."""
    ids = {photo.thumbnail_job for photo in album.photos} | {photo.web_size_job for photo in album.photos}
    ids |= {upload.receipt_job for upload in album.uploads} | {album.sheet_job}
    return {job_id for job_id in ids if job_id is not None}


def job_states(session: Session, album: Album, schema: str = "jobq") -> JobStates:
    """Return the states of `album`'s jobs."""
    return JobStates(jobs=read_jobs(session, job_ids(album), schema))


def read_jobs(session: Session, ids: Collection[int], schema: str = "jobq") -> dict[int, JobState]:
    """Return the jobs with these ids, live or in history, in one statement: none is missed as it moves."""
    if not ids:
        return {}
    tables = metadata(schema).tables
    job, history = tables[f"{schema}.job"], tables[f"{schema}.job_history"]
    wanted = bindparam("ids", sorted(ids), type_=ARRAY(BigInteger))
    found = union_all(
        select(job.c.id, job.c.state, job.c.attempt, null()).where(job.c.id == any_(wanted)),
        select(history.c.id, history.c.state, history.c.attempt, history.c.error).where(history.c.id == any_(wanted)),
    )
    return {row[0]: JobState(id=row[0], state=row[1], attempts=row[2], error=row[3]) for row in session.execute(found)}
