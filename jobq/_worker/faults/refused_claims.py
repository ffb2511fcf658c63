"""Claims that the database refuses.

The job that causes the refusal is found, and only this job is left out for a while. A trigger, a
constraint added later, a policy or a damaged row makes the whole statement fail. Then fewer jobs
are claimed at a time, down to one, so the jobs before the bad one are claimed on the way. The first
of the next jobs is locked and claimed in the same transaction, so it is known which job is refused.
While such jobs exist, a variant of the statement leaves them out, and each of them is tried again
separately, at growing intervals. If there are none, this costs no database work.

Jobs whose claim takes too long, or ends the session three times, are found in the same way. Once a
claim has taken too long, claims get a short timeout and are sent separately from acknowledgements,
for as long as such a job is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import psycopg

from jobq._worker.database import Connection, fetch_within
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.problems import Problems
from jobq._worker.faults.suspects import BRIEF, FIRST_PAUSE, MOST, MOST_IN_A_ROW, PATIENCE, Suspects, is_slow
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.ipc.messages import Failure, Success
from jobq._worker.lanes.cursor import ClaimPlan, Position, scan_parameters
from jobq._worker.statements.parameters import MAX_BATCH
from jobq._worker.statements.results import Claimed

JOB = "claim a job"
ALL = "claim"


class ClaimStore(Protocol):
    """What claims jobs: the `JobStore`."""

    async def advance(
        self,
        connection: Connection,
        worker: UUID,
        successes: list[Success],
        scan: ClaimPlan,
        want: int,
        *,
        refused: Sequence[int] = (),
        within: float | None = None,
    ) -> tuple[Claimed, list[Failure]]:
        """Acknowledge `successes` and claim jobs, in one statement. Raises psycopg.Error."""


@dataclass(slots=True)
class _Refused:
    queue: str
    priority: int
    at: Position
    transient: bool = False
    """Whether its claim failed for lack of locks or resources."""

    @property
    def scan(self) -> ClaimPlan:
        return ClaimPlan(queues=[self.queue], priorities=[self.priority], since=[self.at])


class RefusedClaims:
    """The refused claims of one worker."""

    def __init__(self, schema: str, store: ClaimStore, problems: Problems, repeats: RateLimitedLog) -> None:
        self._schema = schema
        self._store = store
        self._problems = problems
        self._repeats = repeats
        self._jobs: dict[int, _Refused] = {}
        self._suspects: Suspects[int] = Suspects()
        self._failures = 0
        self._losses = 0
        self._in_a_row = 0
        self._slow = False
        """Whether a recent claim has taken too long."""
        self.most = MAX_BATCH
        """Number of jobs to claim at a time."""
        self.closed_until = 0.0
        """Time before which no claim is made, in time.monotonic() seconds."""
        self.looking = False
        """Whether a claim has failed and no claim has succeeded since."""

    @property
    def ids(self) -> list[int]:
        """Ids of the jobs to leave out."""
        return list(self._jobs)

    @property
    def due_at(self) -> float:
        """When to try a job again, in time.monotonic() seconds; infinity if there is none."""
        return self._suspects.due_at

    @property
    def any(self) -> bool:
        """Whether jobs are left out, or the bad job is not known yet.

        Then claims have statements of their own.
        """
        return self.apart or bool(self._jobs)

    @property
    def within(self) -> float | None:
        """Maximum seconds for a claim; None if the usual limit applies."""
        return BRIEF if self._slow or self._suspects.slow else None

    @property
    def apart(self) -> bool:
        """Whether acknowledgements and claims must use separate statements."""
        return self.looking or self.within is not None

    @property
    def lose_sessions(self) -> bool:
        """Whether claims lose their sessions. Then use only `find`."""
        return self._losses >= PATIENCE

    def forget(self) -> None:
        """Allow claims again after the connection was lost: the cause may be gone with it."""
        self.closed_until = 0.0

    def lost(self) -> None:
        """Note that a claim has lost its session."""
        self.looking = True
        self._losses += 1

    def went_well(self) -> None:
        """Note that a claim has succeeded."""
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
        self, connection: Connection, worker: UUID, scan: ClaimPlan, want: int, error: psycopg.Error
    ) -> Claimed:
        """Investigate the failure of a claim of up to `want` jobs whose connection is intact.

        Returns the jobs claimed by the investigation. Raises psycopg.Error if the connection is
        lost.
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
            # Whatever the reason is, it may disappear for all of these jobs at once.
            for job_id in self.ids[-self._in_a_row :]:
                self._jobs[job_id].transient = True
        self._in_a_row = 0
        return Claimed()

    async def find(self, connection: Connection, worker: UUID, scan: ClaimPlan) -> Claimed | None:
        """Claim one job, or leave it out if its claim is refused.

        Returns None if no single job is the reason. Raises psycopg.Error if the connection is lost.
        In this case too, the job is left out if claims have lost their connections repeatedly.
        """
        ids = self.ids
        head: list[tuple[Any, ...]] = []
        parameters = scan_parameters(scan)
        try:
            async with connection.transaction():
                head = await fetch_within(
                    self.within, connection, self._schema, "claim_head", refused=ids, **parameters
                )
                claimed, _ = await self._store.advance(connection, worker, [], scan, 1, refused=ids, within=self.within)
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
        """Try to claim a job that was left out for long enough.

        Args:
            connection: The connection for the claim.
            worker: Id of this worker.
            serves: Returns whether plain claims read a queue now. The queue may have been paused,
                or may have got rules.

        Raises:
            psycopg.Error: The connection is lost.
        """
        job_id = self._suspects.next()
        if job_id is None:
            return Claimed()
        job = self._jobs[job_id]
        if not serves(job.queue):
            # If a claim meets this job again, the job is found again.
            self._let_in(job_id)
            return Claimed()
        others = [other for other in self._jobs if other != job_id]
        try:
            # Claim from the job's own position: it is the first, unless another worker has claimed
            # it.
            claimed, _ = await self._store.advance(
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
