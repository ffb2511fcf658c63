"""Ask a worker to stop claiming, to end, or to continue."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import Connection

from jobq._postgres.statements import fetch
from jobq.errors import InvalidOption
from jobq.operations.audit import Actor, AuditRecord

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
    """Ask a worker to be quiet, to stop, or to continue.

    ``quiet``: claim no more, and go on with its jobs. ``stop``: then end. None: continue. The
    worker is notified at once, or learns of it at its next heartbeat. A worker that was asked to
    stop cannot be called back.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        worker_id: the worker.
        what: ``quiet``, ``stop`` or None.
        actor: who the audit log names.
        reason: text for the audit log.

    Returns:
        False if there is no such worker, or it was asked for this already.

    Raises:
        InvalidOption: `what` has another value.
    """
    if what not in _ACTIONS:
        raise InvalidOption(f"what={what!r}: expected quiet, stop, or None to continue")
    note = AuditRecord(_ACTIONS[what], actor, reason)
    with conn.transaction():
        changed = fetch(conn, schema, "request_worker_state", {"id": worker_id, "what": what})
        if changed:
            conn.execute("SELECT pg_notify(%s, 'workers')", (schema,))
            [row] = changed
            target = {"worker": str(worker_id), "host": row["host"], "pid": row["pid"]}
            note.write(conn, schema, target, before={"requested_state": row["before"]}, after={"requested_state": what})
    return bool(changed)
