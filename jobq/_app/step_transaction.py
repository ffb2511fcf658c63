"""The transaction of one transactional step, as its function sees it: `current_job().connection` and its siblings.

The step gets a connection object of its own on the pool's connection, inside a transaction that only
jobq ends. It is closed when the step has ended, so a thread or coroutine that the step has left
behind cannot use the connection of another step.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, cast

import psycopg
from psycopg.errors import InFailedSqlTransaction
from psycopg.pq import TransactionStatus

from jobq._postgres import connecting
from jobq._postgres.guarded_transaction import CLOSED
from jobq.context import current_job
from jobq.errors import NotTransactional, TransactionEnded

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

_ENDED = (
    "the step ended its transaction by itself: leave the commit to jobq, which commits it with the step's result, and raise to "
    "roll back; for a part of it, use connection.transaction() or session.begin_nested()"
)
_FAILED = (
    "a statement failed and the step went on: its transaction can only be rolled back; wrap what may fail in "
    "connection.transaction() or session.begin_nested()"
)


class Engines:
    """SQLAlchemy's engines for the sessions of steps. SQLAlchemy asks the server about itself once for each."""

    @cached_property
    def sync(self) -> Engine:
        """The engine for `def` steps: its connection is that of the step in which it connects."""
        from sqlalchemy import event
        from sqlalchemy.pool import NullPool

        made = connecting.engine(_lent, NullPool)
        event.listen(made, "checkout", _adopted)
        return made

    @cached_property
    def asynchronous(self) -> AsyncEngine:
        """The engine for `async def` steps."""
        from sqlalchemy import event
        from sqlalchemy.pool import NullPool

        made = connecting.async_engine(_lent_async, NullPool)
        event.listen(made.sync_engine, "checkout", _adopted)
        return made


def _lent() -> psycopg.Connection[Any]:
    found: Any = current_job().connection
    found.adopting = True
    return cast("psycopg.Connection[Any]", found)


async def _lent_async() -> psycopg.AsyncConnection[Any]:
    found: Any = current_job().async_connection
    found.adopting = True
    return cast("psycopg.AsyncConnection[Any]", found)


def _adopted(connection: Any, *_: object) -> None:
    getattr(connection, "driver_connection", connection).adopting = False


class SyncStepTransaction:
    """The transaction of a `def` step: see `jobq.context.JobTransaction`."""

    def __init__(self, connection: psycopg.Connection[Any], engines: Engines) -> None:
        self.connection = _Connection(connection.pgconn)
        self._engines = engines
        # Only one of the two objects may be used at a time, and the names of prepared statements
        # belong to the database session.
        self.connection.lock, self.connection._prepared = connection.lock, connection._prepared

    @cached_property
    def session(self) -> Session:
        """The session on the connection, created at the first use."""
        from sqlalchemy.orm import Session

        return Session(self._engines.sync)

    def finish(self) -> None:
        """Flush the session. Raises an error if the transaction cannot be committed as the step left it."""
        if "session" in vars(self):
            self.session.flush()
        self.connection.check()

    def close(self) -> None:
        """Take the connection back."""
        self.connection.adopting = True
        if "session" in vars(self):
            self.session.close()
            self.session.bind = None
        self.connection.pgconn = CLOSED

    @property
    def async_connection(self) -> NoReturn:
        """Raises NotTransactional."""
        raise NotTransactional("current_job().async_connection: the step is a `def`: use current_job().connection")

    @property
    def async_session(self) -> NoReturn:
        """Raises NotTransactional."""
        raise NotTransactional("current_job().async_session: the step is a `def`: use current_job().session")


class AsyncStepTransaction:
    """The transaction of an `async def` step: see `jobq.context.JobTransaction`."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], engines: Engines) -> None:
        self.async_connection = _AsyncConnection(connection.pgconn)
        self._engines = engines
        self.async_connection.lock, self.async_connection._prepared = connection.lock, connection._prepared

    @cached_property
    def async_session(self) -> AsyncSession:
        """The session on the connection, created at the first use."""
        from sqlalchemy.ext.asyncio import AsyncSession

        return AsyncSession(self._engines.asynchronous)

    async def finish(self) -> None:
        """Flush the session. Raises an error if the transaction cannot be committed as the step left it."""
        if "async_session" in vars(self):
            await self.async_session.flush()
        self.async_connection.check()

    async def close(self) -> None:
        """Take the connection back."""
        self.async_connection.adopting = True
        if "async_session" in vars(self):
            await self.async_session.close()
            self.async_session.bind = self.async_session.sync_session.bind = None
        self.async_connection.pgconn = CLOSED

    @property
    def connection(self) -> NoReturn:
        """Raises NotTransactional."""
        raise NotTransactional("current_job().connection: the step is async: use current_job().async_connection")

    @property
    def session(self) -> NoReturn:
        """Raises NotTransactional."""
        raise NotTransactional("current_job().session: the step is async: use current_job().async_session")


class _Guarded:
    """What both kinds of connections share: only jobq begins and ends the transaction."""

    info: psycopg.ConnectionInfo
    adopting = False
    """Whether SQLAlchemy is inspecting the server. It rolls back afterwards, which must not happen."""
    undone = False
    """Whether the step has rolled back. Nothing is sent: the transaction is rolled back when the step ends."""

    def check(self) -> None:
        """Raise an error unless the transaction is open, and can be committed."""
        status = self.info.transaction_status
        if status is TransactionStatus.INERROR:
            raise InFailedSqlTransaction(_FAILED)
        if self.undone or status is TransactionStatus.IDLE:
            raise TransactionEnded(_ENDED)

    def _get_tx_start_command(self) -> bytes:
        # psycopg would begin a transaction of its own: the step has ended ours, by a statement.
        raise TransactionEnded(_ENDED)


class _Connection(_Guarded, psycopg.Connection[Any]):
    def commit(self) -> None:
        """Refuse to commit. Raises TransactionEnded."""
        raise TransactionEnded(_ENDED)

    def rollback(self) -> None:
        """Note the rollback; the step can no longer succeed."""
        self.undone = self.undone or not self.adopting

    def close(self) -> None:
        """Do nothing: it belongs to jobq's pool."""


class _AsyncConnection(_Guarded, psycopg.AsyncConnection[Any]):
    async def commit(self) -> None:
        """Refuse to commit. Raises TransactionEnded."""
        raise TransactionEnded(_ENDED)

    async def rollback(self) -> None:
        """Note the rollback; the step can no longer succeed."""
        self.undone = self.undone or not self.adopting

    async def close(self) -> None:
        """Do nothing: it belongs to jobq's pool."""
