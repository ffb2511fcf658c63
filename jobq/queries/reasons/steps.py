"""What a suspended durable job waits for, in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from jobq._core.durations import roughly
from jobq._core.text import name, one_line
from jobq.queries.steps import job_waits
from jobq.queries.values.steps import JobWait

# Steps that are named in one sentence, and characters of an error.
_NAMED = 3
_ERROR = 120


def suspended(conn: Connection[Any], schema: str, job_id: int, now: datetime) -> str | None:
    """Return what a suspended job waits for, as a sentence without a period; None if no step waits."""
    found = job_waits(conn, schema, job_id)
    clauses = [_clause(wait, now) for wait in found.waits[:_NAMED]]
    if not clauses:
        return None
    if found.total == 1:
        return f"It {clauses[0]}"
    more = f"; and {found.total - len(clauses):,} more" if found.total > len(clauses) else ""
    return f"{found.total:,} of its steps wait: it " + "; it ".join(clauses) + more


def signal_wait(signal: str, wake_at: datetime | None, is_over: bool, now: datetime) -> str:
    """Return that a job waits for a signal, as a clause after "It"."""
    if is_over:
        return f"is about to be woken: the signal '{name(signal)}' has been sent"
    limit = "without a time limit" if wake_at is None else f"for at most {_until(wake_at, now)}"
    return f"waits for the signal '{name(signal)}', {limit}"


def _clause(wait: JobWait, now: datetime) -> str:
    match wait.kind:
        case "signal":
            return signal_wait(wait.name, wait.wake_at, wait.is_over, now)
        case "child":
            child = f"its child, job {wait.child_job} of task {name(wait.child_task or wait.name)}"
            if wait.is_over:
                return f"is about to be woken: {child}, has ended"
            return f"waits for {child} ({wait.child_state})"
        case "sleep":
            named = "" if wait.name == "sleep" else f" in '{name(wait.name)}'"
            return f"sleeps{named} for {_until(wait.wake_at or now, now)}"
        case _:
            error = ": ".join(part for part in (wait.error_type, one_line(wait.error, _ERROR)) if part)
            said = f"waits for try {wait.tries + 1} of step '{name(wait.name)}' for {_until(wait.wake_at or now, now)}"
            return f"{said}; the last one failed" + (f" with {error}" if error else "")


def _until(at: datetime, now: datetime) -> str:
    left = (at - now).total_seconds()
    return f"{roughly(max(left, 0.1))}, until {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
