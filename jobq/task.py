"""Tasks: functions that jobs run, and the typed methods to enqueue them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar, cast, get_args

from jobq._core import callables
from jobq._core.arguments import Arguments
from jobq._core.validation import check_int, check_seconds
from jobq.enqueueing import Enqueues, JobInserter, TaskOptions
from jobq.errors import InvalidOption, TaskDefinitionError
from jobq.job import (
    DEFAULT_KEY_PERIOD,
    InsertResult,
    JobOptions,
    KeyHolds,
    KeyScope,
    NewJob,
    OnConflict,
    headers_json,
)
from jobq.jobref import JobRef, JobReport, JobStatus
from jobq.limits import Groups
from jobq.retry import Backoff, Delays
from jobq.workflow import map_results

P = ParamSpec("P")
R = TypeVar("R")
Isolation = Literal["thread", "process"]

_KEY_DEFAULTS = ("period", DEFAULT_KEY_PERIOD, "task", "return")


class BaseTask(Enqueues[P, R]):
    """A registered function. Made by ``@q.task``.

    A call runs the function, without a job or database.
    """

    _async: ClassVar[bool] = False
    batch: int | None = None
    """Most jobs in one call of a batch task; None for any other task."""
    linger: float = 0.0
    """Most seconds that a job waits for others to fill its batch."""
    _arguments: ClassVar[type[Arguments]] = Arguments

    def __init__(
        self,
        app: JobInserter,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 5,
        max_attempts: int = 10,
        backoff: Backoff | Delays | None = None,
        timeout: float | timedelta | None = None,
        retry_on: tuple[type[BaseException], ...] = (Exception,),
        no_retry_on: tuple[type[BaseException], ...] = (),
        headers: Mapping[str, Any] | None = None,
        isolation: Isolation = "thread",
        transactional: bool = False,
        durable: bool = False,
        groups: Groups | str | None = None,
        local_names: Mapping[str, Any] | None = None,
    ) -> None:
        self.app = app
        self.function = function
        self.name = name if name is not None else _name(function)
        self.arguments = self._arguments(self.name, function, local_names)
        self.retry_on = _exceptions(self.name, "retry_on", retry_on)
        self.no_retry_on = _exceptions(self.name, "no_retry_on", no_retry_on)
        if isolation not in get_args(Isolation):
            raise TaskDefinitionError(f"{self.name}: isolation={isolation!r}: expected 'thread' or 'process'")
        self.isolation: Isolation = isolation
        if not isinstance(transactional, bool):
            raise TaskDefinitionError(f"{self.name}: transactional={transactional!r}: expected True or False")
        self.transactional = transactional
        if not isinstance(durable, bool):
            raise TaskDefinitionError(f"{self.name}: durable={durable!r}: expected True or False")
        if durable and transactional:
            raise TaskDefinitionError(
                f"{self.name}: durable and transactional: a durable task ends and begins again, and one transaction cannot: "
                "use transactional steps, step.options(transactional=True).run(…)"
            )
        self.durable = durable
        """Whether it works in steps: see `jobq.steps`."""
        self.may_return_coroutine = callables.wraps_coroutine_function(function)
        """Whether it is a ``def`` around an ``async def``.

        If its result is awaitable, it is awaited.
        """
        if transactional and self.may_return_coroutine:
            raise TaskDefinitionError(
                f"{self.name}: a `def` around an `async def` does not tell which kind of connection its transaction needs: "
                "make the wrapper an `async def`"
            )
        try:
            self.backoff = Backoff.of(backoff)
            self.groups = Groups.parse(groups) if isinstance(groups, str) else groups
            self._defaults = JobOptions(
                task=self.name,
                queue=queue,
                priority=priority,
                max_attempts=max_attempts,
                timeout=None if timeout is None else check_seconds("timeout", timeout),
                headers=dict(headers or {}),
            )
        except InvalidOption as error:
            raise TaskDefinitionError(f"{self.name}: {error}") from None
        self._jobs = _JobsOf(self)
        self.__module__ = callables.innermost(function).__module__
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", self.name)
        self.__qualname__ = getattr(function, "__qualname__", self.name)
        self.__wrapped__ = function

    @property
    def is_async(self) -> bool:
        """Whether the function is an ``async def``."""
        return self._async

    @property
    def queue(self) -> str:
        """Default queue of its jobs."""
        return self._defaults.queue

    @property
    def priority(self) -> int:
        """Default priority of its jobs."""
        return self._defaults.priority

    @property
    def max_attempts(self) -> int:
        """Default number of attempts of its jobs."""
        return self._defaults.max_attempts

    @property
    def timeout(self) -> float | None:
        """Default timeout of an attempt, in seconds; None: no limit."""
        return self._defaults.timeout

    @property
    def headers(self) -> Mapping[str, Any]:
        """Headers that every job of this task carries."""
        return self._defaults.headers

    @property
    def _bound(self) -> tuple[BaseTask[P, R], JobOptions]:
        return self, self._defaults

    def options(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        key: str | None = None,
        key_holds: KeyHolds = "period",
        key_period: float | timedelta = DEFAULT_KEY_PERIOD,
        key_scope: KeyScope = "task",
        on_conflict: OnConflict = "return",
        delay: float | timedelta | None = None,
        run_at: datetime | None = None,
        max_attempts: int | None = None,
        timeout: float | timedelta | None = None,
        headers: Mapping[str, Any] | None = None,
        group: str | None = None,
        expires_in: float | timedelta | None = None,
    ) -> TaskOptions[P, R]:
        """Return this task with options for its jobs. An omitted option keeps the task's value.

        Args:
            queue: queue of the jobs, 1 to 100 characters.
            priority: 0 to 9; 9 runs first.
            key: idempotency key, 1 to 500 characters. While it is held, there is one job of this
                task with it, under any concurrency.
            key_holds: ``period`` (for `key_period` from the insert), ``until_finished`` or
                ``until_started``.
            key_period: seconds or timedelta (default: 7 days). A longer period keeps a row in a
                table for that long.
            key_scope: ``task`` (default): other tasks may hold the same key. ``global``: all tasks
                that use this scope share the key. While a job of another task holds it, every
                enqueue raises KeyConflict, whatever `on_conflict` says. A key that is held in one
                scope is free in the other.
            on_conflict: what to do if the key is held: ``return`` its job; ``replace`` that job's
                arguments, headers, time and expiry if it has not started; or ``raise`` KeyConflict.
            delay: seconds or timedelta until the start, by the database's clock.
            run_at: earliest start, an aware datetime; a past time means at once.
            max_attempts: number of attempts, including the first.
            timeout: seconds or timedelta that one attempt may take.
            headers: JSON object, merged over the task's own headers.
            group: group within the queue, 1 to 200 characters. The queue sets how groups run (in
                order, with a limit, in turns). If the queue has such a rule, a job with a group
                costs more than a plain job; otherwise it costs the same.
            expires_in: seconds or timedelta from the insert. If the job has not started by then,
                it ends as expired.

        Raises:
            InvalidOption: an option has an unusable value.
        """
        if key is None and (key_holds, key_period, key_scope, on_conflict) != _KEY_DEFAULTS:
            raise InvalidOption(
                "key_holds, key_period, key_scope and on_conflict say how a key is held: pass key=… as well"
            )
        if key_holds != "period" and key_period != DEFAULT_KEY_PERIOD:
            raise InvalidOption(f"key_period is for key_holds='period', not for {key_holds!r}: pass only one of them")
        if headers is not None:
            headers_json(headers)
        own = self._defaults
        return TaskOptions(
            self,
            replace(
                own,
                queue=own.queue if queue is None else queue,
                priority=own.priority if priority is None else priority,
                key=key,
                key_holds=key_holds,
                key_period=check_seconds("key_period", key_period),
                key_scope=key_scope,
                on_conflict=on_conflict,
                delay=None if delay is None else check_seconds("delay", delay),
                run_at=run_at,
                max_attempts=own.max_attempts if max_attempts is None else max_attempts,
                timeout=own.timeout if timeout is None else check_seconds("timeout", timeout),
                headers=own.headers if headers is None else {**own.headers, **headers},
                group=group,
                expires_in=None if expires_in is None else check_seconds("expires_in", expires_in),
            ),
        )

    def ref(self, job_id: int) -> JobRef[R]:
        """Return a reference to a job of this task by its id.

        It reads the job's status, progress, error or result, and can cancel the job. This call
        itself reads nothing. Raises InvalidOption if `job_id` is no integer: convert text from a
        URL or a form with ``int(…)``.
        """
        check_int("job_id", job_id, 0, 2**63 - 1)
        return JobRef(job_id, created=False, replaced=False, key=None, source=self._jobs, decode=self._decode_result)

    def reference(self, job: NewJob, inserted: InsertResult) -> JobRef[R]:
        """Return a reference to `job`, given the result of its insert."""
        return JobRef(
            inserted.id,
            created=inserted.created,
            replaced=inserted.replaced,
            key=job.options.key,
            source=self._jobs,
            decode=self._decode_result,
        )

    def encode_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return the arguments of a call as JSON. Raises InvalidArguments."""
        return self.arguments.encode(args, kwargs, self.app.settings.max_args_bytes)

    def decode_arguments(self, raw: bytes | str) -> dict[str, Any]:
        """Return stored arguments as keyword arguments for `function`. Raises InvalidArguments."""
        if map_results.is_in(raw):
            return map_results.decode(self.arguments, raw, self.app)
        return self.arguments.decode(raw)

    def encode_result(self, value: Any, limit: int) -> bytes:
        """Return the function's result as JSON, at most `limit` bytes. Raises ResultError."""
        return self.arguments.encode_result(value, limit)

    def retry_delay(self, error: BaseException, attempt: int) -> float | None:
        """Return the wait in seconds after `attempt` failed with `error`; None: do not try again.

        This does not consider the job's number of attempts.
        """
        return self.backoff.delay(attempt) if self.retries(error) else None

    def retries(self, error: BaseException) -> bool:
        """Return whether the task's options allow another attempt after `error`."""
        return isinstance(error, self.retry_on) and not isinstance(error, self.no_retry_on)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def __reduce__(self) -> str:
        """Pickle the task by module and name, like a function."""
        return self.__qualname__

    def _decode_result(self, raw: str) -> R:
        return cast(R, self.arguments.decode_result(raw))


class Task(BaseTask[P, R]):
    """A task whose function is a ``def``. It runs on a thread."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself. There is no job and no database."""
        return cast(R, self.function(*args, **kwargs))


class AsyncTask(BaseTask[P, R]):
    """A task whose function is an ``async def``. It runs on an event loop.

    Its result is what the coroutine returns.
    """

    _async: ClassVar[bool] = True

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function itself and return its coroutine. There is no job and no database."""
        return cast("Coroutine[Any, Any, R]", self.function(*args, **kwargs))


def task_class(function: Callable[..., Any]) -> type[Task[..., Any]] | type[AsyncTask[..., Any]]:
    """Return the class of task for `function`."""
    return AsyncTask if callables.is_coroutine_function(function) else Task


class _JobsOf:
    """Looks up jobs for the references of one task.

    It is pickled with them, because its application cannot be pickled.
    """

    def __init__(self, task: BaseTask[..., Any]) -> None:
        self._task = task

    def fetch_status(self, job_id: int) -> JobStatus | None:
        return self._task.app.fetch_status(job_id)

    async def fetch_status_async(self, job_id: int) -> JobStatus | None:
        return await self._task.app.fetch_status_async(job_id)

    @property
    def waiting_helps(self) -> bool:
        return self._task.app.waiting_helps

    def report(self, job_id: int) -> JobReport | None:
        return self._task.app.report(job_id)

    async def report_async(self, job_id: int) -> JobReport | None:
        return await self._task.app.report_async(job_id)

    def cancel_job(self, job_id: int, reason: str | None) -> bool | None:
        return self._task.app.cancel_job(job_id, reason)

    async def cancel_job_async(self, job_id: int, reason: str | None) -> bool | None:
        return await self._task.app.cancel_job_async(job_id, reason)


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", None)
    if not name or name == "<lambda>":
        raise TaskDefinitionError(f"{function!r} has no name: name the task with name=…")
    return cast(str, name)


def _exceptions(task: str, option: str, given: object) -> tuple[type[BaseException], ...]:
    found = given if isinstance(given, tuple) else (given,)
    for item in found:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise TaskDefinitionError(f"{task}: {option}={given!r}: expected a tuple of exception classes")
    return cast("tuple[type[BaseException], ...]", found)
