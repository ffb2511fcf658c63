"""Rescue dead workers' jobs. The rescuer has watched their heartbeats stand still (`lease.py`).

One statement takes all jobs of a dead worker. If the database refuses it because of one row, or
that row takes too long, the jobs are halved until the row is alone. It is then set aside and tried
again more and more rarely, and the other jobs run again. Each check continues where the last one
stopped, and each try is short. The dead worker's row stays only while such jobs are left. Only a
lost connection is raised from this module: other errors must not cost the rescuer its own
heartbeats.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg

from jobq._worker.database import Connection, fetch, statement_deadline
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.problems import Problems
from jobq._worker.health.stalls import RateLimitedLog
from jobq.retry import Backoff

logger = logging.getLogger("jobq.worker")

# Workers that must die while they hold a job before it fails. A machine's failure is rarely the
# job's fault, but a job that takes down its whole worker must end some day.
MAX_LOSSES = 10
# Seconds until the next try of a job whose row the database refuses to change.
_AGAIN = Backoff(base=1, cap=300)
# Tries of all jobs at once that met a lock, before they are tried in parts.
_LOCKED_TRIES = 3
# Most seconds until the next try of a job that only lacked a lock.
_LOCKED_AGAIN = 5.0
# Seconds that a try in parts may take; for one job, twice as many at each further try. The
# connection has heartbeats to write, so a try may take at most these shares of its statement
# limit: the first for parts, the second for all jobs at once.
_TRY = 1.0
_TRY_PART = 0.3
_LONGEST_PART = 0.35


@dataclass(slots=True)
class _Aside:
    """Something that was refused.

    It has the number of refusals, and the time of the next try in time.monotonic() seconds.
    """

    tries: int = 0
    at: float = 0.0

    def again(self, now: float, most: float = math.inf) -> None:
        self.tries += 1
        self.at = now + min(_AGAIN.longest(min(self.tries, 20)), most)


@dataclass(slots=True)
class _Case:
    """A dead worker whose jobs could not be rescued all at once."""

    beats: int
    tried: float = 0.0
    locked: int = 0
    """How often a lock blocked it."""
    in_parts: bool = False
    parts: list[list[int]] = field(default_factory=list)
    """Parts still to try, kept between checks: halves of a failed part come after the others."""
    jobs: dict[int, _Aside] = field(default_factory=dict)
    """The jobs that were set aside."""
    whole: _Aside = field(default_factory=_Aside)
    """The worker itself, if the refusal does not concern one of its jobs."""


class Rescuer:
    """The rescues of one worker.

    `on_lowered` gets the queues that have jobs back at their old places, and the run_at of those.
    """

    def __init__(self, schema: str, problems: Problems, repeats: RateLimitedLog) -> None:
        self._schema = schema
        self._problems = problems
        self._repeats = repeats
        self._cases: dict[UUID, _Case] = {}
        self.on_lowered: Callable[[str, int], object] = lambda queue, run_at: None

    def forget_all_but(self, workers: Mapping[UUID, int]) -> None:
        """Forget workers that are gone or alive.

        `workers` are the workers that have rows, with their heartbeat counts. A worker that has
        sent a heartbeat since is alive. A worker that is no longer considered dead because the
        watch started again is kept: nothing about it has changed.
        """
        for dead in [dead for dead, case in self._cases.items() if workers.get(dead) != case.beats]:
            case = self._cases.pop(dead)
            for job in case.jobs:
                self._problems.clear("rescue", worker=str(dead), job=job)
            self._problems.clear("rescue", worker=str(dead))

    def in_turn(self, workers: Iterable[UUID]) -> list[UUID]:
        """Return `workers` in the order of rescues: those tried last come last."""
        return sorted(workers, key=lambda worker: self._cases[worker].tried if worker in self._cases else 0.0)

    async def rescue(self, connection: Connection, dead: UUID, beats: int, *, silent: float, until: float) -> None:
        """Rescue the jobs of `dead`, in parts until this time.monotonic().

        Raises for a lost connection.
        """
        now = time.monotonic()
        case = self._cases.setdefault(dead, _Case(beats))
        case.tried = now
        if now < case.whole.at:
            return
        try:
            if not case.in_parts:
                if await self._all(connection, dead, beats, case, silent):
                    self._cases.pop(dead, None)
                    return
                if time.monotonic() >= until or not case.in_parts:
                    return
            await self._parts(connection, dead, beats, case, silent=silent, until=until)
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
            # The failure does not concern a job, but the worker's own row, or reading its jobs.
            case.whole.again(now)
            self._note(error, worker=str(dead))

    async def _all(self, connection: Connection, dead: UUID, beats: int, case: _Case, silent: float) -> bool:
        """Return whether all jobs of `dead` were rescued; if not, `case` says how to continue."""
        try:
            async with statement_deadline(connection, connection.terms.statement * _LONGEST_PART):
                rows = await self._rescue(connection, dead, beats, None)
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
            if isinstance(error, psycopg.errors.LockNotAvailable):
                # Another transaction locks its row, or the row of one of its jobs.
                self._repeats.note("a dead worker is locked", str(dead), dead=str(dead), error=str(error))
                case.locked += 1
                case.in_parts = case.locked >= _LOCKED_TRIES
                return False
            self._repeats.warn("a dead worker's jobs cannot be taken back all at once", error)
            case.in_parts = True
            return False
        self._tell(rows, dead, silent)
        return True

    async def _parts(
        self, connection: Connection, dead: UUID, beats: int, case: _Case, *, silent: float, until: float
    ) -> None:
        held = {job: None for job, *_ in await fetch(connection, self._schema, "jobs_of_worker", worker=dead)}
        for job in case.jobs.keys() - held.keys():
            self._free(dead, case, job)
        known = {job for part in case.parts for job in part} | case.jobs.keys()
        parts = [[job for job in part if job in held and job not in case.jobs] for part in case.parts]
        parts.append([job for job in held if job not in known])
        case.parts = [part for part in parts if part]
        now = time.monotonic()
        again = [[job] for job, aside in case.jobs.items() if now >= aside.at]
        # One try at each check, however slow the database is.
        late = False
        while not late and (case.parts or again):
            # Parts that were never tried come first.
            part = (case.parts or again).pop(0)
            try:
                async with statement_deadline(connection, self._seconds(connection, case, part)):
                    rows = await self._rescue(connection, dead, beats, part)
            except psycopg.Error as error:
                if classify(error, connection) is ErrorKind.CONNECTION:
                    raise
                self._failed(error, dead, case, part)
            else:
                if not rows[0][0]:
                    # Rescued by another worker, or alive again.
                    return
                self._tell(rows, dead, silent)
                for job in part:
                    self._free(dead, case, job)
            late = time.monotonic() >= until
        if not case.parts and not case.jobs:
            await fetch(connection, self._schema, "worker_gone", dead=dead, beats=beats)

    def _seconds(self, connection: Connection, case: _Case, part: list[int]) -> float:
        most = connection.terms.statement
        seconds = min(_TRY, most * _TRY_PART)
        if len(part) == 1 and (aside := case.jobs.get(part[0])) is not None:
            seconds = min(seconds * 2.0 ** min(aside.tries, 10), most * _LONGEST_PART)
        return seconds

    def _failed(self, error: psycopg.Error, dead: UUID, case: _Case, part: list[int]) -> None:
        if len(part) > 1:
            middle = len(part) // 2
            case.parts += [part[:middle], part[middle:]]
            return
        aside = case.jobs.setdefault(part[0], _Aside())
        if not isinstance(error, psycopg.errors.LockNotAvailable):
            aside.again(time.monotonic())
        else:
            aside.again(time.monotonic(), _LOCKED_AGAIN)
            if aside.tries < _LOCKED_TRIES:
                return
        self._note(error, worker=str(dead), job=part[0])

    async def _rescue(
        self, connection: Connection, dead: UUID, beats: int, only: list[int] | None
    ) -> list[tuple[Any, ...]]:
        return await fetch(
            connection,
            self._schema,
            "rescue",
            dead=dead,
            beats=beats,
            only=only,
            max_losses=MAX_LOSSES,
            channel=self._schema,
        )

    def _tell(self, rows: list[tuple[Any, ...]], dead: UUID, silent: float) -> None:
        gone, requeued, failed, queues, run_ats, _ = rows[0]
        for queue, run_at in zip(queues, run_ats, strict=True):
            self.on_lowered(queue, run_at)
        if gone:
            logger.warning(
                "took a dead worker's jobs back",
                extra={"dead": str(dead), "silent": round(silent, 1), "requeued": requeued, "failed": failed},
            )

    def _note(self, error: psycopg.Error, **subject: Any) -> None:
        self._problems.note("rescue", error, **subject)
        self._repeats.note(
            "a dead worker's job cannot be taken back" if "job" in subject else "a dead worker cannot be rescued from",
            str(subject.get("job", subject)),
            **subject,
            error=str(error).strip(),
        )

    def _free(self, dead: UUID, case: _Case, job: int) -> None:
        if case.jobs.pop(job, None) is not None:
            self._problems.clear("rescue", worker=str(dead), job=job)
