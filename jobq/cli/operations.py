"""``jobq operations list|show|pause|resume|cancel|run``: bulk operations started by the status page
or by Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobq.cli import output
from jobq.cli.exits import Exit
from jobq.cli.options import database_options, json_option, reason_option
from jobq.cli.session import actor, current

if TYPE_CHECKING:
    from jobq.queries.values.bulk import Operation

_ID = click.IntRange(0, 2**63 - 1)


@click.group(short_help="List, show, pause, resume, cancel and run bulk operations.")
def operations() -> None:
    """List, show, pause, resume, cancel and run bulk operations.

    To create one, use the status page, or jobq.operations.draft and start.
    """


@operations.command("list")
@database_options
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    show_envvar=True,
    help="Most operations to list.",
)
@json_option
def list_(*, limit: int, as_json: bool) -> None:
    """List bulk operations, newest first."""
    from jobq import queries

    session = current()
    with session.connect() as connection:
        found = queries.operations(connection, session.schema, limit=limit)
    if as_json:
        output.print_json({"operations": found})
        return
    output.print_table(
        ("id", "state", "action", "filter", "jobs", "done", "refused", "by", "requested"),
        (
            (
                entry.id, entry.state, entry.action, output.one_line(entry.filter), entry.count_text, entry.done,
                entry.refused, entry.actor, entry.created_at,
            )
            for entry in found
        ),
        empty="no bulk operations",
        right=("id", "jobs", "done", "refused"),
    )  # fmt: skip


@operations.command()
@click.argument("id", type=_ID)
@database_options
@json_option
def show(*, id: int, as_json: bool) -> None:
    """Show one operation: its filter, its progress, and why jobs were not changed."""
    from jobq import queries

    session = current()
    with session.connect() as connection:
        found = queries.operation(connection, session.schema, id)
    _show(found, as_json)


@operations.command()
@click.argument("id", type=_ID)
@database_options
@reason_option
@json_option
def pause(*, id: int, reason: str | None, as_json: bool) -> None:
    """Pause a running operation after the current batch."""
    _set_state("pause_operation", id, reason, as_json)


@operations.command()
@click.argument("id", type=_ID)
@database_options
@reason_option
@json_option
def resume(*, id: int, reason: str | None, as_json: bool) -> None:
    """Resume a paused or failed operation. A status page or `jobq operations run` executes it."""
    _set_state("resume_operation", id, reason, as_json)


@operations.command()
@click.argument("id", type=_ID)
@database_options
@reason_option
@json_option
def cancel(*, id: int, reason: str | None, as_json: bool) -> None:
    """Cancel an operation after the current batch, or discard a draft. Changes already made
    stay.
    """
    _set_state("cancel_operation", id, reason, as_json)


@operations.command()
@click.argument("id", type=_ID)
@database_options
@json_option
def run(*, id: int, as_json: bool) -> None:
    """Execute a running operation in this process until it ends or is paused. Other processes may
    do the same.
    """
    from jobq import operations as api
    from jobq import queries

    session = current()
    with session.connect(autocommit=True) as connection:
        before = queries.operation(connection, session.schema, id)
        if before.state != "running":
            raise click.UsageError(f"operation {id} is {before.state}; only a running one can be executed")
        seen = before.seen
        with output.progress(before.action.capitalize(), before.expected or before.counted) as advance:

            def tell(now: Operation) -> None:
                nonlocal seen
                advance(now.seen - seen)
                seen = now.seen

            found = api.run_operation(connection, session.schema, id, progress=tell)
    _show(found, as_json)
    if found.state == "failed":
        click.get_current_context().exit(Exit.NOT_DONE)


def _set_state(name: str, id: int, reason: str | None, as_json: bool) -> None:
    from jobq import operations as api

    session = current()
    with session.connect() as connection:
        changed = getattr(api, name)(connection, session.schema, id, actor=actor(), reason=reason)
    if as_json:
        output.print_json(changed)
    else:
        click.echo(f"operation {id} is {changed.state}")


def _show(found: Operation, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
        return
    options = ", ".join(f"{name} {value}" for name, value in found.options.items())
    fields: dict[str, object] = {
        "operation": found.id,
        "state": found.state,
        "action": f"{found.action} {options}".strip(),
        "filter": found.filter,
        "jobs": found.count_text,
        "done": f"{found.done:,}",
        "refused": f"{found.refused:,}",
        "progress": f"{found.progress:.0%}",
        "rate": f"{found.rate:g} jobs per second" if found.rate else None,
        "by": found.actor,
        "reason": found.reason,
        "requested": found.created_at,
        "started": found.started_at,
        "finished": found.finished_at,
        "error": found.error,
    }
    output.print_fields({name: value for name, value in fields.items() if value not in (None, "")})
    for why, number in sorted(found.refusals.items(), key=lambda item: -item[1]):
        click.echo(output.line(f"  {output.plural(number, 'job')} not changed: {why}"))
