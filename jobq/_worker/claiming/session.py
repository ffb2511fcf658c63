"""The connection of the claim loop.

Each statement holds its lock, so statements run one at a time, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jobq._worker.claiming.attempts import Attempts
from jobq._worker.database import Connection, Database, close
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.health.stalls import Stall

T = TypeVar("T")

PURPOSE = "claims"


class ClaimSession:
    """The connection of one claim loop, and the success or failure of its statements."""

    def __init__(self, database: Database, attempts: Attempts, on_failure: Callable[[], None]) -> None:
        """Create a session without a connection.

        Args:
            on_failure: Called when a piece of a round has failed and its result is unknown.
        """
        self._database = database
        self._on_failure = on_failure
        self._connection: Connection | None = None
        self.attempts = attempts
        self.lock = asyncio.Lock()

    async def connected(self) -> Connection:
        """Return the connection. Connect if there is none. Raises psycopg.OperationalError."""
        self.attempts.asked()
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect(PURPOSE)
        return self._connection

    async def attempt(self, what: str, work: Awaitable[T], connection: Connection) -> T | None:
        """Do one piece of a round whose failure must not stop the rest.

        Raises psycopg.Error if the connection is lost.
        """
        well, done = await self.attempts.of(what, work, connection)
        if not well:
            self._on_failure()
        return done

    def is_lost(self, error: BaseException) -> bool:
        """Return whether `error` means that the connection is lost."""
        return classify(error, self._connection) is ErrorKind.CONNECTION

    async def close(self) -> None:
        """Close the connection. The next statement opens a new one."""
        connection, self._connection = self._connection, None
        await close(connection)

    # --- stalls --------------------

    def stall(self) -> Stall | None:
        """Return the current stall: since when and why the database does not answer.

        None: no stall.
        """
        return self.attempts.trouble(self._doing())

    def cause(self) -> str:
        """Return the last failure and the statement that is awaited."""
        return self.attempts.cause(self._doing())

    def _doing(self) -> str | None:
        where = self._database.connecting.get(PURPOSE)
        return f"waiting for a connection to {where}" if where else getattr(self._connection, "waiting_for", None)
