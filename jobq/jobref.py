"""References to inserted jobs: `JobRef` reads state, progress, error and result, and cancels."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from jobq.errors import JobFailed, JobIdUnknown, JobNotFound, ResultError, ResultTimeout
from jobq.job import FINISHED_STATES, JobState

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """What the database records for a job: its state, its result as JSON text, its last error."""

    state: JobState
    result: str | None = None
    error: str | None = None

    @property
    def finished(self) -> bool:
        return self.state in FINISHED_STATES


class JobProgress(NamedTuple):
    """What a running job last reported with ``current_job().progress(done, total)``."""

    done: int
    """Number of steps done."""
    total: int | None
    """Number of steps in all; None if the job did not report it."""

    @property
    def fraction(self) -> float | None:
        """`done` divided by `total`, from 0 to 1; None without a total."""
        return None if not self.total else min(self.done / self.total, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """Further details that the database records for a job."""

    state: JobState
    attempt: int
    """Number of attempts begun so far."""
    max_attempts: int
    due_in: float | None
    """Seconds until it may start, by the database's clock; negative if it is due.

    None: finished.
    """
    progress: JobProgress | None
    error: str | None
    """Type and text of the last attempt's error. If the job ended without one: why it ended."""

    def describe(self) -> str:
        """Return what an unfinished job does, in words: ``it has failed 3 of 10 times, …``."""
        if self.state == "running":
            doing = f"it runs, attempt {self.attempt} of {self.max_attempts}"
        elif self.due_in is not None and self.due_in > 0:
            again = "is tried again" if self.error is not None else "starts"
            doing = f"it {again} in {self.due_in:.0f} s"
        elif self.state == "ready":
            doing = "it is due and no worker has started it"
        else:
            doing = f"`jobq jobs show` says why it is {self.state}"
        if self.error is None:
            return doing
        failed = self.attempt - (self.state == "running")
        times = f"it has failed {failed} of {self.max_attempts} times; " if failed > 0 else ""
        return f"{times}{doing}; its last error: {self.error[:500]}"


class JobSource(Protocol):
    """Where a JobRef looks up its job, on a connection of its own. None means: no such job."""

    @property
    def waiting_helps(self) -> bool:
        """False if nothing else can finish a job meanwhile, as in a test without a worker."""

    def fetch_status(self, job_id: int) -> JobStatus | None: ...

    async def fetch_status_async(self, job_id: int) -> JobStatus | None: ...

    def report(self, job_id: int) -> JobReport | None: ...

    async def report_async(self, job_id: int) -> JobReport | None: ...

    def cancel_job(self, job_id: int, reason: str | None) -> bool | None: ...

    async def cancel_job_async(self, job_id: int, reason: str | None) -> bool | None: ...


class JobRef(Generic[R_co]):
    """A job that was inserted, that holds the requested key, or that ``q.ref(id)`` names."""

    __slots__ = ("_decode", "_id", "_source", "created", "key", "replaced")

    created: bool
    """True if this call inserted the job; False if another job holds the key."""
    replaced: bool
    """True if this call replaced the arguments of the job that holds the key.

    See ``on_conflict="replace"``.
    """
    key: str | None
    """The idempotency key, or None."""

    def __init__(
        self,
        job_id: int | None,
        *,
        created: bool,
        replaced: bool,
        key: str | None,
        source: JobSource,
        decode: Callable[[str], R_co],
    ) -> None:
        self._id = job_id
        self.created = created
        self.replaced = replaced
        self.key = key
        self._source = source
        self._decode = decode

    @property
    def id(self) -> int:
        """The job's id.

        Raises JobIdUnknown if the transaction's snapshot cannot see the key's holder.
        """
        if self._id is None:
            raise JobIdUnknown(
                f"key {self.key!r} is held by a job that this transaction's snapshot cannot see: "
                "enqueue again in a new transaction to get its id"
            )
        return self._id

    def status(self) -> JobState:
        """Return the job's state.

        It is read on a connection of jobq's own, which sees the job only after your transaction has
        committed. Raises JobNotFound and DatabaseUnavailable.
        """
        return self._check(self._source.fetch_status(self.id)).state

    async def status_async(self) -> JobState:
        """Return the job's state, like `status`."""
        return self._check(await self._source.fetch_status_async(self.id)).state

    def progress(self) -> JobProgress | None:
        """Return the progress of the running attempt (``current_job().progress(…)``).

        It is written about once a second. None: the job has not begun, has reported nothing yet, or
        has finished. Raises JobNotFound and DatabaseUnavailable.
        """
        return self._check(self._source.report(self.id)).progress

    async def progress_async(self) -> JobProgress | None:
        """Return the progress of the running attempt, like `progress`."""
        return self._check(await self._source.report_async(self.id)).progress

    def error(self) -> str | None:
        """Return the last error, for example ``ConnectionError: the mail server is away``.

        A job that will be tried again has one, too. If the job was cancelled or has expired, this
        is the reason. None: no attempt has failed so far. Raises JobNotFound and
        DatabaseUnavailable.
        """
        return self._check(self._source.report(self.id)).error

    async def error_async(self) -> str | None:
        """Return the last error, like `error`."""
        return self._check(await self._source.report_async(self.id)).error

    def cancel(self, reason: str | None = None) -> bool:
        """Cancel the job.

        If the job does not run, it ends as ``cancelled`` at once. If it runs, it is asked to stop.
        The change commits on a connection of jobq's own. It needs the rights of ``jobq_operator``
        (deploy/roles.sql). The audit log names JOBQ_ACTOR, else the user and host, as the actor.

        Args:
            reason: text for the audit log, at most 1,000 characters.

        Returns:
            True if that was done; False if the job had finished already.

        Raises:
            JobNotFound: there is no such job.
            JobBusy: a worker or an operator had the job locked for seconds.
            InvalidOption: `reason` is unusable.
            DatabaseUnavailable: the database cannot be reached.
        """
        return self._check(self._source.cancel_job(self.id, reason))

    async def cancel_async(self, reason: str | None = None) -> bool:
        """Cancel the job, like `cancel`."""
        return self._check(await self._source.cancel_job_async(self.id, reason))

    def result(self, timeout: float | None = None) -> R_co:
        """Wait until the job has finished, and return what the task returned.

        No connection is held while waiting.

        Args:
            timeout: most seconds to wait; None (default): no limit.

        Raises:
            ResultTimeout: the job did not finish in time; it continues.
            JobFailed: the job ended in another state than ``succeeded``.
            ResultError: the job succeeded, but its result could not be stored or does not fit the
                return annotation.
            JobNotFound: there is no such job: its transaction has not committed, or retention has
                removed it.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        for pause in _pauses():
            found = self._check(self._source.fetch_status(self.id))
            if found.finished:
                return self._result_or_raise(found)
            if (left := deadline - time.monotonic()) <= 0 or not self._source.waiting_helps:
                report = None
                with suppress(Exception):
                    report = self._source.report(self.id)
                raise self._timeout_error(found, timeout, report)
            time.sleep(min(pause, left))
        raise AssertionError("unreachable")

    async def result_async(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109  # as `result`
        """Wait for the job and return what the task returned, like `result`."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        for pause in _pauses():
            found = self._check(await self._source.fetch_status_async(self.id))
            if found.finished:
                return self._result_or_raise(found)
            if (left := deadline - time.monotonic()) <= 0 or not self._source.waiting_helps:
                report = None
                with suppress(Exception):
                    report = await self._source.report_async(self.id)
                raise self._timeout_error(found, timeout, report)
            await asyncio.sleep(min(pause, left))
        raise AssertionError("unreachable")

    def __repr__(self) -> str:
        key = "" if self.key is None else f", key={self.key!r}"
        return f"JobRef(id={self._id}, created={self.created}{key})"

    def _check(self, found: T | None) -> T:
        if found is None:
            raise JobNotFound(
                f"job {self.id} is neither live nor in history: its transaction has not committed or was rolled "
                "back, or retention has removed it"
            )
        return found

    def _result_or_raise(self, found: JobStatus) -> R_co:
        if found.state != "succeeded":
            raise JobFailed(self.id, found.state, found.error)
        if found.result is None and found.error is not None:
            raise ResultError(f"job {self.id} succeeded, and its result was not stored: {found.error}")
        return self._decode("null" if found.result is None else found.result)

    def _timeout_error(self, found: JobStatus, timeout: float | None, report: JobReport | None) -> ResultTimeout:
        # The report only adds details. An error while reading it (a role without rights) is
        # ignored.
        state, told = found.state, ""
        if report is not None and report.state not in FINISHED_STATES:
            state, told = report.state, f": {report.describe()}"
        after = "" if timeout is None else f" after {timeout:g} s"
        return ResultTimeout(f"job {self.id} is still {state}{after}{told}; it goes on")


def _pauses() -> Iterator[float]:
    """Yield the waits between polls: 10 ms at first, then longer, up to half a second."""
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.5, 0.5)
