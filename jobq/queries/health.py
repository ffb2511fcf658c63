"""Reads that tell whether jobs move: which tasks are due, which running jobs have no worker, how many fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from jobq.queries.rows import fetch
from jobq.queries.values import COUNT_LIMIT

# Due jobs that all queues together show by task.
_BUDGET = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DueTask:
    """Due jobs of one task in one queue, among the first jobs of the queue. `whole`: there are no more than these."""

    queue: str
    task: str
    number: int
    whole: bool
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranded:
    """Running jobs of one worker that is gone. `host` and `pid` are None when it has no row any more."""

    host: str | None
    pid: int | None
    number: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """Dead letters. `number` and `recent` (failed within 24 hours) count the newest COUNT_LIMIT + 1 by id at most.

    `finished_hour` and `failed_hour`: jobs of the last hour, as the rollup chore has counted them.
    """

    number: int
    recent: int
    finished_hour: int
    failed_hour: int


def due_tasks(conn: Connection[Any], schema: str, queue: str | None = None) -> list[DueTask]:
    """Return the tasks of the due jobs that are ready or waiting, by queue; of `queue` only, if given.

    Looks at the first jobs of each queue, 2,000 in all, or 2 of each queue and priority where there are many. Parked jobs
    are not among them: see `parked_tasks`.
    """
    return [DueTask(**row) for row in fetch(conn, schema, "due_tasks", {"queue": queue, "budget": _BUDGET})]


def stranded(conn: Connection[Any], schema: str, *, seconds: float) -> list[Stranded]:
    """Return running jobs whose worker has no row, or has been silent for its lease and `seconds` more; of COUNT_LIMIT jobs."""
    found = fetch(conn, schema, "stranded", {"bound": COUNT_LIMIT + 1, "seconds": seconds})
    return [Stranded(**row) for row in found]


def failing(conn: Connection[Any], schema: str) -> Failing:
    """Return how many jobs have failed for good, in all and lately."""
    (row,) = fetch(conn, schema, "failing", {"bound": COUNT_LIMIT + 1})
    return Failing(**row)
