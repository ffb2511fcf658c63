"""Carrying out bulk operations: one batch, one transaction, with the progress in it.

So a process that is killed in the middle has done nothing, and the next one goes on where the last batch ended. The row of the
operation is locked for the batch: when two processes step the same operation, one of them does nothing.
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

from jobq.bulk import Operation
from jobq.errors import JobqError, OperationNotFound
from jobq.operations.actors import Actor, Note
from jobq.operations.bulk import turned
from jobq.operations.changes import Batch, change_of
from jobq.operations.jobs import BATCH
from jobq.operations.matching import Snapshot, next_jobs
from jobq.operations.rows import execute, rows

# Seconds until the next look where another steps the operation now, and at most where its rate allows none yet.
_ELSEWHERE = 0.2
_LONGEST = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The outcome of one step. `wait`: seconds until another may do something; 0: at once."""

    more: bool
    wait: float = 0.0


def step(conn: Connection[Any], schema: str, id: int) -> bool:
    """Do one batch of a running operation, at most 500 jobs; return whether there may be more to do.

    It may do nothing and return True: while another connection does a batch of it, and while its rate allows none. A database
    error is written down, and the operation is ``failed`` until it is resumed; only the loss of the connection is raised.
    """
    return take_step(conn, schema, id).more


def take_step(conn: Connection[Any], schema: str, id: int) -> Step:
    """:func:`step`, and when the next one is worth while."""
    own = conn.info.transaction_status is TransactionStatus.IDLE
    with conn.transaction():
        found = rows(conn, schema, "operation_try_lock", {"id": id})
        if not found:
            states = rows(conn, schema, "operation_get", {"id": id})
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
            turned(conn, schema, operation, _note("operation_failed", operation), "failed", error=_sentence(error))
            return Step(more=False)


def run_operation(
    conn: Connection[Any],
    schema: str,
    id: int,
    *,
    progress: Callable[[Operation], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Operation:
    """Step an operation here until it has ended or is paused; return its state afterwards.

    `conn` must be in autocommit mode. Raises OperationNotFound.
    """
    while True:
        taken = take_step(conn, schema, id)
        found = rows(conn, schema, "operation_get", {"id": id})
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
    """Return the ids of the operations that have to be stepped, oldest first."""
    return [row["id"] for row in rows(conn, schema, "operations_running", {})]


def _batch(conn: Connection[Any], schema: str, operation: Operation, limit: int, *, own: bool) -> Step:
    wanted = Snapshot(jobs=operation.jobs, at=operation.created_at, up_to=operation.up_to)
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
    [row] = rows(conn, schema, "operation_progress", params)
    if found.after < operation.up_to:
        return Step(more=True)
    turned(conn, schema, Operation(**row), _note("operation_done", operation), "done")
    return Step(more=False)


def _allowed(operation: Operation) -> tuple[int, float]:
    """Return how many jobs the rate allows now, and the seconds until it allows some: those of a second, or a batch.

    What has built up counts for a second at most: an operation that was not stepped for a while does not make up for it.
    """
    if operation.rate is None or operation.progressed_at is None:
        return BATCH, 0.0
    some = min(max(int(operation.rate), 1), BATCH)
    wait = some / operation.rate - (operation.read_at - operation.progressed_at).total_seconds()
    return (0, min(wait, _LONGEST)) if wait > 0 else (some, 0.0)


def _note(action: str, operation: Operation) -> Note:
    return Note(action, Actor(operation.actor, operation.role, operation.address), operation.reason)


def _sentence(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text}".replace("\x00", "")[:1000]
