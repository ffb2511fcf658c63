"""Retry or cancel by state, queue and task at once.

This is for scripts that need no operation and no preview.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg import Connection

from jobq._core.validation import check_choice
from jobq._postgres.statements import fetch
from jobq.errors import InvalidOption
from jobq.filters import JobFilter
from jobq.job import CANCELLABLE_STATES, FINISHED_STATES, RETRYABLE_STATES
from jobq.operations.audit import Actor, AuditRecord
from jobq.operations.change import Change
from jobq.operations.changes import Cancel, Retry
from jobq.operations.jobs import BATCH, Changed, change_batch
from jobq.operations.selection import JobSelection, count, newest_id, next_jobs

Progress = Callable[[int], None]


def retry_where(
    conn: Connection[Any],
    schema: str,
    *,
    actor: str | Actor,
    state: str = "failed",
    queue: str | None = None,
    task: str | None = None,
    limit: int | None = None,
    reason: str | None = None,
    progress: Progress | None = None,
) -> Changed:
    """Retry every job in `state` (and `queue`, and `task`) that exists at the call, oldest first.

    The jobs are retried in batches of 500, like :func:`retry`.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        actor: who the audit log names.
        state: one of RETRYABLE_STATES.
        queue: only jobs of this queue.
        task: only jobs of this task.
        limit: most jobs to retry; None (default): all.
        reason: text for the audit log.
        progress: called after each batch with the number of jobs looked at.

    Raises:
        InvalidOption: `state` is not in RETRYABLE_STATES.
    """
    check_choice("state", state, RETRYABLE_STATES)
    jobs = JobFilter(states=(state,), queue=queue, task=task)
    return _where(conn, schema, jobs, Retry(), AuditRecord("retry", actor, reason), limit=limit, progress=progress)


def cancel_where(
    conn: Connection[Any],
    schema: str,
    *,
    actor: str | Actor,
    state: str = "ready",
    queue: str | None = None,
    task: str | None = None,
    limit: int | None = None,
    reason: str | None = None,
    progress: Progress | None = None,
) -> Changed:
    """Cancel every job in `state` (and `queue`, and `task`); parameters as for :func:`retry_where`.

    Raises InvalidOption if `state` is not in CANCELLABLE_STATES.
    """
    check_choice("state", state, CANCELLABLE_STATES)
    jobs = JobFilter(states=(state,), queue=queue, task=task)
    return _where(conn, schema, jobs, Cancel(), AuditRecord("cancel", actor, reason), limit=limit, progress=progress)


def count_where(
    conn: Connection[Any],
    schema: str,
    *,
    state: str,
    queue: str | None = None,
    task: str | None = None,
    bound: int = 10_001,
) -> int:
    """Return how many jobs :func:`retry_where` or :func:`cancel_where` would change.

    Counting stops at `bound`.
    """
    check_choice("state", state, (*CANCELLABLE_STATES, *FINISHED_STATES))
    wanted = _now(conn, schema, JobFilter(states=(state,), queue=queue, task=task))
    return count(conn, schema, wanted, bound=bound, seconds=float("inf"))[0]


def _where(
    conn: Connection[Any],
    schema: str,
    jobs: JobFilter,
    what: Change,
    note: AuditRecord,
    *,
    limit: int | None,
    progress: Progress | None,
) -> Changed:
    if limit is not None and limit < 1:
        raise InvalidOption(f"limit={limit!r}: expected a number of at least 1")
    wanted = _now(conn, schema, jobs)
    total = Changed()
    after, seen = -1, 0
    while after < wanted.up_to and (limit is None or seen < limit):
        found = next_jobs(conn, schema, wanted, after=after, limit=BATCH if limit is None else min(BATCH, limit - seen))
        after = found.after
        if not found.ids:
            continue
        batch = change_batch(conn, schema, found.ids, what, note, found_in=jobs.wanted_states, filter=str(jobs))
        total.done.extend(batch.done)
        total.refused.update(batch.refused)
        seen += len(found.ids)
        if progress is not None:
            progress(seen)
    return total


def _now(conn: Connection[Any], schema: str, jobs: JobFilter) -> JobSelection:
    # Jobs that match later are not included: a retried job that fails at once is not retried
    # forever.
    up_to = newest_id(conn, schema)
    return JobSelection(jobs=jobs, at=fetch(conn, schema, "clock", {})[0]["at"], up_to=up_to)
