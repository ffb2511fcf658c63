"""``jobq doctor``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from jobq.cli import output
from jobq.cli.exits import Exit
from jobq.cli.options import database_options, json_option
from jobq.cli.session import Session, current

if TYPE_CHECKING:
    from jobq.diagnostics import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(short_help="Check the database, the schema and the workers, and suggest fixes.")
@database_options
@json_option
def doctor(*, as_json: bool) -> None:
    """Check the database, the schema and the workers, and suggest fixes.

    Exits with 0 if nothing fails (there may be warnings), 69 without a database, 78 if the
    configuration or the schema is wrong, and 1 if something else fails.
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
                    {"check": f.check, "status": f.status, "message": f.message, "fix": f.fix} for f in findings
                ],
                "exit_code": int(code),
            }
        )
    click.get_current_context().exit(code)


def exit_code(findings: Iterable[Finding]) -> Exit:
    """Return the code of the first failure that has one of its own, else 1 when anything failed,
    else 0.
    """
    from jobq.diagnostics.finding import Fault, Status

    own = {Fault.CONFIGURATION: Exit.CONFIGURATION, Fault.UNAVAILABLE: Exit.UNAVAILABLE}
    faults = [finding.fault for finding in findings if finding.status is Status.FAIL]
    return next((own[fault] for fault in faults if fault in own), Exit.NOT_DONE if faults else Exit.OK)


def _examine(session: Session) -> Iterator[Finding]:
    from jobq import diagnostics
    from jobq.diagnostics.finding import Fault, Finding, Status
    from jobq.errors import DatabaseUnavailable
    from jobq.settings import redact_url

    where = redact_url(session.url)
    try:
        with session.connect(autocommit=True) as connection:
            yield Finding(check="database", status=Status.OK, message=f"reached at {where}")
            yield from diagnostics.examine(connection, session.schema)
    except DatabaseUnavailable as error:
        yield Finding(
            check="database",
            status=Status.FAIL,
            message=" ".join(str(error).split()),
            fix="start it, or correct JOBQ_DATABASE_URL",
            fault=Fault.UNAVAILABLE,
        )


def _print(finding: Finding) -> None:
    status = click.style(f"{finding.status:<5}", fg=_COLOURS[finding.status])
    click.echo(f"{status} {finding.check:<12}  {finding.message}")
    if finding.fix:
        click.echo(f"{'':<20}-> {finding.fix}")
