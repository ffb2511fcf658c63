"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

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
        from jobq.config import read_secret

        context.ensure_object(Session).database_url = read_secret(value, "--database-url-file")


def database_options(function: F) -> F:
    """Accept ``--database-url``, ``--database-url-file`` and ``--schema`` (on the group and after the command alike)."""
    # Their variables are read by Settings, so that `jobq config` can tell where a value came from.
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
            help="File that holds that URL, which `ps` then does not show; - for standard input.  "
            "[env var: JOBQ_DATABASE_URL_FILE]",
            expose_value=False,
            callback=_keep_file,
            allow_from_autoenv=False,
        ),
        click.option(
            "--database-url",
            metavar="URL",
            help="Postgres to use, as a URL or libpq conninfo.  [env var: JOBQ_DATABASE_URL]",
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
    help="Print one JSON document on standard output, and nothing else there.",
)

where_option = click.option(
    "--where",
    metavar="FILTER",
    default="",
    show_envvar=True,
    help="Only jobs that fit this, as in 'state:failed task:mail.* age:>1h args.order_id:42'.",
)


def name_options(function: F) -> F:
    """Accept ``--queue`` and ``--task``, by which jobs are selected."""
    for decorate in (
        click.option("--task", metavar="NAME", show_envvar=True, help="Only jobs of this task."),
        click.option("--queue", metavar="NAME", show_envvar=True, help="Only jobs of this queue."),
    ):
        function = decorate(function)
    return function


yes_option = click.option("--yes", "-y", is_flag=True, help="Go ahead without asking.", show_envvar=True)

reason_option = click.option("--reason", metavar="TEXT", help="Why; kept in the audit.", show_envvar=True)


def app_option(*, required: bool = False) -> Callable[[Any], Any]:
    """Return the ``--app`` option; commands whose application is an argument do not use it."""
    return click.option(
        "--app",
        metavar=APP_METAVAR,
        envvar="JOBQ_APP",
        show_envvar=True,
        required=required,
        help="Where your JobQ is, e.g. shop.jobs:q.",
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
            help="Least severity that is logged.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            envvar="JOBQ_LOG_FORMAT",
            show_envvar=True,
            help="Form of the logs on standard error (default: text on a terminal, else json).",
        ),
    ):
        function = decorate(function)
    return function


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of ``90``, ``1.5h`` or ``2d`` (units s, m, h, d), as an option's callback.

    A usage error for anything else, infinities and negative durations included.
    """
    if value is None:
        return None
    text = value.strip().lower()
    factor = _UNITS.get(text[-1:])
    try:
        seconds = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise click.BadParameter(f"{value!r}: give seconds of 0 or more, or a number with s, m, h or d, as in 1.5h")
    return seconds
