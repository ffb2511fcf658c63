"""Reads that show whether jobs progress: due tasks, running jobs without a worker, failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from jobq._postgres.statements import fetch
from jobq.queries.values import COUNT_LIMIT

# Number of due jobs, over all queues, that are shown by task.
_BUDGET = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DueTask:
    """Due jobs of one task among the first jobs of a queue.

    `whole`: the queue has no more due jobs.
    """

    queue: str
    task: str
    number: int
    whole: bool
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranded:
    """Running jobs of one worker that is gone.

    `host` and `pid` are None if it has no row any more.
    """

    host: str | None
    pid: int | None
    number: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """Dead letters.

    `number` and `recent` (last 24 hours) count at most the newest COUNT_LIMIT + 1 by id.

    `finished_hour` and `failed_hour`: jobs of the last hour, as counted by the rollup.
    """

    number: int
    recent: int
    finished_hour: int
    failed_hour: int


def due_tasks(conn: Connection[Any], schema: str, queue: str | None = None) -> list[DueTask]:
    """Return the tasks of due jobs that are ready or waiting, by queue; of `queue` only, if given.

    This looks at the first jobs of each queue, 2,000 in all, or 2 of each queue and priority if
    there are many. Parked jobs are not included: see `parked_tasks`.
    """
    return [DueTask(**row) for row in fetch(conn, schema, "due_tasks", {"queue": queue, "budget": _BUDGET})]


def stranded(conn: Connection[Any], schema: str, *, seconds: float) -> list[Stranded]:
    """Return running jobs whose worker has no row, or was silent for its lease plus `seconds`.

    At most COUNT_LIMIT jobs are looked at.
    """
    found = fetch(conn, schema, "stranded", {"bound": COUNT_LIMIT + 1, "seconds": seconds})
    return [Stranded(**row) for row in found]


def failing(conn: Connection[Any], schema: str) -> Failing:
    """Return the number of dead letters, in all and recently."""
    (row,) = fetch(conn, schema, "failing", {"bound": COUNT_LIMIT + 1})
    return Failing(**row)
