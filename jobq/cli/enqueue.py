"""``jobq enqueue``."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from jobq.cli import output
from jobq.cli.options import app_option, database_options, json_option, parse_duration
from jobq.cli.session import Session, current
from jobq.errors import InvalidArguments, UnknownTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobq.jobs import NewJob


def _run_at(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.BadParameter(f"{value!r}: give a time with its zone, as in 2030-01-31T08:00:00+01:00")
    return moment


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
    help="The arguments as a JSON object; `-` reads it from standard input.",
)
@click.option("--queue", metavar="NAME", show_envvar=True, help="Queue (default: the task's own, else `default`).")
@click.option(
    "--priority", type=click.IntRange(0, 9), show_envvar=True, help="9 runs first (default: the task's own, else 5)."
)
@click.option(
    "--key", metavar="TEXT", show_envvar=True, help="Idempotency key: while it is held, no second job is inserted."
)
@click.option(
    "--key-scope",
    type=click.Choice(["task", "global"]),
    default="task",
    show_default=True,
    show_envvar=True,
    help="Whether other tasks may hold the same key, or it is one for all tasks.",
)
@click.option(
    "--on-conflict",
    type=click.Choice(["return", "replace", "raise"]),
    default="return",
    show_default=True,
    show_envvar=True,
    help="When the key is held: show its job, give that job these arguments, or fail.",
)
@click.option(
    "--delay", metavar="DURATION", callback=parse_duration, show_envvar=True, help="Wait so long, e.g. 90, 15m or 2h."
)
@click.option(
    "--run-at", metavar="TIME", callback=_run_at, show_envvar=True, help="Not before this time, in ISO 8601 with zone."
)
@click.option(
    "--max-attempts",
    type=click.IntRange(1),
    show_envvar=True,
    help="How often to try (default: the task's own, else 10).",
)
@click.option(
    "--timeout", metavar="DURATION", callback=parse_duration, show_envvar=True, help="How long one attempt may take."
)
@click.option("--force", is_flag=True, show_envvar=True, help="Insert it even if no worker is known to have this task.")
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

    A VALUE is taken as JSON where it is JSON (3, true, null, [1, 2], "3"), else as text. With --app the task
    itself checks the arguments and gives the options; without, the name must be known to a worker, or --force.
    """
    from jobq.enqueue import insert

    given = {name: value for name, value in options.items() if value is not None}
    if "key" not in given:
        given.pop("on_conflict")
        given.pop("key_scope")
    arguments = parse_arguments(pairs, document)
    session = current()
    if app is not None:
        job = _job_of_app(session, app, task, arguments, given)
    else:
        job = _job_by_name(session, task, arguments, given)
    with session.connect() as connection:
        if app is None and not force:
            require_known(task, known_tasks(connection, session.schema))
        [inserted] = insert(connection, session.schema, [job])
    if as_json:
        output.print_json({"id": inserted.id, "created": inserted.created, "replaced": inserted.replaced})
    elif inserted.created:
        click.echo(f"inserted job {inserted.id}")
    else:
        click.echo(
            f"the key is held by job {inserted.id}" + (", which was given these arguments" if inserted.replaced else "")
        )


def parse_arguments(pairs: Iterable[str], document: str | None) -> dict[str, Any]:
    """Return the arguments: the object in `document`, with the ``key=value`` of `pairs` laid over it.

    Raises a usage error for anything that is neither.
    """
    arguments: dict[str, Any] = {}
    if document is not None:
        text = sys.stdin.read() if document == "-" else document
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"this is not JSON: {error}", param_hint="--args") from None
        if not isinstance(value, dict):
            raise click.BadParameter(
                f"give an object by parameter name, not {output.one_line(text, 40)}", param_hint="--args"
            )
        arguments.update(value)
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{pair!r}: give arguments as KEY=VALUE, or an object with --args")
        try:
            arguments[name] = json.loads(text)
        except (ValueError, RecursionError):
            arguments[name] = text
    return arguments


def _job_of_app(
    session: Session, app: str, name: str, arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> NewJob:
    from jobq.app import load
    from jobq.declarations import read

    loaded = load(app)
    # What the command line does not say is as the application has it.
    session.database_url = session.database_url or loaded.settings.database_url
    session.schema_name = session.schema_name or loaded.settings.schema
    task = loaded.get_task(name)
    # Read as the worker would read them, so that "2030-01-31" fits a date.
    return task.options(**options).job(**read(task, arguments, None))


def _job_by_name(session: Session, name: str, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> NewJob:
    from jobq.jobs import JobOptions, NewJob

    return NewJob(JobOptions(task=name, **options), _encode(arguments, session.settings.max_args_bytes))


def _encode(arguments: Mapping[str, Any], limit: int) -> str:
    from jobq import jsontext

    try:
        return jsontext.encode(dict(arguments), "arguments", limit)
    except ValueError as error:
        raise InvalidArguments(str(error)) from None


def known_tasks(connection: Any, schema: str) -> set[str]:
    """Return the tasks that workers of this database have."""
    from jobq import queries

    return {task for worker in queries.workers(connection, schema) for task in worker.tasks}


def require_known(name: str, known: set[str]) -> None:
    """Raise UnknownTask unless `name` is among `known`, with those that are near."""
    if name in known:
        return
    import difflib

    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}? Else" if close else "start a worker that has it,"
    raise UnknownTask(
        f"task {name!r}: no worker of this database knows it; {hint} pass --app MODULE:ATTRIBUTE or --force"
    )
