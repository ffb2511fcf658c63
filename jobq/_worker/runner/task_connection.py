"""The connections of transactional tasks, one kind for `def` and one for `async def`, both driven from the slot's thread.

What a task gets is a psycopg connection in a transaction that is not its own to end: `commit` is refused, and `rollback` is
remembered. It is an object of that job's own, on the slot's connection: once the job has ended it is closed, so that a thread
or coroutine which the task has left behind cannot write into the next job's transaction.
"""

from __future__ import annotations

import contextlib
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import psycopg
from psycopg import generators
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, PGconn, TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from jobq import sessions
from jobq.config import Settings
from jobq.errors import TransactionEnded

if TYPE_CHECKING:
    from psycopg import pq
    from psycopg.abc import PQGen
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

# Stands for the libpq connection of a job that has ended.
_CLOSED = PGconn.connect_start(b"host=/")
_CLOSED.finish()
_LOST = "the connection of the task's transaction was lost"
_PREPARE_THRESHOLD = 5

Undone = Literal["failed", "ended"]

# Both ends notice within seconds that the other is gone: a transaction that no one will end holds locks. Planner settings
# and the isolation level are the database's own: what runs here is the application.
_OPTIONS = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=10000 "
    "-c client_min_messages=warning"
)
# A backend that is busy with a statement, or with a slow commit, sees that its runner was killed, where its system can tell.
_WATCH_CLIENT = "client_connection_check_interval"


class _Refusing:
    """What both kinds of connection have beyond psycopg's."""

    info: psycopg.ConnectionInfo
    undone: Undone | None = None
    """Whether the transaction was rolled back under the task's hands: after a failed statement, or for no such reason."""
    adopting = False
    """Whether SQLAlchemy is making itself acquainted with the connection: it rolls back afterwards, and must not."""

    def _refuse(self) -> NoReturn:
        raise TransactionEnded(
            "the transaction of a transactional task is committed by jobq, together with the job's success: remove this "
            "commit(), or use connection.transaction() or session.begin_nested() for a part of it"
        )

    def _note_rollback(self) -> bool:
        """Take note that the task rolls back; tell whether it may."""
        if self.adopting:
            return False
        match self.info.transaction_status:
            case TransactionStatus.INTRANS | TransactionStatus.ACTIVE:
                self.undone = self.undone or "ended"
            case TransactionStatus.INERROR:
                self.undone = self.undone or "failed"
        return True


class TaskConnection(_Refusing, psycopg.Connection[TupleRow]):
    """The connection of a transactional ``def`` task."""

    def commit(self) -> None:
        """Refuse: raise TransactionEnded."""
        self._refuse()

    def rollback(self) -> None:
        """Roll back; the job cannot succeed any more."""
        if self._note_rollback():
            super().rollback()


class AsyncTaskConnection(_Refusing, psycopg.AsyncConnection[TupleRow]):
    """The connection of a transactional ``async def`` task."""

    async def commit(self) -> None:
        """Refuse: raise TransactionEnded."""
        self._refuse()

    async def rollback(self) -> None:
        """Roll back; the job cannot succeed any more."""
        if self._note_rollback():
            await super().rollback()


class Link(ABC):
    """A slot's connection of one kind, and the SQLAlchemy session on it. Every method is for the slot's thread."""

    _made: TaskConnection | AsyncTaskConnection | None = None
    _lent: TaskConnection | AsyncTaskConnection | None = None
    """What the present job has got."""

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
        """Whether the transaction was rolled back under the task's hands, and why."""
        return next((each.undone for each in (self._made, self._lent) if each is not None and each.undone), None)

    def take_back(self) -> None:
        """Close what the job has got, for what it has left behind. A statement of theirs that is under way is the job's own."""
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.pgconn = _CLOSED
            if self._made is not None:
                self._made.undone = self._made.undone or lent.undone

    def connect(self, settings: Settings) -> None:
        """Connect. Raises psycopg.OperationalError."""
        url = settings.require_database_url()
        given = conninfo_to_dict(url).get("options")
        base = f"{_OPTIONS} {given}" if given else _OPTIONS
        options: dict[str, Any] = {
            "conninfo": url,
            "application_name": "jobq task",
            "connect_timeout": int(max(2, min(settings.connect_timeout, 3600))),
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
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
        """Send `opening`, several statements that leave a transaction open."""

    @abstractmethod
    def flush(self) -> None:
        """Write what the session has not written yet."""

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
        """After commit or rollback: let go of the session, and of what the task has set on the connection's Python side."""

    def drop(self) -> None:
        """Close the connection without asking the server, which rolls back what is open."""
        self.take_back()
        made, self._made = self._made, None
        if made is None or made.closed:
            return
        if made.info.transaction_status is not TransactionStatus.ACTIVE:
            made.pgconn.finish()
            return
        # Someone whom the task has left behind is in the midst of using it: freeing it under his hands could end the
        # process. The end of its stream is an error to him, and to the server a reason to roll back.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(made.pgconn.socket)) as stream:
            stream.shutdown(socket.SHUT_RDWR)

    def _renew(self) -> None:
        made = self._made
        assert made is not None
        made.undone, made.adopting = None, False
        made.prepare_threshold = _PREPARE_THRESHOLD


class SyncLink(Link):
    """For ``def`` tasks."""

    _made: TaskConnection | None = None
    _lent: TaskConnection | None = None
    _engine: Engine | None = None
    _session: Session | None = None

    @property
    def connection(self) -> TaskConnection:
        """The slot's connection. Raises psycopg.OperationalError once it is lost."""
        if self._made is None:
            raise psycopg.OperationalError(_LOST)
        return self._made

    def lend(self) -> TaskConnection:
        """Return what the task gets. Raises psycopg.OperationalError once the connection is lost."""
        if self._lent is None:
            made = self.connection
            self._lent = TaskConnection(made.pgconn)
            # One of both at a time, and the names of prepared statements are the session's.
            self._lent.lock, self._lent._prepared = made.lock, made._prepared
        return self._lent

    @property
    def session(self) -> Session:
        """The session on the connection, made at the first use."""
        from sqlalchemy import create_engine, event
        from sqlalchemy.orm import Session
        from sqlalchemy.pool import StaticPool

        if self._engine is None:
            self._engine = create_engine("postgresql+psycopg://", creator=self._adopt, poolclass=StaticPool)
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
        return sessions.connect_as(TaskConnection, **options)

    def begin(self, opening: bytes) -> None:
        self._renew()
        with self.connection.lock:
            self.connection.wait(_several(self.connection.pgconn, opening))

    def flush(self) -> None:
        if self._session is not None:
            self._session.flush()

    def fetch(self, query: bytes, parameters: dict[str, Any]) -> tuple[Any, ...]:
        with psycopg.Cursor(self.connection, row_factory=tuple_row) as cursor:
            row = cursor.execute(query, parameters, prepare=True).fetchone()
        assert row is not None
        return row

    def cancel(self) -> None:
        """Ask the server to cancel the statement that is running; called from another thread."""
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
            # For what the job has left behind: it would begin again, on the next job's transaction.
            session.bind = None

    def drop(self) -> None:
        super().drop()
        # The session may be a task's own trouble by now; what it holds goes with the connection.
        self._session = self._engine = None


class AsyncLink(Link):
    """For ``async def`` tasks. `run` runs a coroutine to its end on the tasks' event loop."""

    _made: AsyncTaskConnection | None = None
    _lent: AsyncTaskConnection | None = None
    _engine: AsyncEngine | None = None
    _session: AsyncSession | None = None
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    @property
    def connection(self) -> AsyncTaskConnection:
        """The slot's connection. Raises psycopg.OperationalError once it is lost."""
        if self._made is None:
            raise psycopg.OperationalError(_LOST)
        return self._made

    def lend(self) -> AsyncTaskConnection:
        """Return what the task gets. Raises psycopg.OperationalError once the connection is lost."""
        if self._lent is None:
            made = self.connection
            self._lent = AsyncTaskConnection(made.pgconn)
            # One of both at a time, and the names of prepared statements are the session's.
            self._lent.lock, self._lent._prepared = made.lock, made._prepared
        return self._lent

    @property
    def session(self) -> AsyncSession:
        """The session on the connection, made at the first use."""
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
        from sqlalchemy.pool import StaticPool

        if self._engine is None:
            self._engine = create_async_engine("postgresql+psycopg://", async_creator=self._adopt, poolclass=StaticPool)
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
        made: AsyncTaskConnection = self.run(sessions.connect_async_as(AsyncTaskConnection, **options))
        return made

    def begin(self, opening: bytes) -> None:
        async def begin() -> None:
            async with self.connection.lock:
                await self.connection.wait(_several(self.connection.pgconn, opening))

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


def _several(pgconn: pq.abc.PGconn, query: bytes) -> PQGen[None]:
    """Execute several statements in one message; psycopg itself would begin a transaction before them."""
    pgconn.send_query(query)
    for result in (yield from generators.execute(pgconn)):
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
