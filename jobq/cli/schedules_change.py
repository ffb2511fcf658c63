"""``jobq schedules add|remove|pause|resume|run``."""

from __future__ import annotations

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


every_option = click.option(
    "--every", metavar="DURATION", callback=_every, show_envvar=True, help="An interval, e.g. 90, 15m or 2h."
)
cron_option = click.option(
    "--cron", metavar="EXPRESSION", show_envvar=True, help="A cron expression, as in '0 7 * * mon-fri'."
)
timezone_option = click.option(
    "--timezone", metavar="NAME", show_envvar=True, help="Zone of the expression, e.g. Europe/Berlin (default: UTC)."
)


@click.command()
@click.argument("schedule")
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@database_options
@app_option()
@click.option("--task", required=True, metavar="NAME", show_envvar=True, help="The task whose jobs are inserted.")
@cron_option
@every_option
@timezone_option
@click.option(
    "--missed",
    type=click.Choice(["last", "skip", "all"]),
    default="last",
    show_default=True,
    show_envvar=True,
    help="Ticks at which no worker was alive: make up for the latest, for none, or for all.",
)
@click.option(
    "--max-missed",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    show_envvar=True,
    help="How many ticks are made up for at most.",
)
@click.option("--args", "document", metavar="JSON", show_envvar=True, help="The jobs' arguments as a JSON object.")
@click.option("--tick-argument", metavar="NAME", show_envvar=True, help="The parameter that gets the tick's time.")
@click.option("--queue", metavar="NAME", show_envvar=True, help="Queue (default: the task's own, else `default`).")
@click.option(
    "--priority", type=click.IntRange(0, 9), show_envvar=True, help="9 runs first (default: the task's own, else 5)."
)
@click.option("--replace", is_flag=True, show_envvar=True, help="Give the schedule of that name these values.")
@click.option("--force", is_flag=True, show_envvar=True, help="Add it even if no worker is known to have this task.")
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
    """Add SCHEDULE, whose jobs of a task get the arguments KEY=VALUE.

    With --app the task itself checks the arguments and gives the options; without, its name must be known to a worker, or
    --force.
    """
    from jobq import operations
    from jobq.cli.enqueue import known_tasks, parse_arguments, require_known
    from jobq.schedules import Schedule
    from jobq.ticks import when

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
        click.echo(output.line(f"schedule {schedule} {'is added' if new else 'is changed'}: {rule.words()}"))


def _of_app(spec: str, name: str, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    from jobq.app import load
    from jobq.declarations import Declaration, read

    loaded = load(spec)
    session = current()
    # What the command line does not say is as the application has it.
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
    """Remove SCHEDULE. Jobs that it has inserted stay; one that is in code cannot be removed here."""
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
    """Let SCHEDULE tick no more, until it is resumed."""
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
    """Let SCHEDULE go on with its next tick; those of the pause are not made up for."""
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
    """Insert one job of SCHEDULE now. It is no tick: the schedule goes on as before."""
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
        what = "is paused" if paused else "ticks"
        click.echo(output.line(f"schedule {schedule} {what}" + ("" if changed else ", as before")))
