"""The page's connections: none is held between requests, and none waits long."""

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

from jobq import sessions
from jobq.config import Settings

T = TypeVar("T")

_WAIT = 3.0
# What a query gets, and what a page gets for those after the first that was cut off, in seconds.
QUERY_TIMEOUT = 2.0
_PAGE_BUDGET = 6.0
# One round trip. Timeouts are set in the transaction, not at the start of the session: a transaction pooler refuses the one
# and shares the other. Bounded reads look dear to the planner, which would then spend longer on compiling them than they take.
# One savepoint serves every query: nothing is written, so going back to the beginning loses nothing, and PostgreSQL keeps a
# savepoint to which it has gone back. The transaction's snapshot outlives it.
_READ = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = {timeout}; "
    "SET LOCAL jit = off; SAVEPOINT query"
)
# With whether the server refuses changes: a standby does, and one that is set so. Our own transaction is read-only in any case.
_NOW = "SELECT now(), pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean"
_WRITE = "SET LOCAL statement_timeout = 5000"
_READ_ONLY = "SET TRANSACTION READ ONLY"


class Reader:
    """A read-only transaction that sees one moment, and goes on when one of its queries takes too long."""

    def __init__(self, connection: Connection[Any], schema: str, missing: list[str], timeout: float) -> None:
        self.connection = connection
        self.schema = schema
        # The names of the queries that were cut off, for the page's banner.
        self.missing = missing
        self._timeout = timeout
        self._until = monotonic() + _PAGE_BUDGET

    def __call__(
        self, query: Callable[..., T], /, *args: Any, default: Any = None, name: str | None = None, **options: Any
    ) -> Any:
        """Return ``query(connection, schema, *args, **options)``, or `default` when a statement of it took longer than 2 s;
        then `name` (default: the function's) is in `missing`.

        Every other error is raised.
        """
        try:
            return query(self.connection, self.schema, *args, **options)
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            self.connection.execute("ROLLBACK TO SAVEPOINT query")
            # A page of many slow queries must not hold a thread for the sum of them.
            left = max(min(self._timeout, self._until - monotonic()), 0.1)
            self.connection.execute(f"SET LOCAL statement_timeout = {round(left * 1000)}; SAVEPOINT query")
            self.missing.append(name or getattr(query, "__name__", "a query").replace("_", " "))
            return default

    def need(self, query: Callable[..., T], /, *args: Any, **options: Any) -> T:
        """As a call, for what the page is nothing without: a timeout is raised (and answered with 503)."""
        return query(self.connection, self.schema, *args, **options)

    def now(self) -> Any:
        """Return the transaction's time: the age of a thing is told by the database's clock, which also wrote when it began."""
        row = self.connection.execute(_NOW).fetchone()
        if row is None:
            return None
        if row[1] and has_app_context():
            # For the layout's banner.
            g.jobq_read_only = True
        return row[0]


def _configure(connection: Connection[Any]) -> None:
    sessions.adjust(connection)
    sessions.read_every_time(connection)


class Database:
    """A small pool, opened at the first request of each process: a server may fork before it, or after."""

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
        """A Reader: a read-only transaction that sees one moment. Each statement is cut off after 2 s."""
        # Gathered over the whole request: the layout says so, whichever transaction it was.
        missing: list[str] = g.setdefault("jobq_missing", []) if has_app_context() else []
        with self._open().connection() as connection, connection.transaction():
            connection.execute(_READ.format(timeout=round(self.query_timeout * 1000)))
            yield Reader(connection, self.schema, missing, self.query_timeout)

    @contextmanager
    def write(self) -> Iterator[Connection[Any]]:
        """A connection in a transaction that commits at the end. Statements are cut off after 5 s.

        On a read-only page it can be read from, and PostgreSQL itself refuses everything else.
        """
        with self._open().connection() as connection, connection.transaction():
            connection.execute(f"{_READ_ONLY}; {_WRITE}" if self.read_only else _WRITE)
            yield connection

    @contextmanager
    def stream(self) -> Iterator[Connection[Any]]:
        """A connection of its own, without a transaction, for an answer that takes as long as its reader does.

        At most two at a time; aborts with 503 for a third.
        """
        if not self._streams.acquire(blocking=False):
            abort(503, "Two exports are under way already. Try again when one has ended.")
        try:
            with sessions.connect(
                self._url, autocommit=True, connect_timeout=3, application_name="jobq export", prepare_threshold=None
            ) as connection:
                # An answer changes nothing, whatever its page may.
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
                # The connections are the parent's, who goes on using them; its threads have not come along.
                self._inherited, self._pool, self._process = self._pool, None, os.getpid()
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._url,
                    connection_class=Connection[Any],
                    min_size=0,
                    # As many as the server has threads: a slow page must not make another wait for a connection.
                    max_size=8,
                    timeout=_WAIT,
                    max_idle=30.0,
                    # Give up soon: the next request tries afresh, and finds a database that is back at once.
                    reconnect_timeout=1.0,
                    configure=_configure,
                    check=ConnectionPool.check_connection,
                    kwargs={
                        "autocommit": True,
                        "connect_timeout": 3,
                        "application_name": "jobq web",
                        "prepare_threshold": None,
                        **sessions.ENCODING,
                    },
                    name="jobq web",
                    open=True,
                )
            return self._pool
