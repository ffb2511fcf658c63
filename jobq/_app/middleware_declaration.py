"""The declaration of middleware: ``q.middleware``, and what it refuses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar, overload

from jobq._core import callables
from jobq._core.places import Place
from jobq.batch_middleware import AsyncBatchRunMiddleware, BatchRunMiddleware
from jobq.context import CurrentJob
from jobq.errors import TaskDefinitionError
from jobq.job import NewJob
from jobq.middleware import (
    MISSING,
    AsyncEnqueueMiddleware,
    AsyncEnqueueNext,
    AsyncRunMiddleware,
    AsyncRunNext,
    EnqueueMiddleware,
    EnqueueNext,
    MiddlewareLayer,
    Middlewares,
    NamedTask,
    RunMiddleware,
    RunNext,
)

AnyMiddleware: TypeAlias = (
    RunMiddleware
    | AsyncRunMiddleware
    | BatchRunMiddleware
    | AsyncBatchRunMiddleware
    | EnqueueMiddleware
    | AsyncEnqueueMiddleware
)
RunFunction: TypeAlias = Callable[[CurrentJob, RunNext], Any]
AsyncRunFunction: TypeAlias = Callable[[CurrentJob, AsyncRunNext], Coroutine[Any, Any, Any]]
EnqueueFunction: TypeAlias = Callable[[Sequence[NewJob], EnqueueNext], object]
AsyncEnqueueFunction: TypeAlias = Callable[[Sequence[NewJob], AsyncEnqueueNext], Coroutine[Any, Any, object]]
TaskNames: TypeAlias = Iterable["str | NamedTask"]

M = TypeVar("M", bound="AnyMiddleware | type[AnyMiddleware]")
RunT = TypeVar("RunT", bound="RunFunction | AsyncRunFunction")
EnqueueT = TypeVar("EnqueueT", bound="EnqueueFunction | AsyncEnqueueFunction")

_FORMS = ("run", "run_async", "run_batch", "run_batch_async", "enqueue", "enqueue_async")


class MiddlewareDecorator:
    """The type of ``q.middleware``: see `jobq._app.extensions.Extensions.middleware`."""

    def __init__(self, middlewares: Middlewares) -> None:
        self._middlewares = middlewares

    @overload
    def __call__(self, middleware: M, /, *, tasks: TaskNames | None = None) -> M: ...

    @overload
    def __call__(self, *, tasks: TaskNames) -> Callable[[M], M]: ...

    def __call__(self, middleware: Any = None, *, tasks: TaskNames | None = None) -> Any:
        """Register an object, or a class that is called without arguments; return the argument."""
        return self._register(middleware, tasks, _layer_of)

    @overload
    def run(self, function: RunT, /, *, tasks: TaskNames | None = None) -> RunT: ...

    @overload
    def run(self, *, tasks: TaskNames) -> Callable[[RunT], RunT]: ...

    def run(self, function: Any = None, *, tasks: TaskNames | None = None) -> Any:
        """Register a function ``(job, call_next)``.

        A ``def`` wraps ``def`` tasks; an ``async def`` wraps ``async def`` tasks.
        """
        return self._register(function, tasks, partial(_layer_of_function, "run"))

    @overload
    def enqueue(self, function: EnqueueT, /, *, tasks: TaskNames | None = None) -> EnqueueT: ...

    @overload
    def enqueue(self, *, tasks: TaskNames) -> Callable[[EnqueueT], EnqueueT]: ...

    def enqueue(self, function: Any = None, *, tasks: TaskNames | None = None) -> Any:
        """Register a function ``(jobs, call_next)``.

        A ``def`` wraps ``enqueue`` and the like; an ``async def`` wraps their ``_async`` twins.
        """
        return self._register(function, tasks, partial(_layer_of_function, "enqueue"))

    def _register(
        self, given: Any, tasks: TaskNames | None, make: Callable[[Any, frozenset[str] | None, Place], MiddlewareLayer]
    ) -> Any:
        names = _names(tasks)
        # The caller of `__call__`, `run` or `enqueue`.
        place = Place.of_caller(2)

        def register(given: Any) -> Any:
            self._middlewares.add(make(given, names, place))
            return given

        return register if given is None else register(given)


def _names(tasks: TaskNames | None) -> frozenset[str] | None:
    if tasks is None:
        return None
    if isinstance(tasks, str):
        raise TaskDefinitionError(f"@q.middleware: tasks={tasks!r} is text: expected a list of tasks or of their names")
    names = set()
    for each in tasks:
        name = each if isinstance(each, str) else getattr(each, "name", None)
        if not isinstance(name, str):
            raise TaskDefinitionError(f"@q.middleware: tasks=[… {each!r} …] is no task and no name of one")
        names.add(name)
    return frozenset(names)


def _layer_of(given: Any, tasks: frozenset[str] | None, place: Place) -> MiddlewareLayer:
    source = given
    label = f"middleware {given.__qualname__ if isinstance(given, type) else type(given).__qualname__}"
    if isinstance(given, type):
        try:
            inspect.signature(given).bind()
        except TypeError as error:
            raise TaskDefinitionError(
                f"{label} cannot be made without arguments ({error}): pass an object, q.middleware({given.__name__}(…))"
            ) from None
        except ValueError:  # a class without a readable signature
            pass
        given = given()
    elif inspect.isroutine(given):
        raise TaskDefinitionError(
            f"@q.middleware: {given!r} is a function: use @q.middleware.run or @q.middleware.enqueue"
        )
    forms = {name: getattr(given, name, MISSING) for name in _FORMS}
    if not any(map(callable, forms.values())):
        raise TaskDefinitionError(f"{label} has none of the methods {', '.join(_FORMS)}: write one")
    for name, form in forms.items():
        if callable(form):
            _check_form(label, name, form)
        elif form is not None and form is not MISSING:
            raise TaskDefinitionError(f"{label}: {name} is {form!r}: expected a method, or None")
    for name, other in (("enqueue", "enqueue_async"), ("enqueue_async", "enqueue")):
        if callable(forms[name]) and forms[other] is MISSING:
            raise TaskDefinitionError(
                f"{label} has {name} and no {other}, so some enqueues would pass it by: write {other} as well, or say "
                f"{other} = None to let them"
            )
    return MiddlewareLayer(label=label, source=source, tasks=tasks, place=place, **forms)


def _layer_of_function(what: str, function: Any, tasks: frozenset[str] | None, place: Place) -> MiddlewareLayer:
    label = f"middleware {getattr(function, '__qualname__', function)}"
    if not callable(function) or isinstance(function, type):
        raise TaskDefinitionError(f"@q.middleware.{what}: {function!r} is no function: decorate a `def` or `async def`")
    name = f"{what}_async" if callables.is_coroutine_function(function) else what
    _check_form(label, name, function)
    return MiddlewareLayer(label=label, source=function, tasks=tasks, place=place, **{name: function})


def _check_form(label: str, name: str, form: Callable[..., Any]) -> None:
    is_async = callables.is_coroutine_function(form)
    if inspect.isgeneratorfunction(form) or inspect.isasyncgenfunction(form):
        raise TaskDefinitionError(f"{label}: {name} is a generator: call call_next, and return what it returns")
    if is_async is not name.endswith("_async"):
        twin = name.removesuffix("_async") if name.endswith("_async") else f"{name}_async"
        kind, other = ("an `async def`", "a `def`") if is_async else ("a `def`", "an `async def`")
        raise TaskDefinitionError(f"{label}: {name} is {kind}: call it {twin}, or make it {other}")
    first = "jobs" if name.startswith("enqueue") else "batch" if name.startswith("run_batch") else "job"
    try:
        inspect.signature(form).bind(None, None)
    except TypeError as error:
        raise TaskDefinitionError(f"{label}: {name} is called with ({first}, call_next): {error}") from None
    except ValueError:  # a callable without a readable signature
        return
