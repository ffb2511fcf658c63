"""``jobq jobs list|export|show``; the commands that change jobs are in `jobs_change.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobq.cli import durable, output
from jobq.cli.jobs_change import CHANGES
from jobq.cli.options import database_options, json_option, name_options, where_option
from jobq.cli.session import current
from jobq.job import STATES

if TYPE_CHECKING:
    from jobq.filters import JobFilter
    from jobq.queries import Cursor, JobDetail, JobRow

F = TypeVar("F", bound=Callable[..., Any])

_ID = click.IntRange(0, 2**63 - 1)


@click.group(short_help="List, show and change jobs.")
def jobs() -> None:
    """List, show and change jobs."""


def _where(function: F) -> F:
    state = click.option(
        "--state",
        type=click.Choice(STATES),
        show_envvar=True,
        help="Only jobs in this state (default: all). `scheduled` is ready with a start time in the future.",
    )
    return where_option(state(name_options(function)))


def _filter(where: str, state: str | None, queue: str | None, task: str | None) -> JobFilter:
    from jobq.filters import JobFilter

    return JobFilter.parse(where).narrowed(state=state, queue=queue, task=task)


@jobs.command("list")
@database_options
@_where
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    show_envvar=True,
    help="Most jobs to list.",
)
@click.option(
    "--order",
    type=click.Choice(["id", "finished"]),
    show_envvar=True,
    help="Newest first by id, or by finish time (default: `finished` if the filter selects only finished "
    "states, else `id`).",
)
@click.option(
    "--before",
    metavar="CURSOR",
    show_envvar=True,
    help="Start of the next page: an id, or the cursor that the previous page printed (default: the newest job).",
)
@json_option
def list_(
    *,
    where: str,
    state: str | None,
    queue: str | None,
    task: str | None,
    limit: int,
    order: str | None,
    before: str | None,
    as_json: bool,
) -> None:
    """List live and finished jobs, newest first: by id, or by finish time for finished states."""
    from jobq.cli.bulk import search
    from jobq.queries import Cursor
    from jobq.queries.finished import order_of

    session = current()
    wanted = _filter(where, state, queue, task)
    cursor = None if before is None else Cursor.parse(before)
    with session.connect(autocommit=True) as connection:
        order = order_of(connection, session.schema, wanted, order, cursor)
        # One row more than requested, to know whether there is a next page.
        rows = list(search(connection, session.schema, wanted, limit=limit + 1, before=cursor, order=order))
    last = rows[limit - 1] if len(rows) > limit else None
    following = None if last is None else Cursor(last.id, last.finished_at if order == "finished" else None)
    rows = rows[:limit]
    if as_json:
        output.print_json({"jobs": rows, "order": order, "next_before": _plain(following)})
        return
    names = ("id", "state", "task", "queue", "group", "attempt", "when", "error")
    # Most queues have no groups; omit an empty column.
    grouped = any(row.group_key for row in rows)
    shown = [n for n, name in enumerate(names) if grouped or name != "group"]
    output.print_table(
        [names[n] for n in shown],
        ([cells[n] for n in shown] for cells in map(_columns, rows)),
        empty="no jobs",
        right=("id", "attempt"),
    )
    if following is not None:
        output.note(f"more jobs: --before {following}")


@jobs.command()
@database_options
@_where
@click.option("--limit", type=click.IntRange(1), show_envvar=True, help="Most jobs to export (default: all).")
def export(*, where: str, state: str | None, queue: str | None, task: str | None, limit: int | None) -> None:
    """Export live and finished jobs to standard output, one JSON object per line, newest first.

    Arguments, headers and results are not redacted: the output may contain secrets.
    """
    from jobq import queries

    session = current()
    wanted = _filter(where, state, queue, task)
    with session.connect(autocommit=True) as connection:
        for line in queries.export(connection, session.schema, wanted, limit=limit):
            click.echo(line, nl=False)


def _plain(cursor: Cursor | None) -> str | int | None:
    if cursor is None:
        return None
    return cursor.id if cursor.at is None else str(cursor)


def _columns(row: JobRow) -> tuple[object, ...]:
    when = row.finished_at or (row.started_at if row.state == "running" else row.run_at)
    attempt = f"{row.attempt}/{row.max_attempts}"
    group = output.one_line(row.group_key, 40)
    return row.id, row.state, row.task, row.queue, group, attempt, when, output.one_line(row.error)


@jobs.command()
@click.argument("id", type=_ID)
@database_options
@click.option(
    "--steps",
    "with_steps",
    is_flag=True,
    show_envvar=True,
    help="Also show the steps of a durable job, what it waits for, and the signals to it.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    show_envvar=True,
    help="Most steps and most signals to show with --steps, the newest.",
)
@json_option
def show(*, id: int, with_steps: bool, limit: int, as_json: bool) -> None:
    """Show one job with its arguments, its result, and its unsuccessful attempts."""
    from jobq import queries

    session = current()
    with session.connect() as connection:
        job = queries.get_job(connection, session.schema, id)
        why = None if as_json else queries.why_waiting(connection, session.schema, job)
        found = durable.read(connection, session.schema, id, limit) if with_steps else None
    if as_json:
        output.print_json(job if found is None else {**output.plain(job), **found.as_json()})
        return
    _print_job(job, why)
    if found is not None:
        found.print()


def _print_job(job: JobDetail, why: str | None) -> None:
    import json

    def as_text(value: object) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=False)

    parent = job.workflow and job.workflow.parent_job_id
    lines: dict[str, object] = {
        "job": job.id,
        "task": job.task,
        "queue": job.queue,
        "workflow": None if job.workflow is None else output.line(job.workflow),
        "parent": None if parent is None else f"job {parent}",
        "state": job.state + (", asked to cancel" if job.cancel_requested_at else ""),
        "priority": job.priority,
        "attempt": f"{job.attempt} of {job.max_attempts}" + (f", {job.crashes} crashed" if job.crashes else ""),
        "key": job.key and job.key + (" (global)" if job.key_scope == "global" else ""),
        "group": job.group_key,
        "now": why,
        "timeout": output.duration(job.timeout),
        "created": job.created_at,
        "run at": job.run_at,
        "started": job.started_at,
        "finished": job.finished_at,
        "expires": job.expires_at,
        "worker": job.worker_id,
        "progress": as_text(job.progress),
        "headers": as_text(job.headers or None),
        "arguments": as_text(job.args),
        # A succeeded job has an error only if its result was not stored.
        "result": f"not stored: {job.error}" if job.state == "succeeded" and job.error else as_text(job.result),
        "error": None if job.state == "succeeded" else job.error,
    }
    output.print_fields({name: value for name, value in lines.items() if value not in (None, "")})
    for attempt in job.attempts:
        # A released attempt is not counted: the next one has the same number.
        outcome = "interrupted, not counted (released)" if attempt.outcome == "released" else attempt.outcome
        click.echo(f"\nattempt {attempt.attempt}: {outcome} at {output.safe(attempt.finished_at)}")
        if attempt.retry_at:
            click.echo(f"  retried at {output.safe(attempt.retry_at)}")
        if text := attempt.traceback or ": ".join(filter(None, (attempt.error_type, attempt.message))):
            click.echo("\n".join(f"  {line}" for line in output.safe(text).rstrip().split("\n")))
        if attempt.log:
            click.echo("  log (UTC):")
            click.echo("\n".join(f"    {line}" for line in output.safe(attempt.log).rstrip().split("\n")))


for _command in CHANGES:
    jobs.add_command(_command)
