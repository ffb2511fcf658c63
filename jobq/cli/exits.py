"""Exit codes, and the mapping from exceptions to a message on standard error and a code.

The numbers are those of BSD's sysexits.h, so that a service manager can distinguish "try again"
from "needs a person".
"""

from __future__ import annotations

import errno
import sys
import traceback
from contextlib import suppress
from enum import IntEnum
from typing import TYPE_CHECKING

import click

from jobq import errors

if TYPE_CHECKING:
    import psycopg


class Exit(IntEnum):
    """The exit status of `jobq`."""

    OK = 0
    NOT_DONE = 1  # the user answered no, some jobs were refused, or `doctor` found a problem
    USAGE = 64  # wrong usage or input: the command line has to change
    UNAVAILABLE = 69  # no database
    INTERNAL = 70  # a bug in jobq
    OUTPUT = 74  # the output cannot be written: disk full
    TEMPORARY = 75  # the same command may succeed later: a lock, a failover, a drain that took too long
    CONFIGURATION = 78  # a setting, the application or the database's schema has to change
    INTERRUPTED = 130  # Ctrl-C


class NotConfirmed(Exception):
    """The user answered no; nothing was changed."""


_BY_CLASS: tuple[tuple[type[BaseException], Exit], ...] = (
    (errors.DatabaseUnavailable, Exit.UNAVAILABLE),
    (errors.EmbeddedPostgresError, Exit.UNAVAILABLE),
    (errors.SchemaError, Exit.CONFIGURATION),
    (errors.PermissionDenied, Exit.CONFIGURATION),
    (errors.ConfigurationError, Exit.CONFIGURATION),
    (errors.TaskDefinitionError, Exit.CONFIGURATION),
    (errors.ResultTimeout, Exit.TEMPORARY),
    (errors.MigrationTimeout, Exit.TEMPORARY),
    (errors.JobqError, Exit.USAGE),  # unknown task, queue or job, bad arguments, bad options, a held key
)

# SQLSTATEs, by code or by class (its first two characters), with the fix.
_BY_SQLSTATE: dict[str, tuple[Exit, str]] = {
    "08": (Exit.UNAVAILABLE, "the connection was lost; try again"),
    "57P01": (Exit.UNAVAILABLE, "the server ended the connection; try again"),
    "57P02": (Exit.UNAVAILABLE, "the server ended the connection; try again"),
    "57P03": (Exit.UNAVAILABLE, "the server is starting or stopping; try again"),
    "40": (Exit.TEMPORARY, "another transaction conflicted; try again"),
    "55P03": (Exit.TEMPORARY, "a lock was not free in time; try again when the database is less busy"),
    "57014": (Exit.TEMPORARY, "the statement took too long; try again, or raise statement_timeout"),
    "53": (Exit.TEMPORARY, "the server is out of resources; try again later"),
    "25006": (Exit.TEMPORARY, errors.READ_ONLY),
    "42501": (
        Exit.CONFIGURATION,
        "connect as a role that has this right; deploy/ has the roles and their grants",
    ),
    "3F000": (Exit.CONFIGURATION, "run `jobq migrate`"),
    "42P01": (Exit.CONFIGURATION, "run `jobq migrate`"),
    "42703": (Exit.CONFIGURATION, "run `jobq migrate`"),
    "42883": (Exit.CONFIGURATION, "run `jobq migrate`"),
    "42939": (Exit.CONFIGURATION, "use another name: PostgreSQL reserves this one"),
    "22": (Exit.USAGE, "change the value"),
    "23": (Exit.USAGE, "change the value"),
}


# Errors of a write to a full disk, over a quota or file size limit, or to a failing device.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_REPORT = "Run it again with --debug and report the traceback"


def explain(error: BaseException) -> tuple[Exit, str]:
    """Return the exit code for `error` and the message to print ('': print nothing)."""
    if isinstance(error, NotConfirmed):
        return Exit.NOT_DONE, "nothing was changed"
    if isinstance(error, (KeyboardInterrupt, click.Abort)):  # click turns the first into the second
        return Exit.INTERRUPTED, ""
    if isinstance(error, click.ClickException):
        return Exit.USAGE, _usage(error)
    for kind, code in _BY_CLASS:
        if isinstance(error, kind):
            # libpq writes one cause per line.
            return code, "; ".join(line.strip() for line in str(error).splitlines())
    if isinstance(error, OSError) and error.errno in _FULL:
        return Exit.OUTPUT, f"the output cannot be written: {error.strerror}; free some space, or write it elsewhere"
    if isinstance(database_error := getattr(error, "orig", error), _database_errors()):
        return _explain_database(database_error)
    return Exit.INTERNAL, f"internal error, {type(error).__name__}: {error}. {_REPORT}"


def report(error: BaseException, *, debug: bool) -> Exit:
    """Print the message for `error` on standard error, with its traceback if `debug`; return the
    exit code.
    """
    code, sentence = explain(error)
    if debug and not isinstance(error, click.Abort):
        traceback.print_exception(error)
    if sentence:
        # Standard error may be full or closed as well; the exit code still tells.
        with suppress(OSError):
            click.echo(f"jobq: {sentence}", err=True)
    return code


def _usage(error: click.ClickException) -> str:
    sentence = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{sentence}. See `{context.command_path} --help`" if context is not None else sentence


def _database_errors() -> tuple[type[psycopg.Error], ...]:
    # A psycopg error can exist only if psycopg is imported; `jobq --help` does not import it.
    module = sys.modules.get("psycopg")
    return (module.Error,) if module is not None else ()


def _explain_database(error: psycopg.Error) -> tuple[Exit, str]:
    text = (error.diag.message_primary or str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")
    state = error.sqlstate
    if state is None:
        # Raised by libpq itself: the connection is lost, or was never made.
        if type(error).__name__ == "OperationalError":
            return Exit.UNAVAILABLE, f"the database cannot be reached: {text}"
        if type(error).__name__ == "ProgrammingError":
            return Exit.CONFIGURATION, f"the database's URL is invalid: {text}; see JOBQ_DATABASE_URL"
        return Exit.INTERNAL, f"internal error: {text}. {_REPORT}"
    if found := _BY_SQLSTATE.get(state) or _BY_SQLSTATE.get(state[:2]):
        code, fix = found
        return code, f"the database says: {text}; {fix}"
    return (
        Exit.INTERNAL,
        f"the database says: {text} ({state}). {_REPORT}",
    )
