"""``jobq schedules add|remove|pause|resume|run``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import click

from jobq.cli import output
from jobq.cli.options import app_option, database_options, json_option, parse_duration, reason_option, yes_option
from jobq.cli.session import actor, current


def _every(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    seconds = parse_duration(context, parameter, value)
    return None if seconds is None else timedelta(seconds=seconds)


def _headers(_context: click.Context, _parameter: click.Parameter, value: str | None) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"this is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.BadParameter(f"expected a JSON object, not {output.one_line(value, 40)}")
    return found


every_option = click.option(
    "--every",
    metavar="DURATION",
    callback=_every,
    show_envvar=True,
    help="Interval, e.g. 90, 15m or 2h. Pass this or --cron.",
)
cron_option = click.option(
    "--cron",
    metavar="EXPRESSION",
    show_envvar=True,
    help="Cron expression, e.g. '0 7 * * mon-fri'. Pass this or --every.",
)
timezone_option = click.option(
    "--timezone",
    metavar="NAME",
    show_envvar=True,
    help="Time zone of the expression, e.g. Europe/Berlin (default: UTC).",
)


@click.command()
@click.argument("schedule")
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@database_options
@app_option()
@click.option("--task", required=True, metavar="NAME", show_envvar=True, help="Task of the inserted jobs.")
@cron_option
@every_option
@timezone_option
@click.option(
    "--missed",
    type=click.Choice(["last", "skip", "all"]),
    default="last",
    show_default=True,
    show_envvar=True,
    help="Ticks missed while no worker was alive: run the last one, skip them, or run all.",
)
@click.option(
    "--max-missed",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    show_envvar=True,
    help="Most missed ticks to run.",
)
@click.option(
    "--args",
    "document",
    metavar="JSON",
    show_envvar=True,
    help="Arguments of the jobs, as a JSON object (default: none).",
)
@click.option(
    "--tick-argument",
    metavar="NAME",
    show_envvar=True,
    help="Parameter that receives the time of the tick (default: none).",
)
@click.option("--queue", metavar="NAME", show_envvar=True, help="Queue (default: the task's own, else `default`).")
@click.option(
    "--priority", type=click.IntRange(0, 9), show_envvar=True, help="9 runs first (default: the task's own, else 5)."
)
@click.option("--group", metavar="TEXT", show_envvar=True, help="Group of the jobs within their queue (default: none).")
@click.option(
    "--key",
    metavar="TEXT",
    show_envvar=True,
    help="Idempotency key that each job holds until it has finished; a tick is skipped while a job holds it "
    "(default: none).",
)
@click.option(
    "--expires-in",
    metavar="DURATION",
    callback=parse_duration,
    show_envvar=True,
    help="A job that has not started this long after its tick ends as expired (default: never).",
)
@click.option(
    "--headers", metavar="JSON", callback=_headers, show_envvar=True, help="Headers of the jobs as a JSON object."
)
@click.option(
    "--replace", is_flag=True, show_envvar=True, help="Replace an existing schedule of this name (default: fail)."
)
@click.option("--force", is_flag=True, show_envvar=True, help="Add the schedule even if no known worker has this task.")
@reason_option
@json_option
def add(
    *,
    schedule: str,
    pairs: tuple[str, ...],
    app: str | None,
    task: str,
    cron: str | None,
    every: timedelta | None,
    timezone: str | None,
    document: str | None,
    replace: bool,
    force: bool,
    reason: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Add SCHEDULE, which inserts jobs of a task with the arguments KEY=VALUE.

    With --app, the task itself checks the arguments and provides the options. Without --app, a
    worker must know its name, unless --force is given.
    """
    from jobq import operations
    from jobq.cli.enqueue import known_tasks, parse_arguments, require_known
    from jobq.cron import when
    from jobq.schedule import Schedule

    rule = when(cron, every, timezone)
    arguments = parse_arguments(pairs, document)
    given = {name: value for name, value in options.items() if value is not None}
    session = current()
    if app is not None:
        made = _of_app(app, task, {"when": rule, "name": schedule, **options}, arguments)
    else:
        made = Schedule(name=schedule, task=task, when=rule, args=arguments, **given)
    with session.connect() as connection:
        if app is None and not force:
            require_known(task, known_tasks(connection, session.schema))
        new = operations.set_schedule(connection, session.schema, made, actor=actor(), reason=reason, replace=replace)
    if as_json:
        output.print_json({"schedule": schedule, "new": new})
    else:
        click.echo(output.line(f"schedule {schedule} {'is added' if new else 'is changed'}: {rule.describe()}"))


def _of_app(spec: str, name: str, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    from jobq._app.declarations import Declaration, read
    from jobq.app import load

    loaded = load(spec)
    session = current()
    # The command line takes precedence over the application's settings.
    session.database_url = session.database_url or loaded.settings.database_url
    session.schema_name = session.schema_name or loaded.settings.schema
    task = loaded.get_task(name)
    return Declaration(**values, args=read(task, arguments, values["tick_argument"])).of(task)


@click.command()
@click.argument("schedule")
@database_options
@reason_option
@yes_option
@json_option
def remove(*, schedule: str, reason: str | None, yes: bool, as_json: bool) -> None:
    """Remove SCHEDULE. Its jobs stay. A schedule that is declared in code cannot be removed
    here.
    """
    from jobq import operations

    output.confirm(f"Remove schedule {output.line(schedule)}?", yes=yes)
    session = current()
    with session.connect() as connection:
        operations.remove_schedule(connection, session.schema, schedule, actor=actor(), reason=reason)
    if as_json:
        output.print_json({"schedule": schedule, "removed": True})
    else:
        click.echo(output.line(f"schedule {schedule} is removed"))


@click.command()
@click.argument("schedule")
@database_options
@reason_option
@json_option
def pause(*, schedule: str, reason: str | None, as_json: bool) -> None:
    """Pause SCHEDULE: it does not tick until it is resumed."""
    from jobq import operations

    session = current()
    with session.connect() as connection:
        changed = operations.pause_schedule(connection, session.schema, schedule, actor=actor(), reason=reason)
    _tell(schedule, paused=True, changed=changed, as_json=as_json)


@click.command()
@click.argument("schedule")
@database_options
@reason_option
@json_option
def resume(*, schedule: str, reason: str | None, as_json: bool) -> None:
    """Resume SCHEDULE with its next tick. Ticks missed during the pause are skipped."""
    from jobq import operations

    session = current()
    with session.connect() as connection:
        changed = operations.resume_schedule(connection, session.schema, schedule, actor=actor(), reason=reason)
    _tell(schedule, paused=False, changed=changed, as_json=as_json)


@click.command()
@click.argument("schedule")
@database_options
@reason_option
@json_option
def run(*, schedule: str, reason: str | None, as_json: bool) -> None:
    """Insert one job of SCHEDULE now. The schedule itself is unchanged."""
    from jobq import operations

    session = current()
    with session.connect() as connection:
        job = operations.run_schedule(connection, session.schema, schedule, actor=actor(), reason=reason)
    if as_json:
        output.print_json({"schedule": schedule, "job": job})
    else:
        click.echo(f"inserted job {job}")


def _tell(schedule: str, *, paused: bool, changed: bool, as_json: bool) -> None:
    if as_json:
        output.print_json({"schedule": schedule, "paused": paused, "changed": changed})
    else:
        what = "is paused" if paused else "is active"
        click.echo(output.line(f"schedule {schedule} {what}" + ("" if changed else " (unchanged)")))
