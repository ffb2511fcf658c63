"""Retry or cancel by state, queue and task, here and now: for scripts that want no row of it, no count and no question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from psycopg import Connection

from jobq.errors import InvalidOption
from jobq.filters import HISTORY_STATES, JobFilter
from jobq.operations.actors import Actor, Note
from jobq.operations.changes import CANCELLABLE_STATES, RETRYABLE_STATES, Cancel, Change, Retry
from jobq.operations.jobs import BATCH, Changed, change_batch
from jobq.operations.matching import Snapshot, count, newest_id, next_jobs
from jobq.operations.rows import rows

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
    """:func:`retry` every job in `state` (and `queue`, and `task`) that exists at the call, oldest first, up
    to `limit`.

    Goes in batches of 500; `progress` is told the number of jobs looked at after each. Raises InvalidOption
    for a state outside RETRYABLE_STATES.
    """
    _one_of("state", state, RETRYABLE_STATES)
    jobs = JobFilter(states=(state,), queue=queue, task=task)
    return _where(conn, schema, jobs, Retry(), Note("retry", actor, reason), limit=limit, progress=progress)


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
    """:func:`cancel` every job in `state` (and `queue`, and `task`); as :func:`retry_where`.

    Raises InvalidOption for a state outside CANCELLABLE_STATES.
    """
    _one_of("state", state, CANCELLABLE_STATES)
    jobs = JobFilter(states=(state,), queue=queue, task=task)
    return _where(conn, schema, jobs, Cancel(), Note("cancel", actor, reason), limit=limit, progress=progress)


def count_where(
    conn: Connection[Any],
    schema: str,
    *,
    state: str,
    queue: str | None = None,
    task: str | None = None,
    bound: int = 10_001,
) -> int:
    """Return how many jobs :func:`retry_where` or :func:`cancel_where` would touch, counting no further than
    `bound`.
    """
    _one_of("state", state, (*CANCELLABLE_STATES, *HISTORY_STATES))
    wanted = _now(conn, schema, JobFilter(states=(state,), queue=queue, task=task))
    return count(conn, schema, wanted, bound=bound, seconds=float("inf"))[0]


def _where(
    conn: Connection[Any],
    schema: str,
    jobs: JobFilter,
    what: Change,
    note: Note,
    *,
    limit: int | None,
    progress: Progress | None,
) -> Changed:
    if limit is not None and limit < 1:
        raise InvalidOption(f"limit={limit!r}: give a number of at least 1")
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


def _now(conn: Connection[Any], schema: str, jobs: JobFilter) -> Snapshot:
    # Jobs that come to match while this runs are not followed: a retried job that fails at once is not
    # retried forever.
    up_to = newest_id(conn, schema)
    return Snapshot(jobs=jobs, at=rows(conn, schema, "clock", {})[0]["at"], up_to=up_to)


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidOption(f"{name}={value!r}: give one of {', '.join(known)}")
