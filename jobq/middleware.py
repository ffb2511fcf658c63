"""Middleware: application code around each enqueue and around each run of a task.

A middleware is an object with one or more of six methods. As everywhere in jobq, methods that
end in ``_async`` are for event loops. `enqueue` wraps ``enqueue``, ``submit`` and
``enqueue_many``; `enqueue_async` wraps their ``_async`` twins. `run` wraps tasks that are a
``def``, `run_async` wraps tasks that are an ``async def``; `run_batch` and `run_batch_async` wrap the
calls of batch tasks (`jobq.batch_middleware`). A ``def`` cannot wait for an event
loop, so one form cannot replace the other. If an object would silently skip some calls, its
declaration is refused::

    @q.middleware
    class Timing:
        def run(self, job: CurrentJob, call_next: RunNext) -> Any:
            begun = time.monotonic()
            try:
                return call_next(job)
            finally:
                logger.info("%s took %.3f s", job.task, time.monotonic() - begun)

        run_async = None  # async tasks are not timed
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from jobq._core import callables
from jobq._core.places import Place
from jobq.batch_middleware import around as around_batches
from jobq.context import CurrentJob, current_job
from jobq.errors import MiddlewareError, TaskDefinitionError
from jobq.job import InsertResult, NewJob

RunNext: TypeAlias = Callable[[CurrentJob], Any]
"""Type of `call_next` in `run`.

It calls the next layer, finally the task, and returns its result.
"""
AsyncRunNext: TypeAlias = Callable[[CurrentJob], Awaitable[Any]]
"""The type of `call_next` in `run_async`."""
EnqueueNext: TypeAlias = Callable[[Sequence[NewJob]], list[InsertResult]]
"""Type of `call_next` in `enqueue`: it inserts the jobs and returns their results.

Each result has the job's id and says whether the job is new.
"""
AsyncEnqueueNext: TypeAlias = Callable[[Sequence[NewJob]], Awaitable[list[InsertResult]]]
"""The type of `call_next` in `enqueue_async`."""


class RunMiddleware(Protocol):
    """An object with a method around each attempt of a ``def`` task."""

    def run(self, job: CurrentJob, call_next: RunNext, /) -> Any:
        """Return the task's result: the value of ``call_next(job)``, or another."""


class AsyncRunMiddleware(Protocol):
    """An object with a method around each attempt of an ``async def`` task."""

    async def run_async(self, job: CurrentJob, call_next: AsyncRunNext, /) -> Any:
        """Return the task's result, like `RunMiddleware.run`."""


class EnqueueMiddleware(Protocol):
    """An object with a method around each synchronous enqueue."""

    def enqueue(self, jobs: Sequence[NewJob], call_next: EnqueueNext, /) -> object:
        """Call ``call_next(jobs)`` once, or raise an exception to refuse.

        The return value is ignored. A workflow's `jobs` are its nodes, all in one call:
        ``job.args_json`` has null for each reference, and lacks a map's items; the results have the
        nodes' ids, and a map's id is that of no job. What is changed applies to all jobs of a node,
        which the workers insert later without middleware. Arguments, `key` and `run_at` cannot be
        changed.
        """


class AsyncEnqueueMiddleware(Protocol):
    """An object with a method around each enqueue on an event loop."""

    async def enqueue_async(self, jobs: Sequence[NewJob], call_next: AsyncEnqueueNext, /) -> object:
        """Await ``call_next(jobs)`` once, or raise to refuse, like `EnqueueMiddleware.enqueue`."""


class NamedTask(Protocol):
    """What middleware needs to know about a task."""

    @property
    def name(self) -> str: ...

    @property
    def is_async(self) -> bool: ...

    @property
    def may_return_coroutine(self) -> bool: ...

    @property
    def batch(self) -> int | None: ...


class Missing:
    """Marks a method that an object does not have."""


MISSING = Missing()


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddlewareLayer:
    """One middleware.

    Each form is a method, None if jobs of its kind may skip it, or `MISSING`.
    """

    label: str
    source: Any
    """The class, object or function that was declared."""
    tasks: frozenset[str] | None
    """Names of the tasks that it applies to; None: all tasks."""
    place: Place
    """Where it was declared."""
    run: Any = None
    run_async: Any = None
    run_batch: Any = None
    run_batch_async: Any = None
    enqueue: Any = None
    enqueue_async: Any = None

    def covers(self, task: str) -> bool:
        return self.tasks is None or task in self.tasks

    def is_redefined(self, new: MiddlewareLayer) -> bool:
        """Whether `new` is this middleware, declared again by a notebook cell or a reload.

        An object has no name: it is the same one if its class and the place of its declaration are.
        """
        if callables.is_redefined(self.source, new.source):
            return True
        if self.source is new.source:
            return self.tasks == new.tasks or self.place.is_rerun(new.place)
        return callables.is_same_kind(self.source, new.source) and (
            self.place.is_rerun(new.place) or (self.tasks == new.tasks and self.place.is_other_cell(new.place))
        )

    @property
    def runs(self) -> bool:
        """Whether it has any form of `run`."""
        return any(callable(getattr(self, form)) for form in RUN_FORMS)

    def check_task(self, task: NamedTask) -> None:
        """Raise TaskDefinitionError if it applies to `task` but lacks the needed form."""
        if not self.runs or not self.covers(task.name):
            return
        if task.may_return_coroutine:
            raise TaskDefinitionError(
                f"{self.label} cannot be around task {task.name!r}, a `def` around an `async def`: make the wrapper an "
                "`async def`, or name the other tasks in tasks=[…]"
            )
        name = run_form(task)
        form, kind = getattr(self, name), "an `async def`" if task.is_async else "a `def`"
        if task.batch is not None:
            kind = f"a batch task ({kind})"
        if form is MISSING:
            has = next(form for form in RUN_FORMS if callable(getattr(self, form)))
            raise TaskDefinitionError(
                f"{self.label} has {has}, and task {task.name!r} is {kind}: write {name} as well; or "
                f"say {name} = None, so that such tasks pass it by; or name the others in tasks=[…]"
            )
        if form is None and self.tasks is not None:
            raise TaskDefinitionError(
                f"{self.label} is for task {task.name!r}, {kind}, and has no {name}: leave the task out of "
                f"tasks=[…], or write {name}"
            )


RUN_FORMS = ("run", "run_async", "run_batch", "run_batch_async")


def run_form(task: NamedTask) -> str:
    """Return the name of the method that wraps runs of `task`."""
    return ("run" if task.batch is None else "run_batch") + ("_async" if task.is_async else "")


class Middlewares:
    """The middleware of one application, outermost first.

    It is resolved once per task, not per job.
    """

    def __init__(self, tasks: Callable[[], Iterable[NamedTask]]) -> None:
        self._tasks = tasks
        self._layers: list[MiddlewareLayer] = []
        self._enqueue: list[MiddlewareLayer] = []
        self._enqueue_async: list[MiddlewareLayer] = []

    def add(self, layer: MiddlewareLayer) -> None:
        """Add a middleware inside the existing ones.

        If a notebook defines a middleware again, the new one takes its old place. Raises
        TaskDefinitionError if a task does not fit it.
        """
        for task in self._tasks():
            layer.check_task(task)
        place = next((n for n, known in enumerate(self._layers) if known.is_redefined(layer)), len(self._layers))
        self._layers[place : place + 1] = [layer]
        self._enqueue = [each for each in self._layers if callable(each.enqueue)]
        self._enqueue_async = [each for each in self._layers if callable(each.enqueue_async)]

    def check_task(self, task: NamedTask) -> None:
        """Raise TaskDefinitionError if a new task does not fit the existing middleware."""
        for layer in self._layers:
            layer.check_task(task)

    def check_names(self, known: Iterable[str]) -> None:
        """Raise TaskDefinitionError if a middleware names a task that is not in `known`."""
        names = frozenset(known)
        for layer in self._layers:
            for name in sorted((layer.tasks or frozenset()) - names):
                raise TaskDefinitionError(f"{layer.label} is for task {name!r}, which there is not: correct tasks=[…]")

    def around(self, task: NamedTask, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function that runs a job of `task`: `function` inside its middleware.

        Without middleware, this is `function` itself.
        """
        form = run_form(task)
        layers = [layer for layer in self._layers if layer.covers(task.name) and callable(getattr(layer, form))]
        if not layers:
            return function

        def innermost(job: CurrentJob, /) -> Any:
            if job is not current_job():
                raise MiddlewareError(
                    "call_next(job): pass the job that the middleware was given; a run changes no job"
                )
            return function(**job.args)

        call: RunNext = innermost
        for layer in reversed(layers):
            call = partial(_run, getattr(layer, form), call)
        outermost = call
        # `arguments` are the arguments of the current job.
        return lambda **arguments: outermost(current_job())

    def around_batch(self, task: NamedTask, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function that runs a batch of `task`: `function` inside its middleware."""
        forms = [getattr(layer, run_form(task)) for layer in self._layers if layer.covers(task.name)]
        return around_batches([form for form in forms if callable(form)], function)

    @property
    def wraps_enqueue(self) -> bool:
        """Whether there is middleware around a synchronous enqueue."""
        return bool(self._enqueue)

    @property
    def wraps_enqueue_async(self) -> bool:
        """Whether there is middleware around an enqueue on an event loop."""
        return bool(self._enqueue_async)

    def insert(
        self, jobs: Sequence[NewJob], insert: Callable[[Sequence[NewJob]], list[InsertResult]]
    ) -> list[InsertResult]:
        """Insert `jobs` with `insert`, inside the middleware."""
        if self._enqueue and jobs:
            for layer in reversed(self._enqueue):
                insert = partial(_enqueue, layer, insert)
        return insert(jobs)

    async def insert_async(
        self, jobs: Sequence[NewJob], insert: Callable[[Sequence[NewJob]], Awaitable[list[InsertResult]]]
    ) -> list[InsertResult]:
        """Insert `jobs` like `insert`."""
        if self._enqueue_async and jobs:
            for layer in reversed(self._enqueue_async):
                insert = partial(_enqueue_async, layer, insert)
        return await insert(jobs)


def _run(run: Callable[[CurrentJob, RunNext], Any], call_next: RunNext, job: CurrentJob, /) -> Any:
    return run(job, call_next)


def _enqueue(layer: MiddlewareLayer, insert: EnqueueNext, jobs: Sequence[NewJob]) -> list[InsertResult]:
    call = _EnqueueCall(layer, jobs)
    if not call.places:
        return insert(jobs)

    def call_next(changed: Sequence[NewJob], /) -> list[InsertResult]:
        with call.once(changed) as merged:
            return call.done(insert(merged))

    layer.enqueue(call.jobs, call_next)
    return call.result()


async def _enqueue_async(
    layer: MiddlewareLayer, insert: AsyncEnqueueNext, jobs: Sequence[NewJob]
) -> list[InsertResult]:
    call = _EnqueueCall(layer, jobs)
    if not call.places:
        return await insert(jobs)

    async def call_next(changed: Sequence[NewJob], /) -> list[InsertResult]:
        with call.once(changed) as merged:
            return call.done(await insert(merged))

    await layer.enqueue_async(call.jobs, call_next)
    return call.result()


class _EnqueueCall:
    """One enqueue inside one middleware, which sees only the jobs of its tasks."""

    def __init__(self, layer: MiddlewareLayer, jobs: Sequence[NewJob]) -> None:
        self._label = layer.label
        self._all = jobs
        self.places = [place for place, job in enumerate(jobs) if layer.covers(job.task)]
        self.jobs = [jobs[place] for place in self.places]
        self._called = False
        self._inserted: list[InsertResult] | None = None

    @contextmanager
    def once(self, changed: Sequence[NewJob]) -> Iterator[list[NewJob]]:
        """Yield the jobs to insert. If the insert raises an error, another call may follow.

        Raises MiddlewareError.
        """
        if self._called:
            raise MiddlewareError(f"{self._label} has called call_next(jobs) twice: the jobs would be inserted twice")
        merged = self._merged(changed)
        self._called = True
        try:
            yield merged
        except Exception:  # of the database, or of a middleware further inside: it is raised again
            self._called = False
            raise

    def _merged(self, changed: Sequence[NewJob]) -> list[NewJob]:
        """Return all jobs, including the ones that the middleware passed on.

        Raises MiddlewareError.
        """
        passed = list(changed)
        if len(passed) != len(self.jobs):
            raise MiddlewareError(
                f"{self._label} was given {len(self.jobs)} jobs and passed on {len(passed)}: pass on as many, in their order"
            )
        found = list(self._all)
        for place, before, after in zip(self.places, self.jobs, passed, strict=True):
            if not isinstance(after, NewJob):
                raise MiddlewareError(
                    f"{self._label} passed on {after!r}: pass on jobs, such as job.with_headers({{…}})"
                )
            if (after.task, after.options.key) != (before.task, before.options.key):
                raise MiddlewareError(
                    f"{self._label} has changed the task or the key of a job of {before.task!r}: keep them"
                )
            found[place] = after
        return found

    def done(self, inserted: list[InsertResult]) -> list[InsertResult]:
        """Record what was inserted, and return the results for the middleware's jobs."""
        self._inserted = inserted
        return [inserted[place] for place in self.places]

    def result(self) -> list[InsertResult]:
        """Return what was inserted. Raises MiddlewareError."""
        if self._inserted is None:
            raise MiddlewareError(
                f"{self._label} returned without a call of call_next(jobs) that ended: call it, or raise an exception to "
                "refuse the jobs"
            )
        return self._inserted
