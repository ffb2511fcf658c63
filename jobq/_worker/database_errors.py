"""Classify database errors: the connection, a temporary condition, or the data.

Every loop of the worker uses this classification. docs/errors.md says what each loop then does.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection

# These do not concern a single statement. Either the server is read-only now (the primary is
# elsewhere), or no statement of ours can succeed in the session: a failed transaction, or a
# prepared statement that is missing, exists already, or is outdated.
_SESSION = frozenset({"25006", "25P02", "26000", "42P05"})
# Functions that connect elsewhere (postgres_fdw in a trigger) send these as errors, too. Our own
# session then continues.
_SHUTDOWN = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05"})
# 40: serialization, deadlock. 53: no resources. 55: a lock, or an object in use.
_TRANSIENT_CLASSES = frozenset({"40", "53", "55"})
_CANCELED = "57014"
# The function in which a read-only server raises its error.
_OURS = "claim_limited("
_OUTDATED_PLAN = "cached plan must not change result type"


class ErrorKind(Enum):
    """How to react to an error."""

    CONNECTION = "connection"
    """The connection is lost, and an advisory lock with it: connect again.

    It is unknown whether the statement succeeded.
    """
    TRANSIENT = "transient"
    """The statement lacked something (a lock, time, resources) and changed nothing: try again soon.

    The connection works and keeps its advisory lock.
    """
    REFUSED = "refused"
    """The data, a rule or a missing right refused the statement, which changed nothing.

    Repeating the whole statement is useless. Find the row, and set it aside.
    """


class PartFailed(Exception):
    """A part of a running worker failed, and no database error should cause that.

    The cause says why.
    """


class Unreachable(psycopg.OperationalError):
    """No address accepted a connection.

    `refused`: every address refused it, so the server accepts no client at all.
    """

    def __init__(self, message: str, *, refused: bool, state: str | None = None) -> None:
        super().__init__(message)
        self.refused = refused
        self.sqlstate = state


def classify(error: BaseException, connection: AsyncConnection[Any] | Connection[Any] | None = None) -> ErrorKind:
    """Classify `error`.

    `connection`: the connection on which it occurred; None: none, or unknown.
    """
    if connection is not None and (connection.closed or connection.broken):
        return ErrorKind.CONNECTION
    if isinstance(error, (Unreachable, psycopg.InterfaceError)):
        return ErrorKind.CONNECTION
    if not isinstance(error, psycopg.Error):
        return ErrorKind.CONNECTION if isinstance(error, (OSError, TimeoutError)) else ErrorKind.REFUSED
    if isinstance(error, psycopg.errors.PipelineAborted):
        # An earlier statement of the pipeline failed, and its error was raised elsewhere.
        return ErrorKind.TRANSIENT
    state = error.sqlstate
    if state is None:
        # Raised by the client: libpq lost the connection, or psycopg cannot send a value
        # (DataError, ProgrammingError).
        return ErrorKind.CONNECTION if isinstance(error, psycopg.OperationalError) else ErrorKind.REFUSED
    if state in _SESSION:
        return ErrorKind.REFUSED if _raised_inside(error) else ErrorKind.CONNECTION
    if state == "0A000" and _OUTDATED_PLAN in str(error):
        return ErrorKind.CONNECTION
    if state[:2] == "08" or state in _SHUTDOWN:
        # The server says FATAL if it ends the session.
        ours = connection is None or error.diag.severity_nonlocalized != "ERROR"
        return ErrorKind.CONNECTION if ours else ErrorKind.TRANSIENT
    if state[:2] in _TRANSIENT_CLASSES or state == _CANCELED:
        return ErrorKind.TRANSIENT
    return ErrorKind.REFUSED


def _raised_inside(error: psycopg.Error) -> bool:
    """Return whether a trigger raised it.

    The server's errors about the session have no context, except in our own function.
    """
    context = error.diag.context
    return bool(context) and _OURS not in (context or "")


def is_refusal(error: BaseException) -> bool:
    """Return whether the server itself said that it is unavailable. No client can then use it."""
    if isinstance(error, Unreachable):
        return error.refused
    text = str(error).lower()
    return any(
        sign in text
        for sign in (
            "refused",
            "starting up",
            "shutting down",
            "recovery mode",
            "no such file",
            "not yet accepting",
            "read-only",
        )
    )
