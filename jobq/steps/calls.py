"""What the methods of `step` check about their calls, before a step is taken."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from jobq._core import callables
from jobq._core.text import brief
from jobq.errors import InvalidOption, NotDurable
from jobq.job import NewJob
from jobq.jobref import JobRef

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])


class Invocable(Protocol[P, R_co]):
    """A task, or a task with options: what ``step.invoke`` takes."""

    def job(self, /, *args: P.args, **kwargs: P.kwargs) -> NewJob: ...

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> JobRef[R_co]: ...


def child_job(method: str, target: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewJob:
    """Return the job of a call of ``step.invoke``. Raises InvalidOption and InvalidArguments."""
    if isinstance(target, NewJob):
        if args or kwargs:
            raise InvalidOption(
                f"step.{method}: the job of task {target.task!r} has its arguments: pass none beside it, "
                "or pass the task itself"
            )
        return target
    make = getattr(target, "job", None)
    made = make(*args, **kwargs) if callable(make) else None
    if not isinstance(made, NewJob):
        raise InvalidOption(
            f"step.{method}({brief(target)}): expected a task with its arguments, step.{method}(task, …), or a job, task.job(…)"
        )
    return made


def check_called(function: Callable[..., Any]) -> None:
    """Raise NotDurable for a coroutine function in ``step.run``, whose coroutine would not be awaited."""
    # A task that is an `async def` is an object whose call returns a coroutine.
    if callables.is_coroutine_function(function) or callables.is_coroutine_function(
        getattr(function, "function", function)
    ):
        raise NotDurable(
            f"step.run({brief(function)}): it is an `async def`: use `await step.run_async(…)` in an async task"
        )


def not_awaited(result: object) -> object:
    """Return the result of a function that ``step.run`` has called. Raises NotDurable for a coroutine."""
    if inspect.iscoroutine(result):
        result.close()
        raise NotDurable(
            f"step.run: the function has returned the coroutine {result.__qualname__!r}: "
            "use `await step.run_async(…)` in an async task"
        )
    return result


def check_branch(branch: object) -> Callable[[], Any]:
    """Return a branch of ``step.gather``. Raises InvalidOption unless it can be called."""
    if not callable(branch):
        raise InvalidOption(
            f"step.gather: {brief(branch)}: expected functions to be called, such as lambda: step.run(…)"
        )
    return cast("Callable[[], Any]", branch)


def check_branches(branches: tuple[object, ...]) -> None:
    """Raise InvalidOption unless all branches of ``step.gather_async`` can be awaited."""
    wrong = [each for each in branches if not isinstance(each, Awaitable)]
    if not wrong:
        return
    for each in branches:
        if inspect.iscoroutine(each):
            each.close()
    raise InvalidOption(
        f"step.gather_async: {brief(wrong[0])}: expected awaitables, such as step.run_async(…), "
        "without `await` and without lambda"
    )


def checked_at_call(check: Callable[[str], object]) -> Callable[[F], F]:
    """Return a decorator of async methods: `check`, given the method's name, is called at the call.

    In a `def` task the coroutine would never be awaited, so that the check in it would never be made.
    """

    def decorate(method: F) -> F:
        @functools.wraps(method)
        def call(self: object, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            check(method.__name__)
            return cast("Coroutine[Any, Any, Any]", method(self, *args, **kwargs))

        return cast(F, call)

    return decorate
