"""Asking a worker to claim no more, to end, or to go on."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import Connection

from jobq.errors import InvalidOption
from jobq.operations.actors import Actor, Note
from jobq.operations.rows import rows

_ACTIONS = {"quiet": "worker_quiet", "stop": "worker_stop", None: "worker_resume"}


def ask_worker(
    conn: Connection[Any],
    schema: str,
    worker_id: UUID,
    what: str | None,
    *,
    actor: str | Actor,
    reason: str | None = None,
) -> bool:
    """Ask a worker to be ``quiet`` (claim no more, go on with what it has), to ``stop`` (then end), or, with None, to go on.

    It hears of it at once, or at its next heartbeat. False when there is no such worker, or it was asked that already; one
    that was asked to stop cannot be called back. Raises InvalidOption for anything else.
    """
    if what not in _ACTIONS:
        raise InvalidOption(f"what={what!r}: give quiet, stop, or None to go on")
    note = Note(_ACTIONS[what], actor, reason)
    with conn.transaction():
        changed = rows(conn, schema, "ask_worker", {"id": worker_id, "what": what})
        if changed:
            conn.execute("SELECT pg_notify(%s, 'workers')", (schema,))
            [row] = changed
            target = {"worker": str(worker_id), "host": row["host"], "pid": row["pid"]}
            note.write(conn, schema, target, before={"asked": row["before"]}, after={"asked": what})
    return bool(changed)
