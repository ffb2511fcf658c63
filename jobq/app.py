"""JobQ: the tasks of an application, and its access to the database."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from jobq._app.declarations import Declarations
from jobq._app.extensions import Extensions
from jobq._app.inserts import Inserts
from jobq._app.lifecycle import Hooks
from jobq._app.lookups import Lookups
from jobq._app.resources import Resources
from jobq._app.scheduling import Scheduling
from jobq._app.signals import Signals
from jobq._app.workflows import Workflows
from jobq._core import callables
from jobq._postgres.pool import Pools
from jobq.batch_task import BatchDecorator, batch_task_class
from jobq.errors import AppImportError, TaskDefinitionError, UnknownTask
from jobq.limits import Groups
from jobq.middleware import Middlewares
from jobq.retry import Backoff, Delays
from jobq.settings import Settings
from jobq.task import AsyncTask, BaseTask, Isolation, Task, task_class

if TYPE_CHECKING:
    from jobq.queue import QueueHandle

P = ParamSpec("P")
R = TypeVar("R")


class TaskDecorator(Protocol):
    """Turns a function into a task whose parameters and result type checkers know."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class JobQ(Inserts, Scheduling, Lookups, Workflows, Signals, Extensions):
    """The tasks of an application.

    Create one at the top of a module. Workers name it as ``module:attribute``. Settings are read
    from the arguments, then from ``JOBQ_*`` variables, then from defaults. The constructor does
    not connect: a connection is opened when it is first needed.

    Args:
        database_url: the database, as a ``postgresql://`` URL or a libpq conninfo.
        schema: the schema of jobq's tables (default: ``jobq``).
        **settings: any other field of `jobq.settings.Settings`.

    Raises:
        ConfigurationError: a setting has an unusable value.
    """

    def __init__(self, database_url: str | None = None, *, schema: str | None = None, **settings: Any) -> None:
        self._tasks: dict[str, BaseTask[..., Any]] = {}
        self._declarations = Declarations(self.get_task)
        self._middlewares = Middlewares(self._tasks.values)
        self._hooks = Hooks()
        self._resources = Resources()
        self._given: dict[str, Any] = {"database_url": database_url, "schema": schema, **settings}
        self._settings = Settings.load(**self._given)
        self._pools = Pools(self._settings)

    @property
    def settings(self) -> Settings:
        """The settings in use."""
        return self._settings

    @property
    def tasks(self) -> Mapping[str, BaseTask[..., Any]]:
        """The registered tasks by name."""
        return MappingProxyType(self._tasks)

    def configure(self, **settings: Any) -> None:
        """Change settings after construction.

        For tests, and for programs that read their configuration late. The environment is read
        again. Connections that used the old settings are closed.

        Raises:
            ConfigurationError: a setting has an unusable value.
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
        durable: bool = False,
        groups: Groups | str | None = None,
    ) -> TaskDecorator: ...

    @overload
    def task(
        self,
        *,
        batch: int,
        linger: float | timedelta = ...,
        name: str | None = None,
        queue: str = "default",
        priority: int = 5,
        max_attempts: int = 10,
        backoff: Backoff | Delays = ...,
        timeout: float | timedelta | None = None,
        retry_on: tuple[type[BaseException], ...] = ...,
        no_retry_on: tuple[type[BaseException], ...] = (),
        headers: Mapping[str, Any] | None = None,
        groups: Groups | str | None = None,
    ) -> BatchDecorator: ...

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
        durable: bool = False,
        groups: Groups | str | None = None,
        batch: int | None = None,
        linger: float | timedelta | None = None,
    ) -> Any:
        """Register a function as a task: ``@q.task`` or ``@q.task(queue="mail")``.

        The function stays callable as before. The arguments of a call are checked against the
        annotations, when it is enqueued and again before the run, and stored as JSON by name. If a
        notebook cell or a reload defines a function again under its own name, it replaces its task.

        Args:
            function: the function, if the decorator is used without options.
            name: name of the task in its jobs, 1 to 200 characters (default: the function's name).
                Waiting jobs find their task by this name: keep it when you rename the function.
            queue: the queue of its jobs. Queues can be paused, and can have workers of their own.
            priority: 0 to 9; 9 runs first. Jobs of a higher priority can delay lower ones forever.
            max_attempts: how often a job is tried before it becomes a dead letter.
            backoff: how long a job waits between attempts: a `Backoff`, a list of delays, or a
                function of the attempt's number. By default, the nine waits of ten attempts add up
                to at most 1,022 s, and to half of that on average.
            timeout: seconds or timedelta that one attempt may take. None: no limit, and a job that
                hangs keeps its slot.
            retry_on: exceptions after which a job is tried again.
            no_retry_on: exceptions after which a job is not tried again, even if `retry_on` names
                a base class.
            headers: JSON object that every job of this task carries.
            isolation: ``thread``: the job runs beside other jobs in a runner. ``process``: it runs
                alone in a process, so its memory, a crash and a kill affect no other job. Each such
                process costs the memory of the application, and its import time if no process is
                idle. Use it for tasks of seconds, not of milliseconds.
            transactional: the task gets a connection (``current_job().connection``, ``.session`` or
                their async twins). Its effects and its success commit together there, so they
                happen exactly once. This costs three round trips a job instead of a share of a
                batch, a connection for each slot that has run such a task, and an open transaction
                while the task runs.
            durable: the task works in steps (`jobq.step`), whose results are stored. After a crash, an
                error or a wait, its function is called again from the top, and stored steps return at
                once. A sleep, a wait for a signal or for another job takes no slot. A step costs a
                share of a commit. Code outside of steps runs again each time, and must do the same.
            groups: how the groups of its queue run: ``ordered``, ``ordered:pass``, ``limited:3``,
                ``fair``, ``fair:5``. A worker that starts sets this for the queue, unless an
                operator has configured it. Jobs that were enqueued before the first worker knew the
                rule join their groups then. The rule applies to the whole queue: use a separate
                queue for such tasks.
            batch: 1 to 10,000: the function runs up to so many jobs in one call. It has one
                parameter annotated ``list[T]``, besides resources, and each job is enqueued with
                one item of type T. It returns None, or a list with one result for each job, where
                an exception is that job's failure; see also ``current_batch()``. If the call itself
                fails, all of its jobs fail, and run in smaller batches next time. Not together with
                ``transactional``, ``durable`` or ``isolation="process"``.
            linger: for `batch`: most seconds or timedelta (up to 10 s; default 0.05 s) that a job
                waits in a runner for others to fill its batch. A longer time fills batches better
                under light load, and delays a job that comes alone by as much.

        Returns:
            The task, or a decorator that makes one.

        Raises:
            TaskDefinitionError: the signature or an option is unusable, or the name is taken.
        """

        def register(function: Callable[..., Any], frame: FrameType | None) -> BaseTask[..., Any]:
            if batch is None and linger is not None:
                raise TaskDefinitionError(f"linger={linger!r} is for batch tasks: pass batch=… as well")
            batching: dict[str, Any] = {} if batch is None else {"batch": batch, "linger": linger}
            kind: Callable[..., BaseTask[..., Any]] = (task_class if batch is None else batch_task_class)(function)
            made = kind(
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
                durable=durable,
                groups=groups,
                local_names=callables.local_names(function, frame),
                **batching,
            )
            if (taken := self._tasks.get(made.name)) is not None and not callables.is_redefined(
                taken.function, function
            ):
                raise TaskDefinitionError(
                    f"task {made.name!r} is taken by {taken.__module__}.{taken.__qualname__}: pass name=… to one of them"
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
                        f"task {made.name!r} has groups={str(made.groups)!r} for queue {made.queue!r}, and task "
                        f"{other.name!r} {str(other.groups)!r}: a queue has one rule; move one of them to another queue"
                    )
            self._middlewares.check_task(made)
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
        """Return the queue called `name`, to read and change its limit, rate, group rule and pause.

        The queue need not exist yet: this call reads and writes nothing. Raises InvalidOption if no
        queue can have this name.
        """
        # Imported here because workers and producers do not need it.
        from jobq.queue import ConnectionSource, QueueHandle

        return QueueHandle(ConnectionSource(lambda: self.settings.schema, self.connection, self.connection_async), name)

    def close(self) -> None:
        """Close jobq's connections. jobq opens new ones when it needs them."""
        self._pools.close()

    async def aclose(self) -> None:
        """Close jobq's connections, including the connections of the running event loop."""
        await self._pools.aclose()

    def __repr__(self) -> str:
        return f"<JobQ of {len(self._tasks)} tasks, schema {self.settings.schema!r}>"


def load(spec: str) -> JobQ:
    """Import the JobQ that ``module:attribute`` names. The working directory is searched first.

    Raises AppImportError, which says what went wrong and what may have been meant.
    """
    module_name, colon, attribute = spec.partition(":")
    if not (module_name and colon and attribute):
        raise AppImportError(f"{spec!r}: expected module:attribute, such as myproject.jobs:q")
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
