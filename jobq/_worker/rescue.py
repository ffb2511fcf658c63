"""Taking dead workers' jobs back, by one who has watched their heartbeats stand still (`lease.py`).

All jobs of a dead worker in one statement. When the database refuses that for the sake of one row, or that row takes too long,
the jobs are halved until that one is alone: it is set aside and tried again ever more rarely, the others run again. Each look
goes on where the last one has stopped, and each try is short. Only while such jobs are left does the dead worker's row stay.
No error but a lost connection leaves this module: it must not cost the rescuer its own heartbeats.
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

from jobq.backoff import Backoff
from jobq.worker.database import Connection, fetch, limited
from jobq.worker.errors import ErrorKind, classify
from jobq.worker.problems import Problems
from jobq.worker.stalls import Repeats

logger = logging.getLogger("jobq.worker")

# Workers that must die holding a job before it is failed: a machine's end is rarely the job's fault, but a job that takes
# its whole worker down must end some day.
MAX_LOSSES = 10
# Seconds until a job is tried again whose row the database refuses to change.
_AGAIN = Backoff(base=1, cap=300)
# So many tries of all jobs at once that found a lock, before they are tried in parts.
_LOCKED_TRIES = 3
# Seconds after which a job is tried again at the latest that only lacked a lock.
_LOCKED_AGAIN = 5.0
# Seconds that a try in parts may take, twice as many for one job each time it is tried again; and at most these parts of
# what a statement may take on the connection, which has heartbeats to write: the first for parts, the second for all at once.
_TRY = 1.0
_TRY_PART = 0.3
_LONGEST_PART = 0.35


@dataclass(slots=True)
class _Aside:
    """What was refused: how often, and when to try again, in time.monotonic()."""

    tries: int = 0
    at: float = 0.0

    def again(self, now: float, most: float = math.inf) -> None:
        self.tries += 1
        self.at = now + min(_AGAIN.longest(min(self.tries, 20)), most)


@dataclass(slots=True)
class _Case:
    """One dead worker whose jobs could not be taken back all at once."""

    beats: int
    tried: float = 0.0
    locked: int = 0
    """How often a lock was in the way."""
    in_parts: bool = False
    parts: list[list[int]] = field(default_factory=list)
    """What is still to be tried, from one look to the next: the halves of a part that failed come after the others."""
    jobs: dict[int, _Aside] = field(default_factory=dict)
    """The jobs that were set aside."""
    whole: _Aside = field(default_factory=_Aside)
    """The worker itself, when it is not one of its jobs that is refused."""


class Rescuer:
    """One worker's rescues. `on_lowered` is told which queues have jobs back at their old places, from which run_at on."""

    def __init__(self, schema: str, problems: Problems, repeats: Repeats) -> None:
        self._schema = schema
        self._problems = problems
        self._repeats = repeats
        self._cases: dict[UUID, _Case] = {}
        self.on_lowered: Callable[[str, int], object] = lambda queue, run_at: None

    def forget_all_but(self, workers: Mapping[UUID, int]) -> None:
        """These are the workers that have rows, with their beats; the others are gone, and who has beaten since is alive.

        Who is no longer taken for dead, because the watch has begun again, is not forgotten: nothing of it has changed.
        """
        for dead in [dead for dead, case in self._cases.items() if workers.get(dead) != case.beats]:
            case = self._cases.pop(dead)
            for job in case.jobs:
                self._problems.clear("rescue", worker=str(dead), job=job)
            self._problems.clear("rescue", worker=str(dead))

    def in_turn(self, workers: Iterable[UUID]) -> list[UUID]:
        """Return `workers` in the order in which to rescue from them: those that were tried last come last."""
        return sorted(workers, key=lambda worker: self._cases[worker].tried if worker in self._cases else 0.0)

    async def rescue(self, connection: Connection, dead: UUID, beats: int, *, silent: float, until: float) -> None:
        """Take the jobs of `dead` back, in parts until this time of time.monotonic(). Raises when the connection is lost."""
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
            # Not one of its jobs: its own row, or the reading of its jobs.
            case.whole.again(now)
            self._note(error, worker=str(dead))

    async def _all(self, connection: Connection, dead: UUID, beats: int, case: _Case, silent: float) -> bool:
        """Tell whether all jobs of `dead` are taken back; if not, `case` says how to go on."""
        try:
            async with limited(connection, connection.terms.statement * _LONGEST_PART):
                rows = await self._rescue(connection, dead, beats, None)
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
            if isinstance(error, psycopg.errors.LockNotAvailable):
                # Another transaction holds its row, or a row of one of its jobs.
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
        held = {job: None for job, *_ in await fetch(connection, self._schema, "held_jobs", worker=dead)}
        for job in case.jobs.keys() - held.keys():
            self._free(dead, case, job)
        known = {job for part in case.parts for job in part} | case.jobs.keys()
        parts = [[job for job in part if job in held and job not in case.jobs] for part in case.parts]
        parts.append([job for job in held if job not in known])
        case.parts = [part for part in parts if part]
        now = time.monotonic()
        again = [[job] for job, aside in case.jobs.items() if now >= aside.at]
        # One try at each look, however slow the database is.
        late = False
        while not late and (case.parts or again):
            # Those that were never tried first.
            part = (case.parts or again).pop(0)
            try:
                async with limited(connection, self._seconds(connection, case, part)):
                    rows = await self._rescue(connection, dead, beats, part)
            except psycopg.Error as error:
                if classify(error, connection) is ErrorKind.CONNECTION:
                    raise
                self._failed(error, dead, case, part)
            else:
                if not rows[0][0]:
                    # Rescued from by another, or alive again.
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
