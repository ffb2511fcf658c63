"""Keeping the account straight: what runs here against what the database thinks runs here; and what running jobs report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import psycopg

from jobq.worker.database import Connection, fetch, fetch_within
from jobq.worker.ended import Name
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.frames import Ending, Progress, Setback
from jobq.worker.lease import Lease
from jobq.worker.pool import RunnerPool
from jobq.worker.problems import Problems
from jobq.worker.suspects import BRIEF, MOST, PATIENCE, Pause, is_slow

logger = logging.getLogger("jobq.worker")

# A claim whose answer was lost with its connection may still commit while we look: for longer than any statement may take.
DOUBT = 60.0
# How often strays are looked for while nothing runs here and nothing is in doubt, in seconds.
IDLE_LOOK = 60.0
PROBLEM = "write a job's progress"


class Account:
    """The jobs of one worker as both sides see them."""

    def __init__(self, schema: str, lease: Lease, pool: RunnerPool) -> None:
        self._schema = schema
        self._lease = lease
        self._pool = pool
        self.problems = Problems()
        """Where it says whose progress cannot be written."""
        self._progress: dict[Name, Progress] = {}
        self._suspects: dict[Name, Pause] = {}
        """Executions whose progress is not written for a while."""
        self._losses = self._failures = 0
        self._singly = False
        """Whether progress is written one by one, each in little time, after one that took too long or the session."""
        self._doubt_until = 0.0
        self._look_at = 0.0
        """When to look for strays although nothing runs here."""

    def doubt(self) -> None:
        """A connection was lost: claims that we do not know of may be in our name."""
        self._doubt_until = time.monotonic() + DOUBT

    def suspect(self) -> None:
        """An outcome was refused: the database may hold a job in our name that nothing here runs. Look at the next chance."""
        self._look_at = 0.0

    def progressed(self, progress: Progress) -> None:
        """A job reports progress; its last word before `write_progress` counts."""
        self._progress[progress.id, progress.claims, progress.started] = progress

    def forget(self) -> None:
        """Drop what belongs to an identity that is no longer ours."""
        self._progress.clear()

    async def write_progress(self, connection: Connection) -> None:
        """Write down what running jobs have said of their progress. Raises psycopg.Error when the connection is lost."""
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
            # Those that may be refused again come last.
            for one in sorted(alone, key=lambda one: (one.id, one.claims, one.started) in self._suspects):
                await self._write(connection, [one], BRIEF, left)
                if time.monotonic() - now > BRIEF:
                    # That is enough for now.
                    break
        finally:
            # Until they say something later.
            self._progress = {**left, **self._progress}

    @property
    def behind(self) -> bool:
        """Whether there is progress to be written again soon."""
        return any(name not in self._suspects for name in self._progress)

    def _prune(self) -> None:
        """Forget what has ended."""
        if not self._suspects:
            return
        for name in [name for name in self._suspects if not self._pool.holds(*name)]:
            del self._suspects[name]
            self._progress.pop(name, None)
            self.problems.clear(PROBLEM, job=name[0])

    async def _write(
        self, connection: Connection, said: list[Progress], within: float | None, left: dict[Name, Progress]
    ) -> None:
        """Write this, in halves if it is refused, and take it from `left`.

        Raises psycopg.Error when the connection is lost, or nothing is known of the reason.
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

    async def strays(self, connection: Connection, ended: Callable[[], set[Name]]) -> list[Setback]:
        """Return releases of the jobs that the database holds in our name and that no part of this worker has.

        Asked on the connection that claims, between two claims, so that no claim of ours is on its way: a job that is not here
        was lost with a statement whose answer we never saw. `ended`: the names of what has ended here and is not written down.
        An idle worker looks, too, though not as often.
        """
        now = time.monotonic()
        if not self._pool.held and now > self._doubt_until and now < self._look_at:
            return []
        self._look_at = now + IDLE_LOOK
        rows = await fetch(connection, self._schema, "held_jobs", worker=self._lease.worker)
        # Only now: what a runner reported while the statement was on its way has gone from its jobs to the ended ones.
        known = ended()
        found = []
        for job_id, claims, started in rows:
            if (job_id, claims, started) not in known and not self._pool.holds(job_id, claims, started):
                logger.warning("giving back a job that was claimed and never arrived", extra={"job": job_id})
                found.append(Setback(job_id, claims, started, Ending.RELEASE))
        return found
