"""The part of JobQ with which an application extends jobq: middleware, lifecycle, resources."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from jobq._app.lifecycle import Hook, Hooks, add_hook
from jobq._app.middleware_declaration import MiddlewareDecorator
from jobq._app.resources import Resources
from jobq._core import callables
from jobq.middleware import Middlewares

HookT = TypeVar("HookT", bound=Hook)
ResourceT = TypeVar("ResourceT", bound="Callable[..., Iterator[Any] | AsyncIterator[Any]]")


class Extensions:
    """Declarations of an application besides tasks and schedules.

    All of them belong in the modules that define the tasks.
    """

    _middlewares: Middlewares
    _hooks: Hooks
    _resources: Resources

    @property
    def middleware(self) -> MiddlewareDecorator:
        """Declare middleware: code around each enqueue, and around each run of a task.

        There are three ways. Each also takes ``tasks=[…]``, tasks or their names (default: all)::

            @q.middleware                      # a class that is made without arguments
            class Tracing:
                def run(self, job, call_next): ...
                async def run_async(self, job, call_next): ...
                def enqueue(self, jobs, call_next): ...
                async def enqueue_async(self, jobs, call_next): ...

            q.middleware(Sampled(0.1))         # an object

            @q.middleware.run                  # one function: a `def` for `def` tasks, an `async def` for `async def` tasks
            def log_slow(job, call_next):
                return call_next(job)

        The middleware that is declared first is the outermost. An object needs `run` or `run_async`
        only for the kinds of its tasks. It needs both `enqueue` and `enqueue_async`, or neither.
        ``run_async = None`` in the class says that jobs of that kind skip it. A function wraps its
        own kind only. In a notebook, a cell that is run again replaces the middleware that it
        declared before: the one with the same name, or the object of the same class.

        `run` and `run_async` wrap the body of the task, inside the attempt: its timeout applies,
        and ``current_job()`` and the transaction of a transactional task are available. `job` is
        the value of ``current_job()``: id, task, queue, attempt, headers, args. They return the
        result of ``call_next(job)`` or another one, which is checked and stored as the task's own.
        Their exceptions are the task's errors: an exception costs the job an attempt, and its
        traceback shows the middleware. Snooze, Retry, Cancel and Fail work as in a task, whether
        the task or the middleware raises them. They may call `call_next` again, or not at all.

        `enqueue` and `enqueue_async` are called once for each ``enqueue``, ``submit`` or
        ``enqueue_many``, before the insert. They run in the caller's transaction; for `submit`,
        before its own transaction begins. `jobs` has the new jobs. They pass on the same number of
        jobs, in the same order, perhaps with other options or arguments: ``job.with_headers({…})``,
        ``job.with_options(priority=9)``; or they raise, and nothing is inserted.
        ``call_next(jobs)`` returns the id of each job, and whether it is new. The following jobs do
        not pass through them: ``jobq.enqueue(…)`` in SQL, rows that SQL inserts, jobs of schedules
        (inserted in SQL), retries of finished jobs, and ``jobq enqueue`` without ``--app``.

        Raises TaskDefinitionError if a middleware and a task do not fit each other, when the second
        of them is declared.
        """
        return MiddlewareDecorator(self._middlewares)

    def on_worker_start(self, function: HookT, /) -> HookT:
        """Call a function when a worker starts: ``@q.on_worker_start``.

        The function is a ``def`` or ``async def`` without parameters. The worker's main process,
        the dispatcher, never imports the application. The function is called in the worker's first
        runner, once for each start of a worker, before any of its runners gets a job. It is not
        called in runners that replace others. Changes to the process do not affect the other
        runners: see `on_runner_start`. If the function raises, the runner ends, with the traceback
        in the log, and the next runner calls it again. Raises TaskDefinitionError.
        """
        add_hook(self._hooks.worker_start, "@q.on_worker_start", function)
        return function

    def on_runner_start(self, function: HookT, /) -> HookT:
        """Call a function in each runner, between its import and its first job.

        The function is a ``def``, or an ``async def`` that runs on the event loop of async tasks,
        without parameters. It is called before resources are created. Its time counts toward
        ``--import-timeout``. If it raises, the runner ends, with the traceback in the log. The
        worker stays, is not ready, and starts another runner after a pause that grows up to 30 s.
        Raises TaskDefinitionError.
        """
        add_hook(self._hooks.runner_start, "@q.on_runner_start", function)
        return function

    def on_runner_stop(self, function: HookT, /) -> HookT:
        """Call a function in each runner when it ends, after it closes its resources.

        Functions are called in reverse order of declaration. They are called if the worker stops
        and the runner's jobs have ended in time; if the runner is replaced
        (``--max-jobs-per-runner``, ``--max-rss-mb``, a task that hung beside others and then ended)
        or was idle in isolation; and if the runner failed to start. All functions together,
        including the closing of resources, share 10 s with the rest of the runner's end (coroutines
        and threads that were left behind, `atexit` handlers); after that the runner ends at once.
        Errors are logged.

        They are not called if the runner ends at once: by a crash or SIGKILL; if it is killed for a
        job that ignored its timeout, for memory far above its limit, or because it did not react;
        if its worker dies, loses its lease, or must stop at once; or if a job does not end within
        ``--shutdown-timeout``. Work that must not be lost belongs in the job. Raises
        TaskDefinitionError.
        """
        add_hook(self._hooks.runner_stop, "@q.on_runner_stop", function)
        return function

    def resource(self, function: ResourceT, /) -> ResourceT:
        """Declare a resource.

        It is a generator function, sync or async, that yields one value and closes it.

        ::

            @q.resource
            def client() -> Iterator[Client]:
                with Client(timeout=5) as client:
                    yield client

            @q.task
            def fetch(path: str, client: Resource[Client] = injected) -> str:
                return client.get(path)

            fetch.enqueue(connection, "/")    # the client is not part of the job

        If any task of the application uses the resource, each runner creates it once at its start.
        The runner closes resources at its end, in reverse order (`on_runner_stop` lists the
        exceptions). If the function raises, the effect is the same as for `on_runner_start`. All
        jobs of the runner share the value, so it must be thread-safe for ``def`` tasks. An async
        resource is created on the event loop of async tasks. Do not hold a cancel scope
        (``asyncio.timeout``, a task group) over the ``yield``.

        A resource is found by type: the parameter's type, else a subclass; among several, by the
        parameter's name. A resource may take other resources in the same way, without a default.
        ``= injected`` lets type checkers accept calls without the parameter, which comes after the
        others, or after ``*``. A call of the task as a function injects nothing: pass a value.
        ``jobq.testing.override_resource`` gives tests another value.

        Raises TaskDefinitionError unless `function` is a generator function with a return
        annotation, and if the name is taken.
        """
        self._resources.add(function, callables.local_names(function, sys._getframe(1)))
        return function

    # --- What runners and tests need from their application --------------------------------------

    @property
    def middlewares(self) -> Middlewares:
        """The declared middleware."""
        return self._middlewares

    @property
    def hooks(self) -> Hooks:
        """The declared functions for the start and end of workers and runners."""
        return self._hooks

    @property
    def resources(self) -> Resources:
        """The declared resources."""
        return self._resources
