"""The list of findings: the checks, their order, and how a failed check is reported."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

from jobq.diagnostics.finding import Check, Finding, Status
from jobq.diagnostics.jobs import JOB_CHECKS, ROLE_CHECKS
from jobq.diagnostics.limits import FLOW_CHECKS
from jobq.diagnostics.load import LOAD_CHECKS, STANDSTILL_CHECKS
from jobq.diagnostics.objects import OBJECT_CHECKS
from jobq.diagnostics.partitions import PARTITION_CHECKS
from jobq.diagnostics.queues import QUEUE_CHECKS
from jobq.diagnostics.schedules import SCHEDULE_CHECKS
from jobq.diagnostics.server import SERVER_CHECKS, schema_fits
from jobq.diagnostics.snapshot import Snapshot
from jobq.diagnostics.workers import HEARTBEAT_CHECKS, WORKER_CHECKS
from jobq.queries import QueueInfo

Checks = Mapping[str, tuple[Check, str]]

# The time limit for a page. Checks that are not made in this time are listed as not made.
_PAGE_SECONDS = 1.5

# Checks that need jobq's tables; the worst first.
_TABLE_CHECKS: Checks = {
    **WORKER_CHECKS,
    **QUEUE_CHECKS,
    **JOB_CHECKS,
    **SCHEDULE_CHECKS,
    **OBJECT_CHECKS,
    **PARTITION_CHECKS,
    **STANDSTILL_CHECKS,
    **FLOW_CHECKS,
}
SYSTEM = frozenset((
    *SERVER_CHECKS, *LOAD_CHECKS, "schema", *OBJECT_CHECKS, *PARTITION_CHECKS, "dead rows", "wake", "maintenance", "versions",
    "checks",
))  # fmt: skip
"""The checks of the server and the schema. The page System shows their findings."""

CHOICES = frozenset(("connection", "durability", "privileges", "wake"))
"""Checks of settings that may be intended: the overview does not repeat their findings."""


def examine(connection: psycopg.Connection[Any], schema: str, *, thorough: bool = True) -> Iterator[Finding]:
    """Yield the findings about the database, check by check: see `examine_snapshot`."""
    return examine_snapshot(Snapshot(connection, schema, thorough=thorough))


def examine_snapshot(snapshot: Snapshot) -> Iterator[Finding]:
    """Yield the findings about the database, check by check. The facts read stay in `snapshot`.

    With `Snapshot.thorough`, as in `jobq doctor`: every check, a line for each worker, and up to
    15 s for a statement. Without it, for a page or a metric that is made every few seconds: within
    the caller's transaction, and within 1.5 s. Raises psycopg.Error if the connection is lost; any
    other error becomes a finding.
    """
    until = None if snapshot.thorough else time.monotonic() + _PAGE_SECONDS
    yield from _run({**SERVER_CHECKS, **LOAD_CHECKS}, snapshot, until)
    found = set()
    for finding in _guarded("schema", schema_fits, "fine", snapshot):
        found.add(finding.status)
        yield finding
    if Status.FAIL not in found:
        checks = {**ROLE_CHECKS, **_TABLE_CHECKS, **HEARTBEAT_CHECKS} if snapshot.thorough else _TABLE_CHECKS
        # This program does not know the contents of a newer schema.
        known = (
            checks if Status.WARN not in found else {name: checks[name] for name in checks if name not in OBJECT_CHECKS}
        )
        yield from _run(known, snapshot, until)


def examine_queue(connection: psycopg.Connection[Any], schema: str, queue: QueueInfo) -> list[Finding]:
    """Return the findings about one queue, for its page."""
    snapshot = Snapshot(connection, schema, thorough=False, queue=queue)
    checks = {name: WORKER_CHECKS[name] for name in ("workers",)} | dict(QUEUE_CHECKS) | dict(FLOW_CHECKS)
    waits = bool(queue.due or queue.scheduled or queue.running or queue.parked)
    return [
        finding
        for finding in _run(checks, snapshot, time.monotonic() + _PAGE_SECONDS)
        if finding.status is not Status.OK
        # This page shows the queue's workers. If no worker is alive, that is the common cause.
        and (finding.check != "workers" or (waits and not snapshot.alive and "no worker is alive" in finding.message))
    ]


def _run(checks: Checks, snapshot: Snapshot, until: float | None) -> Iterator[Finding]:
    left = []
    for name, (check, fine) in checks.items():
        if until is not None and time.monotonic() > until:
            left.append(name)
        else:
            yield from _guarded(name, check, fine, snapshot)
    if left:
        yield Finding(
            check="checks",
            status=Status.WARN,
            message=f"not checked, since the database was slow: {', '.join(left)}",
            fix="run `jobq doctor`, which takes its time",
            page="system",
        )


def _guarded(name: str, check: Check, fine: str, snapshot: Snapshot) -> Iterator[Finding]:
    connection = snapshot.connection
    try:
        with connection.transaction():
            if snapshot.thorough:
                # Do not wait for a lock. Only for the transaction: behind a pooler the session is
                # shared.
                connection.execute("SET LOCAL lock_timeout = '2s'")
                connection.execute("SET LOCAL statement_timeout = '15s'")
            findings = list(check(snapshot))
    except psycopg.Error as error:
        if connection.broken:
            raise
        text = error.diag.message_primary or str(error)
        findings = [Finding(check=name, status=Status.WARN, message=f"{name} cannot be checked: {text}", page="system")]
    yield from findings or [Finding(check=name, status=Status.OK, message=fine)]
