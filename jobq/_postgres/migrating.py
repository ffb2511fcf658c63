"""The connection of a migration, the lock against others, and how it gets the locks on the tables.

A migration takes all the locks that it needs before it changes anything. It waits for them for
less time than the server waits before it looks for deadlocks, so it is the migration that gives
way: it starts again until it has the locks. Workers and applications then wait for the change
itself. Changes are committed together, so no program sees a state between two revisions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, pool
from sqlalchemy.exc import DBAPIError, OperationalError

from jobq._postgres import connecting
from jobq._postgres.blockers import LOCK_TIMEOUT, Blocker, NotFree, cancel_autovacuum, not_free, raise_refused
from jobq._postgres.blockers import find as find_blockers
from jobq.errors import ConfigurationError, DatabaseUnavailable, MigrationTimeout
from jobq.settings import libpq_url, unreachable

VERSION_TABLE = "schema_version"
PATIENCE = 60.0
"""Default number of seconds to try to get all locks."""
Locks = tuple[tuple[str, ...], str]
"""Tables, and the mode in which they are locked."""
# Alembic keeps its context in module globals: one migration at a time per process.
_alembic = threading.Lock()


@contextmanager
def connect(database_url: str) -> Iterator[Connection]:
    """Yield a connection. Raises DatabaseUnavailable if the database cannot be reached, or is lost."""
    url = libpq_url(database_url)
    # libpq reads the URL itself: SQLAlchemy rejects a conninfo, a service or two hosts.
    try:
        engine = connecting.engine(lambda: connecting.connect(url, "migrate", within=10), pool.NullPool)
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


def check_session(connection: Connection, session_mode: bool) -> None:
    """Raise ConfigurationError if a pooler is in between, unless it is in session mode."""
    if not session_mode and _is_pooled(connection):
        raise ConfigurationError(
            "a pooler such as PgBouncer stands before the database, and migrations need one session: set JOBQ_DIRECT_URL "
            "to the server itself, or JOBQ_POOLER=none where the pooler is in session mode"
        )


def _is_pooled(connection: Connection) -> bool:
    """Return whether a pooler is in between.

    With a pooler, the process of the server is not the process that the handshake named.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    connection.rollback()
    return bool(pid != driver.info.backend_pid)


def check_encoding(connection: Connection) -> None:
    """Raise ConfigurationError unless the database's encoding is UTF8."""
    encoding = connection.exec_driver_sql("SELECT current_setting('server_encoding')").scalar()
    connection.rollback()
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database has the encoding {encoding}, in which not every text can be stored: create one with "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name that"
        )


def current_revision(connection: Connection, schema: str) -> str | None:
    """Return the revision of the schema; None if it has no jobq tables."""
    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "version_table_schema": schema}
    )
    return context.get_current_revision()


def lock_out_others(connection: Connection, schema: str) -> None:
    """Wait until no other process migrates this schema; lock it until the connection is closed."""
    connection.exec_driver_sql("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"jobq migrate {schema}",))
    connection.commit()


def patiently(
    connection: Connection,
    schema: str,
    config: Config,
    change: Callable[[Config], None],
    *,
    patience: float,
    on_wait: Callable[[list[Blocker]], object],
    locks: Locks | None = None,
) -> None:
    """Apply one change. Repeat it while its locks are not free.

    Raises MigrationTimeout after `patience` seconds, and MigrationRefused if the server refuses it.
    """
    deadlock_timeout = connection.exec_driver_sql(
        "SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'deadlock_timeout'"
    ).scalar_one()
    connection.rollback()
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
                raise_refused(error, schema, current_revision(connection, schema))
                raise
        blockers = find_blockers(connection, schema, older_than=lock_timeout, exclusive=exclusive)
        if time.monotonic() >= end:
            raise MigrationTimeout(not_free(schema, patience, blockers, current_revision(connection, schema)))
        on_wait(blockers)
        cancel_autovacuum(connection, schema, blockers, wait=deadlock_timeout + 1)
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _passes(error: object) -> bool:
    """Return whether the same change may succeed a moment later."""
    if isinstance(error, psycopg.errors.InternalError_):
        # GRANT and REVOKE change the same rows of the system catalogue.
        return "tuple concurrently" in str(error)
    return isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)
