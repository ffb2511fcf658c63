"""``jobq signal``, and the sending for ``jobq workflows signal``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from jobq.cli import output
from jobq.cli.exits import Exit
from jobq.cli.options import database_options, json_option, reason_option
from jobq.cli.session import actor, current
from jobq.errors import SignalNotSent

_ID = click.IntRange(0, 2**63 - 1)


@click.command(short_help="Send a signal to a durable job.")
@click.argument("job", type=_ID)
@click.argument("name")
@click.argument("payload", required=False)
@database_options
@reason_option
@json_option
def signal(*, job: int, name: str, payload: str | None, reason: str | None, as_json: bool) -> None:
    """Send the signal NAME to the durable job JOB, which takes it by step.wait_for(NAME).

    PAYLOAD is JSON (default: null); - reads it from standard input. The signal may be sent before the
    job waits: it is kept until it is taken. `jobq jobs show JOB --steps` says what a job waits for.
    """
    send(name, payload, reason, as_json, job=job)


def send(
    name: str, payload: str | None, reason: str | None, as_json: bool, *, job: int | None = None, run: int | None = None
) -> None:
    """Send a signal to a job or to a run of a workflow, and say so.

    Exits with 1 if the target has finished. Raises SignalNotSent if there is none.
    """
    from jobq import operations

    value = _parsed(payload)
    session = current()
    options: dict[str, Any] = {
        "actor": actor(), "reason": reason, "max_bytes": session.settings.max_args_bytes
    }  # fmt: skip
    with session.connect(autocommit=True) as connection:
        try:
            if job is not None:
                id = operations.send_signal(connection, session.schema, job, name, value, **options)
            else:
                assert run is not None
                id = operations.send_workflow_signal(connection, session.schema, run, name, value, **options)
        except SignalNotSent as error:
            if error.outcome == "unknown":
                raise
            _tell(None, str(error), job, run, as_json)
            click.get_current_context().exit(Exit.NOT_DONE)
    what = f"job {job}" if job is not None else f"workflow run {run}"
    _tell(id, output.line(f"signal {id}, '{name}', is sent to {what}"), job, run, as_json)


def _tell(id: int | None, said: str, job: int | None, run: int | None, as_json: bool) -> None:
    if as_json:
        target = {"job": job} if job is not None else {"workflow": run}
        output.print_json({**target, "signal": id, "done": id is not None})
    elif id is None:
        output.note(output.line(said))
    else:
        click.echo(said)


def _parsed(payload: str | None) -> Any:
    if payload is None:
        return None
    text = sys.stdin.read() if payload == "-" else payload
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(
            f"not valid JSON: {error}. Put quotation marks around a text: '\"yes\"'", param_hint="PAYLOAD"
        ) from None
