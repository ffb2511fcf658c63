"""A job after its insert: `JobRef` asks for its state, progress, error and result, and cancels it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from jobq.errors import JobFailed, JobIdUnknown, JobNotFound, ResultError, ResultTimeout
from jobq.jobs import JobState

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_FINISHED = ("succeeded", "failed", "cancelled", "expired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the database says of a job: its state, its result as JSON text, its last error."""

    state: JobState
    result: str | None = None
    error: str | None = None

    @property
    def finished(self) -> bool:
        return self.state in _FINISHED


class JobProgress(NamedTuple):
    """What a running job has said by ``current_job().progress(done, total)``."""

    done: int
    """Steps that are done."""
    total: int | None
    """Steps in all; None: the job did not say."""

    @property
    def fraction(self) -> float | None:
        """`done` of `total`, from 0 to 1; None when there is no total."""
        return None if not self.total else min(self.done / self.total, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """More of what the database says of a job."""

    state: JobState
    attempt: int
    """Attempts begun so far."""
    max_attempts: int
    due_in: float | None
    """Seconds until it may start, by the database's clock; below 0: since when. None: it has finished."""
    progress: JobProgress | None
    error: str | None
    """Type and text of the last attempt's error; of a job that ended without one, why it ended."""

    def describe(self) -> str:
        """Return what an unfinished job is doing, in words: ``it has failed 3 of 10 times, …``."""
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
    """Where a JobRef looks its job up, on a connection of its own. None: there is no such job."""

    @property
    def waiting_helps(self) -> bool:
        """False where nothing else could finish a job meanwhile: in a test without a worker."""

    def look_up(self, job_id: int) -> Found | None: ...

    async def look_up_async(self, job_id: int) -> Found | None: ...

    def report(self, job_id: int) -> JobReport | None: ...

    async def report_async(self, job_id: int) -> JobReport | None: ...

    def cancel_job(self, job_id: int, reason: str | None) -> bool | None: ...

    async def cancel_job_async(self, job_id: int, reason: str | None) -> bool | None: ...


class JobRef(Generic[R_co]):
    """A job that was inserted, that holds the key under which one was to be inserted, or that ``q.ref(id)`` names."""

    __slots__ = ("_decode", "_id", "_source", "created", "key", "replaced")

    created: bool
    """True when this call inserted the job; False when another job holds the key."""
    replaced: bool
    """True when this call gave its arguments to the job that holds the key (``on_conflict="replace"``)."""
    key: str | None
    """The idempotency key, if one was given."""

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
        """The job's id. Raises JobIdUnknown when the transaction's snapshot cannot see the holder of the key."""
        if self._id is None:
            raise JobIdUnknown(
                f"key {self.key!r} is held by a job that this transaction's snapshot cannot see: "
                "enqueue again in a new transaction to get its id"
            )
        return self._id

    def status(self) -> JobState:
        """Return the job's state. Raises JobNotFound, and DatabaseUnavailable.

        It is read on a connection of jobq's own, which sees the job only once your transaction has committed.
        """
        return self._check(self._source.look_up(self.id)).state

    async def status_async(self) -> JobState:
        """Return the job's state, like `status`."""
        return self._check(await self._source.look_up_async(self.id)).state

    def progress(self) -> JobProgress | None:
        """Return how far the running attempt is (``current_job().progress(…)``), as `done` and `total`.

        None: the job has not begun, has said nothing yet, or has finished. It is written about once a second. Raises
        JobNotFound, and DatabaseUnavailable.
        """
        return self._check(self._source.report(self.id)).progress

    async def progress_async(self) -> JobProgress | None:
        """Return how far the running attempt is, like `progress`."""
        return self._check(await self._source.report_async(self.id)).progress

    def error(self) -> str | None:
        """Return the last error, ``ConnectionError: the mail server is away``, also of a job that will be tried again.

        Of a job that was cancelled or expired, why. None: no attempt has failed so far. Raises JobNotFound, and
        DatabaseUnavailable.
        """
        return self._check(self._source.report(self.id)).error

    async def error_async(self) -> str | None:
        """Return the last error, like `error`."""
        return self._check(await self._source.report_async(self.id)).error

    def cancel(self, reason: str | None = None) -> bool:
        """Cancel the job: one that does not run ends as ``cancelled`` at once, a running one is asked to stop.

        True: that was done; False: the job has finished already. `reason` (at most 1,000 characters) stands in the audit,
        which says JOBQ_ACTOR, else user and host, did it. Commits on a connection of jobq's own. Needs the rights of
        ``jobq_operator`` (deploy/roles.sql). Raises JobNotFound, JobBusy, InvalidOption and DatabaseUnavailable.
        """
        return self._check(self._source.cancel_job(self.id, reason))

    async def cancel_async(self, reason: str | None = None) -> bool:
        """Cancel the job, like `cancel`."""
        return self._check(await self._source.cancel_job_async(self.id, reason))

    def result(self, timeout: float | None = None) -> R_co:
        """Wait until the job has finished and return what the task returned.

        Waits at most `timeout` seconds (None: for ever) and holds no connection meanwhile. Raises ResultTimeout
        (the job goes on), JobFailed when it ended any other way than ``succeeded``, ResultError when it succeeded and
        what it returned could not be stored or does not fit the return annotation, and JobNotFound when there is no such
        job: its transaction has not committed, or retention has removed it.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        for pause in _pauses():
            found = self._check(self._source.look_up(self.id))
            if found.finished:
                return self._unpack(found)
            if (left := deadline - time.monotonic()) <= 0 or not self._source.waiting_helps:
                report = None
                with suppress(Exception):
                    report = self._source.report(self.id)
                raise self._late(found, timeout, report)
            time.sleep(min(pause, left))
        raise AssertionError("unreachable")

    async def result_async(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109  # as `result`
        """Wait for the job and return what the task returned, like `result`."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        for pause in _pauses():
            found = self._check(await self._source.look_up_async(self.id))
            if found.finished:
                return self._unpack(found)
            if (left := deadline - time.monotonic()) <= 0 or not self._source.waiting_helps:
                report = None
                with suppress(Exception):
                    report = await self._source.report_async(self.id)
                raise self._late(found, timeout, report)
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

    def _unpack(self, found: Found) -> R_co:
        if found.state != "succeeded":
            raise JobFailed(self.id, found.state, found.error)
        if found.result is None and found.error is not None:
            raise ResultError(f"job {self.id} succeeded, and its result was not stored: {found.error}")
        return self._decode("null" if found.result is None else found.result)

    def _late(self, found: Found, timeout: float | None, report: JobReport | None) -> ResultTimeout:
        # The report only adds words: what went wrong with it (a role without the rights) is left out.
        state, told = found.state, ""
        if report is not None and report.state not in _FINISHED:
            state, told = report.state, f": {report.describe()}"
        after = "" if timeout is None else f" after {timeout:g} s"
        return ResultTimeout(f"job {self.id} is still {state}{after}{told}; it goes on")


def _pauses() -> Iterator[float]:
    """Yield how long to wait between two looks: 10 ms at first, then ever longer, up to half a second."""
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.5, 0.5)
