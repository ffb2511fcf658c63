"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from jobq._core import durations
from jobq.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])

APP_METAVAR = "MODULE:ATTRIBUTE"


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None:
        setattr(
            context.ensure_object(Session),
            "schema_name" if parameter.name == "schema" else "database_url",
            value,
        )


def _keep_file(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        from jobq.settings import read_secret

        context.ensure_object(Session).database_url = read_secret(value, "--database-url-file")


def database_options(function: F) -> F:
    """Accept ``--database-url``, ``--database-url-file`` and ``--schema``, on the group and on the
    command.
    """
    # Settings reads their variables, so that `jobq config` can show the origin of a value.
    for decorate in (
        click.option(
            "--schema",
            metavar="NAME",
            help="Schema of jobq's tables.  [env var: JOBQ_SCHEMA; default: jobq]",
            expose_value=False,
            callback=_keep,
            allow_from_autoenv=False,
        ),
        click.option(
            "--database-url-file",
            metavar="PATH",
            help="File that contains that URL, which keeps it out of `ps`; - for standard input.  "
            "[env var: JOBQ_DATABASE_URL_FILE]",
            expose_value=False,
            callback=_keep_file,
            allow_from_autoenv=False,
        ),
        click.option(
            "--database-url",
            metavar="URL",
            help="Postgres database, as a URL or a libpq conninfo string.  [env var: JOBQ_DATABASE_URL]",
            expose_value=False,
            callback=_keep,
            allow_from_autoenv=False,
        ),
    ):
        function = decorate(function)
    return function


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="JOBQ_JSON",
    show_envvar=True,
    help="Print one JSON document, and nothing else, on standard output.",
)

where_option = click.option(
    "--where",
    metavar="FILTER",
    default="",
    show_envvar=True,
    help="Only jobs that match this filter, such as 'state:failed task:mail.* age:>1h args.order_id:42'.",
)


def name_options(function: F) -> F:
    """Accept ``--queue`` and ``--task``, which select jobs."""
    for decorate in (
        click.option("--task", metavar="NAME", show_envvar=True, help="Only jobs of this task."),
        click.option("--queue", metavar="NAME", show_envvar=True, help="Only jobs of this queue."),
    ):
        function = decorate(function)
    return function


yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.", show_envvar=True)

reason_option = click.option("--reason", metavar="TEXT", help="Reason, for the audit.", show_envvar=True)


def app_option(*, required: bool = False) -> Callable[[Any], Any]:
    """Return the ``--app`` option. Commands that take the application as an argument do not use
    it.
    """
    return click.option(
        "--app",
        metavar=APP_METAVAR,
        envvar="JOBQ_APP",
        show_envvar=True,
        required=required,
        help="Location of your JobQ object, e.g. shop.jobs:q (default: none).",
    )


def log_options(function: F) -> F:
    """Accept ``--log-format`` and ``--log-level``."""
    for decorate in (
        click.option(
            "--log-level",
            type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
            default="info",
            show_default=True,
            envvar="JOBQ_LOG_LEVEL",
            show_envvar=True,
            help="Lowest severity that is logged.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            envvar="JOBQ_LOG_FORMAT",
            show_envvar=True,
            help="Format of the logs on standard error (default: text on a terminal, else json).",
        ),
    ):
        function = decorate(function)
    return function


def parse_duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of ``90``, ``1.5h`` or ``2d`` (units s, m, h, d, w), as an option's callback.

    Raises a usage error for anything else, including infinite and negative durations.
    """
    if value is None:
        return None
    try:
        return durations.parse_duration(value)
    except ValueError:
        raise click.BadParameter(f"{value!r}: {durations.HINT}") from None
