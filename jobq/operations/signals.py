"""Send signals to durable jobs and to runs of workflows."""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from psycopg.rows import tuple_row

from jobq._core.validation import check_int
from jobq._postgres.statements import fetch
from jobq.filters import MAX_ID
from jobq.operations.audit import Actor, AuditRecord
from jobq.steps.signals import sent_signal, signal_parameters

MAX_PAYLOAD_BYTES = 1024 * 1024


def send_signal(
    conn: Connection[Any],
    schema: str,
    job_id: int,
    name: str,
    payload: object = None,
    *,
    actor: str | Actor,
    reason: str | None = None,
    max_bytes: int = MAX_PAYLOAD_BYTES,
) -> int:
    """Send a signal to a durable job, and return the signal's id. The job need not wait for it yet.

    One transaction, or a savepoint inside the caller's transaction. The audit entry has the
    signal's id and name; the payload is only in the signal, and retention removes it with the job's.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        job_id: the job.
        name: the signal's name, 1 to 200 characters.
        payload: a value that pydantic can turn into JSON. The task that takes the signal checks it.
        actor: who the audit log names, and who has sent the signal.
        reason: text for the audit log, at most 1,000 characters.
        max_bytes: most bytes of the payload as JSON.

    Raises:
        SignalNotSent: the job has finished, or does not exist.
        InvalidArguments: the payload is no JSON, or too large.
        InvalidOption: `name`, `actor` or `reason` is unusable.
    """
    check_int("job_id", job_id, 0, MAX_ID)
    note = AuditRecord("send_signal", actor, reason)
    return _send(conn, schema, note, {"ids": [job_id]}, _values(name, payload, note, max_bytes, job=job_id))


def send_workflow_signal(
    conn: Connection[Any],
    schema: str,
    run_id: int,
    name: str,
    payload: object = None,
    *,
    actor: str | Actor,
    reason: str | None = None,
    max_bytes: int = MAX_PAYLOAD_BYTES,
) -> int:
    """Send a signal to a run of a workflow: the first of its jobs that waits for this name takes it.

    Arguments, result and errors are those of `send_signal`; `run_id` is the run.
    """
    check_int("run_id", run_id, 0, MAX_ID)
    note = AuditRecord("send_signal", actor, reason)
    return _send(conn, schema, note, {"workflow": run_id}, _values(name, payload, note, max_bytes, run=run_id))


def _values(
    name: str, payload: object, note: AuditRecord, max_bytes: int, *, job: int | None = None, run: int | None = None
) -> dict[str, Any]:
    return signal_parameters(name, payload, job=job, run=run, sent_by=note.actor.name, max_bytes=max_bytes)


def _send(conn: Connection[Any], schema: str, note: AuditRecord, target: dict[str, Any], values: dict[str, Any]) -> int:
    with conn.transaction():
        signal = sent_signal(values, fetch(conn, schema, "send_signal", values, row_factory=tuple_row))
        note.write(conn, schema, target, after={"signal": signal, "name": values["name"]})
    return signal
