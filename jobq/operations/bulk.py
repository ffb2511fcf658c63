"""Changes over a filter, as rows: previewed, started, paused, cancelled. `steps.py` carries them out.

What was previewed is what runs: the filter is stored at the draft, as the server read it, with the moment and the newest id.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from psycopg import Connection

from jobq.bulk import DRAFT_SECONDS, TYPED_ABOVE, Operation
from jobq.errors import InvalidOption, OperationNotFound, OperationRefused
from jobq.filters import MAX_ID, JobFilter
from jobq.operations.actors import Actor, Note
from jobq.operations.changes import change_of
from jobq.operations.matching import Snapshot, count, newest_id
from jobq.operations.rows import rows

COUNT_BOUND = 100_000
# Seconds: the caller waits for the count.
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
    """Prepare to do `action` (retry, cancel, snooze, move or delete) to every job that fits `filter` now; change nothing.

    `options`: ``{"seconds": …}`` or ``{"until": …}`` of a snooze, ``{"queue": …, "priority": …}`` of a move. A filter that
    names neither states nor ids is meant for the failed jobs by a retry, by the others for all that can be changed; a delete
    must name them. `Operation.expected` is exact up to 100,000; counting goes on for some 3 s at most.

    Raises InvalidOption for a filter without a term, for states to which the action cannot be done, and for unusable options.
    """
    change = change_of(action, options or {})
    note = Note(action, actor, None)
    jobs = _meant(action, filter, change.states)
    text = str(jobs)
    if not text or len(text) > 2000:
        raise InvalidOption(f"filter: it has {len(text):,} characters when written in full: at most 2,000")
    with conn.transaction():
        [made] = rows(
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
        wanted = Snapshot(jobs=jobs, at=made["created_at"], up_to=made["up_to"])
        counted, complete = count(conn, schema, wanted, bound=COUNT_BOUND, seconds=COUNT_SECONDS)
        params = {"id": made["id"], "counted": counted, "expected": counted if complete else None}
        [row] = rows(conn, schema, "operation_counted", params)
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
    """Let a draft begin; :func:`jobq.operations.step` carries it out.

    `reason` is kept in the audit. `typed`: the number that the preview counted, required above 100. `rate`: jobs a second
    at most (default: as fast as it goes; a lower one spares the workers and whatever the jobs call, and takes longer).

    Raises OperationRefused when it is no draft any more, is older than an hour or is about no job, InvalidOption for a missing
    reason, another number or an unusable rate, and OperationNotFound.
    """
    if not reason.strip():
        raise InvalidOption(f"reason={reason!r}: say why; the audit keeps it")
    if rate is not None and not (math.isfinite(rate) and 0 < rate <= MAX_RATE):
        raise InvalidOption(f"rate={rate!r}: give a number of jobs a second above 0 and at most {MAX_RATE:,.0f}")
    with conn.transaction():
        found = _locked(conn, schema, id)
        note = Note("operation_start", actor, reason)
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
        started = Operation(**rows(conn, schema, "operation_start", params)[0])
        note.write(conn, schema, target(started), before={"state": "draft"}, after={"state": "running"})
    return started


def pause_operation(
    conn: Connection[Any], schema: str, id: int, *, actor: str | Actor, reason: str | None = None
) -> Operation:
    """Let a running operation rest after the batch under way; when this returns, that has ended.

    Raises OperationRefused when it does not run, and OperationNotFound.
    """
    return _turn(conn, schema, id, Note("operation_pause", actor, reason), "paused", of=("running",))


def resume_operation(
    conn: Connection[Any], schema: str, id: int, *, actor: str | Actor, reason: str | None = None
) -> Operation:
    """Let a paused or failed operation go on where it was.

    Raises OperationRefused when it is neither, and OperationNotFound.
    """
    return _turn(conn, schema, id, Note("operation_resume", actor, reason), "running", of=("paused", "failed"))


def cancel_operation(
    conn: Connection[Any], schema: str, id: int, *, actor: str | Actor, reason: str | None = None
) -> Operation:
    """End an operation after the batch under way, or drop its draft; what was done stays done.

    Raises OperationRefused when it has ended, and OperationNotFound.
    """
    note = Note("operation_cancel", actor, reason)
    return _turn(conn, schema, id, note, "cancelled", of=("draft", "running", "paused", "failed"))


def target(operation: Operation) -> dict[str, Any]:
    """Return what the audit says of an operation."""
    said: dict[str, Any] = {"operation": operation.id, "action": operation.action, "filter": operation.filter}
    if operation.options:
        said["options"] = operation.options
    if operation.state == "running" and not operation.seen:
        said["expected"] = operation.expected
        said["counted"] = operation.counted
    else:
        said["done"], said["refused"] = operation.done, operation.refused
    return said


def turned(
    conn: Connection[Any], schema: str, before: Operation, note: Note, state: str, *, error: str | None = None
) -> Operation:
    """Give an operation whose row is locked another state, with its audit."""
    [row] = rows(conn, schema, "operation_turn", {"id": before.id, "state": state, "error": error})
    after = Operation(**row)
    told = {"state": state} if error is None else {"state": state, "error": error}
    note.write(conn, schema, target(after), before={"state": before.state}, after=told)
    return after


def _turn(conn: Connection[Any], schema: str, id: int, note: Note, state: str, *, of: tuple[str, ...]) -> Operation:
    with conn.transaction():
        found = _locked(conn, schema, id)
        if found.state not in of:
            raise OperationRefused(
                f"operation {id}: it is {found.state}; only one that is {' or '.join(of)} can be {state}"
            )
        return turned(conn, schema, found, note, state)


def _locked(conn: Connection[Any], schema: str, id: int) -> Operation:
    found = rows(conn, schema, "operation_lock", {"id": id}) if 0 <= id <= MAX_ID else []
    if not found:
        raise OperationNotFound(f"operation {id}: there is none with this id")
    return Operation(**found[0])


def _meant(action: str, jobs: JobFilter, states: tuple[str, ...]) -> JobFilter:
    """Return the filter with its states said, so that what it shows is what it does."""
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
