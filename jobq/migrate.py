"""Upgrade a database's schema to this version of jobq, and check whether it is up to date.

Raises DatabaseUnavailable if the database cannot be reached, and SchemaError if its schema is
newer than this jobq.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from jobq._postgres import migrating
from jobq._postgres.blockers import Blocker
from jobq._postgres.migrating import (
    PATIENCE,
    Locks,
    check_encoding,
    check_session,
    connect,
    current_revision,
    lock_out_others,
    patiently,
)
from jobq.errors import SchemaError
from jobq.migrations import bridge

__all__ = ["Revision", "check", "current", "downgrade", "head", "pending", "roles_left", "sql", "upgrade"]

SCRIPT_LOCATION = "jobq.migrations:"
VERSION_TABLE = migrating.VERSION_TABLE

# Objects in a schema, except those that are dropped with a table.
_LEFT = """
    SELECT 'relation ' || relname FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = to_regnamespace(quote_ident(%(schema)s))
    UNION ALL
    SELECT 'type ' || typname FROM pg_type
    WHERE typnamespace = to_regnamespace(quote_ident(%(schema)s)) AND typrelid = 0 AND typelem = 0
    ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema: its identifier and a description of one line."""

    id: str
    title: str
    separate: bool = False
    """Whether it is applied in its own transaction, after the steps before it."""
    locks: Locks | None = None
    """The locks that it needs; None: exclusive locks on all tables."""


def head() -> str:
    """Return the revision that this jobq needs."""
    found = ScriptDirectory.from_config(_config("jobq")).get_current_head()
    assert found is not None
    return found


def current(database_url: str, schema: str = "jobq") -> str | None:
    """Return the database's revision, or None when it has no jobq schema."""
    with connect(database_url) as connection:
        return current_revision(connection, schema)


def pending(database_url: str, schema: str = "jobq") -> list[Revision]:
    """Return the steps that `upgrade` would apply, in order.

    Raises SchemaError if the database is newer than this jobq, or older than it can upgrade
    (`migrations/bridge.py`), and ConfigurationError if its encoding is not UTF8.
    """
    with connect(database_url) as connection:
        check_encoding(connection)
        found = current_revision(connection, schema)
    return _after(found, schema)


def upgrade(
    database_url: str,
    schema: str = "jobq",
    *,
    session_mode: bool = False,
    patience: float = PATIENCE,
    on_wait: Callable[[list[Blocker]], object] = lambda blockers: None,
) -> list[str]:
    """Upgrade the schema to `head`. If there is nothing to do, this is no error.

    Applications and workers may be running. Two upgrades at once are safe: an advisory lock makes
    the second one wait and then find nothing to do.

    Args:
        database_url: the database. Its encoding must be UTF8.
        schema: the schema of jobq's tables.
        session_mode: whether `database_url` is a pooler in session mode. The advisory lock needs
            one session, so any other pooler is refused.
        patience: seconds to try to get the locks on the tables (default 60). A larger value
            outlasts longer transactions. Each try delays others for at most 0.4 seconds.
        on_wait: called after each try that did not get the locks, with the sessions that hold
            them.

    Returns:
        The revisions that were applied.

    Raises:
        MigrationTimeout: the time is over; the message names the sessions. Revisions that were
            to be applied together are not applied.
        MigrationRefused: the server refuses a change. The same holds for the revisions.
        ConfigurationError: the encoding is not UTF8, or the connection goes through a pooler.
    """
    with connect(database_url) as connection:
        check_session(connection, session_mode)
        check_encoding(connection)
        lock_out_others(connection, schema)
        steps = _after(current_revision(connection, schema), schema)
        connection.rollback()
        for part in _parts(steps):
            change = partial(command.upgrade, revision=part.id)
            patiently(
                connection,
                schema,
                _config(schema, connection),
                change,
                patience=patience,
                on_wait=on_wait,
                locks=part.locks,
            )
        return [step.id for step in steps]


def _parts(steps: Iterable[Revision]) -> list[Revision]:
    """Return the last revision of each transaction."""
    ends: list[Revision] = []
    for step in steps:
        if ends and not step.separate and not ends[-1].separate:
            ends.pop()
        ends.append(step)
    return ends


def downgrade(
    database_url: str,
    revision: str,
    schema: str = "jobq",
    *,
    session_mode: bool = False,
    patience: float = PATIENCE,
    on_wait: Callable[[list[Blocker]], object] = lambda blockers: None,
) -> list[str]:
    """Downgrade the schema to `revision` (``base``: remove it, with every job).

    Stop the workers first: their code does not fit an older schema. The schema itself is dropped
    if it contains no foreign objects. It stays if it is ``public``, or if the role may not drop it.

    Args:
        database_url: the database.
        revision: the revision to return to.
        schema: the schema of jobq's tables.
        session_mode: as for `upgrade`.
        patience: as for `upgrade`.
        on_wait: as for `upgrade`.

    Returns:
        What is left of the schema.

    Raises:
        JobqError: the errors of `upgrade`.
    """
    with connect(database_url) as connection:
        check_session(connection, session_mode)
        lock_out_others(connection, schema)
        _after(current_revision(connection, schema), schema)  # raises if the revision is unknown
        connection.rollback()
        change = partial(command.downgrade, revision=revision)
        patiently(connection, schema, _config(schema, connection), change, patience=patience, on_wait=on_wait)
        if current_revision(connection, schema) is not None:
            return []
        connection.rollback()
        return _remove_schema(connection, schema)


def _remove_schema(connection: Connection, schema: str) -> list[str]:
    quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
    # The jobs are gone already: dropping the rest may wait for readers of the version.
    connection.exec_driver_sql("SET lock_timeout = 0")
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {quoted}.{VERSION_TABLE}")
    connection.commit()
    left = connection.exec_driver_sql(_LEFT, {"schema": schema}).scalars().all()
    connection.rollback()
    if left or schema == "public":
        return list(left)
    try:
        connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {quoted}")
        connection.commit()
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        connection.rollback()
        return [f"the schema itself, which this role may not drop: DROP SCHEMA {quoted}"]
    return []


def roles_left(database_url: str, schema: str = "jobq") -> list[str]:
    """Return the roles of deploy/roles.sql that exist on the server.

    They belong to the server and stay after a downgrade.
    """
    names = [f"{schema}_{role}" for role in ("producer", "worker", "viewer", "operator")]
    with connect(database_url) as connection:
        query = "SELECT rolname FROM pg_roles WHERE rolname = ANY (%(names)s) ORDER BY rolname"
        return list(connection.exec_driver_sql(query, {"names": names}).scalars().all())


def sql(schema: str = "jobq", start: str = "base") -> str:
    """Return the SQL that leads from `start` to `head`, for review and use by an administrator."""
    if start in bridge.OLDER:
        raise CommandError(bridge.refusal(schema, start))
    buffer = io.StringIO()
    config = _config(schema)
    config.attributes["output_buffer"] = buffer
    config.attributes["start"] = None if start == "base" else start
    since = bridge.TO if start == bridge.FROM else start
    command.upgrade(config, f"{since}:head" if start != "base" else "head", sql=True)
    return buffer.getvalue()


def check(database_url: str, schema: str = "jobq") -> None:
    """Raise SchemaError, with what to do, unless the schema is exactly what this jobq needs."""
    found = current(database_url, schema)
    if found is None:
        raise SchemaError(f"schema {schema!r} has no jobq tables: run `jobq migrate`")
    if _after(found, schema):
        raise SchemaError(f"schema {schema!r} is at revision {found}, jobq needs {head()}: run `jobq migrate`")


def _after(found: str | None, schema: str) -> list[Revision]:
    """Return the steps from revision `found` to the head.

    Raises SchemaError, with what to do, if the revision is unknown.
    """
    if found in bridge.OLDER:
        raise SchemaError(bridge.refusal(schema, found))
    if found == bridge.FROM:
        return [Revision(bridge.TO, bridge.TITLE), *_after(bridge.TO, schema)]
    scripts = ScriptDirectory.from_config(_config(schema))
    try:
        steps: list[Script] = list(scripts.iterate_revisions("head", found or "base"))
    except (CommandError, RevisionError):
        raise SchemaError(
            f"schema {schema!r} is at revision {found}, which this jobq does not know (it knows up to {head()}): "
            "it was made by a newer jobq; upgrade this one"
        ) from None
    return [_described(step) for step in reversed(steps)]


def _described(step: Script) -> Revision:
    return Revision(
        step.revision,
        (step.doc or "").split("\n")[0],
        separate=getattr(step.module, "separate", False),
        locks=getattr(step.module, "locks", None),
    )


def _config(schema: str, connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", SCRIPT_LOCATION)
    config.set_main_option("path_separator", "os")
    config.attributes["schema"] = schema
    config.attributes["connection"] = connection
    return config
