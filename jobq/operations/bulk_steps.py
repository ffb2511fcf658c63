"""Carry out bulk operations: each batch is one transaction and includes the progress.

If a process is killed in the middle of a batch, the batch has no effect, and the next process
continues after the last complete batch. The row of the operation is locked during a batch: if two
processes step the same operation, one of them does nothing.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus

from jobq._postgres.statements import execute, fetch
from jobq.errors import JobqError, OperationNotFound
from jobq.operations.audit import Actor, AuditRecord
from jobq.operations.bulk import set_state
from jobq.operations.change import Batch
from jobq.operations.changes import change_of
from jobq.operations.jobs import BATCH
from jobq.operations.selection import JobSelection, next_jobs
from jobq.queries.values.bulk import Operation

# Seconds until the next try if another process steps the operation, and the longest wait if
# its rate allows no job yet.
_ELSEWHERE = 0.2
_LONGEST = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The result of one step. `wait`: seconds until the next step may do something; 0: at once."""

    more: bool
    wait: float = 0.0


def step(conn: Connection[Any], schema: str, id: int) -> bool:
    """Do one batch of a running operation, at most 500 jobs; return whether more may remain.

    It may do nothing and return True if another connection does a batch, or if the rate allows no
    job yet. A database error is recorded, and the operation is ``failed`` until it is resumed.
    Only a lost connection is raised.
    """
    return run_batch(conn, schema, id).more


def run_batch(conn: Connection[Any], schema: str, id: int) -> Step:
    """Do :func:`step`, and return when the next step is useful."""
    own = conn.info.transaction_status is TransactionStatus.IDLE
    with conn.transaction():
        found = fetch(conn, schema, "operation_try_lock", {"id": id})
        if not found:
            states = fetch(conn, schema, "operation_get", {"id": id})
            return Step(more=bool(states) and states[0]["state"] == "running", wait=_ELSEWHERE)
        operation = Operation(**found[0])
        if operation.state != "running":
            return Step(more=False)
        allowed, wait = _allowed(operation)
        if not allowed:
            return Step(more=True, wait=wait)
        try:
            with conn.transaction():
                return _batch(conn, schema, operation, allowed, own=own)
        except (psycopg.Error, JobqError) as error:
            if conn.closed or conn.broken:
                raise
            set_state(conn, schema, operation, _note("operation_failed", operation), "failed", error=_sentence(error))
            return Step(more=False)


def run_operation(
    conn: Connection[Any],
    schema: str,
    id: int,
    *,
    progress: Callable[[Operation], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Operation:
    """Step an operation here until it has ended or is paused; return its final state.

    `conn` must be in autocommit mode. Raises OperationNotFound.
    """
    while True:
        taken = run_batch(conn, schema, id)
        found = fetch(conn, schema, "operation_get", {"id": id})
        if not found:
            raise OperationNotFound(f"operation {id}: there is none with this id")
        operation = Operation(**found[0])
        if progress is not None:
            progress(operation)
        if not taken.more:
            return operation
        if taken.wait:
            sleep(taken.wait)


def running_operations(conn: Connection[Any], schema: str) -> list[int]:
    """Return the ids of the operations that need steps, oldest first."""
    return [row["id"] for row in fetch(conn, schema, "operations_running", {})]


def _batch(conn: Connection[Any], schema: str, operation: Operation, limit: int, *, own: bool) -> Step:
    wanted = JobSelection(jobs=operation.jobs, at=operation.created_at, up_to=operation.up_to)
    found = next_jobs(conn, schema, wanted, after=operation.after_id, limit=limit)
    batch = Batch()
    if found.ids:
        batch = change_of(operation.action, operation.options).apply(
            conn,
            schema,
            found.ids,
            _note(operation.action, operation),
            found_in=wanted.jobs.wanted_states,
            own=own,
            one_of_many=True,
        )
        refused = {str(id): why for id, why in batch.refused.items()}
        written = {"id": operation.id, "done": batch.done, "refused": json.dumps(refused)}
        execute(conn, schema, "operation_batch_write", written)
    refusals = Counter(operation.refusals)
    refusals.update(batch.kinds.get(id, why) for id, why in batch.refused.items())
    params = {
        "id": operation.id,
        "after": found.after,
        "done": len(batch.done),
        "refused": len(batch.refused),
        "refusals": json.dumps(refusals),
    }
    [row] = fetch(conn, schema, "operation_progress", params)
    if found.after < operation.up_to:
        return Step(more=True)
    set_state(conn, schema, Operation(**row), _note("operation_done", operation), "done")
    return Step(more=False)


def _allowed(operation: Operation) -> tuple[int, float]:
    """Return how many jobs the rate allows now, and the seconds until it allows one.

    The allowance is at most one second's jobs, or a batch. An operation that was not stepped for
    a while does not make up for it.
    """
    if operation.rate is None or operation.progressed_at is None:
        return BATCH, 0.0
    some = min(max(int(operation.rate), 1), BATCH)
    wait = some / operation.rate - (operation.read_at - operation.progressed_at).total_seconds()
    return (0, min(wait, _LONGEST)) if wait > 0 else (some, 0.0)


def _note(action: str, operation: Operation) -> AuditRecord:
    return AuditRecord(action, Actor(operation.actor, operation.role, operation.address), operation.reason)


def _sentence(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text}".replace("\x00", "")[:1000]
