"""``jobq schedules list|show|next``; the commands that change schedules are in
`schedules_change.py`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from jobq.cli import output
from jobq.cli.options import database_options, json_option
from jobq.cli.schedules_change import add, cron_option, every_option, pause, remove, resume, run, timezone_option
from jobq.cli.session import current

if TYPE_CHECKING:
    import zoneinfo

    from jobq.queries import ScheduleInfo, TickInfo


@click.group(short_help="List, show, add, remove, pause, resume and run schedules.")
def schedules() -> None:
    """List, show, add, remove, pause, resume and run schedules."""


for command in (add, remove, pause, resume, run):
    schedules.add_command(command)


@schedules.command("list")
@database_options
@json_option
def list_(*, as_json: bool) -> None:
    """List the schedules and their next ticks."""
    from jobq import queries

    session = current()
    found: list[ScheduleInfo] = []
    with session.connect() as connection:
        while page := queries.schedules(connection, session.schema, after=found[-1].name if found else None, preview=1):
            found += page
    if as_json:
        output.print_json({"schedules": found})
        return
    output.print_table(
        ("schedule", "task", "when", "next", "last tick", "job", "status"),
        (
            (
                info.name,
                info.task,
                info.description,
                _at(info.next_ticks[0], _zone(info)) if info.next_ticks and info.status == "ticking" else "",
                _at(info.last_tick, _zone(info)) if info.last_tick else "",
                info.last_job_id,
                _status(info),
            )
            for info in found
        ),
        empty="no schedules",
        right=("job",),
    )


@schedules.command()
@click.argument("schedule")
@database_options
@json_option
def show(*, schedule: str, as_json: bool) -> None:
    """Show SCHEDULE with its next ticks, and its last ticks with their jobs."""
    from jobq import queries

    session = current()
    with session.connect() as connection:
        info = _known(queries.schedule(connection, session.schema, schedule), schedule)
        ticks = queries.schedule_ticks(connection, session.schema, schedule)
    if as_json:
        output.print_json({"schedule": info, "ticks": ticks})
        return
    import json

    zone = _zone(info)
    output.print_fields(
        {
            "schedule": info.name,
            "task": info.task,
            "when": info.description,
            "cron": info.cron,
            "status": _status(info),
            "error": info.last_error,
            "arguments": json.dumps(info.args, ensure_ascii=False),
            "tick argument": info.tick_argument,
            "queue": info.queue,
            "priority": info.priority,
            "group": info.group_key,
            "key": info.key,
            "expires": None if info.expires_in is None else f"{output.duration(info.expires_in)} after a tick",
            "headers": json.dumps(info.headers, ensure_ascii=False) if info.headers else None,
            "missed": info.missed + (f", at most {info.max_missed}" if info.missed != "last" else ""),
            "defined": f"in code, by {info.app}" if info.source == "code" else f"at run time, by {info.made_by}",
            "next": "; ".join(_at(tick, zone) for tick in info.next_ticks[:5]),
        }
    )
    click.echo()
    output.print_table(
        ("tick", "job", "inserted"),
        ((_at(tick.tick, zone), *_became(tick, zone)) for tick in ticks),
        empty="no ticks yet, or their jobs have been deleted",
        right=("job",),
    )


@schedules.command("next")
@click.argument("schedule", required=False)
@database_options
@cron_option
@every_option
@timezone_option
@click.option(
    "--number",
    "-n",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    show_envvar=True,
    help="Number of ticks to print.",
)
@json_option
def next_(
    *,
    schedule: str | None,
    cron: str | None,
    every: timedelta | None,
    timezone: str | None,
    number: int,
    as_json: bool,
) -> None:
    """Print the rule of SCHEDULE in words, and its next ticks.

    With --cron or --every instead of SCHEDULE, this needs no database.
    """
    from datetime import UTC

    from jobq import queries
    from jobq.cron import following, when

    if schedule is not None and (cron is not None or every is not None or timezone is not None):
        raise click.UsageError("pass either a schedule, or an expression with --cron or --every")
    zone: zoneinfo.ZoneInfo | None
    if schedule is None:
        rule = when(cron, every, timezone)
        words, ticks, zone = rule.describe(), following(rule, datetime.now(UTC), number), rule.zone
    else:
        session = current()
        with session.connect() as connection:
            info = _known(queries.schedule(connection, session.schema, schedule, preview=number), schedule)
        if not info.next_ticks:
            from jobq.errors import InvalidOption

            raise InvalidOption(f"schedule {schedule!r} does not tick: {info.last_error or 'its last tick has passed'}")
        words, ticks, zone = info.description, info.next_ticks, _zone(info)
        if info.status != "ticking":
            output.note(f"it is {_status(info)}")
    if as_json:
        output.print_json({"description": words, "ticks": ticks})
        return
    click.echo(output.safe(words))
    for tick in ticks:
        click.echo(f"  {_at(tick, zone)}")


def _known(info: ScheduleInfo | None, name: str) -> ScheduleInfo:
    if info is None:
        from jobq.errors import UnknownSchedule

        raise UnknownSchedule(f"schedule {name!r} does not exist; see `jobq schedules list`")
    return info


def _became(tick: TickInfo, zone: zoneinfo.ZoneInfo | None) -> tuple[int | None, str]:
    if not tick.skipped:
        return tick.job_id, _at(tick.inserted_at, zone)
    holder = "a job" if tick.job_id < 0 else f"job {tick.job_id}"
    return None, f"skipped: {holder} held the key"


def _status(info: ScheduleInfo) -> str:
    match info.status:
        case "paused":
            said = f"paused by {info.paused_by or 'an unknown actor'}"
            return said + (f": {output.one_line(info.pause_reason, 40)}" if info.pause_reason else "")
        case "withdrawn":
            return "withdrawn: its application no longer declares it"
        case "undeclared":
            return "waiting: no live worker declares it"
        case "broken":
            return f"broken: {output.one_line(info.last_error, 80)}"
        case status:
            return status


def _zone(info: ScheduleInfo) -> zoneinfo.ZoneInfo | None:
    from jobq.cron import zone
    from jobq.errors import InvalidOption

    try:
        return zone(info.timezone)
    except InvalidOption:
        return None


def _at(moment: datetime, zone: zoneinfo.ZoneInfo | None) -> str:
    """Return the local time in the schedule's zone, with the UTC offset: 02:30 may occur twice."""
    return moment.astimezone(zone).strftime("%a %Y-%m-%d %H:%M:%S %z")
