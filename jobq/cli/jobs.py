"""``jobq jobs list|export|show``; what changes jobs is in `changes.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobq.cli import output
from jobq.cli.changes import CHANGES
from jobq.cli.options import database_options, json_option, name_options, where_option
from jobq.cli.session import current

if TYPE_CHECKING:
    from jobq.filters import JobFilter
    from jobq.queries import Cursor, JobDetail, JobRow

F = TypeVar("F", bound=Callable[..., Any])

_LIVE = ("ready", "scheduled", "running", "parked", "waiting")
_FINISHED = ("succeeded", "failed", "cancelled", "expired")
_ID = click.IntRange(0, 2**63 - 1)


@click.group(short_help="List, show and change jobs.")
def jobs() -> None:
    """List, show and change jobs."""


def _where(function: F) -> F:
    state = click.option(
        "--state",
        type=click.Choice([*_LIVE, *_FINISHED]),
        show_envvar=True,
        help="Only jobs in this state; `scheduled` is ready with a start in the future.",
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
    help="At most this many.",
)
@click.option(
    "--order",
    type=click.Choice(["id", "finished"]),
    show_envvar=True,
    help="Newest first by id, or by when they finished (default: `finished` where only finished jobs fit, else `id`).",
)
@click.option(
    "--before", metavar="CURSOR", show_envvar=True, help="The next page: an id, or what the page before said."
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
    """List jobs, live and finished, newest first: by id, or those of finished states by when they finished."""
    from jobq.cli.bulk import search
    from jobq.queries import Cursor
    from jobq.queries.finished import order_of

    session = current()
    wanted = _filter(where, state, queue, task)
    cursor = None if before is None else Cursor.parse(before)
    with session.connect(autocommit=True) as connection:
        order = order_of(connection, session.schema, wanted, order, cursor)
        # One more than asked tells whether there is a next page.
        rows = list(search(connection, session.schema, wanted, limit=limit + 1, before=cursor, order=order))
    last = rows[limit - 1] if len(rows) > limit else None
    following = None if last is None else Cursor(last.id, last.finished_at if order == "finished" else None)
    rows = rows[:limit]
    if as_json:
        output.print_json({"jobs": rows, "order": order, "next_before": _plain(following)})
        return
    names = ("id", "state", "task", "queue", "group", "attempt", "when", "error")
    # Most queues have no groups: a column of nothing would only take room.
    grouped = any(row.group_key for row in rows)
    shown = [n for n, name in enumerate(names) if grouped or name != "group"]
    output.print_table(
        [names[n] for n in shown],
        ([cells[n] for n in shown] for cells in map(_columns, rows)),
        empty="no jobs",
        right=("id", "attempt"),
    )
    if following is not None:
        output.note(f"there are more: --before {following}")


@jobs.command()
@database_options
@_where
@click.option("--limit", type=click.IntRange(1), show_envvar=True, help="At most this many (default: all).")
def export(*, where: str, state: str | None, queue: str | None, task: str | None, limit: int | None) -> None:
    """Write jobs, live and finished, to standard output with all that is known of them: a JSON object a line, newest first.

    Arguments, headers and results are written as they are, secrets included.
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
@json_option
def show(*, id: int, as_json: bool) -> None:
    """Show one job with its arguments, result, and the attempts that did not succeed."""
    from jobq.queries import get_job, why_waiting

    session = current()
    with session.connect() as connection:
        job = get_job(connection, session.schema, id)
        why = None if as_json else why_waiting(connection, session.schema, job)
    if as_json:
        output.print_json(job)
    else:
        _print_job(job, why)


def _print_job(job: JobDetail, why: str | None) -> None:
    import json

    def as_text(value: object) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=False)

    lines: dict[str, object] = {
        "job": job.id,
        "task": job.task,
        "queue": job.queue,
        "state": job.state + (", asked to cancel" if job.cancel_requested_at else ""),
        "priority": job.priority,
        "attempt": f"{job.attempt} of {job.max_attempts}" + (f", {job.crashes} crashed" if job.crashes else ""),
        "key": job.key and job.key + (" (one for all tasks)" if job.key_scope == "global" else ""),
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
        # One that succeeded has an error only where its result was not stored.
        "result": f"not stored: {job.error}" if job.state == "succeeded" and job.error else as_text(job.result),
        "error": None if job.state == "succeeded" else job.error,
    }
    output.print_fields({name: value for name, value in lines.items() if value not in (None, "")})
    for attempt in job.attempts:
        # The attempt of a released one is not counted: the next one has its number.
        outcome = "interrupted, not counted (released)" if attempt.outcome == "released" else attempt.outcome
        click.echo(f"\nattempt {attempt.attempt}: {outcome} at {output.safe(attempt.finished_at)}")
        if attempt.retry_at:
            click.echo(f"  retried at {output.safe(attempt.retry_at)}")
        if text := attempt.traceback or ": ".join(filter(None, (attempt.error_type, attempt.message))):
            click.echo("\n".join(f"  {line}" for line in output.safe(text).rstrip().split("\n")))


for _command in CHANGES:
    jobs.add_command(_command)
