"""Parked jobs: those that one worker's code cannot run, until another's can.

Who refuses a job parks it (`parking.py`), which tells the others. A worker claims parked jobs of tasks that its code has, when
it hears of some, at its start, and when it looks every few seconds. Without parked jobs that is one cheap question each time,
and nothing on the way of other jobs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

import psycopg

from jobq.worker.database import Connection, fetch
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.frames import Ending, Setback
from jobq.worker.managed import Managed
from jobq.worker.options import WorkerOptions
from jobq.worker.outcomes import Claimed

logger = logging.getLogger("jobq.worker")

# A worker that has just refused a job itself claims no parked ones for so many seconds. Its runners may have imported
# different versions of the code, and what one of them has refused must not come back to it again and again.
AFTER_REFUSAL = 0.5
# Seconds until parked jobs are claimed again after a claim of them has failed: doubled each time.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0


class Code(Protocol):
    """What the worker's code can run."""

    @property
    def tasks(self) -> list[str]:
        """The names of its tasks."""

    @property
    def signatures(self) -> list[str]:
        """Their signatures, in the same order."""


class Parked:
    """The parked jobs that one worker may claim."""

    def __init__(self, options: WorkerOptions, code: Code, managed: Managed) -> None:
        self._schema = options.settings.schema
        self._queues = list(options.queues) if options.queues is not None else None
        self._caps = sorted(options.queue_caps)
        self._code = code
        self._managed = managed
        self.wanted = True
        """Whether there may be some to claim."""
        self._not_before = 0.0
        self._pause = 0.0
        """For how long parked jobs were let alone after the last claim of them failed."""

    def hear(self, task: str) -> bool:
        """Jobs of `task` were parked. Return whether that concerns this worker."""
        if task not in self._code.tasks:
            return False
        self.wanted = True
        return True

    def refused(self, setbacks: Sequence[Setback]) -> None:
        """These have ended; this worker may have refused some of them."""
        if any(setback.ending is Ending.PARK for setback in setbacks):
            self._not_before = time.monotonic() + AFTER_REFUSAL

    @property
    def due_at(self) -> float:
        """When to claim next, in time.monotonic(); infinity when there is nothing to claim."""
        return self._not_before if self.wanted else float("inf")

    async def look(self, connection: Connection) -> None:
        """See whether there are any. Raises psycopg.Error."""
        if not self.wanted and self._code.tasks:
            [(known,)] = await fetch(connection, self._schema, "parked_known", tasks=self._code.tasks)
            # A word that has come meanwhile counts.
            self.wanted = self.wanted or known

    async def claim(self, connection: Connection, worker: UUID, want: int) -> Claimed:
        """Claim up to `want`, and make those due that wait in queues with rules. Raises psycopg.Error."""
        # What is heard from here on, these statements may not see.
        self.wanted = False
        try:
            known = {"tasks": self._code.tasks, "signatures": self._code.signatures}
            await fetch(connection, self._schema, "parked_due", **known, queues=self._queues, channel=self._schema)
            rows = await self._claim(connection, worker, want, queues=self._queues, without=self._caps, **known)
            failed: psycopg.Error | None = None
            for queue in self._caps:
                # A cap of this worker's own is kept by claims of that queue alone.
                if (room := min(want - len(rows), self._managed.room(queue))) > 0:
                    try:
                        more = await self._claim(connection, worker, int(room), queues=[queue], without=[], **known)
                    except psycopg.Error as error:
                        if classify(error, connection) is ErrorKind.CONNECTION:
                            raise
                        # What is claimed so far is ours, and the other queues are tried.
                        failed = error
                        continue
                    self._managed.adopt((row[0], queue) for row in more)
                    rows += more
            if failed is not None and not rows:
                raise failed
        except BaseException:
            self.wanted = True
            self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
            self._not_before = time.monotonic() + self._pause
            raise
        self._pause = 0.0
        self.wanted = self.wanted or failed is not None or len(rows) >= want
        return Claimed(0, None, rows)

    async def _claim(self, connection: Connection, worker: UUID, want: int, **parameters: Any) -> list[tuple[Any, ...]]:
        return await fetch(connection, self._schema, "claim_parked", worker=worker, want=want, **parameters)
