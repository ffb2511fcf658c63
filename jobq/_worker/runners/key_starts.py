"""Claimed jobs that hold their keys until they start, and wait here for a free slot.

A claim is not a start: an enqueue with such a key before the job runs must reach this very job.
Therefore these jobs are not sent to a runner that would keep them waiting. When a slot is free, one
statement (start_jobs.sql) releases their keys and returns their current arguments. A runner gets
the jobs only after that commit.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from jobq._worker.database import Connection, fetch, fetch_within
from jobq._worker.database_errors import ErrorKind
from jobq._worker.faults.suspects import BRIEF, MOST, PATIENCE, Pause, is_slow
from jobq._worker.ipc.messages import Job

# Seconds that a job waits here for a slot before it goes back to the database.
WAIT_AT_MOST = 1.0
# Seconds until the next try for a job whose row a caller's transaction has locked.
LOCKED_RETRY = 0.05
# Seconds of such tries before the job is put back, and the number of jobs that are tried at a time.
LOCKED_AT_MOST = 1.0
MOST_LOCKED = 200
# Seconds until the next try after a statement that a row refused, and after one without a lock or
# time.
FAILED_RETRY = 0.01
TRANSIENT_RETRY = 0.25
# Seconds, at the least, until a job may be claimed again after the database refused its start.
REFUSED_FOR = 60.0
REFUSED = "start a job"
# Seconds, at the least, until such a job may be claimed again.
PUT_BACK_FOR = 1.0


Startable = Callable[[list[Job]], list[Job]]
"""Returns the jobs for which there are slots."""


@dataclass(slots=True)
class Waiting:
    """A waiting job, the worker that claimed it, and since when it waits and is locked."""

    job: Job
    worker: UUID
    since: float
    locked_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Result of start_jobs.sql: the jobs that start, that go back, and that had expired."""

    start: list[Job] = field(default_factory=list)
    back: list[Job] = field(default_factory=list)
    expired: list[Job] = field(default_factory=list)
    lost: list[Job] = field(default_factory=list)
    locked: list[Job] = field(default_factory=list)


def judged(jobs: Sequence[Job], rows: Sequence[tuple[Any, ...]]) -> Verdicts:
    """Parse the rows of start_jobs.sql for `jobs`."""
    by_id = {job.id: job for job in jobs}
    found = Verdicts()
    lists = {
        "start": found.start,
        "later": found.back,
        "expired": found.expired,
        "lost": found.lost,
        "locked": found.locked,
    }
    for job_id, verdict, args, headers in rows:
        job = by_id[job_id]
        if verdict == "start":
            job = msgspec.structs.replace(job, args=args.encode(), headers=headers.encode())
        lists[verdict].append(job)
    return found


def names(jobs: Sequence[Job]) -> dict[str, list[int]]:
    """Return the parameters that identify these executions in statements, ordered by id."""
    ordered = sorted(jobs, key=lambda job: job.id)
    return {
        "ids": [job.id for job in ordered],
        "claims": [job.claims for job in ordered],
        "started": [job.started for job in ordered],
    }


class Starts:
    """The jobs of one worker that are claimed, have not started, and hold keys until they start.

    Lives in the dispatcher's event loop.
    """

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._locked: dict[int, Waiting] = {}
        self._asked: dict[int, Waiting] = {}
        """Jobs in the statement that is under way."""
        self._try_locked_at = 0.0
        self._again_at = 0.0
        """No statement before this time, after one that failed."""
        self._one_by_one = False
        """Whether a statement has failed because of one of its jobs, and that job is unknown."""
        self._last: tuple[int, ...] = ()
        """The ids of the last statement."""
        self._failures = 0
        self._losses = 0
        self._slow = False
        """Whether a statement has taken too long, and the job that is the reason is unknown."""
        self._suspects: dict[int, Pause] = {}
        """Jobs whose start has failed while they were alone.

        They start alone, within a short time limit.
        """

    def __len__(self) -> int:
        """Number of jobs that wait for a slot."""
        return len(self._waiting) + sum(waiting.locked_since is None for waiting in self._asked.values())

    @property
    def held(self) -> int:
        """Number of jobs here: waiting for a slot, locked, or in the statement under way."""
        return len(self._waiting) + len(self._locked) + len(self._asked)

    def holds(self, job_id: int, claims: int, started: int) -> bool:
        """Return whether this execution is here."""
        if not self.held:
            return False
        here = (*self._waiting, *self._locked.values(), *self._asked.values())
        return any((one.job.id, one.job.claims, one.job.started) == (job_id, claims, started) for one in here)

    def give(self, jobs: list[Job], worker: UUID, now: float) -> None:
        """Take over jobs that `worker` has claimed."""
        self._waiting.extend(Waiting(job, worker, now) for job in jobs)

    def due(self, startable: Startable, now: float) -> bool:
        """Return whether some jobs can be started."""
        return bool(self.held and now >= self._again_at and startable([one.job for one in self._candidates(now)]))

    def due_at(self, startable: Startable) -> float:
        """Return when to try locked or failed jobs again, in time.monotonic() seconds.

        Infinity: there are none.
        """
        if self._again_at > time.monotonic() and self.held:
            return self._again_at
        could = self._locked and startable([one.job for one in self._locked.values()])
        return self._try_locked_at if could else math.inf

    def failed(self, error: psycopg.Error, kind: ErrorKind) -> list[tuple[Job, float]]:
        """Handle a failure of the last statement. Try again soon, one job at a time.

        Return the job that is the reason, with the seconds for which to leave it alone. The job is
        removed from here. This happens once the job was alone in a statement, and the statement was
        refused, took too long, or failed otherwise a few times. Otherwise the list is empty.
        """
        slow = is_slow(error)
        self._slow = self._slow or slow
        lost, transient = kind is ErrorKind.CONNECTION, kind is ErrorKind.TRANSIENT and not slow
        self._losses += lost
        self._failures += transient
        enough = self._losses >= PATIENCE if lost else self._failures > PATIENCE if transient else True
        self._again_at = time.monotonic() + (FAILED_RETRY if enough else TRANSIENT_RETRY)
        if lost and not enough:
            return []
        if len(self._last) == 1 and (enough or self._last[0] in self._suspects):
            [job_id] = self._last
            if len(self._suspects) >= MOST:
                del self._suspects[next(iter(self._suspects))]
            pause = self._suspects.setdefault(job_id, Pause())
            pause.again(error)
            self._failures = self._losses = 0
            return [(job, max(REFUSED_FOR, pause.due - time.monotonic())) for job in self.withdraw({job_id})]
        self._one_by_one = True
        return []

    def _chosen(self, jobs: list[Job]) -> set[int]:
        """Return the ids of the jobs to start next, from `jobs`."""
        if self._suspects and (others := [job for job in jobs if job.id not in self._suspects]) != jobs:
            jobs = others or jobs[:1]
        return {job.id for job in jobs[: 1 if self._one_by_one else None]}

    @property
    def _within(self) -> float | None:
        if len(self._last) == 1 and (suspect := self._suspects.get(self._last[0])) is not None:
            return suspect.within
        return BRIEF if self._slow else None

    def _candidates(self, now: float) -> list[Waiting]:
        locked = self._locked.values() if now >= self._try_locked_at else ()
        return [*locked, *self._waiting]

    async def start(self, connection: Connection, schema: str, worker: UUID, startable: Startable) -> Verdicts:
        """Start those jobs claimed by `worker` for which there are slots.

        Raises psycopg.Error. The jobs of the statement then wait here again; for the database, they
        may have started.
        """
        candidates = self._candidates(time.monotonic())
        chosen = self._chosen(startable([one.job for one in candidates]))
        if not chosen:
            return Verdicts()
        self._last = tuple(chosen)
        self._asked = {one.job.id: one for one in candidates if one.job.id in chosen}
        self._waiting = deque(one for one in self._waiting if one.job.id not in chosen)
        self._locked = {job_id: one for job_id, one in self._locked.items() if job_id not in chosen}
        jobs = [one.job for one in self._asked.values()]
        try:
            rows = await fetch_within(self._within, connection, schema, "start_jobs", worker=worker, **names(jobs))
        except BaseException:
            self._waiting.extendleft(reversed(self._asked.values()))
            self._asked.clear()
            raise
        now = time.monotonic()
        # Jobs that were withdrawn in the meantime are not known here any more. Their withdrawal
        # decided what happens to them.
        found = judged(jobs, [row for row in rows if row[0] in self._asked])
        for job in found.locked:
            one = self._asked[job.id]
            one.locked_since = one.locked_since or now
            self._locked[job.id] = one
        if found.locked:
            self._try_locked_at = now + LOCKED_RETRY
        self._asked.clear()
        self._failures = self._losses = 0
        for job in found.start if self._suspects else ():
            self._suspects.pop(job.id, None)
        self._one_by_one = self._one_by_one and self.held > 0
        self._slow = self._slow and self._one_by_one
        return found

    def stubborn(self, now: float) -> list[Job]:
        """Return the jobs that have been locked for too long, or are too many.

        Call `put_back` next.
        """
        beyond = len(self._locked) - MOST_LOCKED
        return [
            one.job
            for n, one in enumerate(self._locked.values())
            if n < beyond or now - (one.locked_since or now) > LOCKED_AT_MOST
        ]

    async def put_back(self, connection: Connection, schema: str, worker: UUID, jobs: list[Job]) -> list[Job]:
        """Put locked jobs back for a while, and release their keys.

        Return the jobs that were put back. Raises psycopg.Error.
        """
        rows = await fetch(
            connection,
            schema,
            "unclaim_locked",
            worker=worker,
            **names(jobs),
            delay=PUT_BACK_FOR,
            let_go=True,
        )
        done = [self._locked.pop(job_id).job for (job_id,) in rows if job_id in self._locked]
        for job in jobs:
            if (one := self._locked.get(job.id)) is not None:
                # An uncommitted `replace` holds it: only waiting helps.
                one.locked_since = time.monotonic()
        return done

    def overdue(self, now: float, startable: Startable) -> list[Job]:
        """Remove and return the jobs that have waited for a slot for too long."""
        back = []
        while self._waiting and now - self._waiting[0].since > WAIT_AT_MOST:
            back.append(self._waiting.popleft().job)
        late = [one.job for one in self._locked.values() if now - one.since > WAIT_AT_MOST + LOCKED_AT_MOST]
        if late and not startable(late):
            back += self.withdraw({job.id for job in late})
        return back

    def withdraw(self, ids: set[int] | None = None) -> list[Job]:
        """Remove and return the jobs, or only those of `ids`.

        For the database, a job in a statement that is under way may have started: its release takes
        its key again.
        """
        here = [*self._waiting, *self._locked.values(), *self._asked.values()]
        back = [one.job for one in here if ids is None or one.job.id in ids]
        gone = {job.id for job in back}
        self._waiting = deque(one for one in self._waiting if one.job.id not in gone)
        self._locked = {job_id: one for job_id, one in self._locked.items() if job_id not in gone}
        self._asked = {job_id: one for job_id, one in self._asked.items() if job_id not in gone}
        return back
