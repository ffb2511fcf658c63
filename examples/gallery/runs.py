"""How far the runs of an album are: read by the ids that the gallery's rows keep."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, cast

import psycopg
from sqlalchemy import BigInteger, any_, bindparam, literal, null, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from jobq import queries
from jobq._postgres.tables import metadata
from jobq.gallery.models import Album, Upload
from jobq.gallery.uploads import RECEIPT, SHEET, THUMBNAILS, WEB_SIZES

_WORDS = {
    "ready": "waiting",
    "parked": "waiting",
    "running": "in work",
    "blocked": "held up",
    "succeeded": "done",
    "cancelled": "dropped",
    "upstream_failed": "not run",
    "deleted": "dropped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """One job of a run as a page shows it. `attempts` counts those that have begun, of a job that has not ended."""

    id: int | None
    """None: it waits for other jobs of the run."""
    state: str
    finished: bool = False
    attempts: int = 0
    error: str | None = None

    @property
    def word(self) -> str:
        """The state in a visitor's words."""
        if self.state == "ready" and self.attempts:
            return "trying again"
        return _WORDS.get(self.state, self.state)


_WAITING = JobState(id=None, state="waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One upload's run: its state, as jobq tells it, and its jobs by node and item."""

    id: int
    state: str
    reason: str | None
    """Why it is held up, or has failed."""
    photos: tuple[int, ...]
    jobs: Mapping[tuple[str, int], JobState]

    @property
    def word(self) -> str:
        """The state in a visitor's words."""
        return _WORDS.get(self.state, self.state)

    @property
    def sheet(self) -> JobState:
        """The job that makes the contact sheet."""
        return self.jobs[SHEET, 0]

    @property
    def receipt(self) -> JobState:
        """The job that mails the receipt."""
        return self.jobs[RECEIPT, 0]

    def of_photo(self, photo_id: int) -> tuple[JobState, JobState]:
        """Return the jobs that make the photo's thumbnail and its web size."""
        item = self.photos.index(photo_id)
        return self.jobs[THUMBNAILS, item], self.jobs[WEB_SIZES, item]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStates:
    """The runs of an album, by the tokens of its uploads. A run that retention has removed is not among them."""

    runs: Mapping[str, RunState] = field(default_factory=dict)

    def __getitem__(self, token: str) -> RunState | None:
        return self.runs.get(token)

    @property
    def jobs(self) -> list[JobState]:
        """All jobs."""
        return [job for run in self.runs.values() for job in run.jobs.values()]

    @property
    def finished(self) -> int:
        """How many jobs have ended."""
        return sum(job.finished for job in self.jobs)

    @property
    def total(self) -> int:
        """How many jobs there are."""
        return len(self.jobs)

    @property
    def pending(self) -> bool:
        """Whether any run goes on without an operator."""
        return any(run.state == "running" for run in self.runs.values())


def run_states(session: Session, album: Album, schema: str = "jobq") -> RunStates:
    """Return the states of the runs that work for `album`."""
    uploads = [upload for upload in album.uploads if upload.run is not None]
    # Before the jobs: if a run is read as ended, its jobs are, too.
    runs = [_run(session, schema, upload) for upload in uploads]
    jobs = _jobs(session, [run.id for run in runs if run is not None], schema)
    found: dict[str, RunState] = {}
    for upload, run in zip(uploads, runs, strict=True):
        if run is not None:
            photos = tuple(sorted(photo.id for photo in album.photos if photo.upload_token == upload.token))
            own = jobs.get(run.id, {})
            found[upload.token] = RunState(
                id=run.id,
                state=run.state,
                reason=run.reason,
                photos=photos,
                jobs={place: own.get(place, _WAITING) for place in _places(len(photos))},
            )
    return RunStates(runs=found)


def _run(session: Session, schema: str, upload: Upload) -> queries.WorkflowInfo | None:
    """Return the run of an upload; None: retention has removed it."""
    connection = cast("psycopg.Connection[Any]", session.connection().connection.driver_connection)
    detail = queries.get_workflow(connection, schema, upload.run or 0, limit=10, explain=0)
    return None if detail is None else detail.run


def _places(photos: int) -> list[tuple[str, int]]:
    """Return the jobs of a run that makes so many photos: the node and the item of each."""
    return [*product((THUMBNAILS, WEB_SIZES), range(photos)), (SHEET, 0), (RECEIPT, 0)]


def _jobs(session: Session, runs: Collection[int], schema: str) -> dict[int, dict[tuple[str, int], JobState]]:
    """Return the jobs of these runs, live or ended, in one statement: none is missed as it moves."""
    tables = metadata(schema).tables
    node, job, ended = (tables[f"{schema}.{name}"] for name in ("workflow_node", "job", "workflow_result"))
    wanted = node.c.workflow_id == any_(bindparam("runs", sorted(runs), type_=ARRAY(BigInteger)))
    where = node.c.workflow_id, node.c.name
    live = select(*where, job.c.node_item, job.c.id, job.c.state, literal(False), job.c.attempt, null())
    done = select(*where, ended.c.item, ended.c.job_id, ended.c.state, literal(True), literal(0), ended.c.error)
    both = union_all(
        live.join(job, job.c.node_id == node.c.id).where(wanted),
        done.join(ended, ended.c.node_id == node.c.id).where(wanted),
    )
    found: dict[int, dict[tuple[str, int], JobState]] = {}
    for run, name, item, id, state, finished, attempts, error in session.execute(both):
        found.setdefault(run, {})[name, item] = JobState(
            id=id, state=state, finished=finished, attempts=attempts, error=error
        )
    return found
