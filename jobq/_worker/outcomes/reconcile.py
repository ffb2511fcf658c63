"""Compares the jobs that run here with those that the database has for this worker.

Writes progress.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import psycopg

from jobq._worker.database import Connection, fetch, fetch_within
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.problems import Problems
from jobq._worker.faults.suspects import BRIEF, MOST, PATIENCE, Pause, is_slow
from jobq._worker.ipc.messages import Disposition, Failure, Progress
from jobq._worker.lease import Lease
from jobq._worker.outcomes.locked_outcomes import Name
from jobq._worker.runners.pool import RunnerPool

logger = logging.getLogger("jobq.worker")

# Seconds. A claim whose answer was lost with its connection may commit later, but within a
# statement's longest time.
DOUBT = 60.0
# Seconds between two looks for strays while nothing runs here and nothing is in doubt.
IDLE_LOOK = 60.0
PROBLEM = "write a job's progress"


class Reconciler:
    """Compares the jobs of one worker on both sides, and writes their progress."""

    def __init__(self, schema: str, lease: Lease, pool: RunnerPool) -> None:
        self._schema = schema
        self._lease = lease
        self._pool = pool
        self.problems = Problems()
        """Receives the jobs whose progress cannot be written."""
        self._progress: dict[Name, Progress] = {}
        self._suspects: dict[Name, Pause] = {}
        """Executions whose progress is not written for a while."""
        self._losses = self._failures = 0
        self._singly = False
        """Whether progress is written one by one, each within a short time limit.

        Set after a write took too long or lost the session.
        """
        self._doubt_until = 0.0
        self._look_at = 0.0
        """When to look for strays although nothing runs here."""

    def doubt(self) -> None:
        """A connection was lost: the worker may own claims that it does not know of."""
        self._doubt_until = time.monotonic() + DOUBT

    def suspect(self) -> None:
        """An outcome was refused: look at the next chance.

        The database may hold a job in our name that nothing here runs.
        """
        self._look_at = 0.0

    def progressed(self, progress: Progress) -> None:
        """Take a progress report. Only a job's last report before `write_progress` is written."""
        self._progress[progress.id, progress.claims, progress.started] = progress

    def forget(self) -> None:
        """Drop everything that belongs to a lost worker identity."""
        self._progress.clear()

    async def write_progress(self, connection: Connection) -> None:
        """Write the reported progress of running jobs.

        Raises psycopg.Error if the connection is lost.
        """
        self._prune()
        if not self._progress:
            return
        now = time.monotonic()
        left, self._progress = dict(sorted(self._progress.items())), {}
        said: list[Progress] = []
        alone: list[Progress] = []
        for name, progress in left.items():
            suspect = self._suspects.get(name)
            if suspect is None:
                (alone if self._singly else said).append(progress)
            elif suspect.due <= now:
                alone.append(progress)
        self._singly = self._singly and bool(self._suspects)
        try:
            if said:
                await self._write(connection, said, None, left)
            # Executions that may be refused again come last.
            for one in sorted(alone, key=lambda one: (one.id, one.claims, one.started) in self._suspects):
                await self._write(connection, [one], BRIEF, left)
                if time.monotonic() - now > BRIEF:
                    # That is enough for now.
                    break
        finally:
            # Keep the reports, unless the jobs report something later.
            self._progress = {**left, **self._progress}

    @property
    def behind(self) -> bool:
        """Whether there is progress to write again soon."""
        return any(name not in self._suspects for name in self._progress)

    def _prune(self) -> None:
        """Forget executions that have ended."""
        if not self._suspects:
            return
        for name in [name for name in self._suspects if not self._pool.holds(*name)]:
            del self._suspects[name]
            self._progress.pop(name, None)
            self.problems.clear(PROBLEM, job=name[0])

    async def _write(
        self, connection: Connection, said: list[Progress], within: float | None, left: dict[Name, Progress]
    ) -> None:
        """Write `said`, in halves if it is refused, and remove what is written from `left`.

        Raises psycopg.Error if the connection is lost, or if the reason is unknown.
        """
        try:
            await self._put(connection, said, within)
        except psycopg.Error as error:
            kind, slow = classify(error, connection), is_slow(error)
            transient = kind is ErrorKind.TRANSIENT and not slow
            self._losses += kind is ErrorKind.CONNECTION
            self._failures += transient
            tired = self._losses >= PATIENCE or self._failures > PATIENCE
            self._singly = self._singly or slow or tired
            if len(said) == 1 and (tired or slow or kind is ErrorKind.REFUSED):
                self._mute(said[0], error)
            if kind is ErrorKind.CONNECTION or (transient and not tired):
                raise
            if len(said) == 1 or slow or transient:
                return
            middle = len(said) // 2
            for half in (said[:middle], said[middle:]):
                await self._write(connection, half, within, left)
            return
        self._losses = self._failures = 0
        for one in said:
            name = (one.id, one.claims, one.started)
            left.pop(name, None)
            if self._suspects and self._suspects.pop(name, None) is not None:
                self.problems.clear(PROBLEM, job=one.id)

    def _mute(self, one: Progress, error: psycopg.Error) -> None:
        if len(self._suspects) >= MOST:
            del self._suspects[next(iter(self._suspects))]
        self._suspects.setdefault((one.id, one.claims, one.started), Pause()).again(error)
        self.problems.note(PROBLEM, error, job=one.id)

    async def _put(self, connection: Connection, said: list[Progress], within: float | None) -> None:
        await fetch_within(
            within,
            connection,
            self._schema,
            "progress",
            worker=self._lease.worker,
            ids=[p.id for p in said],
            claims=[p.claims for p in said],
            started=[p.started for p in said],
            done=[p.done for p in said],
            totals=[p.total for p in said],
        )

    async def strays(self, connection: Connection, ended: Callable[[], set[Name]]) -> list[Failure]:
        """Return releases of jobs that the database has for this worker and that no part of it has.

        The query runs on the connection that claims, between two claims, so no claim of ours is
        under way. A job that is not here was lost with a statement whose answer never arrived. An
        idle worker also looks, but less often. `ended`: returns the names of ended executions whose
        outcomes are not written.
        """
        now = time.monotonic()
        if not self._pool.held and now > self._doubt_until and now < self._look_at:
            return []
        self._look_at = now + IDLE_LOOK
        rows = await fetch(connection, self._schema, "jobs_of_worker", worker=self._lease.worker)
        # Call this only now: a job that a runner reported while the statement ran has moved from
        # the running to the ended ones.
        known = ended()
        found = []
        for job_id, claims, started in rows:
            if (job_id, claims, started) not in known and not self._pool.holds(job_id, claims, started):
                logger.warning("giving back a job that was claimed and never arrived", extra={"job": job_id})
                found.append(Failure(job_id, claims, started, Disposition.RELEASE))
        return found
