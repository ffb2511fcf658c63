"""One queue: its contents, the workers that serve it, and how long its jobs wait and run."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq._postgres.statements import fetch
from jobq.job import QUEUE_STATES
from jobq.queries.fleet import workers
from jobq.queries.groups import groups, take_settings
from jobq.queries.rollups import latency
from jobq.queries.values import COUNT_LIMIT, QueueInfo
from jobq.queries.values.stats import QueueDetail, QueueTask

# Number of next jobs that are counted by task.
_NEXT = 2_000


def queue(conn: Connection[Any], schema: str, name: str) -> QueueDetail:
    """Return all details of queue `name`. `known` is False if nothing was ever recorded for it.

    Counts above COUNT_LIMIT mean "more than".
    """
    bound = COUNT_LIMIT + 1
    (found,) = fetch(conn, schema, "queue_info", {"queue": name, "bound": bound})
    has_row, read_at = found.pop("has_row"), found.pop("read_at")
    counts = {key: min(found.pop(key), bound) for key in (*QUEUE_STATES, "due")}
    settings = take_settings(found)
    info = QueueInfo(name=name, **counts, **found, settings=settings)
    grouped = groups(conn, schema, name) if settings.groups is not None or info.waiting else None
    tasks = [QueueTask(**row) for row in fetch(conn, schema, "queue_next", {"queue": name, "bound": _NEXT})]
    every = [worker for worker in workers(conn, schema) if worker.queues is None or name in worker.queues]
    named = any(worker.queues is not None for worker in every)
    waits, runs, finished, failed = latency(conn, schema, name)
    looked_at = sum(task.number for task in tasks)
    return QueueDetail(
        info=info,
        tasks=tasks,
        looked_at=looked_at,
        complete=looked_at < _NEXT,
        workers=every,
        waits=waits,
        runs=runs,
        finished_last_hour=finished,
        failed_last_hour=failed,
        known=bool(has_row or named or finished or any(counts.values())),
        read_at=read_at,
        groups=grouped,
    )
