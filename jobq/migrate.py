"""Bringing a database's schema to this version of jobq, and telling whether it is there.

Raises DatabaseUnavailable when the database cannot be reached and SchemaError when its schema is newer than this jobq.

A migration takes all the locks that it needs before it changes anything, and waits for them for less time than the server waits
before it looks for deadlocks. So the migration is what gives way: it starts again until it has the locks. From then on workers
and applications wait for the change itself. Changes are committed together, so that no program meets a state between two
revisions.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

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
from jobq.blockers import LOCK_TIMEOUT, Blocker, NotFree, cancel_autovacuum, not_free, raise_refused
from jobq.blockers import find as find_blockers
from jobq.config import libpq_url, unreachable
from jobq.errors import ConfigurationError, DatabaseUnavailable, MigrationTimeout, SchemaError

VERSION_TABLE = "schema_version"
PATIENCE = 60.0
"""For how many seconds it tries to get all of them."""

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
Locks = tuple[tuple[str, ...], str]
"""Tables, and the mode in which to lock them."""
# Alembic keeps its context in module globals: one migration at a time in a process.
_alembic = threading.Lock()


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema: its identifier and what it does, in a line."""

    id: str
    title: str
    separate: bool = False
    """Whether it is applied by itself, after those before it."""
    locks: Locks | None = None
    """What it needs; None: all tables for itself."""


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


def upgrade(
    database_url: str,
    schema: str = "jobq",
    *,
    session_mode: bool = False,
    patience: float = PATIENCE,
    on_wait: Callable[[list[Blocker]], object] = lambda blockers: None,
) -> list[str]:
    """Bring the schema to `head` and return the revisions applied; nothing to do is no error.

    The database's encoding must be UTF8: ConfigurationError otherwise.

    Applications and workers may be at work. `patience`: for how many seconds (default 60) to try to get the tables' locks. More
    lets it outlast longer transactions; each try holds up the others for at most 0.4 seconds. `on_wait` is called after each
    try in which they were not free, with those that hold them.

    Raises MigrationTimeout, which names them, when the time is over, and MigrationRefused when the server refuses a change. The
    revisions that were to be applied together are not applied then.

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
        _alone(connection, schema)
        steps = _after(_current(connection, schema), schema)
        connection.rollback()
        for part in _parts(steps):
            change = partial(command.upgrade, revision=part.id)
            _patiently(connection, schema, change, patience, on_wait, locks=part.locks)
        return [step.id for step in steps]


def _alone(connection: Connection, schema: str) -> None:
    """Wait until no other migrates this schema; until the connection is closed."""
    connection.exec_driver_sql("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"jobq migrate {schema}",))
    connection.commit()


def _parts(steps: Iterable[Revision]) -> list[Revision]:
    """Return up to which revisions to go in one transaction each."""
    ends: list[Revision] = []
    for step in steps:
        if ends and not step.separate and not ends[-1].separate:
            ends.pop()
        ends.append(step)
    return ends


def _patiently(
    connection: Connection,
    schema: str,
    change: Callable[[Config], None],
    patience: float,
    on_wait: Callable[[list[Blocker]], object],
    *,
    locks: Locks | None = None,
) -> None:
    """Make one change, again and again while its locks are not free."""
    deadlock_timeout = connection.exec_driver_sql(
        "SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'deadlock_timeout'"
    ).scalar_one()
    connection.rollback()
    config = _config(schema, connection)
    config.attributes["locks"] = locks
    config.attributes["lock_timeout"] = lock_timeout = min(LOCK_TIMEOUT, deadlock_timeout / 2)
    exclusive = locks is None or locks[1] == "ACCESS EXCLUSIVE"
    end, pause = time.monotonic() + patience, 0.1
    while True:
        try:
            with _alembic:
                change(config)
            return
        except NotFree:
            connection.rollback()
        except DBAPIError as error:
            connection.rollback()
            if not _passes(error.orig):
                raise_refused(error, schema, _current(connection, schema))
                raise
        blockers = find_blockers(connection, schema, older_than=lock_timeout, exclusive=exclusive)
        if time.monotonic() >= end:
            raise MigrationTimeout(not_free(schema, patience, blockers, _current(connection, schema)))
        on_wait(blockers)
        cancel_autovacuum(connection, schema, blockers, wait=deadlock_timeout + 1)
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _passes(error: object) -> bool:
    """Tell whether the same change may succeed a moment later."""
    if isinstance(error, psycopg.errors.InternalError_):
        # GRANT and REVOKE change the same rows of the catalogue.
        return "tuple concurrently" in str(error)
    return isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)


def downgrade(
    database_url: str,
    revision: str,
    schema: str = "jobq",
    *,
    patience: float = PATIENCE,
    on_wait: Callable[[list[Blocker]], object] = lambda blockers: None,
) -> list[str]:
    """Take the schema back to `revision` (``base``: remove it, with every job). Return what of the schema is left then.

    `patience`, `on_wait`, and what it raises: as of `upgrade`. Stop the workers first: their code does not fit an older schema.

    The schema itself goes when nothing of others' stands in it. It stays where it is ``public``, or where the role may not drop
    it.
    """
    with _connect(database_url) as connection:
        _alone(connection, schema)
        _patiently(connection, schema, partial(command.downgrade, revision=revision), patience, on_wait)
        if _current(connection, schema) is not None:
            return []
        connection.rollback()
        return _remove_schema(connection, schema)


def _remove_schema(connection: Connection, schema: str) -> list[str]:
    quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
    # The jobs are gone: what is left may take as long as a reader of the version.
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
    config.attributes["start"] = None if start == "base" else start
    command.upgrade(config, f"{start}:head" if start != "base" else "head", sql=True)
    return buffer.getvalue()


def check(database_url: str, schema: str = "jobq") -> None:
    """Raise SchemaError, with what to do, unless the schema is exactly what this jobq needs."""
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
    return [_described(step) for step in reversed(steps)]


def _described(step: Script) -> Revision:
    return Revision(
        step.revision,
        (step.doc or "").split("\n")[0],
        separate=getattr(step.module, "separate", False),
        locks=getattr(step.module, "locks", None),
    )


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
