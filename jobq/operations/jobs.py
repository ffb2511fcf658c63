"""Change jobs by id: retry, run now, cancel, snooze, move, delete.

Each function takes `found_in` (default: every state): the states in which the caller found the
jobs. A job that is in another state by now is left alone. A dead job that was put back is therefore
not deleted, and a ready job that has started is not stopped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.pq import TransactionStatus

from jobq.job import STATES
from jobq.operations.audit import Actor, AuditRecord
from jobq.operations.change import Batch, Change
from jobq.operations.changes import Cancel, Delete, Move, Retry, RunNow, Snooze

BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The result of an operation: the changed ids, in order, and a reason for each other id."""

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
    """Run jobs again, now.

    Dead jobs (failed, cancelled, expired) go back under the same id with all their attempts. Jobs
    that wait for a retry or for their time become due. Other jobs are refused.

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
    """Make jobs due that wait for a retry or for their time; refuse others.

    Raises as :func:`retry`.
    """
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
    """Cancel jobs: idle jobs end as ``cancelled`` at once; running jobs are asked to stop.

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
    """Start jobs that do not run `seconds` from now, or at `until`. No attempt is counted.

    `until` is an aware datetime; a past time means now. Raises InvalidOption unless exactly one of
    both is given, and for unusable values.
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
    """Move jobs that do not run to another `queue`, another `priority` (0 to 9; 9 first), or both.

    A due job becomes the last one of its new lane: its `run_at` becomes now. Raises InvalidOption
    for unusable values.
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
    """Delete jobs that do not run, live or finished, with their attempts, permanently.

    Their keys are free again, including keys that are held for a period. Raises as :func:`retry`.
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
    """Make one change to these jobs, in the order of their ids.

    The jobs are changed in batches of 500. Each batch is a transaction with its audit entry.
    """
    note = AuditRecord(what.name, actor, reason)
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
    note: AuditRecord,
    *,
    found_in: Collection[str] = STATES,
    **target: Any,
) -> Batch:
    """Make one change to at most 500 jobs, with one audit entry.

    `target` is what the entry says besides the ids; `found_in` is as for :meth:`Change.apply`.
    """
    own = conn.info.transaction_status is TransactionStatus.IDLE
    with conn.transaction():
        batch = what.apply(conn, schema, ids, note, found_in=found_in, own=own)
        if done := batch.done:
            before, after = (_told(values) for values in (batch.before, batch.after))
            note.write(conn, schema, {"ids": done, **target}, before=before, after=after)
    return batch


def _told(values: dict[int, dict[str, Any]]) -> dict[str, Any] | None:
    """Return one job's values, or several jobs' values by id; None if there are none."""
    if len(values) <= 1:
        return next(iter(values.values()), None)
    return {str(id): values[id] for id in sorted(values)}
