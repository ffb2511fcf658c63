"""jobq's own connections, for submit() and result(): one pool per process and event loop.

Connections are opened when first needed. This is safe with threads, with fork (a child makes its
own pools and does not touch its parent's sockets), and with several event loops in sequence.
Connections are autocommit: one statement is one transaction and one round trip.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import select
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from jobq._postgres import connecting
from jobq.errors import DatabaseUnavailable
from jobq.settings import Settings, redact_url

# After this many idle seconds a connection is tested. Before, it is enough that the server has not
# closed it. That does not detect a lost machine or network: the statement then fails instead of the
# test.
_STALE = 1.0


class Connection(psycopg.Connection[Any]):
    """A connection in a pool."""

    used_at = -math.inf
    """When it was last used, on the monotonic clock."""


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """Gives no warning if it is dropped open.

    It cannot be closed after its event loop has ended.
    """

    used_at = -math.inf
    """When it was last used, on the monotonic clock."""

    def __del__(self, *_: Any) -> None:
        """Leave it to libpq, which closes the socket only in the process that opened it."""


SyncPool: TypeAlias = ConnectionPool[Connection]


class AsyncPool:
    """At most `size` connections of one event loop. The coroutine that needs one opens it.

    psycopg_pool is not used: it connects in its own tasks, which ignore cancellation while they
    connect, so an `asyncio.run` that ends at that moment never returns.
    """

    def __init__(self, conninfo: str, options: dict[str, Any], size: int, timeout: float) -> None:
        self._conninfo = conninfo
        self._options = options
        self._timeout = timeout
        self._free = asyncio.Semaphore(size)
        self._idle: list[AsyncConnection] = []

    async def getconn(self) -> AsyncConnection:
        """Return a tested connection.

        Raises PoolTimeout, with the connection error as its cause, if any.
        """
        refused: psycopg.Error | None = None
        free = False
        try:
            async with asyncio.timeout(self._timeout):
                free = await self._free.acquire()
                while self._idle:
                    connection = self._idle.pop()
                    if await _answers(connection):
                        return connection
                pause = 0.05
                while True:
                    try:
                        return await connecting.connect_async_as(
                            AsyncConnection, self._conninfo, None, autocommit=True, **self._options
                        )
                    except psycopg.OperationalError as error:
                        refused = error
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 1.0)
        except BaseException as error:
            if free:
                self._free.release()
            if isinstance(error, TimeoutError):
                raise PoolTimeout from refused
            raise

    async def putconn(self, connection: AsyncConnection) -> None:
        """Take back a connection; close it if it is no longer usable."""
        self._free.release()
        if not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            await connection.close()

    async def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            await self._idle.pop().close()


def _is_fresh(connection: Connection | AsyncConnection) -> bool:
    """Return whether the server answered recently and has not closed it, without a round trip."""
    if time.monotonic() - connection.used_at > _STALE:
        return False
    unread = select.poll()
    unread.register(connection.pgconn.socket, select.POLLIN)
    return not unread.poll(0)


def _check(connection: Connection) -> None:
    if not _is_fresh(connection):
        ConnectionPool.check_connection(connection)


async def _answers(connection: AsyncConnection) -> bool:
    if _is_fresh(connection):
        return True
    try:
        await connection.execute("")
    except psycopg.Error:
        await connection.close()
        return False
    except BaseException:
        await connection.close()
        raise
    return True


class Pools:
    """The pools of one JobQ."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._sync: SyncPool | None = None
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncPool] = WeakKeyDictionary()
        _all.add(self)

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend an autocommit connection. Raises DatabaseUnavailable, and ConfigurationError without a database URL."""
        pool = self._sync_pool()
        try:
            connection = pool.getconn()
        except PoolTimeout as error:
            raise self._unavailable(self._reason()) from error
        try:
            yield connection
        except psycopg.Error as error:
            self._judge(connection, error)
            raise
        finally:
            connection.used_at = time.monotonic()
            pool.putconn(connection)

    @asynccontextmanager
    async def connection_async(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Lend an asynchronous autocommit connection, like `connection`."""
        pool = self._async_pool()
        try:
            connection = await pool.getconn()
        except PoolTimeout as error:
            reason = str(error.__cause__).strip() if error.__cause__ else await asyncio.to_thread(self._reason)
            raise self._unavailable(reason) from error
        try:
            yield connection
        except psycopg.Error as error:
            self._judge(connection, error)
            raise
        finally:
            connection.used_at = time.monotonic()
            await pool.putconn(connection)

    def close(self) -> None:
        """Close the synchronous pool; the next use opens another."""
        with self._lock:
            pool, self._sync = self._sync, None
        if pool is not None:
            pool.close()

    async def aclose(self) -> None:
        """Close this event loop's pool, and the synchronous one."""
        pool = self._by_loop.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.close()
        await asyncio.to_thread(self.close)

    def _sync_pool(self) -> SyncPool:
        with self._lock:
            if self._sync is None:
                self._sync = ConnectionPool(
                    **self._options(),
                    open=True,
                    connection_class=Connection,
                    configure=connecting.adjust,
                    check=_check,
                )
            return self._sync

    def _async_pool(self) -> AsyncPool:
        loop = asyncio.get_running_loop()
        pool = self._by_loop.get(loop)
        if pool is None:
            settings = self._settings
            pool = self._by_loop[loop] = AsyncPool(
                settings.require_database_url(), self._connect_options(), settings.pool_size, settings.connect_timeout
            )
        return pool

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "conninfo": settings.require_database_url(),
            "kwargs": {"autocommit": True, **self._connect_options()},
            "min_size": 0,
            "max_size": settings.pool_size,
            "timeout": settings.connect_timeout,
            "reconnect_timeout": settings.connect_timeout,
            "num_workers": 1,
            "name": "jobq",
        }

    def _connect_options(self) -> dict[str, Any]:
        given = conninfo_to_dict(self._settings.require_database_url())
        # libpq applies the timeout to each host: a silent host must leave time for the next one.
        hosts = str(given.get("host") or given.get("hostaddr") or "").count(",") + 1
        found = connecting.session_options(
            None if "application_name" in given else "",
            within=None if "connect_timeout" in given else self._settings.connect_timeout / hosts,
        )
        if self._settings.pooler != "none":
            # A prepared statement belongs to a session. Behind a pooler the next transaction may
            # use another.
            found["prepare_threshold"] = None
        return found

    def _reason(self) -> str | None:
        """Return why no connection can be made; None if one can: then the pool has too few."""
        url = self._settings.require_database_url()
        try:
            connecting.connect(url, None, **{**self._connect_options(), "connect_timeout": 2}).close()
        except psycopg.Error as error:
            return str(error).strip()
        return None

    def _unavailable(self, reason: str | None) -> DatabaseUnavailable:
        waited = f"no connection within {self._settings.connect_timeout:g} s"
        if reason is None:
            return DatabaseUnavailable(
                f"{waited}: all {self._settings.pool_size} of jobq's pool are in use; raise pool_size (JOBQ_POOL_SIZE)"
            )
        return DatabaseUnavailable(f"{waited} to {_where(self._settings)}: {reason}")

    def _judge(self, connection: Connection | AsyncConnection, error: psycopg.Error) -> None:
        """If the connection failed, end it and raise DatabaseUnavailable.

        If the statement failed, return.
        """
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            # Its server has become a standby: it would answer, and refuse every job forever.
            connection.pgconn.finish()
        # With an SQLSTATE of another class, the statement failed: a lock timeout, a full disk.
        elif not isinstance(error, psycopg.OperationalError) or not (
            error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
        ):
            return
        raise DatabaseUnavailable(
            f"the connection to {_where(self._settings)} was lost: {str(error).strip()}"
        ) from error

    def _abandon(self) -> None:
        """Forget the parent's pools in a forked child.

        They are never closed or collected here, because their sockets are shared.
        """
        _abandoned.append((self._sync, list(self._by_loop.items())))
        # A thread of the parent may have held the lock. That thread does not exist here.
        self._lock, self._sync, self._by_loop = threading.Lock(), None, WeakKeyDictionary()


def _where(settings: Settings) -> str:
    return redact_url(settings.require_database_url())


_all: WeakSet[Pools] = WeakSet()
_abandoned: list[object] = []


def _after_fork() -> None:
    for pools in list(_all):
        pools._abandon()


@atexit.register
def _at_exit() -> None:
    for pools in list(_all):
        pools.close()


os.register_at_fork(after_in_child=_after_fork)
