"""Keeping the account straight: what runs here against what the database thinks runs here; and what running jobs report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from jobq.worker.database import Connection, fetch
from jobq.worker.ended import Name
from jobq.worker.frames import Ending, Progress, Setback
from jobq.worker.lease import Lease
from jobq.worker.pool import RunnerPool

logger = logging.getLogger("jobq.worker")

# A claim whose answer was lost with its connection may still commit while we look: for longer than any statement may take.
DOUBT = 60.0
# How often strays are looked for while nothing runs here and nothing is in doubt, in seconds.
IDLE_LOOK = 60.0


class Account:
    """The jobs of one worker as both sides see them."""

    def __init__(self, schema: str, lease: Lease, pool: RunnerPool) -> None:
        self._schema = schema
        self._lease = lease
        self._pool = pool
        self._progress: dict[Name, Progress] = {}
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
        """Write down what running jobs have said of their progress."""
        if not self._progress:
            return
        said = [self._progress[name] for name in sorted(self._progress)]
        self._progress.clear()
        await fetch(
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
        """Return releases of the jobs that the database holds in our name and that nobody here has.

        Asked on the connection that claims, between two claims, so that no claim of ours is on its way: what nobody has was
        lost with a statement whose answer we never saw. `ended`: the names of what has ended here and is not written down.
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
