"""Parked jobs: one worker's code cannot run them, and they wait for a worker whose code can.

A worker that refuses a job parks it (`parking.py`) and notifies the others. A worker claims parked
jobs of the tasks in its code at its start, after such a notification, and when it looks every few
seconds. If there are no parked jobs, this costs one cheap query each time and does not delay other
jobs.

After a failure, parked jobs are claimed one by one. A job that is refused or takes too long is left
out for a while (`suspects.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

import psycopg

from jobq._worker.database import Connection, fetch, fetch_within
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.problems import Problems
from jobq._worker.faults.suspects import BRIEF, PATIENCE, SHARE, Suspects, is_slow
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.ipc.messages import Disposition, Failure
from jobq._worker.limited.queues import LimitedQueues
from jobq._worker.options import WorkerOptions
from jobq._worker.statements.results import Claimed

logger = logging.getLogger("jobq.worker")

# After a worker refuses a job itself, it claims no parked jobs for this many seconds. Its runners
# may have imported different versions of the code, and a job that one of them refused must not
# return to it again and again.
AFTER_REFUSAL = 0.5
# Seconds until the next claim of parked jobs after a failed one. Doubled each time.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
# The same while parked jobs are claimed one by one.
RETRY = 0.05
# Number of jobs to claim one by one before other work gets a turn.
ONE_BY_ONE = 50
PROBLEM = "claim parked jobs"


class Code(Protocol):
    """What the worker's code can run."""

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""

    @property
    def signatures(self) -> list[str]:
        """Signatures of the tasks, in the same order."""


class Parked:
    """The parked jobs that one worker may claim."""

    def __init__(self, options: WorkerOptions, code: Code, limited: LimitedQueues) -> None:
        self._schema = options.settings.schema
        self._queues = list(options.queues) if options.queues is not None else None
        self._caps = sorted(options.queue_caps)
        self._code = code
        self._limited = limited
        self.wanted = True
        """Whether there may be parked jobs to claim."""
        self._not_before = 0.0
        self.problems = Problems()
        """Receives the jobs that cannot be claimed."""
        self._repeats = RateLimitedLog()
        self._suspects: Suspects[int] = Suspects()
        self._of: dict[int, str] = {}
        """Queue of each suspect, by job id."""
        self._careful = False
        """Whether to claim the jobs one by one."""
        self._failures = 0
        self._losses = 0
        self._pause = 0.0
        """Seconds that parked jobs were left alone after the last failed claim."""

    def hear(self, task: str) -> bool:
        """Jobs of `task` were parked. Return whether this worker can run them."""
        if task not in self._code.tasks:
            return False
        self.wanted = True
        return True

    def refused(self, setbacks: Sequence[Failure]) -> None:
        """Check ended jobs: this worker may have refused some of them."""
        if any(setback.ending is Disposition.PARK for setback in setbacks):
            self._not_before = time.monotonic() + AFTER_REFUSAL

    @property
    def due_at(self) -> float:
        """When to claim next, in time.monotonic() seconds. Infinity: there is nothing to claim."""
        return self._not_before if self.wanted else max(self._suspects.due_at, self._not_before)

    async def look(self, connection: Connection) -> None:
        """Look whether there are parked jobs. Raises psycopg.Error."""
        if not self.wanted and self._code.tasks:
            [(known,)] = await fetch(connection, self._schema, "parked_known", tasks=self._code.tasks)
            # A notification that arrived in the meantime counts.
            self.wanted = self.wanted or known

    async def claim(self, connection: Connection, worker: UUID, want: int) -> Claimed:
        """Claim up to `want` jobs, and make jobs due that wait in limited queues.

        Raises psycopg.Error.
        """
        # These statements may not see jobs of later notifications.
        self.wanted = False
        known = {"tasks": self._code.tasks, "signatures": self._code.signatures}
        failed: psycopg.Error | None = None
        try:
            if self._careful:
                return await self._one_by_one(connection, worker, want, known)
            await fetch(connection, self._schema, "parked_due", **known, queues=self._queues, channel=self._schema)
            rows = await self._claim(connection, worker, want, queues=self._queues, without=self._caps, **known)
            for queue in self._caps:
                # Only claims of a single queue can keep a cap of this worker.
                if (room := min(want - len(rows), self._limited.held.room(queue))) > 0:
                    try:
                        more = await self._claim(connection, worker, int(room), queues=[queue], without=[], **known)
                    except psycopg.Error as error:
                        if classify(error, connection) is ErrorKind.CONNECTION:
                            raise
                        # The jobs claimed so far are ours. Try the other queues.
                        failed = error
                        self._suspect(error, connection)
                        continue
                    self._limited.held.adopt((row[0], queue) for row in more)
                    rows += more
            if failed is not None and not rows:
                raise failed
        except BaseException as error:
            self.wanted = True
            if self._suspect(error, connection):
                self._not_before = time.monotonic() + RETRY
                raise
            self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
            self._not_before = time.monotonic() + self._pause
            raise
        self._pause = 0.0
        if failed is None:
            self._failures = self._losses = 0
        self.wanted = self.wanted or failed is not None or len(rows) >= want
        return Claimed(0, None, rows)

    def _suspect(self, error: BaseException, connection: Connection) -> bool:
        """Handle a failed claim of many jobs.

        Return whether to find the job that is the reason now.
        """
        if self._careful or not isinstance(error, psycopg.Error):
            return False
        kind = classify(error, connection)
        self._losses += kind is ErrorKind.CONNECTION
        self._failures += kind is ErrorKind.TRANSIENT
        self._careful = (
            kind is ErrorKind.REFUSED or is_slow(error) or self._failures > PATIENCE or self._losses >= PATIENCE
        )
        return self._careful

    async def _one_by_one(
        self, connection: Connection, worker: UUID, want: int, known: dict[str, list[str]]
    ) -> Claimed:
        """Claim some jobs one by one, except those that are refused.

        One of the refused jobs is tried again if it is time for that.
        """
        retry = self._suspects.next()
        refused = [job for job in self._suspects.keys if job != retry]
        rows: list[tuple[Any, ...]] = []
        met, more, slow = False, False, False
        asked = {**known, "queues": self._queues}
        for heads, name, beside in (
            ("parked_due_heads", "parked_due:one", {"channel": self._schema}),
            ("parked_heads", "claim_parked:one", {"worker": worker, "want": 1, "without": []}),
        ):
            most = min(want, ONE_BY_ONE)
            found = await fetch(connection, self._schema, heads, **asked, refused=refused, want=most)
            more = more or len(found) >= most
            # A job that may be refused again comes last.
            for job, queue in sorted(found, key=lambda one: one[0] == retry):
                claims = name != "parked_due:one"
                if slow or (claims and queue in self._caps and self._limited.held.room(queue) <= 0):
                    continue
                met = met or job == retry
                within = self._suspects.within(job) if job == retry else BRIEF
                try:
                    got = await fetch_within(within, connection, self._schema, name, **asked, **beside, only=job)
                except psycopg.Error as error:
                    kind = classify(error, connection)
                    more = True
                    if not self._failed(error, kind, job, queue) or kind is ErrorKind.CONNECTION:
                        if rows:
                            # The jobs claimed so far are ours.
                            self._not_before = time.monotonic() + FIRST_PAUSE
                            self.wanted = True
                            return Claimed(0, None, rows)
                        raise
                    # One slow statement per round is enough.
                    slow = is_slow(error)
                    continue
                self._failures = self._losses = 0
                self._let_in(job)
                if claims:
                    rows += got
                    if queue in self._caps:
                        self._limited.held.adopt((row[0], queue) for row in got)
        if retry is not None and not met and not slow and self._suspects.unmet(retry):
            self._let_in(retry)
        self._pause = 0.0
        self.wanted = self.wanted or more
        self._careful = more or bool(self._suspects)
        if self.wanted:
            self._not_before = time.monotonic() + (SHARE * BRIEF if slow else RETRY)
        return Claimed(0, None, rows)

    def _failed(self, error: psycopg.Error, kind: ErrorKind, job: int, queue: str) -> bool:
        """Leave out `job`, whose claim has failed. Return whether it is left out."""
        lost, transient = kind is ErrorKind.CONNECTION, kind is ErrorKind.TRANSIENT and not is_slow(error)
        self._losses += lost
        self._failures += transient
        enough = self._losses >= PATIENCE if lost else self._failures > PATIENCE if transient else True
        if not enough and job not in self._suspects:
            return False
        self._suspects.leave_out(job, error)
        self._pause = 0.0
        self._of[job] = queue
        self.problems.note(PROBLEM, error, job=job, queue=queue)
        self._repeats.warn(
            "a parked job cannot be claimed: it is left out, and tried again ever more rarely", error, job=job
        )
        return True

    def _let_in(self, job: int) -> None:
        self._suspects.let_in(job)
        if (queue := self._of.pop(job, None)) is not None:
            self.problems.clear(PROBLEM, job=job, queue=queue)

    async def _claim(self, connection: Connection, worker: UUID, want: int, **parameters: Any) -> list[tuple[Any, ...]]:
        return await fetch(connection, self._schema, "claim_parked", worker=worker, want=want, **parameters)
