"""Claims that the database refuses: which job is the reason is found, and that job alone is left out, for a while.

A trigger, a constraint that came later, a policy or a damaged row makes the whole statement fail. Then fewer jobs are claimed
at a time, down to one: those before the bad one are claimed on the way. The first of the next is locked and its claim tried in
the same transaction, so it is known which one is refused. While such jobs exist, a variant of the statement is used that leaves
them out, and each is tried again by itself, ever more rarely. Without any, nothing of this is asked of the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from jobq.worker.cursor import Position, Scan
from jobq.worker.database import Connection, fetch
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.outcomes import MAX_BATCH, Claimed, Ledger, scan_parameters
from jobq.worker.problems import Problems
from jobq.worker.stalls import Repeats

# Seconds until a refused job is tried again: doubled each time. One whose claim took too long holds up all others.
FIRST_PAUSE = 1.0
FIRST_PAUSE_SLOW = 60.0
LONGEST_PAUSE = 300.0
# A claim that has failed so many times for want of locks or resources is made smaller: one row may be the reason.
PATIENCE = 3
# So many refused jobs in a row, with no claim between them: it is no matter of single jobs.
MOST_IN_A_ROW = 20
# As many are left out, at most: their ids are sent with each claim.
MOST = 1_000
JOB = "claim a job"
ALL = "claim"


@dataclass(slots=True)
class _Refused:
    queue: str
    priority: int
    at: Position
    due: float
    tries: int = 0
    transient: bool = False
    """Its claim lacked locks, time or resources."""

    @property
    def scan(self) -> Scan:
        return Scan(queues=[self.queue], priorities=[self.priority], since=[self.at])


class RefusedClaims:
    """One worker's."""

    def __init__(self, schema: str, ledger: Ledger, problems: Problems, repeats: Repeats) -> None:
        self._schema = schema
        self._ledger = ledger
        self._problems = problems
        self._repeats = repeats
        self._jobs: dict[int, _Refused] = {}
        self._failures = 0
        self._in_a_row = 0
        self.most = MAX_BATCH
        """How many jobs to claim at a time."""
        self.closed_until = 0.0
        """Until when nothing is to be claimed, in time.monotonic() seconds."""
        self.looking = False
        """Whether a claim has failed and none has succeeded since: acknowledgements are not to share its statement."""

    @property
    def ids(self) -> list[int]:
        """Return the jobs to leave out."""
        return list(self._jobs)

    @property
    def due_at(self) -> float:
        """When to try one of them again, in time.monotonic(); infinity: there is none."""
        return min((job.due for job in self._jobs.values()), default=float("inf"))

    @property
    def any(self) -> bool:
        """Whether jobs are left out, or it is not known yet which: claims have their statements to themselves."""
        return self.looking or bool(self._jobs)

    def forget(self) -> None:
        """The connection was lost, and with it the reason, perhaps."""
        self.closed_until = 0.0

    def went_well(self) -> None:
        """A claim went well."""
        if not self.looking and self.most == MAX_BATCH:
            return
        if self.looking:
            self._problems.clear(ALL)
            for job in self._jobs.values():
                if job.transient:
                    job.due = min(job.due, time.monotonic() + FIRST_PAUSE)
        self.looking, self._failures, self._in_a_row = False, 0, 0
        self.most = min(2 * self.most, MAX_BATCH)

    async def failed(
        self, connection: Connection, worker: UUID, scan: Scan, want: int, error: psycopg.Error
    ) -> Claimed:
        """A claim of up to `want` jobs has failed, but not its connection. Find out more; return what that claimed.

        Raises psycopg.Error when the connection is lost.
        """
        self.looking = True
        self._failures += 1
        refused = classify(error, connection) is ErrorKind.REFUSED
        if refused or isinstance(error, psycopg.errors.QueryCanceled) or self._failures > PATIENCE:
            if want > 1:
                self.most = want // 2
                return Claimed()
            if self._in_a_row < MOST_IN_A_ROW and len(self._jobs) < MOST:
                found = await self._find(connection, worker, scan)
                if found is not None:
                    return found
        longest = 5.0 if refused else 0.25
        self.closed_until = time.monotonic() + min(0.05 * 2.0 ** min(self._failures, 10), longest)
        self._in_a_row = 0
        return Claimed()

    async def _find(self, connection: Connection, worker: UUID, scan: Scan) -> Claimed | None:
        """Leave out the job whose claim is refused, and return what was claimed instead; None: there is no such job."""
        ids = self.ids
        head: list[tuple[Any, ...]] = []
        try:
            async with connection.transaction():
                head = await fetch(connection, self._schema, "claim_head", refused=ids, **scan_parameters(scan))
                if not head:
                    return None
                claimed, _ = await self._ledger.advance(connection, worker, [], scan, 1, refused=ids)
        except psycopg.Error as error:
            kind = classify(error, connection)
            if kind is ErrorKind.CONNECTION:
                raise
            if not head:
                return None
            place, job_id, run_at = head[0]
            job = _Refused(scan.queues[place], scan.priorities[place], (run_at, job_id), 0.0)
            self._jobs[job_id] = job
            self._in_a_row += 1
            self._leave_out(job_id, job, error, transient=kind is ErrorKind.TRANSIENT)
            return Claimed()
        return claimed

    async def retry(self, connection: Connection, worker: UUID, serves: Callable[[str], bool]) -> Claimed:
        """Try the claim of a job that was left out for long enough. Raises psycopg.Error when the connection is lost.

        `serves` tells whether plain claims look at a queue now: it may have been paused since, or have rules.
        """
        now = time.monotonic()
        job_id, job = min(self._jobs.items(), key=lambda item: item[1].due)
        if job.due > now:
            return Claimed()
        if not serves(job.queue):
            # A claim that meets it again finds it again.
            del self._jobs[job_id]
            self._problems.clear(JOB, job=job_id, queue=job.queue)
            return Claimed()
        others = [other for other in self._jobs if other != job_id]
        try:
            # From its own place on: it is the first, unless another worker has claimed it meanwhile.
            claimed, _ = await self._ledger.advance(connection, worker, [], job.scan, 1, refused=others)
        except psycopg.Error as error:
            kind = classify(error, connection)
            if kind is ErrorKind.CONNECTION:
                raise
            self._leave_out(job_id, job, error, transient=kind is ErrorKind.TRANSIENT)
            return Claimed()
        del self._jobs[job_id]
        self._problems.clear(JOB, job=job_id, queue=job.queue)
        if self._jobs:
            # What stood in its way may have stood in theirs.
            min(self._jobs.values(), key=lambda other: other.due).due = now
        return claimed

    def _leave_out(self, job_id: int, job: _Refused, error: psycopg.Error, *, transient: bool) -> None:
        first = FIRST_PAUSE_SLOW if isinstance(error, psycopg.errors.QueryCanceled) else FIRST_PAUSE
        job.due = time.monotonic() + min(first * 2.0 ** min(job.tries, 20), LONGEST_PAUSE)
        job.tries += 1
        job.transient = transient
        self._problems.note(JOB, error, job=job_id, queue=job.queue)
        self._repeats.warn(
            "a job cannot be claimed: it is left out, and tried again ever more rarely", error, job=job_id
        )
