"""What an error of the database is about: the connection, the moment, or the data.

One place decides it, for every loop of the worker. What each loop then does is in docs/errors.md.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection

# Not about one statement: the server is read-only now (the primary is elsewhere), or the session is in a state in which no
# statement of ours can succeed: a failed transaction, a prepared statement that is gone, exists already, or is outdated.
_SESSION = frozenset({"25006", "25P02", "26000", "42P05"})
# Also sent as an error by functions that connect elsewhere (postgres_fdw in a trigger): then our session goes on.
_SHUTDOWN = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05"})
# 40: serialization, deadlock. 53: no resources. 55: a lock, or an object in use.
_TRANSIENT_CLASSES = frozenset({"40", "53", "55"})
_CANCELED = "57014"
# The function in which a read-only server would say so.
_OURS = "claim_managed("
_OUTDATED_PLAN = "cached plan must not change result type"


class ErrorKind(Enum):
    """What to do about an error."""

    CONNECTION = "connection"
    """The connection, and an advisory lock with it, is lost: connect again. Nothing is known of the statement."""
    TRANSIENT = "transient"
    """The statement did not get what it needed (a lock, time, resources) and changed nothing. The connection is sound and
    keeps its advisory lock: try again in a moment."""
    REFUSED = "refused"
    """The data, a rule or a missing right refused the statement, which changed nothing: trying all of it again is of no
    use. Find the row, and set it aside."""


class PartFailed(Exception):
    """A part of a working worker has failed, which no error of the database's should bring about; its cause says why."""


class Unreachable(psycopg.OperationalError):
    """No address took a connection. `refused`: each address itself refused it, so the server is there for no client."""

    def __init__(self, message: str, *, refused: bool, state: str | None = None) -> None:
        super().__init__(message)
        self.refused = refused
        self.sqlstate = state


def classify(error: BaseException, connection: AsyncConnection[Any] | Connection[Any] | None = None) -> ErrorKind:
    """Return what `error` is about. `connection`: the one on which it was met; None: there is none, or it is unknown."""
    if connection is not None and (connection.closed or connection.broken):
        return ErrorKind.CONNECTION
    if isinstance(error, (Unreachable, psycopg.InterfaceError)):
        return ErrorKind.CONNECTION
    if not isinstance(error, psycopg.Error):
        return ErrorKind.CONNECTION if isinstance(error, (OSError, TimeoutError)) else ErrorKind.REFUSED
    if isinstance(error, psycopg.errors.PipelineAborted):
        # An earlier statement of the pipeline failed, and its error was met elsewhere.
        return ErrorKind.TRANSIENT
    state = error.sqlstate
    if state is None:
        # Raised on this side: libpq lost the connection, or psycopg cannot send a value (DataError, ProgrammingError).
        return ErrorKind.CONNECTION if isinstance(error, psycopg.OperationalError) else ErrorKind.REFUSED
    if state in _SESSION:
        return ErrorKind.REFUSED if _raised_inside(error) else ErrorKind.CONNECTION
    if state == "0A000" and _OUTDATED_PLAN in str(error):
        return ErrorKind.CONNECTION
    if state[:2] == "08" or state in _SHUTDOWN:
        # The server says FATAL when it ends the session.
        ours = connection is None or error.diag.severity_nonlocalized != "ERROR"
        return ErrorKind.CONNECTION if ours else ErrorKind.TRANSIENT
    if state[:2] in _TRANSIENT_CLASSES or state == _CANCELED:
        return ErrorKind.TRANSIENT
    return ErrorKind.REFUSED


def _raised_inside(error: psycopg.Error) -> bool:
    """Tell whether a trigger has raised it: what the server says of the session has no context, but for our own function's."""
    context = error.diag.context
    return bool(context) and _OURS not in (context or "")
