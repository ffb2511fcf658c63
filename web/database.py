"""The page's database connections: a small pool, short timeouts, and no connection held between
requests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock
from time import monotonic
from typing import Any, TypeVar

import psycopg
from flask import abort, g, has_app_context
from psycopg import Connection
from psycopg_pool import ConnectionPool

from jobq._postgres import connecting
from jobq.settings import Settings

T = TypeVar("T")

_WAIT = 3.0
# Seconds: the timeout of a query, and the budget of a page for its remaining queries after one
# timed out.
QUERY_TIMEOUT = 2.0
_PAGE_BUDGET = 6.0
# One round trip. Timeouts are set in the transaction: a transaction pooler refuses startup options,
# and session settings would leak to other clients. JIT is off: the planner overestimates bounded
# reads, and compiling them takes longer than running them. One savepoint serves every query.
# Nothing is written, so rolling back to it loses nothing; PostgreSQL keeps a savepoint after a
# rollback to it, and the transaction's snapshot survives.
_READ = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = {timeout}; "
    "SET LOCAL jit = off; SAVEPOINT query"
)
# Also whether the server refuses writes: a standby does, or one with default_transaction_read_only.
_NOW = "SELECT now(), pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean"
_WRITE = "SET LOCAL statement_timeout = 5000"
_READ_ONLY = "SET TRANSACTION READ ONLY"


class Reader:
    """A read-only transaction with one snapshot. It continues after a query that timed out."""

    def __init__(self, connection: Connection[Any], schema: str, missing: list[str], timeout: float) -> None:
        self.connection = connection
        self.schema = schema
        # The names of the queries that timed out, for the page's banner.
        self.missing = missing
        self._timeout = timeout
        self._until = monotonic() + _PAGE_BUDGET

    def __call__(
        self, query: Callable[..., T], /, *args: Any, default: Any = None, name: str | None = None, **options: Any
    ) -> Any:
        """Return ``query(connection, schema, *args, **options)``; `default` if one of its
        statements timed out (2 s).

        After a timeout, `missing` contains `name` (default: the function's name). Every other error
        is raised.
        """
        try:
            return query(self.connection, self.schema, *args, **options)
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            self.connection.execute("ROLLBACK TO SAVEPOINT query")
            # A page with many slow queries must not occupy a thread for the sum of their timeouts.
            left = max(min(self._timeout, self._until - monotonic()), 0.1)
            self.connection.execute(f"SET LOCAL statement_timeout = {round(left * 1000)}; SAVEPOINT query")
            self.missing.append(name or getattr(query, "__name__", "a query").replace("_", " "))
            return default

    def require(self, query: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """Return ``query(connection, schema, *args, **options)``. A timeout is raised, and answered
        with 503.
        """
        return query(self.connection, self.schema, *args, **options)

    def now(self) -> Any:
        """Return the transaction's time. Ages are computed with the database's clock, which also
        wrote the timestamps.
        """
        row = self.connection.execute(_NOW).fetchone()
        if row is None:
            return None
        if row[1] and has_app_context():
            # Read by the layout's banner.
            g.jobq_read_only = True
        return row[0]


def _configure(connection: Connection[Any]) -> None:
    connecting.adjust(connection)
    connecting.read_every_time(connection)


class Database:
    """A small pool, opened at the first request of each process, so that a server may fork at any
    time.
    """

    def __init__(self, settings: Settings, *, read_only: bool = False, query_timeout: float | None = None) -> None:
        self.schema = settings.schema
        self.read_only = read_only
        self.query_timeout = query_timeout or QUERY_TIMEOUT
        self._url = settings.require_database_url()
        self._lock = Lock()
        self._streams = BoundedSemaphore(2)
        self._pool: ConnectionPool[Connection[Any]] | None = None
        self._process = os.getpid()
        # Kept from being collected, which would end the parent's sessions.
        self._inherited: ConnectionPool[Connection[Any]] | None = None

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Yield a Reader: a read-only transaction with one snapshot, whose statements time out
        after 2 s.
        """
        # Collected over all transactions of the request, for the layout's banner.
        missing: list[str] = g.setdefault("jobq_missing", []) if has_app_context() else []
        with self._open().connection() as connection, connection.transaction():
            connection.execute(_READ.format(timeout=round(self.query_timeout * 1000)))
            yield Reader(connection, self.schema, missing, self.query_timeout)

    @contextmanager
    def write(self) -> Iterator[Connection[Any]]:
        """Yield a connection in a transaction that commits at the end. Statements time out after 5
        s.

        On a read-only page the transaction is read-only, and PostgreSQL itself refuses changes.
        """
        with self._open().connection() as connection, connection.transaction():
            connection.execute(f"{_READ_ONLY}; {_WRITE}" if self.read_only else _WRITE)
            yield connection

    @contextmanager
    def stream(self) -> Iterator[Connection[Any]]:
        """Yield a connection outside the pool and without a transaction, for a response that lasts
        as long as its reader.

        At most two exist at a time; a third request aborts with 503.
        """
        if not self._streams.acquire(blocking=False):
            abort(503, "Two exports are running already. Try again when one has finished.")
        try:
            with connecting.connect(
                self._url, "export", within=3, autocommit=True, prepare_threshold=None
            ) as connection:
                # An export reads only, whatever the page may change.
                connection.read_only = True
                yield connection
        finally:
            self._streams.release()

    def close(self) -> None:
        """Close the pool; the next request opens another."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _open(self) -> ConnectionPool[Connection[Any]]:
        with self._lock:
            if self._process != os.getpid():
                # After a fork: the connections belong to the parent, and the pool's threads do not
                # exist here.
                self._inherited, self._pool, self._process = self._pool, None, os.getpid()
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._url,
                    connection_class=Connection[Any],
                    min_size=0,
                    # The number of the server's threads, so that no page waits for another one's
                    # connection.
                    max_size=8,
                    timeout=_WAIT,
                    max_idle=30.0,
                    # Give up early: the next request tries again, and so notices at once that the
                    # database is back.
                    reconnect_timeout=1.0,
                    configure=_configure,
                    check=ConnectionPool.check_connection,
                    kwargs={
                        **connecting.session_options("web", within=3),
                        "autocommit": True,
                        "prepare_threshold": None,
                    },
                    name="jobq web",
                    open=True,
                )
            return self._pool
