"""Maintenance tasks, bulk operations, dead letters, and the rights of this role."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from jobq import queries
from jobq._core.durations import format_duration
from jobq._core.text import listed, name, one_line, plural
from jobq.diagnostics.finding import Check, Finding, Status, rows
from jobq.diagnostics.snapshot import Snapshot

MANY_FAILURES = 20  # in an hour
_OVERDUE = 300  # seconds
_LONG_OVERDUE = 3600  # seconds
_STILL = 60  # seconds without a batch of an operation that nothing delays
# The needed rights on each table, or on some columns. A producer needs only INSERT on job. See
# deploy/roles.sql.
_NEEDED = {
    "work": {
        "job": "SELECT, INSERT, UPDATE, DELETE",
        "job_history": "SELECT, INSERT",
        "job_attempt": "SELECT, INSERT",
        "job_key": "SELECT, DELETE",
        "queue": "SELECT",
        "worker": "SELECT, INSERT, UPDATE, DELETE",
        "maintenance_task": "SELECT, INSERT, UPDATE",
        "rollup_queue": "SELECT, INSERT, UPDATE, DELETE",
        "rollup_task": "SELECT, INSERT, UPDATE, DELETE",
        "rollup_mark": "SELECT, INSERT, UPDATE, DELETE",
        "schedule": "SELECT, INSERT, UPDATE",
        "schedule_tick": "SELECT, INSERT, DELETE",
    },
    "operate": {
        "job": "SELECT, INSERT, UPDATE, DELETE",
        "job_history": "SELECT, INSERT, UPDATE, DELETE",
        "job_attempt": "SELECT, DELETE",
        "job_key": "SELECT, DELETE",
        "queue": "SELECT, INSERT, UPDATE",
        "group_ready": "SELECT, INSERT",
        "rate_state": "SELECT, INSERT, UPDATE, DELETE",
        "worker": "SELECT, UPDATE",
        "maintenance_task": "SELECT",
        "audit": "SELECT, INSERT",
        "rollup_queue": "SELECT",
        "rollup_task": "SELECT",
        "operation": "SELECT, INSERT, UPDATE",
        "operation_batch": "SELECT, INSERT",
        "schedule": "SELECT, INSERT, UPDATE, DELETE",
        "schedule_tick": "SELECT",
    },
}


def _privileges(snapshot: Snapshot) -> Iterator[Finding]:
    """Check whether this role may work or operate; if it may do neither, list what it lacks."""
    lacking = {
        purpose: list(_lacking(snapshot.connection, snapshot.schema, needed)) for purpose, needed in _NEEDED.items()
    }
    able = [purpose for purpose, missing in lacking.items() if not missing]
    if len(able) == len(_NEEDED):
        return
    [(role,)] = rows(snapshot.connection, "SELECT current_user")
    if able:
        yield Finding(check="privileges", status=Status.OK, message=f"role {role} may {' and '.join(able)}")
        return
    yield Finding(
        check="privileges",
        status=Status.WARN,
        message=f"role {role} lacks " + "; ".join(f"{', '.join(lacks)} to {what}" for what, lacks in lacking.items()),
        fix="run deploy/roles.sql and grant it one of its roles, unless it is only to enqueue or to view",
    )


def _lacking(connection: psycopg.Connection[Any], schema: str, needed: dict[str, str]) -> Iterator[str]:
    for table, privileges in needed.items():
        name = sql.Identifier(schema, table).as_string(connection)
        lacks = [privilege for privilege in privileges.split(", ") if not _has(connection, name, privilege)]
        if lacks:
            yield f"{'/'.join(lacks)} on {table}"


def _has(connection: psycopg.Connection[Any], table: str, privilege: str) -> bool:
    if privilege == "UPDATE":
        return bool(rows(connection, "SELECT has_any_column_privilege(%s, 'UPDATE')", table)[0][0])
    return bool(rows(connection, "SELECT has_table_privilege(%s, %s)", table, privilege)[0][0])


def _tasks(names: list[str]) -> str:
    return f"maintenance task{'' if len(names) == 1 else 's'} {listed(names, 10)}"


def _maintenance(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for maintenance that fails or is not done."""
    errors: dict[str, list[str]] = defaultdict(list)
    for task in snapshot.maintenance_tasks:
        if task.last_error:
            errors[one_line(task.last_error, 300)].append(name(task.name))
    for error, names in errors.items():
        yield Finding(
            check="maintenance",
            status=Status.FAIL,
            message=f"{_tasks(names)} failed when {'it' if len(names) == 1 else 'they'} last ran: {error}",
            fix="remove what the message names; it is tried again by itself within a minute",
            page="system",
        )
    late = [task for task in snapshot.maintenance_tasks if task.overdue_seconds > _OVERDUE and not task.last_error]
    if late:
        longest = max(task.overdue_seconds for task in late)
        yield Finding(
            check="maintenance",
            # If there is no worker, `workers` reports that.
            status=Status.FAIL if snapshot.alive and longest > _LONG_OVERDUE else Status.WARN,
            message=f"{_tasks([name(task.name) for task in late])} {'is' if len(late) == 1 else 'are'} overdue by "
            f"{format_duration(longest)}" + ("" if len(late) == 1 else " or less"),
            fix="see the workers' logs: they do the maintenance"
            if snapshot.alive
            else "start a worker: workers do the maintenance",
            page="system",
        )


def _operations(snapshot: Snapshot) -> Iterator[Finding]:
    still: list[tuple[float, int, str]] = []
    for operation in queries.operations(snapshot.connection, snapshot.schema, limit=100):
        what = f"operation {operation.id} ({operation.action} {name(operation.filter)})"
        if operation.state == "failed":
            yield Finding(
                check="operations",
                status=Status.WARN,
                message=f"{what} failed: {one_line(operation.error)}",
                fix=f"see the message; then `jobq operations resume {operation.id}`, or cancel it",
                page="operations",
            )
        moved_at = operation.progressed_at or operation.started_at
        if operation.state != "running" or moved_at is None:
            continue
        seconds = (operation.read_at - moved_at).total_seconds()
        # With a rate below one a second, each batch has one job and waits.
        if seconds > _STILL + (2 / operation.rate if operation.rate else 0):
            still.append((seconds, operation.id, what))
    if still:
        seconds, operation_id, what = max(still)
        more = f", as have {plural(len(still) - 1, 'other')}" if len(still) > 1 else ""
        yield Finding(
            check="operations",
            status=Status.WARN,
            message=f"{what} has stood still for {format_duration(seconds)}{more}: no page carries it out",
            fix=f"start `jobq web`, or `jobq operations run {operation_id}`",
            page="operations",
        )


def _failures(snapshot: Snapshot) -> Iterator[Finding]:
    """Check dead letters: amber for 24 hours, then a number; red while most finished jobs fail."""
    failing = snapshot.failing
    older = failing.number - failing.recent
    bound = queries.COUNT_LIMIT
    if failing.failed_hour >= MANY_FAILURES and failing.failed_hour * 2 > failing.finished_hour:
        yield Finding(
            check="failures",
            status=Status.FAIL,
            message=f"most jobs fail permanently: {failing.failed_hour:,} of {failing.finished_hour:,} that finished in the "
            "last hour",
            fix="see the page of failures, or `jobq jobs list --state failed`; correct the cause, then `jobq jobs retry`",
            page="failures",
        )
    elif failing.recent:
        number = f"more than {bound:,} jobs" if failing.recent > bound else plural(failing.recent, "job")
        yield Finding(
            check="failures",
            status=Status.WARN,
            message=f"{number} {'has' if failing.recent == 1 else 'have'} failed permanently in the last 24 hours"
            + (f"; {older:,} older" if older else ""),
            fix="see the page of failures, or `jobq jobs list --state failed`; correct the cause, then `jobq jobs retry`",
            page="failures",
        )
    elif older:
        number = f"more than {bound:,} jobs" if older > bound else plural(older, "job")
        yield Finding(
            check="failures",
            status=Status.OK,
            message=f"none in the last 24 hours; {number} failed permanently before that",
        )


JOB_CHECKS: dict[str, tuple[Check, str]] = {
    "failures": (_failures, "no job has failed permanently"),
    "maintenance": (_maintenance, "none is overdue or failing"),
    "operations": (_operations, "no bulk operation stands still"),
}
"""Each check by name, with the text if it finds nothing."""

ROLE_CHECKS: dict[str, tuple[Check, str]] = {"privileges": (_privileges, "this role may work and operate")}
"""Checks of the current role."""
