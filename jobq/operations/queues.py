"""Pause and resume queues."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq._core.validation import check_text
from jobq._postgres.adapters import sync_executor
from jobq._postgres.script import Script, run_script
from jobq.errors import UnknownQueue
from jobq.operations.audit import Actor, AuditRecord


def pause(conn: Connection[Any], schema: str, queue: str, *, actor: str | Actor, reason: str | None = None) -> bool:
    """Pause `queue`: no more of its jobs are claimed; running jobs continue.

    Returns False if it was paused already. Raises UnknownQueue if the queue has no row, no jobs
    and no worker that serves it by name.
    """
    with conn.transaction():
        return run_script(sync_executor(conn), schema, pause_script(schema, queue, AuditRecord("pause", actor, reason)))


def resume(conn: Connection[Any], schema: str, queue: str, *, actor: str | Actor, reason: str | None = None) -> bool:
    """Resume `queue`. Returns False if it was not paused.

    Raises UnknownQueue as :func:`pause` does.
    """
    with conn.transaction():
        return run_script(
            sync_executor(conn), schema, resume_script(schema, queue, AuditRecord("resume", actor, reason))
        )


def pause_script(schema: str, queue: str, note: AuditRecord) -> Script[bool]:
    """Do the work of :func:`pause`."""
    return (yield from _set_pause(schema, queue, "pause_queue", note))


def resume_script(schema: str, queue: str, note: AuditRecord) -> Script[bool]:
    """Do the work of :func:`resume`."""
    return (yield from _set_pause(schema, queue, "resume_queue", note))


def _set_pause(schema: str, queue: str, name: str, note: AuditRecord) -> Script[bool]:
    check_text("queue", queue, 100)
    if not (yield "queue_known", {"queue": queue})[0][0]:
        raise UnknownQueue(f"queue {queue!r}: no job, worker or setting has this name; see `jobq queues list`")
    changed = yield name, {"queue": queue, "actor": note.actor.name, "reason": note.reason}
    if changed:
        before, after = changed[0]
        yield "notify_all_queues", {"schema": schema}
        yield "audit_write", note.row({"queue": queue}, before=before, after=after)
    return bool(changed)
