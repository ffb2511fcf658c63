"""``jobq doctor``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from jobq.cli import output
from jobq.cli.exits import Exit
from jobq.cli.options import database_options, json_option
from jobq.cli.session import Session, current

if TYPE_CHECKING:
    import psycopg

    from jobq.cli.findings import Check, Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(short_help="Check the database, the schema and the workers, and say what to mend.")
@database_options
@json_option
def doctor(*, as_json: bool) -> None:
    """Check the database, the schema and the workers, and say what to mend.

    Exits with 0 when nothing fails (warnings may be shown), 69 without a database, 78 when the configuration
    or the schema is at fault, and 1 when something else fails.
    """
    findings = []
    for finding in _examine(current()):
        findings.append(finding)
        if not as_json:
            _print(finding)
    code = exit_code(findings)
    if as_json:
        output.print_json(
            {
                "checks": [
                    {"check": f.check, "status": f.status, "message": f.message, "mend": f.mend} for f in findings
                ],
                "exit_code": int(code),
            }
        )
    click.get_current_context().exit(code)


def exit_code(findings: Iterable[Finding]) -> Exit:
    """Return the code of the first failure that has one of its own, else 1 when anything failed, else 0."""
    from jobq.cli.findings import Status

    codes = [finding.exit_code for finding in findings if finding.status is Status.FAIL]
    return next((code for code in codes if code is not Exit.OK), Exit.NOT_DONE if codes else Exit.OK)


def _examine(session: Session) -> Iterator[Finding]:
    from jobq.cli.findings import Finding, Status
    from jobq.config import redact_url
    from jobq.errors import DatabaseUnavailable

    where = redact_url(session.url)
    try:
        with session.connect(autocommit=True) as connection:
            yield Finding(check="database", status=Status.OK, message=f"reached at {where}")
            yield from _checks(connection, session.schema)
    except DatabaseUnavailable as error:
        yield Finding(
            check="database",
            status=Status.FAIL,
            message=" ".join(str(error).split()),
            mend="start it, or correct JOBQ_DATABASE_URL",
            exit_code=Exit.UNAVAILABLE,
        )


def _checks(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    from jobq.cli.checks_flow import FLOW_CHECKS
    from jobq.cli.checks_jobs import JOB_CHECKS
    from jobq.cli.checks_load import LOAD_CHECKS, STANDSTILL_CHECKS
    from jobq.cli.checks_schedules import SCHEDULE_CHECKS
    from jobq.cli.checks_server import SERVER_CHECKS, schema_fits
    from jobq.cli.checks_workers import WORKER_CHECKS
    from jobq.cli.findings import Status

    for name, (check, fine) in {**SERVER_CHECKS, **LOAD_CHECKS}.items():
        yield from _guarded(name, check, fine, connection, schema)
    usable = True
    for finding in _guarded("schema", schema_fits, "fine", connection, schema):
        usable = usable and finding.status is Status.OK
        yield finding
    if usable:
        checks = {**JOB_CHECKS, **FLOW_CHECKS, **SCHEDULE_CHECKS, **WORKER_CHECKS, **STANDSTILL_CHECKS}
        for name, (check, fine) in checks.items():
            yield from _guarded(name, check, fine, connection, schema)


def _guarded(name: str, check: Check, fine: str, connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    import psycopg

    from jobq.cli.findings import Finding, Status

    try:
        with connection.transaction():
            # A doctor who waits for a lock helps nobody. For the transaction alone: behind a pooler the session is not ours.
            connection.execute("SET LOCAL lock_timeout = '2s'")
            connection.execute("SET LOCAL statement_timeout = '15s'")
            findings = list(check(connection, schema))
    except psycopg.Error as error:
        if connection.broken:
            raise
        text = error.diag.message_primary or str(error)
        findings = [Finding(check=name, status=Status.WARN, message=f"cannot be checked: {text}")]
    yield from findings or [Finding(check=name, status=Status.OK, message=fine)]


def _print(finding: Finding) -> None:
    status = click.style(f"{finding.status:<5}", fg=_COLOURS[finding.status])
    click.echo(f"{status} {finding.check:<12}  {output.safe(finding.message)}")
    if finding.mend:
        click.echo(f"{'':<20}-> {output.safe(finding.mend)}")
