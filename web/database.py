"""The page's connections: none is held between requests, and none waits long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from psycopg import Connection
from psycopg_pool import ConnectionPool

from jobq.config import Settings

_WAIT = 3.0
_READ = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
# Set in the transaction, not at the start of the session: a transaction pooler refuses the one and shares the
# other.
_TIMEOUT = "SET LOCAL statement_timeout = '5s'"
# Bounded reads look dear to the planner, which would then spend longer on compiling them than they take.
_NO_JIT = "SET LOCAL jit = off"


class Database:
    """A small pool, opened at the first request, so that a server may fork before it."""

    def __init__(self, settings: Settings) -> None:
        self.schema = settings.schema
        self._url = settings.require_database_url()
        self._lock = Lock()
        self._pool: ConnectionPool[Connection[Any]] | None = None

    @contextmanager
    def read(self) -> Iterator[Connection[Any]]:
        """A connection in a read-only transaction that sees one moment. Statements are cut off after 5 s."""
        with self._open().connection() as connection, connection.transaction():
            connection.execute(_READ)
            connection.execute(_TIMEOUT)
            connection.execute(_NO_JIT)
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection[Any]]:
        """A connection in a transaction that commits at the end. Statements are cut off after 5 s."""
        with self._open().connection() as connection, connection.transaction():
            connection.execute(_TIMEOUT)
            yield connection

    def close(self) -> None:
        """Close the pool; the next request opens another."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _open(self) -> ConnectionPool[Connection[Any]]:
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._url,
                    connection_class=Connection[Any],
                    min_size=0,
                    max_size=4,
                    timeout=_WAIT,
                    max_idle=30.0,
                    # Give up soon: the next request tries afresh, and finds a database that is back at once.
                    reconnect_timeout=1.0,
                    check=ConnectionPool.check_connection,
                    kwargs={
                        "autocommit": True,
                        "connect_timeout": 3,
                        "application_name": "jobq web",
                        "prepare_threshold": None,
                    },
                    name="jobq web",
                    open=True,
                )
            return self._pool
