"""``jobq migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobq.cli import output
from jobq.cli.exits import Exit
from jobq.cli.options import database_options, json_option, yes_option
from jobq.cli.session import current

if TYPE_CHECKING:
    from jobq._postgres.blockers import Blocker


@click.command(short_help="Bring the database's schema to this version of jobq.")
@database_options
@click.option("--check", is_flag=True, show_envvar=True, help="Only report; exit with 78 unless the schema is current.")
@click.option("--sql", "as_sql", is_flag=True, show_envvar=True, help="Print the SQL instead of executing it.")
@click.option(
    "--from",
    "start",
    metavar="REV",
    default="base",
    show_default=True,
    show_envvar=True,
    help="With --sql: the revision to start from.",
)
@click.option(
    "--downgrade",
    metavar="REV",
    show_envvar=True,
    help="Downgrade to this revision; `base` removes jobq's tables with every job, and the schema.",
)
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0, 86_400),
    default=60.0,
    show_default=True,
    show_envvar=True,
    help="How long to try to lock the tables. A longer time outlasts longer transactions of others; each "
    "try blocks applications and workers for less than half a second.",
)
@yes_option
@json_option
def migrate(
    *, check: bool, as_sql: bool, start: str, downgrade: str | None, wait: float, yes: bool, as_json: bool
) -> None:
    """Bring the database's schema to this version of jobq.

    Prints the steps and asks, unless --yes. Applications and workers may keep running. If nothing
    is to do, this succeeds.

    If other sessions lock the tables, it names them and tries again; after --wait it exits with 75
    and changes nothing. If objects of yours depend on jobq's tables, it names them and exits with
    78.
    """
    if check + as_sql + (downgrade is not None) > 1:
        raise click.UsageError("--check, --sql and --downgrade exclude each other")
    if start != "base" and not as_sql:
        raise click.UsageError("--from needs --sql")
    if as_sql:
        _print_sql(start, as_json)
    elif check:
        _check(as_json)
    elif downgrade is not None:
        _downgrade(downgrade, wait, yes, as_json)
    else:
        _upgrade(wait, yes, as_json)


def _upgrade(wait: float, yes: bool, as_json: bool) -> None:
    from jobq import migrate as migrations

    session = current()
    url, schema = session.unpooled_url, session.schema
    before = migrations.current(url, schema)
    steps = migrations.pending(url, schema)
    applied: list[str] = []
    if not steps:
        output.note(f"schema {schema!r} is at revision {before}: nothing to do")
    else:
        output.note(f"schema {schema!r} is at revision {before or '(no tables)'}; steps:")
        for step in steps:
            output.note(f"  {step.id}  {step.title}")
        output.confirm("Apply?", yes=yes)
        applied = migrations.upgrade(
            url, schema, session_mode=session.settings.pooler == "none", patience=wait, on_wait=_Waits()
        )
        output.note(f"schema {schema!r} is at revision {migrations.current(url, schema)}")
    if as_json:
        after = migrations.current(url, schema)
        output.print_json({"schema": schema, "before": before, "after": after, "applied": applied})


class _Waits:
    """Reports each session that holds a lock needed by the migration, once."""

    def __init__(self) -> None:
        self._reported: set[tuple[int | None, str | None]] = set()

    def __call__(self, blockers: list[Blocker]) -> None:
        for blocker in blockers:
            if (subject := (blocker.pid, blocker.gid)) not in self._reported:
                self._reported.add(subject)
                output.note(f"waiting: {blocker}")


def _check(as_json: bool) -> None:
    from jobq import migrate as migrations

    session = current()
    found = migrations.current(session.unpooled_url, session.schema)
    steps = migrations.pending(session.unpooled_url, session.schema)
    if as_json:
        output.print_json({"schema": session.schema, "current": found, "head": migrations.head(), "pending": steps})
    if steps:
        output.note(
            f"schema {session.schema!r} is at revision {found or '(no tables)'}, "
            f"{output.plural(len(steps), 'step')} behind {migrations.head()}: run `jobq migrate`"
        )
        click.get_current_context().exit(Exit.CONFIGURATION)
    output.note(f"schema {session.schema!r} is at revision {found}, which is current")


def _print_sql(start: str, as_json: bool) -> None:
    from alembic.util import CommandError

    from jobq import migrate as migrations

    schema = current().schema
    try:
        text = migrations.sql(schema, start)
    except CommandError as error:
        raise click.BadParameter(f"{start!r}: {error}", param_hint="--from") from error
    if as_json:
        output.print_json({"schema": schema, "from": start, "to": migrations.head(), "sql": text})
    else:
        click.echo(text, nl=False)


def _downgrade(revision: str, wait: float, yes: bool, as_json: bool) -> None:
    from alembic.util import CommandError

    from jobq import migrate as migrations

    session = current()
    before = migrations.current(session.unpooled_url, session.schema)
    if before is None:
        output.note(f"schema {session.schema!r} has no jobq tables: nothing to do")
    else:
        loss = ", which REMOVES jobq's tables and every job in them" if revision == "base" else ""
        output.note(f"schema {session.schema!r} is downgraded from revision {before} to {revision}{loss}")
        output.confirm("Downgrade?", yes=yes)
        try:
            left = migrations.downgrade(
                session.unpooled_url,
                revision,
                session.schema,
                session_mode=session.settings.pooler == "none",
                patience=wait,
                on_wait=_Waits(),
            )
        except CommandError as error:
            raise click.BadParameter(f"{revision!r}: {error}", param_hint="--downgrade") from error
        if migrations.current(session.unpooled_url, session.schema) is None:
            _print_leftovers(session.unpooled_url, session.schema, left)
    if as_json:
        after = migrations.current(session.unpooled_url, session.schema)
        output.print_json({"schema": session.schema, "before": before, "after": after})


def _print_leftovers(url: str, schema: str, left: list[str]) -> None:
    from jobq import migrate as migrations

    if left:
        output.note(
            f"schema {schema!r} is kept, because it contains objects that are not jobq's: {', '.join(left[:20])}"
        )
    else:
        output.note(f"schema {schema!r} is removed")
    if roles := migrations.roles_left(url, schema):
        named = ", ".join(roles)
        output.note(f"the server's roles are kept; to remove them: DROP OWNED BY {named}; DROP ROLE {named}")
