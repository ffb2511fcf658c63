"""Messages between dispatcher and runner: length-prefixed msgpack over a socket pair.

Both ends run the same version of jobq on one machine and are started together, so the format needs
no compatibility. Arguments and results pass as bytes that the dispatcher never parses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum
from typing import TypeVar
from uuid import UUID

import msgspec

T = TypeVar("T")

_LENGTH = struct.Struct("!I")
LENGTH_SIZE = _LENGTH.size
MAX_FRAME_BYTES = 256 * 1024 * 1024
# Limit for the total size of several jobs or outcomes in one frame. A single one may be larger.
BATCH_BYTES = 8 * 1024 * 1024


class Job(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A claimed job. (id, claims, started) identifies this one execution.

    `claims` never returns to an earlier value, with one exception: if a failover loses the last
    commits of the former primary, the new primary issues the same id and the same count again. It
    cannot issue the same moment of the claim again.
    """

    id: int
    claims: int
    task: str
    queue: str
    args: bytes
    attempt: int
    max_attempts: int
    crashes: int
    """Number of runners that the job has ended.

    Workers that died while they held the job are not counted.
    """
    timeout: float | None
    headers: bytes
    started: int = 0
    """When the job was claimed: `job.started_at` in microseconds since 1970.

    It is part of the fence of every write.
    """
    run_alone: bool = False
    """Whether the job has ended a runner and therefore gets a runner of its own."""
    releases: int = 0
    """How often its runner ended because of another job, or without reporting the outcome."""


class Disposition(IntEnum):
    """How an execution ended without a stored result, and what happens to its job."""

    RETRY = 1
    """The task raised an error: run the job again after `delay`."""
    FAIL = 2
    """The task raised an error and may not run again: a dead letter."""
    CANCEL = 3
    """The task or an operator cancelled it."""
    SNOOZE = 4
    """The task asked to run again after `delay`; the attempt is not counted."""
    RELEASE = 5
    """The job did not run, or was stopped through no fault of its own; the attempt is not counted."""
    CRASH = 6
    """The job ended its runner; counted separately from errors."""
    EXPIRE = 7
    """Its `expires_at` had passed before it could start."""
    PARK = 8
    """This worker's code cannot run the job, but another worker's code may.

    The job waits for that worker; the attempt is not counted.
    """
    SUCCEED = 9
    """The task returned, but its result cannot be stored.

    The job succeeded without a result, and `message` says why.
    """


class Success(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The task returned; `result` is JSON.

    (id, claims, started) are those of the claimed job, as in all outcomes.
    """

    id: int
    claims: int
    started: int
    result: bytes
    seconds: float


class Failure(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The job did not succeed, or succeeded without a result.

    If `recorded` is set, a row with this outcome name is added to job_attempt.
    """

    id: int
    claims: int
    started: int
    ending: Disposition
    delay: float = 0.0
    seconds: float | None = None
    recorded: str | None = None
    error_type: str | None = None
    message: str | None = None
    traceback: str | None = None
    log: str | None = None
    """The newest of what the execution has logged, if it is recorded."""
    run_alone: bool = False
    """Whether the job runs in a runner of its own from now on."""
    releases: int = 0
    """Number to add to the count of its releases."""
    waits: bool = False
    """Whether a signal or the end of a child makes the job due: see `jobq.steps.suspension`."""
    refused: str | None = None
    """Why a job to be parked does not fit: its ``task``, its ``parameters`` or its ``values``."""
    signature: str | None = None
    """Signature of the task that refused the job; None if the task is unknown."""
    task: str | None = None
    """Task, queue, attempt and maximum attempts of the job, for the log.

    The dispatcher sets them if it knows the job.
    """
    queue: str | None = None
    attempt: int | None = None
    max_attempts: int | None = None


class AlreadyCommitted(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The execution has ended, and there is nothing left to write.

    If not `accepted`, the job no longer belonged to this worker.
    """

    id: int
    claims: int
    started: int
    accepted: bool
    unstored: str | None = None
    """Why the result was not stored; None if it was."""


class Run(msgspec.Struct, array_like=True, tag=1):
    """To the runner: execute these jobs in this order.

    A job is skipped if the slot table says that its serial is taken back. `first` is the serial of
    the first job; the others follow. `worker` is the worker in whose name the jobs are claimed.
    """

    first: int
    worker: UUID
    jobs: list[Job]
    marks: list[int] = []
    """Mark of each job in the slot table; 0 for a job that runs alone.

    Empty if that is true for all of them.
    """


class CancelJobs(msgspec.Struct, array_like=True, tag=2):
    """To the runner: stop these jobs.

    An operator wants it, or (`stopping`) the worker shuts down.
    """

    ids: list[int]
    stopping: bool = False


class Draining(msgspec.Struct, array_like=True, tag=3):
    """To the runner: the worker begins to shut down. Running jobs go on; iterations end at their next item."""


class TaskInfo(msgspec.Struct, array_like=True, frozen=True):
    """The facts about a task that the dispatcher needs when no runner can be asked."""

    name: str
    queue: str
    isolated: bool
    """Whether its jobs run in a process of their own."""
    retries_timeout: bool
    """Whether a job that timed out is tried again."""
    backoff_base: float
    backoff_cap: float
    groups: tuple[str, int | None, str | None] | None = None
    """Group rules of its queue: mode, limit, and the effect of a retry on the other jobs."""
    signature: str = ""
    """Identifies its parameters: see `Arguments.fingerprint`."""
    backoff_delays: tuple[float, ...] = ()
    """Delays of a list, or a function's delays for the first attempts; replaces base and cap."""
    backoff_jitter: bool | None = None
    batch: int = 0
    """Most jobs in one call of a batch task; 0 for any other task."""
    linger: float = 0.0
    """Most seconds that a job of a batch task waits in a runner for others."""


class ScheduleInfo(msgspec.Struct, array_like=True, frozen=True):
    """A validated schedule that the application declares. `args` and `headers` are JSON."""

    name: str
    task: str
    cron: str | None
    every: timedelta | None
    timezone: str
    args: str
    queue: str
    priority: int
    max_attempts: int
    timeout: float | None
    headers: str
    missed: str
    max_missed: int
    tick_argument: str | None
    group_key: str | None = None
    key: str | None = None
    expires_in: float | None = None


class RunnerReady(msgspec.Struct, array_like=True, tag=3):
    """From the runner: the application is imported, has these tasks, and declares these schedules."""

    tasks: list[TaskInfo]
    schedules: list[ScheduleInfo] = []


class Outcomes(msgspec.Struct, array_like=True, tag=4):
    """From the runner: executions that have ended."""

    successes: list[Success]
    setbacks: list[Failure]
    recorded: list[AlreadyCommitted] = []


class Progress(msgspec.Struct, array_like=True, tag=5):
    """From the runner: the progress that a running job reports."""

    id: int
    claims: int
    started: int
    done: int
    total: int | None


class ImportFailed(msgspec.Struct, array_like=True, tag=6):
    """From the runner: the application cannot be imported; the runner exits."""

    message: str
    traceback: str


class StartFailed(msgspec.Struct, array_like=True, tag=7):
    """From the runner: its start failed; the runner exits.

    A start function or a resource of the application has raised an error.
    """

    message: str
    traceback: str


class WorkerStarted(msgspec.Struct, array_like=True, tag=8):
    """From the first runner: it has called the application's functions for the start of the worker."""


ToRunner = Run | CancelJobs | Draining
FromRunner = RunnerReady | Outcomes | Progress | ImportFailed | StartFailed | WorkerStarted

_encoder = msgspec.msgpack.Encoder()
_to_runner = msgspec.msgpack.Decoder(ToRunner)
_from_runner = msgspec.msgpack.Decoder(FromRunner)


def head(items: list[T], size: Callable[[T], int], most: int) -> list[T]:
    """Return the first items: at most `most`, and at most BATCH_BYTES in total size (or one item).

    Args:
        items: The items, in order.
        size: Returns the size of an item in bytes.
        most: Maximum number of items.
    """
    total = 0
    for number, item in enumerate(items[:most]):
        total += size(item)
        if number and total > BATCH_BYTES:
            return items[:number]
    return items[:most]


def batches(items: list[T], size: Callable[[T], int]) -> list[list[T]]:
    """Return `items`, in order, as lists of at most BATCH_BYTES each (or of one item).

    `size` returns the size of an item in bytes.
    """
    sizes = list(map(size, items))
    if sum(sizes) <= BATCH_BYTES:
        return [items] if items else []
    found: list[list[T]] = []
    total = 0
    for item, bytes_ in zip(items, sizes, strict=True):
        if not found or total + bytes_ > BATCH_BYTES:
            found.append([])
            total = 0
        found[-1].append(item)
        total += bytes_
    return found


def outcome_size(outcome: Success | Failure | AlreadyCommitted) -> int:
    """Return the approximate size of an outcome in bytes, in a frame or a statement."""
    if isinstance(outcome, Success):
        return len(outcome.result)
    if isinstance(outcome, AlreadyCommitted):
        return 0
    return len(outcome.message or "") + len(outcome.traceback or "") + len(outcome.log or "")


def encode(message: ToRunner | FromRunner) -> bytes:
    """Return the frame of `message`: its length, then its body."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def length(prefix: bytes) -> int:
    """Return the length of the body that follows `prefix`.

    Raises ValueError for a length that no valid peer sends.
    """
    (size,) = _LENGTH.unpack(prefix)
    if size > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {size} bytes: the stream is corrupt")
    return int(size)


def decode_to_runner(body: bytes) -> ToRunner:
    """Return the message in a body that the dispatcher sent."""
    message: ToRunner = _to_runner.decode(body)
    return message


def decode_from_runner(body: bytes | memoryview) -> FromRunner:
    """Return the message in a body that a runner sent."""
    message: FromRunner = _from_runner.decode(body)
    return message
