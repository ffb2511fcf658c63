"""Every exception becomes one sentence and one exit code."""

from __future__ import annotations

import click
import psycopg
import pytest

from jobq import errors
from jobq._worker.database_errors import PartFailed
from jobq.cli.exits import Exit, NotConfirmed, explain, report


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (errors.DatabaseUnavailable("no server\n\tis it on?"), 69, "no server; is it on?"),
        (errors.EmbeddedPostgresError("no binaries"), 69, "no binaries"),
        (errors.SchemaError("run `jobq migrate`"), 78, "run `jobq migrate`"),
        (errors.ConfigurationError("bad"), 78, "bad"),
        (errors.AppImportError("no module"), 78, "no module"),
        (errors.TaskDefinitionError("bad task"), 78, "bad task"),
        (errors.ResultTimeout("late"), 75, "late"),
        (errors.UnknownTask("no task"), 64, "no task"),
        (errors.UnknownQueue("no queue"), 64, "no queue"),
        (errors.UnknownSchedule("no schedule"), 64, "no schedule"),
        (errors.JobNotFound("no job"), 64, "no job"),
        (errors.InvalidArguments("a: missing"), 64, "a: missing"),
        (errors.InvalidOption("delay"), 64, "delay"),
        (errors.KeyConflict("k", 3), 64, "key 'k' is held by job 3; use on_conflict='return' to get that job instead"),
        (
            PartFailed("advance: 22003"),
            70,
            "internal error, PartFailed: advance: 22003. Run it again with --debug and report the traceback",
        ),
        (click.UsageError("No such command 'x'."), 64, "No such command 'x'"),
        (NotConfirmed(), 1, "nothing was changed"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
        (psycopg.OperationalError("server closed"), 69, "the database cannot be reached: server closed"),
        (
            psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"),
            75,
            "the database says: canceling statement due to lock timeout; "
            "a lock was not free in time; try again when the database is less busy",
        ),
        (
            psycopg.errors.UndefinedTable('relation "jobq.job" does not exist'),
            78,
            'the database says: relation "jobq.job" does not exist; run `jobq migrate`',
        ),
    ],
)
def test_known_errors(error: BaseException, code: int, sentence: str) -> None:
    assert explain(error) == (code, sentence)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (psycopg.errors.DeadlockDetected, Exit.TEMPORARY),
        (psycopg.errors.SerializationFailure, Exit.TEMPORARY),
        (psycopg.errors.TooManyConnections, Exit.TEMPORARY),
        (psycopg.errors.QueryCanceled, Exit.TEMPORARY),
        (psycopg.errors.ReadOnlySqlTransaction, Exit.TEMPORARY),
        (psycopg.errors.AdminShutdown, Exit.UNAVAILABLE),
        (psycopg.errors.CannotConnectNow, Exit.UNAVAILABLE),
        (psycopg.errors.ConnectionFailure, Exit.UNAVAILABLE),
        (psycopg.errors.InsufficientPrivilege, Exit.CONFIGURATION),
        (psycopg.errors.InvalidSchemaName, Exit.CONFIGURATION),
        (psycopg.errors.UndefinedFunction, Exit.CONFIGURATION),
        (psycopg.errors.CheckViolation, Exit.USAGE),
        (psycopg.errors.InvalidTextRepresentation, Exit.USAGE),
        (psycopg.errors.SyntaxError, Exit.INTERNAL),
        (psycopg.InterfaceError, Exit.INTERNAL),
        (psycopg.ProgrammingError, Exit.CONFIGURATION),
        (psycopg.OperationalError, Exit.UNAVAILABLE),
    ],
)
def test_database_errors(kind: type[psycopg.Error], code: Exit) -> None:
    assert explain(kind("text"))[0] == code


def test_an_error_wrapped_by_sqlalchemy_is_looked_into() -> None:
    from sqlalchemy.exc import OperationalError

    inner = psycopg.errors.LockNotAvailable("locked")
    assert explain(OperationalError("SELECT 1", None, inner))[0] == Exit.TEMPORARY


def test_a_bug_says_so_and_its_traceback_comes_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("oops")
    assert report(caught.value, debug=False) == Exit.INTERNAL
    quiet = capsys.readouterr()
    assert report(caught.value, debug=True) == Exit.INTERNAL
    loud = capsys.readouterr()
    assert quiet.out == loud.out == ""
    assert quiet.err.startswith("jobq: internal error, RuntimeError: oops.")
    assert quiet.err.count("\n") == 1
    assert "Traceback" in loud.err
    assert loud.err.endswith(quiet.err)
