"""Bringing a database's schema to this version of jobq, and telling whether it is there.

Raises DatabaseUnavailable when the database cannot be reached and SchemaError when its schema is newer than this jobq.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, pool
from sqlalchemy.exc import DBAPIError, OperationalError

from jobq import sessions
from jobq.config import libpq_url, unreachable
from jobq.errors import ConfigurationError, DatabaseUnavailable, SchemaError

VERSION_TABLE = "schema_version"

# What stands in a schema, without what goes with a table.
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
# Alembic keeps its context in module globals: one migration at a time in a process.
_alembic = threading.Lock()


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema: its identifier and what it does, in a line."""

    id: str
    title: str


def head() -> str:
    """Return the revision that this jobq needs."""
    found = ScriptDirectory.from_config(_config("jobq")).get_current_head()
    assert found is not None
    return found


def current(database_url: str, schema: str = "jobq") -> str | None:
    """Return the database's revision, or None when it has no jobq schema."""
    with _connect(database_url) as connection:
        return _current(connection, schema)


def pending(database_url: str, schema: str = "jobq") -> list[Revision]:
    """Return what `upgrade` would do, in order.

    Raises SchemaError when the database is newer than this jobq, and ConfigurationError when its encoding is not UTF8.
    """
    with _connect(database_url) as connection:
        _check_encoding(connection)
        found = _current(connection, schema)
    return _after(found, schema)


def upgrade(database_url: str, schema: str = "jobq", *, session_mode: bool = False) -> list[str]:
    """Bring the schema to `head` and return the revisions applied; nothing to do is no error.

    The database's encoding must be UTF8: ConfigurationError otherwise.

    Two at once are safe: an advisory lock makes the second wait, and then find nothing to do. The lock needs one session,
    so a pooler is refused with ConfigurationError, unless `session_mode` says that it is one in session mode.
    """
    with _connect(database_url) as connection:
        if not session_mode and _pooled(connection):
            raise ConfigurationError(
                "a pooler such as PgBouncer stands before the database, and migrations need one session: set JOBQ_DIRECT_URL "
                "to the server itself, or JOBQ_POOLER=none where the pooler is in session mode"
            )
        _check_encoding(connection)
        name = f"jobq migrate {schema}"
        connection.exec_driver_sql("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
        connection.commit()
        steps = _after(_current(connection, schema), schema)
        connection.rollback()
        if steps:
            with _alembic:
                command.upgrade(_config(schema, connection), "head")
        return [step.id for step in steps]


def downgrade(database_url: str, revision: str, schema: str = "jobq") -> list[str]:
    """Take the schema back to `revision` (``base``: remove it, with every job). Return what of the schema is left then.

    The schema itself goes when nothing of others' stands in it. It stays where it is ``public``, or where the role may not drop
    it.
    """
    with _connect(database_url) as connection, _alembic:
        command.downgrade(_config(schema, connection), revision)
        if _current(connection, schema) is not None:
            return []
        connection.rollback()
        return _remove_schema(connection, schema)


def _remove_schema(connection: Connection, schema: str) -> list[str]:
    quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
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
    """Return the roles of deploy/roles.sql that the server has; they belong to the server, and stay after a downgrade."""
    names = [f"{schema}_{role}" for role in ("producer", "worker", "viewer", "operator")]
    with _connect(database_url) as connection:
        query = "SELECT rolname FROM pg_roles WHERE rolname = ANY (%(names)s) ORDER BY rolname"
        return list(connection.exec_driver_sql(query, {"names": names}).scalars().all())


def sql(schema: str = "jobq", start: str = "base") -> str:
    """Return the SQL that leads from `start` to `head`, for a database administrator to review and run."""
    buffer = io.StringIO()
    config = _config(schema)
    config.attributes["output_buffer"] = buffer
    command.upgrade(config, f"{start}:head" if start != "base" else "head", sql=True)
    return buffer.getvalue()


def check(database_url: str, schema: str = "jobq") -> None:
    """Raise SchemaError, with the mend, unless the schema is exactly what this jobq needs."""
    found = current(database_url, schema)
    if found is None:
        raise SchemaError(f"schema {schema!r} has no jobq tables: run `jobq migrate`")
    if _after(found, schema):
        raise SchemaError(f"schema {schema!r} is at revision {found}, jobq needs {head()}: run `jobq migrate`")


def _after(found: str | None, schema: str) -> list[Revision]:
    scripts = ScriptDirectory.from_config(_config(schema))
    try:
        steps: list[Script] = list(scripts.iterate_revisions("head", found or "base"))
    except (CommandError, RevisionError):
        raise SchemaError(
            f"schema {schema!r} is at revision {found}, which this jobq does not know (it knows up to {head()}): "
            "it was made by a newer jobq; upgrade this one"
        ) from None
    return [Revision(step.revision, (step.doc or "").split("\n")[0]) for step in reversed(steps)]


def _pooled(connection: Connection) -> bool:
    """Tell whether the server's process is another than the one that the handshake named, as poolers make it."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    connection.rollback()
    return bool(pid != driver.info.backend_pid)


def _check_encoding(connection: Connection) -> None:
    encoding = connection.exec_driver_sql("SELECT current_setting('server_encoding')").scalar()
    connection.rollback()
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database has the encoding {encoding}, in which not every text can be stored: create one with "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name that"
        )


def _current(connection: Connection, schema: str) -> str | None:
    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "version_table_schema": schema}
    )
    return context.get_current_revision()


def _config(schema: str, connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "jobq.migrations:")
    config.set_main_option("path_separator", "os")
    config.attributes["schema"] = schema
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connect(database_url: str) -> Iterator[Connection]:
    url = libpq_url(database_url)
    # libpq reads the address itself: SQLAlchemy would not know a conninfo, a service or two hosts.
    try:
        engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: sessions.connect(url, connect_timeout=10, application_name="jobq migrate"),
            poolclass=pool.NullPool,
        )
        opened = engine.connect()
    except OperationalError as error:
        raise DatabaseUnavailable(unreachable(url, str(error.orig))) from error
    try:
        with opened as connection:
            yield connection
    except OperationalError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailable(unreachable(url, str(error.orig))) from error
        raise
