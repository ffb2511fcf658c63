"""Every exception that jobq raises to its users.

All derive from :class:`JobqError`. Where a built-in class describes the mistake (a wrong argument
is a ``TypeError``), the exception derives from that class too, and ordinary ``except`` clauses
keep working. Each message names the field, the value and what to do.
"""

from __future__ import annotations

from datetime import timedelta

from jobq._core.durations import YEAR, to_seconds

READ_ONLY = "the server is read-only, perhaps a standby: name the primary in JOBQ_DATABASE_URL"
"""Message of the command line and the page if PostgreSQL refuses every change (SQLSTATE 25006)."""


class JobqError(Exception):
    """Base of every exception that jobq raises."""


# --- Raised by a task to control its own job --------------------


class JobControl(JobqError):
    """Base of the exceptions with which a task decides how its job ends.

    They are not errors and carry no traceback.
    """


class Snooze(JobControl):
    """Raised by a task: run this job again in `seconds`, without counting this attempt."""

    def __init__(self, seconds: float | timedelta) -> None:
        self.seconds = _seconds("Snooze(seconds=", seconds)
        super().__init__(f"snoozed for {seconds} s")


class Retry(JobControl):
    """Raised by a task: this attempt failed; try again in `after` seconds.

    This overrides `retry_on` and `backoff`. The attempt counts like any failed attempt: after the
    last one (``max_attempts``) the job is a dead letter.

    Args:
        after: seconds or timedelta, from 0 to one year. None (default): the task's backoff.
        reason: text for the record of the attempt. Default: the text of the exception that
            ``raise Retry(…) from error`` names.

    Raises:
        ValueError: `after` has any other value.
    """

    def __init__(self, after: float | timedelta | None = None, reason: str | None = None) -> None:
        self.after = None if after is None else _seconds("Retry(after=", after)
        self.reason = reason
        super().__init__(reason or ("retry" if self.after is None else f"retry in {self.after:g} s"))


def _seconds(what: str, value: object) -> float:
    seconds = to_seconds(value)
    if seconds is None or not 0 <= seconds <= YEAR:
        raise ValueError(f"{what}{value!r}): expected a number of seconds between 0 and one year, or a timedelta")
    return seconds


class Cancel(JobControl):
    """Raised by a task: end this job as ``cancelled``. It is not retried and is no dead letter."""

    def __init__(self, reason: str = "cancelled by the task") -> None:
        super().__init__(reason)
        self.reason = reason


class Fail(JobControl):
    """Raised by a task: end this job as ``failed`` at once, even if attempts are left."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TimedOut(JobqError, TimeoutError):
    """Raised in a task whose timeout has passed.

    The task should clean up and end soon: after a grace period its runner is killed. In a
    coroutine the timeout is a cancellation (asyncio.CancelledError). In a thread the exception
    comes between two Python instructions, and therefore not during a call into C.
    """


# --- Definition and call --------------------


class TaskDefinitionError(JobqError, TypeError):
    """A task, a middleware, a hook or a resource cannot be registered.

    Its signature or one of its options is unusable.
    """


class MiddlewareError(JobqError, TypeError):
    """A middleware has broken a rule of `call_next`; the message names the middleware and the rule."""


class ResourceNotInjected(JobqError, AttributeError):
    """A function was called without a worker, and a resource parameter has no value.

    Pass a value in the call.
    """


class InvalidArguments(JobqError, TypeError):
    """The arguments of a call do not fit the task's signature; nothing was inserted."""

    stored: str | None = None
    """For a job's stored arguments: which part does not fit the task.

    ``parameters``: their names are not those of the task. ``values``: only their values do not fit.
    """


class InvalidOption(JobqError, ValueError):
    """An option (delay, run_at, key, priority, …) has an unusable value; nothing was inserted."""


class WorkflowError(JobqError, ValueError):
    """A workflow cannot be built: a cycle, a node of another workflow, no nodes, an unusable reference.

    Nothing was inserted.
    """


class InvalidFilter(InvalidOption):
    """A filter text (``state:failed age:>1h``) is invalid.

    The message names the term, the fault and what to do.
    """


class UnknownTask(JobqError, LookupError):
    """No task of this name is registered in this JobQ."""


class UnknownQueue(JobqError, LookupError):
    """This database has no queue with this name."""


class UnknownSchedule(JobqError, LookupError):
    """There is no schedule of this name."""


class JobNotFound(JobqError, LookupError):
    """There is no job with this id, neither live nor in history."""


class JobBusy(JobqError):
    """``JobRef.cancel()``: a worker or an operator had the job locked for seconds.

    Nothing was changed. Try again.
    """


class OperationNotFound(JobqError, LookupError):
    """There is no bulk operation with this id."""


class OperationRefused(JobqError):
    """The state of a bulk operation or of a workflow's run does not allow the request, or a preview is too old.

    Nothing was changed.
    """


class KeyConflict(JobqError):
    """Another job holds the idempotency key.

    The call inserted nothing, and the transaction is still usable. This is raised with
    ``on_conflict="raise"``. It is also raised, whatever `on_conflict` says, if a key with
    ``key_scope="global"`` is held by a job of another task: this task may neither replace that
    job's arguments nor read its result.
    """

    def __init__(self, key: str, job_id: int | None, task: str | None = None, *, shared: bool = False) -> None:
        """Make the error. `task`: task of the holder, if known. `shared`: it is another task."""
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
    """``current_job()`` was called outside a job that a worker runs."""


class NotTransactional(JobqError, LookupError):
    """The task has no connection or session of the requested kind; the message says what to do."""


class TransactionEnded(JobqError):
    """A transactional task committed or rolled back its transaction itself.

    Its job fails: jobq ends the transaction when the task ends.
    """


class JobIdUnknown(JobqError, LookupError):
    """This REPEATABLE READ or SERIALIZABLE snapshot cannot see the job that holds the key.

    Ask again after commit.
    """


class NotAwaited(JobqError, TypeError):
    """A task returned a coroutine or a generator that is never run, so its work was not done.

    The job fails at once.
    """


class BatchResultError(JobqError, TypeError):
    """A batch task returned neither None nor a list with one entry for each of its jobs.

    It is not known which of them succeeded, so all of its jobs fail at once.
    """


# --- Results --------------------


class ResultTimeout(JobqError, TimeoutError):
    """``JobRef.result(timeout=…)``: the job did not finish in time. It continues."""


class ResultError(JobqError, TypeError):
    """A result cannot be stored or read.

    It does not fit the return annotation, would come back changed, or is too large. The job has
    succeeded nevertheless: ``JobRef.result()`` raises this error with the reason.
    """


class JobFailed(JobqError):
    """``JobRef.result()``: the job ended as ``failed``, ``cancelled`` or ``expired``.

    The message contains its last error.
    """

    def __init__(self, job_id: int, state: str, error: str | None) -> None:
        super().__init__(f"job {job_id} {state}: {error or 'no error was recorded'}")
        self.job_id = job_id
        self.state = state
        self.error = error


# --- Connections and database --------------------


class UnsupportedConnection(JobqError, TypeError):
    """The object is no supported connection, or is sync where async is needed, or the reverse."""


class ConnectionNotUsable(JobqError):
    """The connection is closed, or its transaction has failed: roll it back before enqueueing."""


class PermissionDenied(JobqError):
    """The database role lacks a right that the call needs (exit code 78).

    deploy/roles.sql has the roles. It is also a ``psycopg.errors.InsufficientPrivilege``. If this
    happened on your own connection, its transaction has failed: roll it back.
    """


class DatabaseUnavailable(JobqError):
    """The database cannot be reached (exit code 69)."""


class SchemaError(JobqError):
    """The database's schema is missing, too old or too new for this version of jobq (exit code 78)."""


class MigrationRefused(SchemaError):
    """The server refuses a schema change (exit code 78).

    One reason is that user objects depend on the schema. The message contains the detail and what
    to do. The schema is unchanged.
    """


class MigrationTimeout(JobqError):
    """The locks on the tables were not free in time (exit code 75).

    The message names the sessions that held them. The schema is unchanged. The same command may
    succeed later.
    """


# --- Workflows --------------------


class WorkflowNotFound(JobqError, LookupError):
    """There is no run with this id."""


class WorkflowFailed(JobqError):
    """The run ended in another state than ``succeeded``, or is blocked by a failed node."""

    def __init__(self, run_id: int, state: str, reason: str | None) -> None:
        self.run_id = run_id
        self.state = state
        """``failed``, ``cancelled`` or ``blocked``."""
        self.reason = reason
        """Which node failed, with its error; or why the run was cancelled."""
        super().__init__(f"workflow run {run_id} is {state}" + (f": {reason}" if reason else ""))

    def __reduce__(self) -> tuple[type[WorkflowFailed], tuple[int, str, str | None]]:
        return type(self), (self.run_id, self.state, self.reason)


# --- Durable tasks --------------------


class NotDurable(JobqError, LookupError):
    """``step`` was used outside a durable task, or in the form for the other kind of task.

    The message says what to do.
    """


class StepChanged(JobqError):
    """The code of a durable task does not fit the steps that its job has stored.

    The job fails at once: no step runs twice with other arguments by accident. Deploy code that
    fits, and retry the job; it goes on where it was.
    """

    def __init__(self, name: str, stored: str, given: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        """The step's name."""
        self.stored = stored
        """The stored arguments, as JSON text."""
        self.given = given
        """The arguments of the present call, as JSON text."""

    def __reduce__(self) -> tuple[type[StepChanged], tuple[str, str, str, str]]:
        return type(self), (self.name, self.stored, self.given, str(self))


class StepFailed(JobqError):
    """A stored failure of a step, whose own exception cannot be made again here."""

    def __init__(self, step: str, error_type: str, error: str) -> None:
        super().__init__(f"step {step!r} failed: {error_type}: {error}")
        self.step = step
        """The step's name."""
        self.error_type = error_type
        """The name of the exception's class."""
        self.error = error
        """The exception's text."""

    def __reduce__(self) -> tuple[type[StepFailed], tuple[str, str, str]]:
        return type(self), (self.step, self.error_type, self.error)


class ChildFailed(StepFailed):
    """``step.invoke``: the job of the other task did not succeed. `error_type` is its state."""

    def __init__(self, step: str, state: str, error: str) -> None:
        super().__init__(step, state, error)
        self.args = (f"the job of task {step!r} ended as {state}" + (f": {error}" if error else ""),)
        self.state = state
        """``failed``, ``cancelled``, ``expired`` or ``deleted``."""


class UndoFailed(StepFailed):
    """The function that undoes a step has failed as often as the task's jobs are tried.

    The job is failed, and a retry of it goes on undoing.
    """


class SignalNotSent(JobqError, LookupError):
    """The target of a signal has finished, or does not exist. Nothing was changed."""

    def __init__(self, message: str, outcome: str) -> None:
        super().__init__(message)
        self.outcome = outcome
        """``finished`` or ``unknown``."""

    def __reduce__(self) -> tuple[type[SignalNotSent], tuple[str, str]]:
        return type(self), (str(self), self.outcome)


# --- Configuration and environment --------------------


class ConfigurationError(JobqError, ValueError):
    """A setting is missing or has an unusable value (exit code 78)."""


class AppImportError(ConfigurationError):
    """The application named by ``module:attribute`` cannot be imported or is no JobQ."""


class EmbeddedPostgresError(JobqError):
    """The embedded Postgres cannot be found, set up or started."""
