"""Bulk operations: preview, start, pause and cancel a change over a filter.

`bulk_steps.py` carries them out. An operation changes the jobs of its preview: the draft stores the
filter as the server read it, the time, and the newest id.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from psycopg import Connection

from jobq._postgres.statements import fetch
from jobq.errors import InvalidOption, OperationNotFound, OperationRefused
from jobq.filters import MAX_ID, JobFilter
from jobq.operations.audit import Actor, AuditRecord
from jobq.operations.changes import change_of
from jobq.operations.selection import JobSelection, count, newest_id
from jobq.queries.values.bulk import DRAFT_SECONDS, TYPED_ABOVE, UNFINISHED_STATES, Operation

COUNT_BOUND = 100_000
# Seconds, because the caller waits for the count.
COUNT_SECONDS = 3.0
MAX_RATE = 1_000_000.0
_DEFAULT_STATES: dict[str, tuple[str, ...]] = {"retry": ("failed",)}


def draft(
    conn: Connection[Any],
    schema: str,
    *,
    action: str,
    filter: JobFilter,
    options: Mapping[str, Any] | None = None,
    actor: str | Actor,
) -> Operation:
    """Prepare an action on every job that matches `filter` now. No job is changed.

    The count (`Operation.expected`) is exact up to 100,000 and takes about 3 s at most.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        action: retry, cancel, snooze, move or delete.
        filter: the jobs. If it names neither states nor ids, retry means the failed jobs, and
            the other actions mean all jobs that they can change. Delete must name them.
        options: ``{"seconds": …}`` or ``{"until": …}`` for snooze, ``{"queue": …,
            "priority": …}`` for move.
        actor: who the audit log names.

    Raises:
        InvalidOption: the filter has no term or names states that the action cannot change, or
            an option is unusable.
    """
    change = change_of(action, options or {})
    note = AuditRecord(action, actor, None)
    jobs = _meant(action, filter, change.states)
    text = str(jobs)
    if not text or len(text) > 2000:
        raise InvalidOption(f"filter: it has {len(text):,} characters when written in full: at most 2,000")
    with conn.transaction():
        [made] = fetch(
            conn,
            schema,
            "operation_insert",
            {
                "up_to": newest_id(conn, schema),
                "action": action,
                "filter": text,
                "options": json.dumps(change.options()),
                "actor": note.actor.name,
                "role": note.actor.role,
                "address": note.actor.address,
            },
        )
        wanted = JobSelection(jobs=jobs, at=made["created_at"], up_to=made["up_to"])
        counted, complete = count(conn, schema, wanted, bound=COUNT_BOUND, seconds=COUNT_SECONDS)
        params = {"id": made["id"], "counted": counted, "expected": counted if complete else None}
        [row] = fetch(conn, schema, "operation_counted", params)
    return Operation(**row)


def start(
    conn: Connection[Any],
    schema: str,
    id: int,
    *,
    reason: str,
    typed: int | None = None,
    rate: float | None = None,
    actor: str | Actor,
) -> Operation:
    """Start a draft; :func:`jobq.operations.step` carries it out.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        id: the operation.
        reason: text for the audit log.
        typed: the number that the preview counted, required above 100.
        rate: most jobs a second (default: no limit). A lower rate loads the workers and the
            services that the jobs call less, and takes longer.
        actor: who the audit log names.

    Raises:
        OperationRefused: it is not a draft any more, is older than an hour, or has no jobs.
        InvalidOption: the reason is missing, the number is wrong, or the rate is unusable.
        OperationNotFound: there is no such operation.
    """
    if not reason.strip():
        raise InvalidOption(f"reason={reason!r}: say why; the audit keeps it")
    if rate is not None and not (math.isfinite(rate) and 0 < rate <= MAX_RATE):
        raise InvalidOption(f"rate={rate!r}: expected a number of jobs a second above 0 and at most {MAX_RATE:,.0f}")
    with conn.transaction():
        found = _locked(conn, schema, id)
        note = AuditRecord("operation_start", actor, reason)
        if found.state != "draft":
            raise OperationRefused(
                f"operation {id}: it was started before, and is {found.state}; nothing was done twice"
            )
        if (found.read_at - found.created_at).total_seconds() > DRAFT_SECONDS:
            raise OperationRefused(f"operation {id}: its preview is older than an hour; make a new one")
        if found.expected == 0:
            raise OperationRefused(f"operation {id}: no job fits “{found.filter}”, so there is nothing to start")
        if found.typed is not None and typed != found.typed:
            of = f"{found.counted:,} jobs" if found.expected is not None else f"{found.count_text} jobs"
            raise InvalidOption(
                f"typed={typed!r}: it is about {of}; above {TYPED_ABOVE}, type the number {found.counted}"
            )
        params = {
            "id": id,
            "rate": rate,
            "reason": note.reason,
            "actor": note.actor.name,
            "role": note.actor.role,
            "address": note.actor.address,
        }
        started = Operation(**fetch(conn, schema, "operation_start", params)[0])
        note.write(conn, schema, target(started), before={"state": "draft"}, after={"state": "running"})
    return started


def pause_operation(
    conn: Connection[Any], schema: str, id: int, *, actor: str | Actor, reason: str | None = None
) -> Operation:
    """Pause a running operation. When this returns, the current batch has ended.

    Raises OperationRefused if it is not running, and OperationNotFound.
    """
    return _set_state(conn, schema, id, AuditRecord("operation_pause", actor, reason), "paused", of=("running",))


def resume_operation(
    conn: Connection[Any], schema: str, id: int, *, actor: str | Actor, reason: str | None = None
) -> Operation:
    """Continue a paused or failed operation where it stopped.

    Raises OperationRefused if it is neither, and OperationNotFound.
    """
    return _set_state(
        conn, schema, id, AuditRecord("operation_resume", actor, reason), "running", of=("paused", "failed")
    )


def cancel_operation(
    conn: Connection[Any], schema: str, id: int, *, actor: str | Actor, reason: str | None = None
) -> Operation:
    """End an operation after the current batch, or discard its draft. Finished batches stay done.

    Raises OperationRefused if it has ended, and OperationNotFound.
    """
    note = AuditRecord("operation_cancel", actor, reason)
    return _set_state(conn, schema, id, note, "cancelled", of=UNFINISHED_STATES)


def target(operation: Operation) -> dict[str, Any]:
    """Return the target of an operation for the audit log."""
    said: dict[str, Any] = {"operation": operation.id, "action": operation.action, "filter": operation.filter}
    if operation.options:
        said["options"] = operation.options
    if operation.state == "running" and not operation.seen:
        said["expected"] = operation.expected
        said["counted"] = operation.counted
    else:
        said["done"], said["refused"] = operation.done, operation.refused
    return said


def set_state(
    conn: Connection[Any], schema: str, before: Operation, note: AuditRecord, state: str, *, error: str | None = None
) -> Operation:
    """Change the state of an operation whose row is locked, and write the audit entry."""
    [row] = fetch(conn, schema, "operation_turn", {"id": before.id, "state": state, "error": error})
    after = Operation(**row)
    told = {"state": state} if error is None else {"state": state, "error": error}
    note.write(conn, schema, target(after), before={"state": before.state}, after=told)
    return after


def _set_state(
    conn: Connection[Any], schema: str, id: int, note: AuditRecord, state: str, *, of: tuple[str, ...]
) -> Operation:
    with conn.transaction():
        found = _locked(conn, schema, id)
        if found.state not in of:
            raise OperationRefused(
                f"operation {id}: it is {found.state}; only one that is {' or '.join(of)} can be {state}"
            )
        return set_state(conn, schema, found, note, state)


def _locked(conn: Connection[Any], schema: str, id: int) -> Operation:
    found = fetch(conn, schema, "operation_lock", {"id": id}) if 0 <= id <= MAX_ID else []
    if not found:
        raise OperationNotFound(f"operation {id}: there is none with this id")
    return Operation(**found[0])


def _meant(action: str, jobs: JobFilter, states: tuple[str, ...]) -> JobFilter:
    """Return the filter with explicit states, so it shows exactly the jobs that it changes."""
    if jobs.empty:
        raise InvalidOption(
            "filter: it has no term, so it would be every job there is; name at least one, as in state:failed"
        )
    for state in jobs.states:
        if state not in states:
            raise InvalidOption(f"state:{state}: {action} is for {', '.join(states)}; leave it out of the filter")
    if jobs.states or jobs.ids:
        return jobs
    if action == "delete":
        raise InvalidOption("filter: say which states are to be deleted, as in state:failed,cancelled")
    possible = tuple(state for state in _DEFAULT_STATES.get(action, states) if state in jobs.wanted_states)
    if not possible:
        raise InvalidOption(
            f"filter {str(jobs)!r}: no job that fits can be in a state for {action} ({', '.join(states)})"
        )
    return replace(jobs, states=possible)
