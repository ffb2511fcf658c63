"""``jobq jobs list|export|show|retry|cancel``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobq.cli import output
from jobq.cli.options import database_options, json_option, reason_option, yes_option
from jobq.cli.session import current

if TYPE_CHECKING:
    from jobq.filters import JobFilter
    from jobq.queries import JobDetail, JobRow

F = TypeVar("F", bound=Callable[..., Any])

_LIVE = ("ready", "scheduled", "running", "parked", "waiting")
_FINISHED = ("succeeded", "failed", "cancelled", "expired")
_ID = click.IntRange(0, 2**63 - 1)


@click.group(short_help="List, show, retry and cancel jobs.")
def jobs() -> None:
    """List, show, retry and cancel jobs."""


def _filters(function: F) -> F:
    for decorate in (
        click.option("--task", metavar="NAME", show_envvar=True, help="Only jobs of this task."),
        click.option("--queue", metavar="NAME", show_envvar=True, help="Only jobs of this queue."),
    ):
        function = decorate(function)
    return function


def _where(function: F) -> F:
    for decorate in (
        _filters,
        click.option(
            "--state",
            type=click.Choice([*_LIVE, *_FINISHED]),
            show_envvar=True,
            help="Only jobs in this state; `scheduled` is ready with a start in the future.",
        ),
        click.option(
            "--where",
            metavar="FILTER",
            default="",
            show_envvar=True,
            help="Only jobs that fit this, as in 'state:failed task:mail.* age:>1h args.order_id:42'.",
        ),
    ):
        function = decorate(function)
    return function


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
@click.option("--before", type=_ID, metavar="ID", show_envvar=True, help="Only jobs with a lower id: the next page.")
@json_option
def list_(
    *,
    where: str,
    state: str | None,
    queue: str | None,
    task: str | None,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """List jobs, live and finished, newest first."""
    from jobq.cli.bulk import search

    session = current()
    wanted = _filter(where, state, queue, task)
    with session.connect(autocommit=True) as connection:
        # One more than asked tells whether there is a next page.
        rows = list(search(connection, session.schema, wanted, limit=limit + 1, before_id=before))
    following = rows[limit - 1].id if len(rows) > limit else None
    rows = rows[:limit]
    if as_json:
        output.print_json({"jobs": rows, "next_before": following})
        return
    output.print_table(
        ("id", "state", "task", "queue", "attempt", "when", "error"),
        map(_columns, rows),
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


def _columns(row: JobRow) -> tuple[object, ...]:
    when = row.finished_at or (row.started_at if row.state == "running" else row.run_at)
    attempt = f"{row.attempt}/{row.max_attempts}"
    return row.id, row.state, row.task, row.queue, attempt, when, output.one_line(row.error)


@jobs.command()
@click.argument("id", type=_ID)
@database_options
@json_option
def show(*, id: int, as_json: bool) -> None:
    """Show one job with its arguments, result, and the attempts that did not succeed."""
    from jobq.queries import get_job

    session = current()
    with session.connect() as connection:
        job = get_job(connection, session.schema, id)
    if as_json:
        output.print_json(job)
    else:
        _print_job(job)


def _print_job(job: JobDetail) -> None:
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
        "key": job.key,
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
        "result": as_text(job.result),
        "error": job.error,
    }
    output.print_fields({name: value for name, value in lines.items() if value not in (None, "")})
    for attempt in job.attempts:
        click.echo(f"\nattempt {attempt.attempt}: {attempt.outcome} at {output.safe(attempt.finished_at)}")
        if attempt.retry_at:
            click.echo(f"  retried at {output.safe(attempt.retry_at)}")
        if text := attempt.traceback or ": ".join(filter(None, (attempt.error_type, attempt.message))):
            click.echo("\n".join(f"  {line}" for line in output.safe(text).rstrip().split("\n")))


def _bulk(states: tuple[str, ...], default: str) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in (
            json_option,
            yes_option,
            click.option("--dry-run", is_flag=True, show_envvar=True, help="Only tell what it would touch."),
            reason_option,
            click.option("--limit", type=click.IntRange(1), show_envvar=True, help="At most this many jobs."),
            _filters,
            click.option(
                "--state",
                "states",
                type=click.Choice(states),
                multiple=True,
                show_envvar=True,
                help=f"Only jobs in this state; may be repeated (default: {default}).",
            ),
            database_options,
            click.argument("ids", type=_ID, nargs=-1),
        ):
            function = option(function)
        return function

    return decorate


@jobs.command()
@_bulk(("failed", "cancelled", "expired", "scheduled"), "failed")
def retry(
    *,
    ids: tuple[int, ...],
    states: tuple[str, ...],
    queue: str | None,
    task: str | None,
    limit: int | None,
    reason: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Run finished jobs again (same id, attempts counted anew), and waiting ones at once.

    Give ids, or select by --state, --queue and --task: then it tells what it would touch, and asks.
    """
    from jobq import operations
    from jobq.cli.bulk import Selection, change

    change(
        Selection(ids=ids, states=states, queue=queue, task=task, limit=limit),
        verb="retry",
        done_verb="retried",
        default_states=("failed",),
        operation=operations.retry,
        reason=reason,
        yes=yes,
        dry_run=dry_run,
        as_json=as_json,
    )


@jobs.command()
@_bulk(_LIVE, "every live job")
def cancel(
    *,
    ids: tuple[int, ...],
    states: tuple[str, ...],
    queue: str | None,
    task: str | None,
    limit: int | None,
    reason: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Cancel jobs: those that wait end at once, those that run are asked to stop.

    Give ids, or select by --state, --queue and --task: then it tells what it would touch, and asks.
    """
    from jobq import operations
    from jobq.cli.bulk import Selection, change

    change(
        Selection(ids=ids, states=states, queue=queue, task=task, limit=limit),
        verb="cancel",
        done_verb="cancelled",
        default_states=_LIVE,
        operation=operations.cancel,
        reason=reason,
        yes=yes,
        dry_run=dry_run,
        as_json=as_json,
    )
