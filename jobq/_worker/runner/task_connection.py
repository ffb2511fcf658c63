"""The database connections of the slots that execute transactional tasks.

There is one kind for `def` tasks and one for `async def` tasks. Both are driven from the slot's
thread. The task gets an object of its own job on the connection: see `guarded_transaction.py`.
"""

from __future__ import annotations

import contextlib
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from jobq._postgres import connecting
from jobq._postgres.guarded_transaction import CLOSED, AsyncTaskConnection, TaskConnection, Undone, execute_several
from jobq.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

_LOST = "the connection of the task's transaction was lost"
_PREPARE_THRESHOLD = 5

# Both ends notice within seconds that the other end is gone: a transaction that no process will end
# holds locks. Planner settings and the isolation level stay the database's defaults, because the
# application runs here.
_OPTIONS = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=10000 "
    "-c client_min_messages=warning"
)
# With this setting, a backend that is busy with a statement or a slow commit notices that its
# runner was killed, if its operating system supports it.
_WATCH_CLIENT = "client_connection_check_interval"


class TaskConnectionDriver(ABC):
    """A slot's connection of one kind, and the SQLAlchemy session on it.

    Only the slot's thread may call the methods.
    """

    _made: TaskConnection | AsyncTaskConnection | None = None
    _lent: TaskConnection | AsyncTaskConnection | None = None
    """The connection object that the present job has."""

    @property
    def usable(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._made is not None and not self._made.closed

    @property
    def status(self) -> TransactionStatus:
        """The transaction's status."""
        assert self._made is not None
        return self._made.info.transaction_status

    @property
    def undone(self) -> Undone | None:
        """Whether and why the transaction was rolled back during the task."""
        return next((each.undone for each in (self._made, self._lent) if each is not None and each.undone), None)

    def take_back(self) -> None:
        """Close the connection object of the job, in case code of the job still runs.

        If such code is executing a statement, that statement belongs to the job.
        """
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.pgconn = CLOSED
            if self._made is not None:
                self._made.undone = self._made.undone or lent.undone

    def connect(self, settings: Settings) -> None:
        """Connect. Raises psycopg.OperationalError."""
        url = settings.require_database_url()
        given = conninfo_to_dict(url).get("options")
        base = f"{_OPTIONS} {given}" if given else _OPTIONS
        options: dict[str, Any] = {
            "conninfo": url,
            "purpose": "task",
            "within": settings.connect_timeout,
            **connecting.KEEPALIVES,
        }
        try:
            self._made = self._connected({**options, "options": f"{base} -c {_WATCH_CLIENT}=1s"})
        except psycopg.OperationalError as error:
            if _WATCH_CLIENT not in str(error):
                raise
            self._made = self._connected({**options, "options": base})

    @abstractmethod
    def _connected(self, options: dict[str, Any]) -> TaskConnection | AsyncTaskConnection:
        """Return a new connection."""

    @abstractmethod
    def begin(self, opening: bytes) -> None:
        """Send `opening`, which contains several statements and leaves a transaction open."""

    @abstractmethod
    def flush(self) -> None:
        """Flush the session."""

    @abstractmethod
    def fetch(self, query: bytes, parameters: dict[str, Any]) -> tuple[Any, ...]:
        """Execute `query` and return its only row."""

    @abstractmethod
    def commit(self) -> None:
        """Commit."""

    @abstractmethod
    def rollback(self) -> None:
        """Roll back."""

    @abstractmethod
    def end(self) -> None:
        """Clean up after commit or rollback.

        This releases the session and resets the Python settings that the task made on the
        connection.
        """

    def drop(self) -> None:
        """Close the connection without a message to the server.

        The server rolls back an open transaction.
        """
        self.take_back()
        made, self._made = self._made, None
        if made is None or made.closed:
            return
        if made.info.transaction_status is not TransactionStatus.ACTIVE:
            made.pgconn.finish()
            return
        # Code that the task has left behind is using the connection. Freeing the connection during
        # this use could end the process. Shutting down its stream causes an error in that code and
        # a rollback in the server.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(made.pgconn.socket)) as stream:
            stream.shutdown(socket.SHUT_RDWR)

    def _renew(self) -> None:
        made = self._made
        assert made is not None
        made.undone, made.adopting = None, False
        made.prepare_threshold = _PREPARE_THRESHOLD


class SyncConnectionDriver(TaskConnectionDriver):
    """The connection driver for ``def`` tasks."""

    _made: TaskConnection | None = None
    _lent: TaskConnection | None = None
    _engine: Engine | None = None
    _session: Session | None = None

    @property
    def connection(self) -> TaskConnection:
        """The slot's connection. Raises psycopg.OperationalError if it is lost."""
        if self._made is None:
            raise psycopg.OperationalError(_LOST)
        return self._made

    def lend(self) -> TaskConnection:
        """Return the connection object for the task.

        Raises psycopg.OperationalError if the connection is lost.
        """
        if self._lent is None:
            made = self.connection
            self._lent = TaskConnection(made.pgconn)
            # Only one of the two objects may be used at a time, and the names of prepared
            # statements belong to the database session.
            self._lent.lock, self._lent._prepared = made.lock, made._prepared
        return self._lent

    @property
    def session(self) -> Session:
        """The session on the connection, created at the first use."""
        from sqlalchemy import event
        from sqlalchemy.orm import Session
        from sqlalchemy.pool import StaticPool

        if self._engine is None:
            self._engine = connecting.engine(self._adopt, StaticPool)
            event.listen(self._engine, "checkout", self._adopted)
        if self._session is None:
            self._session = Session(self._engine)
        return self._session

    def _adopt(self) -> TaskConnection:
        self.connection.adopting = True
        return self.connection

    def _adopted(self, *_: object) -> None:
        self.connection.adopting = False

    def _connected(self, options: dict[str, Any]) -> TaskConnection:
        return connecting.connect_as(TaskConnection, **options)

    def begin(self, opening: bytes) -> None:
        self._renew()
        with self.connection.lock:
            self.connection.wait(execute_several(self.connection.pgconn, opening))

    def flush(self) -> None:
        if self._session is not None:
            self._session.flush()

    def fetch(self, query: bytes, parameters: dict[str, Any]) -> tuple[Any, ...]:
        with psycopg.Cursor(self.connection, row_factory=tuple_row) as cursor:
            row = cursor.execute(query, parameters, prepare=True).fetchone()
        assert row is not None
        return row

    def cancel(self) -> None:
        """Ask the server to cancel the running statement. Called from another thread."""
        made = self._made
        if made is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                made.cancel_safe(timeout=2.0)

    def commit(self) -> None:
        psycopg.Connection.commit(self.connection)

    def rollback(self) -> None:
        psycopg.Connection.rollback(self.connection)

    def end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
            # Code that the job has left behind would otherwise begin again, in the transaction of
            # the next job.
            session.bind = None

    def drop(self) -> None:
        super().drop()
        # The task may have broken the session by now. Its resources are released with the
        # connection.
        self._session = self._engine = None


class AsyncConnectionDriver(TaskConnectionDriver):
    """The connection driver for ``async def`` tasks.

    `run` runs a coroutine to its end on the tasks' event loop.
    """

    _made: AsyncTaskConnection | None = None
    _lent: AsyncTaskConnection | None = None
    _engine: AsyncEngine | None = None
    _session: AsyncSession | None = None
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    @property
    def connection(self) -> AsyncTaskConnection:
        """The slot's connection. Raises psycopg.OperationalError if it is lost."""
        if self._made is None:
            raise psycopg.OperationalError(_LOST)
        return self._made

    def lend(self) -> AsyncTaskConnection:
        """Return the connection object for the task.

        Raises psycopg.OperationalError if the connection is lost.
        """
        if self._lent is None:
            made = self.connection
            self._lent = AsyncTaskConnection(made.pgconn)
            # Only one of the two objects may be used at a time, and the names of prepared
            # statements belong to the database session.
            self._lent.lock, self._lent._prepared = made.lock, made._prepared
        return self._lent

    @property
    def session(self) -> AsyncSession:
        """The session on the connection, created at the first use."""
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import AsyncSession
        from sqlalchemy.pool import StaticPool

        if self._engine is None:
            self._engine = connecting.async_engine(self._adopt, StaticPool)
            event.listen(self._engine.sync_engine, "checkout", self._adopted)
        if self._session is None:
            self._session = AsyncSession(self._engine)
        return self._session

    async def _adopt(self) -> AsyncTaskConnection:
        self.connection.adopting = True
        return self.connection

    def _adopted(self, *_: object) -> None:
        self.connection.adopting = False

    def _connected(self, options: dict[str, Any]) -> AsyncTaskConnection:
        made: AsyncTaskConnection = self.run(connecting.connect_async_as(AsyncTaskConnection, **options))
        return made

    def begin(self, opening: bytes) -> None:
        async def begin() -> None:
            async with self.connection.lock:
                await self.connection.wait(execute_several(self.connection.pgconn, opening))

        self._renew()
        self.run(begin())

    def flush(self) -> None:
        if self._session is not None:
            self.run(self._session.flush())

    def fetch(self, query: bytes, parameters: dict[str, Any]) -> tuple[Any, ...]:
        async def fetch() -> tuple[Any, ...] | None:
            async with psycopg.AsyncCursor(self.connection, row_factory=tuple_row) as cursor:
                await cursor.execute(query, parameters, prepare=True)
                return await cursor.fetchone()

        row: tuple[Any, ...] | None = self.run(fetch())
        assert row is not None
        return row

    def commit(self) -> None:
        self.run(psycopg.AsyncConnection.commit(self.connection))

    def rollback(self) -> None:
        self.run(psycopg.AsyncConnection.rollback(self.connection))

    def end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self.run(session.close())
            session.sync_session.bind = None

    def drop(self) -> None:
        super().drop()
        self._session = self._engine = None
