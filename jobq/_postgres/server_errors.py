"""Errors of the server and the drivers, translated to jobq's errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as postgres

from jobq.errors import ConnectionNotUsable, InvalidOption, JobqError, PermissionDenied, SchemaError

ROLL_BACK = "its transaction has failed: roll it back, then enqueue again"


@contextmanager
def translated() -> Iterator[None]:
    """Translate errors in a block whose statements are jobq's own."""
    try:
        yield
    except Exception as error:
        name(error)
        raise


def name(error: Exception) -> None:
    """Raise jobq's error for `error`.

    If there is none, return, so the caller raises `error` unchanged.
    """
    if isinstance(error, psycopg.Error):
        _translate(error, error)
    elif is_a(error, "sqlalchemy.exc", "PendingRollbackError"):
        raise ConnectionNotUsable(ROLL_BACK) from error
    elif is_a(error, "sqlalchemy.exc", "ResourceClosedError"):
        raise ConnectionNotUsable(f"the connection is closed: {error}") from error
    elif is_a(error, "sqlalchemy.exc", "DBAPIError"):
        _translate(error.orig, error)  # type: ignore[attr-defined]  # a DBAPIError, by its class


def _translate(error: object, cause: Exception) -> None:
    match error:
        case postgres.InFailedSqlTransaction():
            raise ConnectionNotUsable(ROLL_BACK) from cause
        case psycopg.errors.PipelineAborted():
            raise ConnectionNotUsable(
                "an earlier command of this pipeline has failed: sync it, and roll back"
            ) from cause
        case _ if (named := _refusal(error)) is not None:
            raise named from cause


@contextmanager
def refusals_named() -> Iterator[None]:
    """Like `translated`, but also translate refusals about rights and tables."""
    try:
        yield
    except psycopg.Error as error:
        if (named := _refusal(error)) is not None:
            raise named from error
        raise


def _refusal(error: object) -> JobqError | None:
    match error:
        case postgres.InsufficientPrivilege():
            said = str(error).partition("\n")[0]
            return _both(
                PermissionDenied,
                error,
                f"the database role may not do this: {said}; connect as a role that may, or grant it the rights that "
                "deploy/roles.sql has for this",
            )
        case (
            postgres.InvalidSchemaName()
            | postgres.UndefinedTable()
            | postgres.UndefinedFunction()
            | postgres.UndefinedColumn()
        ):
            return _both(
                SchemaError, error, f"jobq's tables are missing or of another version: run `jobq migrate` ({error})"
            )
    return None


_classes: dict[tuple[type, type], type[JobqError]] = {}


def _both(ours: type[JobqError], error: psycopg.Error, message: str) -> JobqError:
    """Return an error of jobq that is also psycopg's error, for code that expects that one."""
    kinds = (ours, type(error))
    if kinds not in _classes:
        _classes[kinds] = type(ours.__name__, kinds, {"__module__": ours.__module__, "__doc__": ours.__doc__})
    made = _classes[kinds](message)
    vars(made).update(vars(error))
    return made


def not_encodable(error: UnicodeEncodeError) -> InvalidOption:
    """Return jobq's error for text that the caller's session cannot send."""
    text = str(error.object)
    return InvalidOption(
        f"{text[error.start : error.end]!r} in {text[:60]!r}: the connection's client_encoding ({error.encoding}) lacks it; "
        "use a connection with client_encoding=UTF8"
    )


def is_a(value: object, module: str, *classes: str) -> bool:
    """Return whether `value` is an instance of one of `classes`, without importing `module`."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, tuple(getattr(loaded, name) for name in classes))
