"""Claims that the database refuses: which job is the reason is found, and that job alone is left out, for a while.

A trigger, a constraint that came later, a policy or a damaged row makes the whole statement fail. Then fewer jobs are claimed
at a time, down to one: those before the bad one are claimed on the way. The first of the next is locked and its claim tried in
the same transaction, so it is known which one is refused. While such jobs exist, a variant of the statement is used that leaves
them out, and each is tried again by itself, ever more rarely. Without any, nothing of this is asked of the database.

What takes too long, or ends the session three times, is found in the same way. Once a claim has taken too long, claims are made
under a short timeout, and apart from acknowledgements, for as long as such a job is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from jobq.worker.cursor import Position, Scan
from jobq.worker.database import Connection, fetch_within
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.outcomes import MAX_BATCH, Claimed, Ledger, scan_parameters
from jobq.worker.problems import Problems
from jobq.worker.stalls import Repeats
from jobq.worker.suspects import BRIEF, FIRST_PAUSE, MOST, MOST_IN_A_ROW, PATIENCE, Suspects, is_slow

JOB = "claim a job"
ALL = "claim"


@dataclass(slots=True)
class _Refused:
    queue: str
    priority: int
    at: Position
    transient: bool = False
    """Its claim lacked locks or resources."""

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
        self._suspects: Suspects[int] = Suspects()
        self._failures = 0
        self._losses = 0
        self._in_a_row = 0
        self._slow = False
        """Whether a claim has taken too long a short while ago."""
        self.most = MAX_BATCH
        """How many jobs to claim at a time."""
        self.closed_until = 0.0
        """Until when nothing is to be claimed, in time.monotonic() seconds."""
        self.looking = False
        """Whether a claim has failed and none has succeeded since."""

    @property
    def ids(self) -> list[int]:
        """Return the jobs to leave out."""
        return list(self._jobs)

    @property
    def due_at(self) -> float:
        """When to try one of them again, in time.monotonic(); infinity: there is none."""
        return self._suspects.due_at

    @property
    def any(self) -> bool:
        """Whether jobs are left out, or it is not known yet which: claims have their statements to themselves."""
        return self.apart or bool(self._jobs)

    @property
    def within(self) -> float | None:
        """How many seconds a claim may take; None: as many as any statement."""
        return BRIEF if self._slow or self._suspects.slow else None

    @property
    def apart(self) -> bool:
        """Whether acknowledgements are not to share the statement of claims."""
        return self.looking or self.within is not None

    @property
    def lose_sessions(self) -> bool:
        """Whether claims lose their sessions: then only `find` is to be used."""
        return self._losses >= PATIENCE

    def forget(self) -> None:
        """The connection was lost, and with it the reason, perhaps."""
        self.closed_until = 0.0

    def lost(self) -> None:
        """A claim has lost its session."""
        self.looking = True
        self._losses += 1

    def went_well(self) -> None:
        """A claim went well."""
        self._losses = 0
        if not self.looking and self.most == MAX_BATCH:
            self._slow = False
            return
        if self.looking:
            self._problems.clear(ALL)
            for job_id, job in self._jobs.items():
                if job.transient:
                    self._suspects.sooner(job_id, FIRST_PAUSE)
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
        slow = is_slow(error)
        self._slow = self._slow or slow
        refused = classify(error, connection) is ErrorKind.REFUSED
        if refused or slow or self._failures > PATIENCE:
            if want > 1:
                self.most = 1 if slow else want // 2
                return Claimed()
            if self._in_a_row < MOST_IN_A_ROW and len(self._jobs) < MOST:
                found = await self.find(connection, worker, scan)
                if found is not None:
                    return found
        longest = 5.0 if refused else 0.25
        self.closed_until = time.monotonic() + min(0.05 * 2.0 ** min(self._failures, 10), longest)
        if self._in_a_row:
            # Whatever it is, it may be over for all of them at once.
            for job_id in self.ids[-self._in_a_row :]:
                self._jobs[job_id].transient = True
        self._in_a_row = 0
        return Claimed()

    async def find(self, connection: Connection, worker: UUID, scan: Scan) -> Claimed | None:
        """Claim one job; or leave it out, if its claim is refused. None: no single job is the reason.

        Raises psycopg.Error when the connection is lost; then, too, the job is left out if claims have lost theirs repeatedly.
        """
        ids = self.ids
        head: list[tuple[Any, ...]] = []
        parameters = scan_parameters(scan)
        try:
            async with connection.transaction():
                head = await fetch_within(
                    self.within, connection, self._schema, "claim_head", refused=ids, **parameters
                )
                claimed, _ = await self._ledger.advance(
                    connection, worker, [], scan, 1, refused=ids, within=self.within
                )
        except psycopg.Error as error:
            kind = classify(error, connection)
            lost = kind is ErrorKind.CONNECTION
            if head and (not lost or self._losses >= PATIENCE):
                place, job_id, run_at = head[0]
                job = _Refused(scan.queues[place], scan.priorities[place], (run_at, job_id))
                self._jobs[job_id] = job
                self._in_a_row += 1
                self._leave_out(job_id, job, error, transient=kind is ErrorKind.TRANSIENT)
            if lost:
                raise
            return Claimed() if head else None
        return claimed

    async def retry(self, connection: Connection, worker: UUID, serves: Callable[[str], bool]) -> Claimed:
        """Try the claim of a job that was left out for long enough. Raises psycopg.Error when the connection is lost.

        `serves` tells whether plain claims look at a queue now: it may have been paused since, or have rules.
        """
        job_id = self._suspects.next()
        if job_id is None:
            return Claimed()
        job = self._jobs[job_id]
        if not serves(job.queue):
            # A claim that meets it again finds it again.
            self._let_in(job_id)
            return Claimed()
        others = [other for other in self._jobs if other != job_id]
        try:
            # From its own place on: it is the first, unless another worker has claimed it meanwhile.
            claimed, _ = await self._ledger.advance(
                connection, worker, [], job.scan, 1, refused=others, within=self._suspects.within(job_id)
            )
        except psycopg.Error as error:
            kind = classify(error, connection)
            self._leave_out(job_id, job, error, transient=kind is ErrorKind.TRANSIENT)
            if kind is ErrorKind.CONNECTION:
                raise
            return Claimed()
        self._let_in(job_id)
        return claimed

    def _let_in(self, job_id: int) -> None:
        self._problems.clear(JOB, job=job_id, queue=self._jobs.pop(job_id).queue)
        self._suspects.let_in(job_id)

    def _leave_out(self, job_id: int, job: _Refused, error: psycopg.Error, *, transient: bool) -> None:
        self._suspects.leave_out(job_id, error)
        job.transient = transient and not is_slow(error)
        self._problems.note(JOB, error, job=job_id, queue=job.queue)
        self._repeats.warn(
            "a job cannot be claimed: it is left out, and tried again ever more rarely", error, job=job_id
        )
