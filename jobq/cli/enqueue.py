"""``jobq enqueue``."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from jobq._core.validation import parse_time
from jobq.cli import output
from jobq.cli.options import app_option, database_options, json_option, parse_duration
from jobq.cli.session import Session, current
from jobq.errors import InvalidArguments, UnknownTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobq.app import JobQ
    from jobq.job import NewJob


def _run_at(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return parse_time(value, zone_needed=True)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(short_help="Insert one job.")
@click.argument("task")
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@database_options
@app_option()
@click.option(
    "--args",
    "document",
    metavar="JSON",
    show_envvar=True,
    help="Arguments as a JSON object; - reads it from standard input.",
)
@click.option("--queue", metavar="NAME", show_envvar=True, help="Queue (default: the task's own, else `default`).")
@click.option(
    "--priority", type=click.IntRange(0, 9), show_envvar=True, help="9 runs first (default: the task's own, else 5)."
)
@click.option(
    "--key",
    metavar="TEXT",
    show_envvar=True,
    help="Idempotency key: while a job holds it, no second job is inserted (default: none).",
)
@click.option(
    "--key-scope",
    type=click.Choice(["task", "global"]),
    default="task",
    show_default=True,
    show_envvar=True,
    help="task: other tasks may use the same key. global: the key is unique over all tasks.",
)
@click.option(
    "--on-conflict",
    type=click.Choice(["return", "replace", "raise"]),
    default="return",
    show_default=True,
    show_envvar=True,
    help="If a job holds the key: return that job, replace its arguments, or fail.",
)
@click.option(
    "--delay",
    metavar="DURATION",
    callback=parse_duration,
    show_envvar=True,
    help="Start after this time, e.g. 90, 15m or 2h (default: at once).",
)
@click.option(
    "--run-at",
    metavar="TIME",
    callback=_run_at,
    show_envvar=True,
    help="Start not before this time, in ISO 8601 with a zone (default: now).",
)
@click.option(
    "--max-attempts",
    type=click.IntRange(1),
    show_envvar=True,
    help="Most attempts (default: the task's own, else 10).",
)
@click.option(
    "--timeout",
    metavar="DURATION",
    callback=parse_duration,
    show_envvar=True,
    help="How long one attempt may take (default: the task's own, else no limit).",
)
@click.option(
    "--force",
    is_flag=True,
    show_envvar=True,
    help="Insert the job even if no known worker has this task. It waits until one does.",
)
@json_option
def enqueue(
    *,
    task: str,
    pairs: tuple[str, ...],
    document: str | None,
    app: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Insert one job of TASK.

    A VALUE that is JSON (3, true, null, [1, 2], "3") is used as such, any other as text. With
    --app, the task itself checks the arguments and provides the options. Without --app, a worker
    must know the name, unless --force is given.
    """
    from jobq._postgres.enqueue import insert

    given = {name: value for name, value in options.items() if value is not None}
    if "key" not in given:
        given.pop("on_conflict")
        given.pop("key_scope")
    arguments = parse_arguments(pairs, document)
    session = current()
    loaded: JobQ | None = None
    if app is not None:
        loaded, job = _job_of_app(session, app, task, arguments, given)
    else:
        job = _job_by_name(session, task, arguments, given)
    with session.connect() as connection:
        if app is None and not force:
            require_known(task, known_tasks(connection, session.schema))
        into = partial(insert, connection, session.schema)
        [inserted] = into([job]) if loaded is None else loaded.middlewares.insert([job], into)
    if as_json:
        output.print_json({"id": inserted.id, "created": inserted.created, "replaced": inserted.replaced})
    elif inserted.created:
        click.echo(f"inserted job {inserted.id}")
    else:
        click.echo(f"job {inserted.id} holds the key" + ("; its arguments are replaced" if inserted.replaced else ""))


def parse_arguments(pairs: Iterable[str], document: str | None) -> dict[str, Any]:
    """Return the arguments: the object in `document`, overridden by the ``key=value`` pairs.

    Raises a usage error for anything else.
    """
    arguments: dict[str, Any] = {}
    if document is not None:
        text = sys.stdin.read() if document == "-" else document
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"not valid JSON: {error}", param_hint="--args") from None
        if not isinstance(value, dict):
            raise click.BadParameter(
                f"expected an object by parameter name, not {output.one_line(text, 40)}", param_hint="--args"
            )
        arguments.update(value)
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{pair!r}: expected KEY=VALUE; use --args to pass a JSON object")
        try:
            arguments[name] = json.loads(text)
        except (ValueError, RecursionError):
            arguments[name] = text
    return arguments


def _job_of_app(
    session: Session, app: str, name: str, arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[JobQ, NewJob]:
    from jobq._app.declarations import read
    from jobq.app import load

    loaded = load(app)
    # The command line takes precedence over the application's settings.
    session.database_url = session.database_url or loaded.settings.database_url
    session.schema_name = session.schema_name or loaded.settings.schema
    task = loaded.get_task(name)
    # Validated as the worker would, so that "2030-01-31" is accepted as a date.
    return loaded, task.options(**options).job(**read(task, arguments, None))


def _job_by_name(session: Session, name: str, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> NewJob:
    from jobq.job import JobOptions, NewJob

    return NewJob(JobOptions(task=name, **options), _encode(arguments, session.settings.max_args_bytes))


def _encode(arguments: Mapping[str, Any], limit: int) -> str:
    from jobq._core import json_text

    try:
        return json_text.encode(dict(arguments), "arguments", limit)
    except ValueError as error:
        raise InvalidArguments(str(error)) from None


def known_tasks(connection: Any, schema: str) -> set[str]:
    """Return the names of the tasks that workers of this database have."""
    from jobq import queries

    return {task for worker in queries.workers(connection, schema) for task in worker.tasks}


def require_known(name: str, known: set[str]) -> None:
    """Raise UnknownTask, with similar names, unless `name` is in `known`."""
    if name in known:
        return
    import difflib

    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}? Otherwise" if close else "start a worker that has it, or"
    raise UnknownTask(
        f"task {name!r}: no worker of this database has it; {hint} pass --app MODULE:ATTRIBUTE or --force"
    )
