"""Changing jobs by their ids: retry, run now, cancel, snooze, move, delete.

Each takes `found_in` (default: every state): the states in which the caller has found the jobs. One that has moved on since is
left alone, so that what was dead and has been put back is not deleted, and what was ready and has begun is not stopped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.pq import TransactionStatus

from jobq.filters import STATES
from jobq.operations.actors import Actor, Note
from jobq.operations.changes import Batch, Cancel, Change, Delete, Move, Retry, RunNow, Snooze

BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What an operation did: the ids done, in order, and for each other one why not."""

    done: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


def retry(
    conn: Connection[Any],
    schema: str,
    ids: Collection[int],
    *,
    actor: str | Actor,
    reason: str | None = None,
    found_in: Collection[str] = STATES,
) -> Changed:
    """Run jobs again, now: dead ones (failed, cancelled, expired) go back under the same id with all their
    attempts; those that wait for a retry or for their time become due. Others are refused.

    Raises InvalidOption for an unusable `actor` or `reason`.
    """
    return change(conn, schema, ids, Retry(), actor=actor, reason=reason, found_in=found_in)


def run_now(
    conn: Connection[Any],
    schema: str,
    ids: Collection[int],
    *,
    actor: str | Actor,
    reason: str | None = None,
    found_in: Collection[str] = STATES,
) -> Changed:
    """Make jobs due that wait for a retry or for their time; others are refused. Raises as :func:`retry`."""
    return change(conn, schema, ids, RunNow(), actor=actor, reason=reason, found_in=found_in)


def cancel(
    conn: Connection[Any],
    schema: str,
    ids: Collection[int],
    *,
    actor: str | Actor,
    reason: str | None = None,
    found_in: Collection[str] = STATES,
) -> Changed:
    """Cancel jobs: those that do not run are finished as ``cancelled`` at once; running ones are asked to
    stop.

    Raises InvalidOption for an unusable `actor` or `reason`.
    """
    return change(conn, schema, ids, Cancel(), actor=actor, reason=reason, found_in=found_in)


def snooze(
    conn: Connection[Any],
    schema: str,
    ids: Collection[int],
    *,
    actor: str | Actor,
    seconds: float | None = None,
    until: datetime | None = None,
    reason: str | None = None,
    found_in: Collection[str] = STATES,
) -> Changed:
    """Let ready and scheduled jobs start `seconds` from now, or at `until` (aware; in the past: now). No attempt is counted.

    Raises InvalidOption unless one of both is given, and for unusable values.
    """
    return change(
        conn, schema, ids, Snooze(seconds=seconds, until=until), actor=actor, reason=reason, found_in=found_in
    )


def move(
    conn: Connection[Any],
    schema: str,
    ids: Collection[int],
    *,
    actor: str | Actor,
    queue: str | None = None,
    priority: int | None = None,
    reason: str | None = None,
    found_in: Collection[str] = STATES,
) -> Changed:
    """Give jobs that do not run another `queue`, another `priority` (0 to 9; 9 first), or both.

    A due job is the last one of where it comes to: its `run_at` becomes now. Raises InvalidOption for unusable values.
    """
    return change(
        conn, schema, ids, Move(queue=queue, priority=priority), actor=actor, reason=reason, found_in=found_in
    )


def delete(
    conn: Connection[Any],
    schema: str,
    ids: Collection[int],
    *,
    actor: str | Actor,
    reason: str | None = None,
    found_in: Collection[str] = STATES,
) -> Changed:
    """Delete jobs that do not run, live or finished, with the records of their attempts; nothing brings them back.

    A key that held until the job started or finished is free again; one that holds for a period stays taken. Raises as
    :func:`retry`.
    """
    return change(conn, schema, ids, Delete(), actor=actor, reason=reason, found_in=found_in)


def change(
    conn: Connection[Any],
    schema: str,
    ids: Collection[int],
    what: Change,
    *,
    actor: str | Actor,
    reason: str | None = None,
    found_in: Collection[str] = STATES,
) -> Changed:
    """Make one change to these jobs, in the order of their ids, in batches of 500: each a transaction with its audit."""
    note = Note(what.name, actor, reason)
    total = Changed()
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), BATCH):
        batch = change_batch(conn, schema, ordered[start : start + BATCH], what, note, found_in=found_in)
        total.done.extend(batch.done)
        total.refused.update(batch.refused)
    return total


def change_batch(
    conn: Connection[Any],
    schema: str,
    ids: Sequence[int],
    what: Change,
    note: Note,
    *,
    found_in: Collection[str] = STATES,
    **target: Any,
) -> Batch:
    """Make one change to at most 500 jobs, with one row in the audit; `target` is what that says beside the ids, `found_in`
    the states of :meth:`Change.apply`.
    """
    own = conn.info.transaction_status is TransactionStatus.IDLE
    with conn.transaction():
        batch = what.apply(conn, schema, ids, note, found_in=found_in, own=own)
        if done := batch.done:
            before, after = (_told(values) for values in (batch.before, batch.after))
            note.write(conn, schema, {"ids": done, **target}, before=before, after=after)
    return batch


def _told(values: dict[int, dict[str, Any]]) -> dict[str, Any] | None:
    """One job's values as they are, several jobs' by id; None: there are none."""
    if len(values) <= 1:
        return next(iter(values.values()), None)
    return {str(id): values[id] for id in sorted(values)}
