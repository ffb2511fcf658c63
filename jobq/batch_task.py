"""Batch tasks: functions that run many jobs in one call.

A job of a batch task is an ordinary job with one item. Nothing in the database says which jobs run
together: a runner decides it at the call, so retries, cancels, keys, limits and expiry are those of
any job.

The outcome of a job is what the function returns in its place: an exception there is that job's
failure, as in ``asyncio.gather(return_exceptions=True)``. A function without results names the
failed jobs with ``current_batch().fail``, which is shorter than a list if most succeed (the same
choice as ``batchItemFailures`` of AWS Lambda). An exception of the call is a failure of every job.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Protocol, TypeVar, cast, overload

from jobq._core import callables
from jobq._core.arguments import Arguments
from jobq._core.durations import to_seconds
from jobq._core.hints import UNIONS
from jobq._core.injection import is_injected
from jobq.batch import MAX_LINGER, MAX_SIZE
from jobq.errors import BatchResultError, TaskDefinitionError
from jobq.task import BaseTask

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_LINGER = 0.05


class BatchDecorator(Protocol):
    """Turns a function of a list into a batch task whose item and result types checkers know."""

    @overload
    def __call__(self, function: Callable[[list[T]], Coroutine[Any, Any, None]], /) -> AsyncBatchTask[T, None]: ...

    @overload
    def __call__(
        self, function: Callable[[list[T]], Coroutine[Any, Any, list[R | Exception]]], /
    ) -> AsyncBatchTask[T, R]: ...

    @overload
    def __call__(self, function: Callable[[list[T]], Coroutine[Any, Any, list[R]]], /) -> AsyncBatchTask[T, R]: ...

    @overload
    def __call__(self, function: Callable[[list[T]], None], /) -> BatchTask[T, None]: ...

    @overload
    def __call__(self, function: Callable[[list[T]], list[R | Exception]], /) -> BatchTask[T, R]: ...

    @overload
    def __call__(self, function: Callable[[list[T]], list[R]], /) -> BatchTask[T, R]: ...


class BatchArguments(Arguments):
    """The conversion of one item and of its result: a job has one of each.

    The function has one parameter annotated ``list[T]``, besides resources, and returns None or a
    list. Raises TaskDefinitionError if it differs.
    """

    def __init__(self, task: str, function: Callable[..., Any], local_names: Any = None) -> None:
        whole = callables.signature(task, function)
        taken = [parameter for parameter in whole.parameters.values() if not is_injected(parameter)]
        if len(taken) != 1 or taken[0].default is not whole.empty:
            raise TaskDefinitionError(
                f"{task}: a batch task has one parameter without a default, annotated list[…], besides resources; "
                f"it takes {whole}"
            )
        super().__init__(task, function, local_names)

    @property
    def item(self) -> str:
        """The name of the parameter that takes the items; a job stores its item under it."""
        return self.names[0]

    def _resolve(self, name: str, annotation: Any) -> Any:
        found = super()._resolve(name, annotation)
        if name == "return":
            return self._result(found)
        if name not in self._signature.parameters:
            return found
        if not (item := _item_type(found)):
            raise TaskDefinitionError(
                f"{self._task}: {name} takes the items of a batch and is no list[…]: write {name}: list[T] for items of type T"
            )
        return item[0]

    def _result(self, hint: Any) -> Any:
        if hint is Any or hint is None or hint is types.NoneType:
            return hint
        if not (item := _item_type(hint)):
            raise TaskDefinitionError(
                f"{self._task}: a batch task returns {hint!r}: expected None, or list[…] with one result for each job"
            )
        [kind] = item
        kinds = typing.get_args(kind) if typing.get_origin(kind) in UNIONS else (kind,)
        # An exception in the list is a failure, and never stored.
        values = tuple(part for part in kinds if not _is_exception(part))
        if len(values) == len(kinds):
            return kind
        return typing.Union[values] if values else types.NoneType  # noqa: UP007  # of a tuple


class AnyBatchTask(BaseTask[[T], R]):
    """A batch task of either kind. Made by ``@q.task(batch=…)``."""

    _arguments: ClassVar[type[Arguments]] = BatchArguments

    def __init__(
        self, app: Any, function: Callable[..., Any], *, batch: int, linger: float | timedelta | None, **options: Any
    ) -> None:
        super().__init__(app, function, **options)
        if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= MAX_SIZE:
            raise TaskDefinitionError(f"{self.name}: batch={batch!r}: expected a number of jobs from 1 to {MAX_SIZE:,}")
        seconds = DEFAULT_LINGER if linger is None else to_seconds(linger)
        if seconds is None or not 0 <= seconds <= MAX_LINGER:
            raise TaskDefinitionError(
                f"{self.name}: linger={linger!r}: expected seconds from 0 to {MAX_LINGER:g}, or a timedelta"
            )
        self.batch = batch
        self.linger = seconds
        if self.transactional:
            raise TaskDefinitionError(
                f"{self.name}: batch=… and transactional=True: a transaction commits with the success of one job, and a "
                "batch has many; remove one of them"
            )
        if self.durable:
            raise TaskDefinitionError(
                f"{self.name}: batch=… and durable=True: the steps of a durable task belong to one job, and a batch has many; "
                "remove one of them"
            )
        if self.isolation == "process":
            raise TaskDefinitionError(
                f"{self.name}: batch=… and isolation='process': such a process runs one job at a time; remove one of them"
            )
        if self.may_return_coroutine:
            raise TaskDefinitionError(
                f"{self.name}: a `def` around an `async def` cannot be a batch task: make the wrapper an `async def`"
            )

    @property
    def item(self) -> str:
        """The name of the parameter that takes the items."""
        return cast("BatchArguments", self.arguments).item

    def outcomes(self, value: object, size: int) -> Sequence[object]:
        """Return the result of each job, or its exception, given what the function has returned.

        Raises BatchResultError if that is neither None nor a list with one entry for each job.
        """
        if value is None:
            return [None] * size
        if not isinstance(value, (list, tuple)):
            raise BatchResultError(
                f"{self.name} was called with {size} jobs and returned {type(value).__name__}: return None, or a list"
            )
        if len(value) != size:
            raise BatchResultError(
                f"{self.name} was called with {size} jobs and returned {len(value)} results: return one for each job, in "
                "their order"
            )
        return value


class BatchTask(AnyBatchTask[T, R]):
    """A batch task whose function is a ``def``. Its jobs are enqueued one item at a time."""

    def __call__(self, items: list[T], /, **resources: Any) -> Sequence[R | BaseException] | None:
        """Call the function itself with a list. There are no jobs and no database."""
        return cast("Sequence[R | BaseException] | None", self.function(items, **resources))


class AsyncBatchTask(AnyBatchTask[T, R]):
    """A batch task whose function is an ``async def``. It runs on an event loop."""

    _async: ClassVar[bool] = True

    def __call__(self, items: list[T], /, **resources: Any) -> Coroutine[Any, Any, Sequence[R | BaseException] | None]:
        """Call the function itself with a list and return its coroutine. There are no jobs and no database."""
        return cast("Coroutine[Any, Any, Sequence[R | BaseException] | None]", self.function(items, **resources))


def batch_task_class(function: Callable[..., Any]) -> type[BatchTask[Any, Any]] | type[AsyncBatchTask[Any, Any]]:
    """Return the class of batch task for `function`."""
    return AsyncBatchTask if callables.is_coroutine_function(function) else BatchTask


def _item_type(hint: Any) -> tuple[Any, ...]:
    """Return the T of ``list[T]`` in a tuple, or an empty tuple if `hint` is something else.

    That includes ``typing.List`` without brackets, whose origin is list, too.
    """
    return typing.get_args(hint) if typing.get_origin(hint) is list else ()


def _is_exception(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseException)
