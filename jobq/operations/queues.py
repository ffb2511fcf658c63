"""Pausing queues, and letting them go on."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq.errors import UnknownQueue
from jobq.operations.actors import Actor, Note, checked_text
from jobq.operations.rows import rows


def pause(conn: Connection[Any], schema: str, queue: str, *, actor: str | Actor, reason: str | None = None) -> bool:
    """Pause `queue`: no more of its jobs are claimed; those that run go on. False when it was paused already.

    Raises UnknownQueue for a queue without a row, without jobs and without a worker serving it by name.
    """
    return _set_pause(conn, schema, queue, "pause_queue", Note("pause", actor, reason))


def resume(conn: Connection[Any], schema: str, queue: str, *, actor: str | Actor, reason: str | None = None) -> bool:
    """Let `queue` go on. False when it was not paused. Raises UnknownQueue as :func:`pause` does."""
    return _set_pause(conn, schema, queue, "resume_queue", Note("resume", actor, reason))


def _set_pause(conn: Connection[Any], schema: str, queue: str, name: str, note: Note) -> bool:
    checked_text("queue", queue, 100)
    with conn.transaction():
        if not rows(conn, schema, "queue_known", {"queue": queue})[0]["known"]:
            raise UnknownQueue(f"queue {queue!r}: no job, worker or setting has this name; see `jobq queues list`")
        changed = rows(conn, schema, name, {"queue": queue, "actor": note.actor.name, "reason": note.reason})
        if changed:
            conn.execute("SELECT pg_notify(%s, 'queues')", (schema,))
            note.write(conn, schema, {"queue": queue}, before=changed[0]["before"], after=changed[0]["after"])
    return bool(changed)
