"""JobQ: an application's tasks and its way to the database."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

import psycopg

from jobq import callables, enqueue
from jobq.backoff import Backoff, Delays
from jobq.config import Settings
from jobq.declarations import Declarations
from jobq.errors import AppImportError, TaskDefinitionError, UnknownTask
from jobq.flow import Groups
from jobq.jobs import NewJob
from jobq.lookups import Lookups
from jobq.pools import Pools
from jobq.refs import JobRef
from jobq.scheduling import Scheduling
from jobq.tasks import AsyncTask, BaseTask, Inserted, Isolation, Task, task_class

if TYPE_CHECKING:
    from jobq.connections import AnyAsyncConnection, AnyConnection
    from jobq.queuehandle import QueueHandle

P = ParamSpec("P")
R = TypeVar("R")


class TaskDecorator(Protocol):
    """Makes a task of a function, with its parameters and its result known to type checkers."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class JobQ(Scheduling, Lookups):
    """An application's tasks. Make one, at the top of a module, and name it to the worker as ``module:attribute``.

    Settings are read from the arguments, then from ``JOBQ_*`` variables, then from defaults; nothing is connected before
    it is needed. `settings` may hold any field of `jobq.config.Settings`. Raises ConfigurationError.
    """

    def __init__(self, database_url: str | None = None, *, schema: str | None = None, **settings: Any) -> None:
        self._tasks: dict[str, BaseTask[..., Any]] = {}
        self._declarations = Declarations(self.get_task)
        self._given: dict[str, Any] = {"database_url": database_url, "schema": schema, **settings}
        self._settings = Settings.load(**self._given)
        self._pools = Pools(self._settings)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def tasks(self) -> Mapping[str, BaseTask[..., Any]]:
        """The registered tasks by name."""
        return MappingProxyType(self._tasks)

    def configure(self, **settings: Any) -> None:
        """Change settings after the making: for tests, and for programs that read their configuration late.

        The environment is read again. Connections of the former settings are closed. Raises ConfigurationError.
        """
        self._given |= settings
        changed = Settings.load(**self._given)
        former, self._settings, self._pools = self._pools, changed, Pools(changed)
        former.close()

    @overload
    def task(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 5,
        max_attempts: int = 10,
        backoff: Backoff | Delays = ...,
        timeout: float | timedelta | None = None,
        retry_on: tuple[type[BaseException], ...] = ...,
        no_retry_on: tuple[type[BaseException], ...] = (),
        headers: Mapping[str, Any] | None = None,
        isolation: Isolation = "thread",
        transactional: bool = False,
        groups: Groups | str | None = None,
    ) -> TaskDecorator: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 5,
        max_attempts: int = 10,
        backoff: Backoff | Delays = Backoff(base=2, cap=3600),  # noqa: B008  # frozen
        timeout: float | timedelta | None = None,
        retry_on: tuple[type[BaseException], ...] = (Exception,),
        no_retry_on: tuple[type[BaseException], ...] = (),
        headers: Mapping[str, Any] | None = None,
        isolation: Isolation = "thread",
        transactional: bool = False,
        groups: Groups | str | None = None,
    ) -> Any:
        """Register a function as a task: ``@q.task`` or ``@q.task(queue="mail")``. It stays callable as before.

        Arguments are checked against the annotations, here and again before the run, and stored as JSON by name.

        :param name: what jobs call it, 1 to 200 characters (default: the function's name). Jobs that wait know their task
            by this name: keep it when you rename the function.
        :param queue: where its jobs wait. Queues can be paused, and given to workers of their own.
        :param priority: 0 to 9; 9 runs first. Higher ones can keep lower ones waiting for ever.
        :param max_attempts: how often a job is tried before it is a dead letter.
        :param backoff: how long it waits in between: a `Backoff`, a list of delays, or a function of the attempt's number. By
            default the nine waits of ten attempts add up to at most 1,022 s, and to half of that on average.
        :param timeout: seconds or timedelta that one attempt may take; None: no limit, and a hung job holds its slot.
        :param retry_on: exceptions after which to try again.
        :param no_retry_on: exceptions after which not to, though `retry_on` names their base.
        :param headers: JSON object that every job of this task carries.
        :param isolation: ``thread``: beside other jobs in a runner; ``process``: alone in a process, so that its memory,
            its crash and its forced end affect no other job. A process for each that runs at the same time costs the
            application's memory, and its import when none is idle: for tasks of seconds, not of milliseconds.
        :param transactional: give the task a connection (``current_job().connection``, ``.session`` or their async twins)
            on which its effects and its success commit together, so that they happen exactly once. Costs three round
            trips a job instead of a share in a batch's, a connection for each slot that has run such a task, and an open
            transaction for as long as the task runs.
        :param groups: how the groups of its queue run: ``ordered``, ``ordered:pass``, ``limited:3``, ``fair``, ``fair:5``. A
            worker that starts sets it for the queue, unless an operator has configured that; jobs that were enqueued before
            the first worker knew of it join their groups then. It is the queue's: give such tasks a queue of their own.

        A function that is defined again under its own name, by a notebook's cell or a reload, replaces its task. Raises
        TaskDefinitionError for an unusable signature or option, and for a name that is taken.
        """

        def register(function: Callable[..., Any], frame: FrameType | None) -> BaseTask[..., Any]:
            made = task_class(function)(
                self,
                function,
                name=name,
                queue=queue,
                priority=priority,
                max_attempts=max_attempts,
                backoff=backoff,
                timeout=timeout,
                retry_on=retry_on,
                no_retry_on=no_retry_on,
                headers=headers,
                isolation=isolation,
                transactional=transactional,
                groups=groups,
                local_names=_local_names(function, frame),
            )
            if (taken := self._tasks.get(made.name)) is not None and not callables.is_redefined(
                taken.function, function
            ):
                raise TaskDefinitionError(
                    f"task {made.name!r} is taken by {taken.__module__}.{taken.__qualname__}: give one of them name=…"
                )
            for other in self._tasks.values():
                if (
                    other is not taken
                    and other.queue == made.queue
                    and made.groups
                    and other.groups
                    and made.groups != other.groups
                ):
                    raise TaskDefinitionError(
                        f"task {made.name!r} wants groups={str(made.groups)!r} for queue {made.queue!r}, and task "
                        f"{other.name!r} {str(other.groups)!r}: a queue has one rule; give one of them another queue"
                    )
            if taken is not None:
                self._declarations.forget(taken)
            self._tasks[made.name] = made
            self._declarations.became(function, made)
            return made

        if function is not None:
            return register(function, sys._getframe(1))
        return lambda function: register(function, sys._getframe(1))

    def get_task(self, name: str) -> BaseTask[..., Any]:
        """Return the task called `name`. Raises UnknownTask."""
        try:
            return self._tasks[name]
        except KeyError:
            known = ", ".join(sorted(self._tasks)) or "none yet"
            raise UnknownTask(f"there is no task {name!r}; known are: {known}") from None

    def queue(self, name: str) -> QueueHandle:
        """Return the queue called `name`, to see and change its limit, rate, rule for groups and pause.

        It need not exist yet: nothing is read or written here. Raises InvalidOption for a name that no queue can have.
        """
        # Not at the top: workers and producers need none of it.
        from jobq.queuehandle import QueueHandle, Way

        return QueueHandle(Way(lambda: self.settings.schema, self.connection, self.connection_async), name)

    def enqueue_many(self, connection: AnyConnection, jobs: Iterable[NewJob]) -> list[JobRef[Any]]:
        """Insert many jobs (``task.job(…)``) on `connection`, inside its transaction; return references in the same order.

        100,000 in one call are fine. Raises as ``task.enqueue`` does; UnknownTask for a job of another application; and
        InvalidOption when some keys are to be replaced and others to raise.
        """
        listed = self._listed(jobs)
        return self._references(listed, enqueue.insert(connection, self.settings.schema, listed))

    async def enqueue_many_async(self, connection: AnyAsyncConnection, jobs: Iterable[NewJob]) -> list[JobRef[Any]]:
        """Insert many jobs on an asynchronous connection, like `enqueue_many`."""
        listed = self._listed(jobs)
        return self._references(listed, await enqueue.insert_async(connection, self.settings.schema, listed))

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a psycopg connection of jobq's pool, in a transaction that commits at the end. Raises DatabaseUnavailable."""
        with self._pools.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def connection_async(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Lend an asynchronous psycopg connection of jobq's pool, like `connection`."""
        async with self._pools.connection_async() as connection, connection.transaction():
            yield connection

    def close(self) -> None:
        """Close jobq's connections. They are opened again when they are needed."""
        self._pools.close()

    async def aclose(self) -> None:
        """Close jobq's connections, those of the running event loop included."""
        await self._pools.aclose()

    # --- What tasks and references need of their application -------------------------------------------------------------

    def insert(self, connection: AnyConnection, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Insert `jobs` on `connection`."""
        return enqueue.insert(connection, self.settings.schema, jobs)

    async def insert_async(self, connection: AnyAsyncConnection, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Insert `jobs` like `insert`."""
        return await enqueue.insert_async(connection, self.settings.schema, jobs)

    def insert_own(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Insert `jobs` in a transaction of its own."""
        with self._pools.connection() as own:
            return enqueue.insert(own, self.settings.schema, jobs)

    async def insert_own_async(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Insert `jobs` like `insert_own`."""
        async with self._pools.connection_async() as own:
            return await enqueue.insert_async(own, self.settings.schema, jobs)

    def _listed(self, jobs: Iterable[NewJob]) -> list[NewJob]:
        listed = list(jobs)
        for name in {job.options.task for job in listed}:
            self.get_task(name)
        return listed

    def _references(self, jobs: Sequence[NewJob], inserted: Sequence[Inserted]) -> list[JobRef[Any]]:
        return [self._tasks[job.options.task].reference(job, done) for job, done in zip(jobs, inserted, strict=True)]

    def __repr__(self) -> str:
        return f"<JobQ of {len(self._tasks)} tasks, schema {self.settings.schema!r}>"


def load(spec: str) -> JobQ:
    """Import the JobQ that ``module:attribute`` names; the working directory is searched first.

    Raises AppImportError, with what went wrong and what could be meant.
    """
    module_name, colon, attribute = spec.partition(":")
    if not (module_name and colon and attribute):
        raise AppImportError(f"{spec!r}: give module:attribute, such as myproject.jobs:q")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises, the sentence must name it
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise AppImportError(f"{spec!r}: there is no module {error.name!r} in {here} or on the path") from error
        raise AppImportError(f"{spec!r}: importing {module_name} raised {type(error).__name__}: {error}") from error
    found: object = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, JobQ):
        there = ", ".join(f"{module_name}:{name}" for name, value in vars(module).items() if isinstance(value, JobQ))
        raise AppImportError(f"{spec!r} is no JobQ; " + (f"did you mean {there}?" if there else "the module has none"))
    return found


def _local_names(function: Callable[..., Any], frame: FrameType | None) -> Mapping[str, Any] | None:
    """Return the names around a function that was defined inside another or in a class: its annotations may mean them."""
    if frame is None or "." not in getattr(function, "__qualname__", ""):
        return None
    return cast("Mapping[str, Any]", dict(frame.f_locals))
