"""Tasks: functions that jobs run, and the typed ways to enqueue them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, cast, get_args

from jobq import callables
from jobq.arguments import Arguments
from jobq.backoff import Backoff, Delays
from jobq.bounds import seconds, whole
from jobq.config import Settings
from jobq.errors import InvalidOption, TaskDefinitionError
from jobq.flow import Groups
from jobq.jobs import (
    DEFAULT_KEY_PERIOD,
    JobOptions,
    KeyHolds,
    KeyScope,
    NewJob,
    OnConflict,
    headers_json,
)
from jobq.refs import Found, JobRef, JobReport, JobSource

if TYPE_CHECKING:
    from jobq.connections import AnyAsyncConnection, AnyConnection

P = ParamSpec("P")
R = TypeVar("R")
Isolation = Literal["thread", "process"]

_KEY_DEFAULTS = ("period", DEFAULT_KEY_PERIOD, "task", "return")


class Inserted(NamedTuple):
    """What an insert did for one job. `id` is None when the key's holder is beyond the transaction's snapshot."""

    id: int | None
    created: bool
    replaced: bool


class Inserter(JobSource, Protocol):
    """What a task needs of the application that it belongs to."""

    @property
    def settings(self) -> Settings: ...

    def insert(self, connection: AnyConnection, jobs: Sequence[NewJob]) -> list[Inserted]: ...

    async def insert_async(self, connection: AnyAsyncConnection, jobs: Sequence[NewJob]) -> list[Inserted]: ...

    def insert_own(self, jobs: Sequence[NewJob]) -> list[Inserted]: ...

    async def insert_own_async(self, jobs: Sequence[NewJob]) -> list[Inserted]: ...


class _Enqueues(ABC, Generic[P, R]):
    """The ways to enqueue, the same on a task and on a task with options.

    All of them raise InvalidArguments, at the call, when the arguments do not fit the task's signature.
    """

    @property
    @abstractmethod
    def _bound(self) -> tuple[BaseTask[P, R], JobOptions]:
        """The task, and the options of its jobs."""

    def job(self, /, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """Return a job to insert later, with others, by ``JobQ.enqueue_many``."""
        task, options = self._bound
        return NewJob.checked(options, task.encode_arguments(args, kwargs))

    def enqueue(self, connection: AnyConnection, /, *args: P.args, **kwargs: P.kwargs) -> JobRef[R]:
        """Insert a job on `connection`, inside its transaction: it runs if and when that commits.

        `connection` is a psycopg Connection, or a SQLAlchemy Connection, Session or scoped_session that uses psycopg. An
        autocommit connection commits at once. One statement; no commit, no savepoint. Raises KeyConflict for a held key
        with ``on_conflict="raise"``, and for a key of ``key_scope="global"`` that another task's job holds;
        ConnectionNotUsable; and UnsupportedConnection for anything else, None included: only `submit` uses a connection of
        jobq's own.
        """
        task, _ = self._bound
        job = self.job(*args, **kwargs)
        return task.reference(job, task.app.insert(connection, [job])[0])

    async def enqueue_async(self, connection: AnyAsyncConnection, /, *args: P.args, **kwargs: P.kwargs) -> JobRef[R]:
        """Insert a job on an asynchronous connection, like `enqueue`.

        `connection` is a psycopg AsyncConnection, or a SQLAlchemy AsyncConnection or AsyncSession that uses psycopg.
        """
        task, _ = self._bound
        job = self.job(*args, **kwargs)
        return task.reference(job, (await task.app.insert_async(connection, [job]))[0])

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> JobRef[R]:
        """Insert a job in a transaction of its own, on a connection of jobq's pool. Raises DatabaseUnavailable."""
        task, _ = self._bound
        job = self.job(*args, **kwargs)
        return task.reference(job, task.app.insert_own([job])[0])

    async def submit_async(self, /, *args: P.args, **kwargs: P.kwargs) -> JobRef[R]:
        """Insert a job in a transaction of its own, like `submit`."""
        task, _ = self._bound
        job = self.job(*args, **kwargs)
        return task.reference(job, (await task.app.insert_own_async([job]))[0])


class TaskOptions(_Enqueues[P, R]):
    """A task with options for the jobs that it enqueues. Made by ``task.options(…)``; may be kept and used often."""

    def __init__(self, task: BaseTask[P, R], options: JobOptions) -> None:
        self._pair = (task, options)

    @property
    def _bound(self) -> tuple[BaseTask[P, R], JobOptions]:
        return self._pair

    def __repr__(self) -> str:
        return f"<options of {self._pair[0]!r}>"


class BaseTask(_Enqueues[P, R]):
    """A registered function. Made by ``@q.task``; calling it calls the function, with no job and no database."""

    def __init__(
        self,
        app: Inserter,
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
        groups: Groups | str | None = None,
        local_names: Mapping[str, Any] | None = None,
    ) -> None:
        self.app = app
        self.function = function
        self.name = name if name is not None else _name(function)
        self.arguments = Arguments(self.name, function, local_names)
        self.retry_on = _exceptions(self.name, "retry_on", retry_on)
        self.no_retry_on = _exceptions(self.name, "no_retry_on", no_retry_on)
        if isolation not in get_args(Isolation):
            raise TaskDefinitionError(f"{self.name}: isolation={isolation!r}: give 'thread' or 'process'")
        self.isolation: Isolation = isolation
        if not isinstance(transactional, bool):
            raise TaskDefinitionError(f"{self.name}: transactional={transactional!r}: give True or False")
        self.transactional = transactional
        self.may_return_coroutine = callables.wraps_coroutine_function(function)
        """Whether it is a ``def`` around an ``async def``. What it returns is awaited, if it can be."""
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
                timeout=None if timeout is None else seconds("timeout", timeout),
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
        return isinstance(self, AsyncTask)

    @property
    def queue(self) -> str:
        """Queue of jobs enqueued without that option."""
        return self._defaults.queue

    @property
    def priority(self) -> int:
        """Priority of jobs enqueued without that option."""
        return self._defaults.priority

    @property
    def max_attempts(self) -> int:
        """How often jobs enqueued without that option are tried."""
        return self._defaults.max_attempts

    @property
    def timeout(self) -> float | None:
        """Seconds that an attempt of a job enqueued without that option may take."""
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
        """Return this task with options for its jobs; what is not given is as the task was defined.

        :param queue: where to wait, 1 to 100 characters.
        :param priority: 0 to 9; 9 runs first.
        :param key: idempotency key, 1 to 500 characters: one job of this task while it is held, under any concurrency.
        :param key_holds: ``period`` (for `key_period` from the insert), ``until_finished`` or ``until_started``.
        :param key_period: seconds or timedelta; 7 days by default. Longer costs a row in a table that long.
        :param key_scope: ``task`` (default): other tasks may hold the same key. ``global``: it is one key for all tasks that
            say so, and every enqueue, whatever `on_conflict`, raises KeyConflict while a job of another task holds it. A
            key that is held in one scope is free in the other.
        :param on_conflict: when the key is held: ``return`` its job; ``replace`` that job's arguments, headers, time and
            expiry if it has not started; or ``raise`` KeyConflict.
        :param delay: seconds or timedelta until the start, by the database's clock.
        :param run_at: earliest start, an aware datetime; a past one means at once.
        :param max_attempts: how often to try, the first time included.
        :param timeout: seconds or timedelta that one attempt may take.
        :param headers: JSON object, laid over the task's own headers.
        :param group: group within the queue, 1 to 200 characters: how groups run (in order, with a limit, in turns) is set
            for the queue. Jobs with a group cost more than plain ones where the queue has such a rule, and nothing where not.
        :param expires_in: seconds or timedelta from the insert; a job that has not started by then ends as expired.

        Raises InvalidOption.
        """
        if key is None and (key_holds, key_period, key_scope, on_conflict) != _KEY_DEFAULTS:
            raise InvalidOption(
                "key_holds, key_period, key_scope and on_conflict say how a key is held: give key=… as well"
            )
        if key_holds != "period" and key_period != DEFAULT_KEY_PERIOD:
            raise InvalidOption(f"key_period is for key_holds='period', not for {key_holds!r}: give one of them")
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
                key_period=seconds("key_period", key_period),
                key_scope=key_scope,
                on_conflict=on_conflict,
                delay=None if delay is None else seconds("delay", delay),
                run_at=run_at,
                max_attempts=own.max_attempts if max_attempts is None else max_attempts,
                timeout=own.timeout if timeout is None else seconds("timeout", timeout),
                headers=own.headers if headers is None else {**own.headers, **headers},
                group=group,
                expires_in=None if expires_in is None else seconds("expires_in", expires_in),
            ),
        )

    def ref(self, job_id: int) -> JobRef[R]:
        """Return a reference to a job of this task by its id, to ask for its status, progress, error or result, and to cancel
        it. Nothing is read here. Raises InvalidOption for what is no id: give ``int(…)`` of what an address or a form brings.
        """
        whole("job_id", job_id, 0, 2**63 - 1)
        return JobRef(job_id, created=False, replaced=False, key=None, source=self._jobs, decode=self._decode_result)

    def reference(self, job: NewJob, inserted: Inserted) -> JobRef[R]:
        """Return the reference to `job`, of which `inserted` tells what became."""
        return JobRef(
            inserted.id,
            created=inserted.created,
            replaced=inserted.replaced,
            key=job.options.key,
            source=self._jobs,
            decode=self._decode_result,
        )

    def encode_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return the JSON of a call's arguments. Raises InvalidArguments."""
        return self.arguments.encode(args, kwargs, self.app.settings.max_args_bytes)

    def decode_arguments(self, raw: bytes | str) -> dict[str, Any]:
        """Return stored arguments as keyword arguments for `function`. Raises InvalidArguments."""
        return self.arguments.decode(raw)

    def encode_result(self, value: Any, limit: int) -> bytes:
        """Return the JSON of what `function` returned, of at most `limit` bytes. Raises ResultError."""
        return self.arguments.encode_result(value, limit)

    def retry_delay(self, error: BaseException, attempt: int) -> float | None:
        """Return how many seconds to wait after `attempt` failed with `error`; None: do not try again.

        How many attempts a job has is the job's own matter and is not looked at here.
        """
        return self.backoff.delay(attempt) if self.retries(error) else None

    def retries(self, error: BaseException) -> bool:
        """Tell whether a job is to be tried again after `error`, as far as the task's options say."""
        return isinstance(error, self.retry_on) and not isinstance(error, self.no_retry_on)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def __reduce__(self) -> str:
        """Pickle it by its module and name, as a function is."""
        return self.__qualname__

    def _decode_result(self, raw: str) -> R:
        return cast(R, self.arguments.decode_result(raw))


class Task(BaseTask[P, R]):
    """A task whose function is a ``def``; it runs on a thread."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: no job, no database."""
        return cast(R, self.function(*args, **kwargs))


class AsyncTask(BaseTask[P, R]):
    """A task whose function is an ``async def``; it runs on an event loop. Results are what the coroutine returns."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function itself and return its coroutine: no job, no database."""
        return cast("Coroutine[Any, Any, R]", self.function(*args, **kwargs))


def task_class(function: Callable[..., Any]) -> type[Task[..., Any]] | type[AsyncTask[..., Any]]:
    """Return which class of task `function` makes."""
    return AsyncTask if callables.is_coroutine_function(function) else Task


class _JobsOf:
    """Looks jobs up for the references of one task. It is pickled with them, as its application cannot be."""

    def __init__(self, task: BaseTask[..., Any]) -> None:
        self._task = task

    def look_up(self, job_id: int) -> Found | None:
        return self._task.app.look_up(job_id)

    async def look_up_async(self, job_id: int) -> Found | None:
        return await self._task.app.look_up_async(job_id)

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
        raise TaskDefinitionError(f"{function!r} has no name: give the task one with name=…")
    return cast(str, name)


def _exceptions(task: str, option: str, given: object) -> tuple[type[BaseException], ...]:
    found = given if isinstance(given, tuple) else (given,)
    for item in found:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise TaskDefinitionError(f"{task}: {option}={given!r}: give a tuple of exception classes")
    return cast("tuple[type[BaseException], ...]", found)
