"""Durable jobs: their steps, the signals to them, and what they wait for.

A job may have 100,000 steps, and a value may have megabytes, so both have bounds: the newest steps
are listed, and large values are left out.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from psycopg import Connection
from psycopg.rows import tuple_row

from jobq._core.validation import check_int
from jobq._postgres.statements import fetch
from jobq.filters import MAX_ID
from jobq.queries.jobs import parsed
from jobq.queries.values.steps import JobSteps, JobWait, JobWaits, RunWait, SignalInfo, StepInfo
from jobq.steps.rows import loaded
from jobq.steps.store import StoredStep

MAX_LISTED_STEPS = 100_000
# Bytes of a value as stored.
_LARGEST = 10_000
_MOST_WAITS = 100
_MOST_RUN_WAITS = 1_000
# Jobs whose steps are read at a time.
_MOST_UNFINISHED = 500


def job_steps(conn: Connection[Any], schema: str, id: int, *, limit: int = 1000) -> JobSteps:
    """Return the newest steps of a job, oldest first; none if the job is not durable, or unknown.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        id: the job.
        limit: most steps, 1 to 100,000.

    Raises:
        InvalidOption: `limit` is out of range.
    """
    check_int("limit", limit, 1, MAX_LISTED_STEPS)
    rows = fetch(conn, schema, "job_steps", {"id": id, "limit": limit, "bytes": _LARGEST}) if 0 <= id <= MAX_ID else []
    total = rows[0]["total"] if rows else 0
    return JobSteps(steps=[_step(row) for row in reversed(rows)], total=total)


def job_signals(conn: Connection[Any], schema: str, id: int, *, limit: int = 100) -> list[SignalInfo]:
    """Return the signals that were sent to a job, newest first. Those to its workflow's run: `run_signals`.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        id: the job.
        limit: most signals, 1 to 100,000.

    Raises:
        InvalidOption: `limit` is out of range.
    """
    return _signals(conn, schema, "signals:job", id, limit)


def run_signals(conn: Connection[Any], schema: str, id: int, *, limit: int = 100) -> list[SignalInfo]:
    """Return the signals that were sent to a run of a workflow, newest first. Arguments as of `job_signals`."""
    return _signals(conn, schema, "signals:run", id, limit)


def job_waits(conn: Connection[Any], schema: str, id: int) -> JobWaits:
    """Return what a suspended job waits for, at most 100 steps. Of a job that is not suspended, it says nothing."""
    rows = fetch(conn, schema, "job_waits", {"id": id, "limit": _MOST_WAITS}) if 0 <= id <= MAX_ID else []
    total = rows[0]["total"] if rows else 0
    return JobWaits(waits=[_wait(row) for row in rows], total=total)


def run_waits(conn: Connection[Any], schema: str, id: int) -> list[RunWait]:
    """Return the jobs of a workflow's run that wait for signals, by the signals' names, at most 1,000."""
    rows = fetch(conn, schema, "run_waits", {"id": id, "limit": _MOST_RUN_WAITS}) if 0 <= id <= MAX_ID else []
    return [RunWait(is_over=row.pop("sent"), **row) for row in rows]


def unfinished(
    conn: Connection[Any], schema: str, tasks: Collection[str]
) -> Iterator[tuple[dict[str, Any], list[StoredStep]]]:
    """Yield the unfinished jobs of `tasks` that have stored steps, by id, each with all of its steps.

    A job is the row of ``steps_unfinished``: id, task, args, queue, attempt, max_attempts, headers.
    """
    after: int | None = -1
    while after is not None:
        first, *jobs = fetch(conn, schema, "steps_unfinished", {"after": after, "most": _MOST_UNFINISHED})
        after = first["next_after"]
        jobs = [job for job in jobs if job["task"] in tasks]
        steps = loaded(fetch(conn, schema, "steps_load", {"ids": [job["id"] for job in jobs]}, tuple_row))
        for job in jobs:
            yield job, steps.get(job["id"], [])


def _signals(conn: Connection[Any], schema: str, statement: str, id: int, limit: int) -> list[SignalInfo]:
    check_int("limit", limit, 1, MAX_LISTED_STEPS)
    rows = fetch(conn, schema, statement, {"id": id, "limit": limit, "bytes": _LARGEST}) if 0 <= id <= MAX_ID else []
    return [SignalInfo(payload=parsed(row.pop("payload")), **row) for row in rows]


def _step(row: dict[str, Any]) -> StepInfo:
    del row["total"]
    args, shortened = _arguments(row["kind"], row.pop("args"))
    row["error_type"] = _class_name(row["error_type"])
    return StepInfo(args=args, shortened_args=shortened, result=parsed(row.pop("result")), **row)


def _arguments(kind: str, text: str | None) -> tuple[Any, str | None]:
    """Return the arguments, or the text of arguments that the step has stored shortened.

    A step that undoes has the name of its function there, which may look like JSON.
    """
    if text is None or kind == "undo":
        return None, text
    try:
        return json.loads(text), None
    except (RecursionError, ValueError):
        return None, text


def _wait(row: dict[str, Any]) -> JobWait:
    ended = row["kind"] == "child" and row["run_state"] is not None and row["run_state"] != "running"
    is_over = row.pop("sent") or ended
    row["error_type"] = _class_name(row["error_type"])
    del row["total"], row["run_state"]
    return JobWait(is_over=is_over, **row)


def _class_name(stored: str | None) -> str | None:
    """Return the name of an exception's class, stored as ``module:Class``, or of a child's end."""
    return None if stored is None else stored.removeprefix("builtins:").replace(":", ".")
