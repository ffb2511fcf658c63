"""Every exception that a user of jobq can meet.

All derive from :class:`JobqError`. Where a mistake has a natural built-in class (a wrong argument is a ``TypeError``), the
exception derives from that too, so that ordinary ``except`` clauses keep working. Each message names the field, the value
and what to do.
"""

from __future__ import annotations

from datetime import timedelta

READ_ONLY = "the server is read-only, perhaps a standby: name the primary in JOBQ_DATABASE_URL"
"""What the command line and the status page say where PostgreSQL refuses every change (SQLSTATE 25006)."""


class JobqError(Exception):
    """Base of every exception that jobq raises."""


# --- What a task raises to steer its own job --------------------


class JobControl(JobqError):
    """Base of the exceptions by which a task decides its job's fate. They are not errors and carry no traceback."""


class Snooze(JobControl):
    """Raised by a task: run this job again in `seconds`, without counting this attempt."""

    def __init__(self, seconds: float | timedelta) -> None:
        self.seconds = _seconds("Snooze(seconds=", seconds)
        super().__init__(f"snoozed for {seconds} s")


class Retry(JobControl):
    """Raised by a task: this attempt failed; try again in `after` seconds, whatever `retry_on` and `backoff` say.

    The attempt counts, as with any error: after the last one (``max_attempts``) the job is a dead letter. `after` is a number
    of seconds or a timedelta, from 0 to one year; None (default): as the task's backoff says. `reason` stands in the record
    of the attempt (default: the text of the exception that ``raise Retry(…) from error`` names).

    Raises ValueError for any other `after`.
    """

    def __init__(self, after: float | timedelta | None = None, reason: str | None = None) -> None:
        self.after = None if after is None else _seconds("Retry(after=", after)
        self.reason = reason
        super().__init__(reason or ("retry" if self.after is None else f"retry in {self.after:g} s"))


def _seconds(what: str, value: object) -> float:
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds <= 365 * 86400:
        raise ValueError(f"{what}{value!r}): give a number of seconds between 0 and one year, or a timedelta")
    return seconds


class Cancel(JobControl):
    """Raised by a task: finish this job as ``cancelled``; it will not be retried and is not a dead letter."""

    def __init__(self, reason: str = "cancelled by the task") -> None:
        super().__init__(reason)
        self.reason = reason


class Fail(JobControl):
    """Raised by a task: finish this job as ``failed`` at once, whatever attempts are left."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TimedOut(JobqError, TimeoutError):
    """Raised in a task whose timeout has passed: clean up and end soon, for after a grace its runner is killed.

    In a coroutine it is a cancellation (asyncio.CancelledError); in a thread it comes between two Python instructions, thus
    not during a call into C.
    """


# --- Definition and call --------------------


class TaskDefinitionError(JobqError, TypeError):
    """A task cannot be registered: its signature or one of its options is unusable."""


class InvalidArguments(JobqError, TypeError):
    """The arguments of a call do not fit the task's signature; nothing was inserted."""

    stored: str | None = None
    """Of a job's stored arguments: whether its ``parameters`` are not the task's, or only its ``values`` do not fit them."""


class InvalidOption(JobqError, ValueError):
    """An option (delay, run_at, key, priority, …) has a value that jobq cannot accept; nothing was inserted."""


class InvalidFilter(InvalidOption):
    """A filter's text (``state:failed age:>1h``) is not understood; the message names the term, the fault and what to do."""


class UnknownTask(JobqError, LookupError):
    """No task of this name is registered in this JobQ."""


class UnknownQueue(JobqError, LookupError):
    """No queue of this name is known to this database."""


class UnknownSchedule(JobqError, LookupError):
    """There is no schedule of this name."""


class JobNotFound(JobqError, LookupError):
    """There is no job with this id, neither live nor in history."""


class JobBusy(JobqError):
    """``JobRef.cancel()``: a worker or an operator had the job locked for seconds; nothing was changed. Try again."""


class OperationNotFound(JobqError, LookupError):
    """There is no bulk operation with this id."""


class OperationRefused(JobqError):
    """A bulk operation is not in a state in which that can be done with it, or its preview is too old; nothing was changed."""


class KeyConflict(JobqError):
    """The idempotency key is held by another job: nothing of the call was inserted, and the transaction is still usable.

    Raised with ``on_conflict="raise"``; and, whatever `on_conflict`, for a key with ``key_scope="global"`` that a job of
    another task holds: its arguments are never replaced by this task's, and its result is not this task's to read.
    """

    def __init__(self, key: str, job_id: int | None, task: str | None = None, *, shared: bool = False) -> None:
        """`task`: the holder's, None if it is not known. `shared`: the holder's task is another one."""
        held = (
            f"job {job_id}"
            if job_id is not None
            else "another job of this call, or one that this transaction's snapshot cannot see"
        )
        if shared:
            held += f", of task {task!r}" if task is not None else ", of a task that is not known"
            advice = "key_scope='global' makes it one key for all tasks: use another key, or key_scope='task'"
        else:
            advice = "use on_conflict='return' to get that job instead"
        super().__init__(f"key {key!r} is held by {held}; {advice}")
        self.key = key
        self.job_id = job_id
        self.task = task


class NoCurrentJob(JobqError, LookupError):
    """``current_job()`` was called where no worker runs a job."""


class NotTransactional(JobqError, LookupError):
    """``current_job().connection`` or a twin of it in a task that has none of that kind; the message says what to do."""


class TransactionEnded(JobqError):
    """A transactional task committed its transaction, or rolled it back, itself. Its job fails: jobq does that, at its end."""


class JobIdUnknown(JobqError, LookupError):
    """The key is held by a job that this REPEATABLE READ or SERIALIZABLE snapshot cannot see; ask again after commit."""


class NotAwaited(JobqError, TypeError):
    """A task returned a coroutine or a generator that nothing runs, so its work was not done. The job fails at once."""


# --- Results --------------------


class ResultTimeout(JobqError, TimeoutError):
    """``JobRef.result(timeout=…)``: the job had not finished in time. It goes on."""


class ResultError(JobqError, TypeError):
    """A result cannot be stored or read: it does not fit the return annotation, would come back changed, or is too large.

    The job succeeded all the same: ``JobRef.result()`` raises this, with the reason.
    """


class JobFailed(JobqError):
    """``JobRef.result()``: the job ended as ``failed``, ``cancelled`` or ``expired``; the message carries its last error."""

    def __init__(self, job_id: int, state: str, error: str | None) -> None:
        super().__init__(f"job {job_id} {state}: {error or 'no error was recorded'}")
        self.job_id = job_id
        self.state = state
        self.error = error


# --- Connections and database --------------------


class UnsupportedConnection(JobqError, TypeError):
    """The object given as a connection is none that jobq knows, or is of the wrong kind (sync for async, or the reverse)."""


class ConnectionNotUsable(JobqError):
    """The connection is closed, or its transaction has failed: roll it back before enqueueing."""


class PermissionDenied(JobqError):
    """The database role lacks a right that the call needs; deploy/roles.sql has the roles (exit code 78).

    It is a ``psycopg.errors.InsufficientPrivilege`` as well. On your own connection the transaction has failed: roll it back.
    """


class DatabaseUnavailable(JobqError):
    """The database cannot be reached (exit code 69)."""


class SchemaError(JobqError):
    """The database's schema is missing, too old or too new for this version of jobq (exit code 78)."""


class MigrationRefused(SchemaError):
    """The server refuses a change of the schema, as where objects of the user's depend on it (exit code 78).

    The message has the server's detail and what to do. The schema is as before.
    """


class MigrationTimeout(JobqError):
    """The tables' locks were not free in time; the message names the sessions that held them (exit code 75).

    The schema is as before. The same command may succeed later.
    """


# --- Configuration and environment --------------------


class ConfigurationError(JobqError, ValueError):
    """A setting is missing or has an unusable value (exit code 78)."""


class AppImportError(ConfigurationError):
    """The application named by ``module:attribute`` cannot be imported or is no JobQ."""


class EmbeddedPostgresError(JobqError):
    """The embedded Postgres cannot be found, set up or started."""
