"""Pausing queues, and letting them go on."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq.connections import sync_executor
from jobq.errors import UnknownQueue
from jobq.operations.actors import Actor, Note, checked_text
from jobq.operations.scripts import Script, play


def pause(conn: Connection[Any], schema: str, queue: str, *, actor: str | Actor, reason: str | None = None) -> bool:
    """Pause `queue`: no more of its jobs are claimed; those that run go on. False when it was paused already.

    Raises UnknownQueue for a queue without a row, without jobs and without a worker serving it by name.
    """
    with conn.transaction():
        return play(sync_executor(conn), schema, pausing(schema, queue, Note("pause", actor, reason)))


def resume(conn: Connection[Any], schema: str, queue: str, *, actor: str | Actor, reason: str | None = None) -> bool:
    """Let `queue` go on. False when it was not paused. Raises UnknownQueue as :func:`pause` does."""
    with conn.transaction():
        return play(sync_executor(conn), schema, resuming(schema, queue, Note("resume", actor, reason)))


def pausing(schema: str, queue: str, note: Note) -> Script[bool]:
    """Carry out :func:`pause`."""
    return (yield from _set_pause(schema, queue, "pause_queue", note))


def resuming(schema: str, queue: str, note: Note) -> Script[bool]:
    """Carry out :func:`resume`."""
    return (yield from _set_pause(schema, queue, "resume_queue", note))


def _set_pause(schema: str, queue: str, name: str, note: Note) -> Script[bool]:
    checked_text("queue", queue, 100)
    if not (yield "queue_known", {"queue": queue})[0][0]:
        raise UnknownQueue(f"queue {queue!r}: no job, worker or setting has this name; see `jobq queues list`")
    changed = yield name, {"queue": queue, "actor": note.actor.name, "reason": note.reason}
    if changed:
        before, after = changed[0]
        yield "queues_tell", {"schema": schema}
        yield "audit_write", note.row({"queue": queue}, before=before, after=after)
    return bool(changed)
