"""The running batch, as its task sees it: many jobs of one task in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import overload

from jobq.context import CurrentJob, set_current_job
from jobq.errors import InvalidOption, NoCurrentJob

MAX_SIZE = 10_000
"""Most jobs in one call of a batch task."""
MAX_LINGER = 10.0
"""Most seconds that a job may wait for others to fill its batch."""


class BatchJobs(Sequence[CurrentJob]):
    """The jobs of a batch. Each is made when it is first asked for: most tasks ask for none."""

    def __init__(self, size: int, make: Callable[[int], CurrentJob]) -> None:
        self._made: list[CurrentJob | None] = [None] * size
        self._make = make

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, place: int) -> CurrentJob: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[CurrentJob]: ...

    def __getitem__(self, place: int | slice) -> CurrentJob | Sequence[CurrentJob]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if (job := self._made[place]) is None:
            job = self._made[place] = self._make(place % len(self))
        return job

    def __iter__(self) -> Iterator[CurrentJob]:
        return (self[place] for place in range(len(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentBatch:
    """The jobs of one call of a batch task."""

    task: str
    jobs: Sequence[CurrentJob] = field(repr=False)
    """The jobs, in the order of the items that the function was called with.

    Each has its id, attempt and headers, and says whether it is `cancelled`.
    """
    deadline: datetime | None = None
    """When the timeout of the call expires; None without a timeout."""
    _failures: dict[int, BaseException] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def cancelled(self) -> bool:
        """Whether every job of the batch is to be cancelled, or the worker stops."""
        return all(job.cancelled for job in self.jobs)

    @property
    def failures(self) -> Mapping[int, BaseException]:
        """What `fail` was called with, by place."""
        return MappingProxyType(self._failures)

    def fail(self, place: int, error: BaseException) -> None:
        """Say that the job at `place` failed with `error`; the other jobs of the batch are not affected.

        ``Retry``, ``Snooze``, ``Cancel`` and ``Fail`` do for that job what they do when a task
        raises them. What the function returns for this job is ignored. A later call for the same
        place replaces the error. If the function itself raises an exception, that exception is the
        outcome of every job, except of the jobs named here::

            @q.task(batch=500)
            def index(documents: list[Document]) -> None:
                for place, reason in search.bulk(documents):
                    current_batch().fail(place, IndexFault(reason))

        Args:
            place: index of the job's item in the list that the function was called with.
            error: an exception; it need not have been raised.

        Raises:
            InvalidOption: there is no such place, or `error` is no exception.
        """
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(self.jobs):
            raise InvalidOption(f"fail(place={place!r}): expected a place in the batch, from 0 to {len(self.jobs) - 1}")
        if not isinstance(error, BaseException):
            raise InvalidOption(f"fail(error={error!r}): expected an exception, such as ValueError('no title')")
        self._failures[place] = error


_current: ContextVar[CurrentBatch] = ContextVar("jobq_current_batch")


def current_batch() -> CurrentBatch:
    """Return the running batch. Raises NoCurrentJob unless a worker runs the calling batch task."""
    try:
        return _current.get()
    except LookupError:
        raise NoCurrentJob(
            "no batch is being run here: current_batch() is for tasks with batch=… that a worker runs"
        ) from None


def set_current_batch(batch: CurrentBatch) -> None:
    """Let `current_batch` return `batch` in this context, which the caller has created for it alone."""
    _current.set(batch)
    set_current_job(_no_single_job)


def _no_single_job() -> CurrentJob:
    raise NoCurrentJob("this task runs batches, so there is no single job: use current_batch().jobs")
