"""What dispatcher and runner say to each other: length-prefixed msgpack over a socket pair.

Both ends are the same version of jobq on one machine, started together, so the format needs no compatibility. Arguments
and results pass as bytes that the dispatcher never parses.
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
# What several jobs or outcomes may add up to in one frame; one alone may be larger.
BATCH_BYTES = 8 * 1024 * 1024


class Job(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A claimed job. (id, claims, started) names this one execution.

    `claims` never returns to an earlier value, unless a failover loses the last commits of the former primary: the new one
    then issues the same id and the same count again. It cannot issue the moment of the claim again.
    """

    id: int
    claims: int
    task: str
    queue: str
    args: bytes
    attempt: int
    max_attempts: int
    crashes: int
    """Runners that it has taken down; workers that died holding it are not counted."""
    timeout: float | None
    headers: bytes
    started: int = 0
    """When it was claimed: `job.started_at` in microseconds since 1970, part of the fence of every write."""
    run_alone: bool = False
    """Whether it has cost a runner its life: it gets a runner of its own."""
    releases: int = 0
    """How often its runner ended under it for another job's sake, or without a word."""


class Ending(IntEnum):
    """How an execution ended other than with a result, and what happens to its job."""

    RETRY = 1
    """It raised: run again after `delay`."""
    FAIL = 2
    """It raised and may not run again: a dead letter."""
    CANCEL = 3
    """The task or an operator cancelled it."""
    SNOOZE = 4
    """The task asked to run again after `delay`; the attempt is given back."""
    RELEASE = 5
    """It did not run, or was stopped through no fault of its own; the attempt is given back."""
    CRASH = 6
    """It took its runner down; counted apart from errors."""
    EXPIRE = 7
    """Its `expires_at` had passed before it could start."""
    PARK = 8
    """This worker's code cannot run it, and another's may: it waits for that one; the attempt is given back."""
    SUCCEED = 9
    """It returned, and its result cannot be stored: it succeeded without one, and `message` says why."""


class Success(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The job returned; `result` is JSON. (id, claims, started) are the claimed job's, as in all outcomes."""

    id: int
    claims: int
    started: int
    result: bytes
    seconds: float


class Setback(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The job did not succeed, or without a result. `recorded`: leave a row in job_attempt, with this outcome name."""

    id: int
    claims: int
    started: int
    ending: Ending
    delay: float = 0.0
    seconds: float | None = None
    recorded: str | None = None
    error_type: str | None = None
    message: str | None = None
    traceback: str | None = None
    run_alone: bool = False
    """Whether it is to run in a runner of its own from now on."""
    releases: int = 0
    """What is added to the count of its releases."""
    refused: str | None = None
    """What of a job that is to be parked does not fit: its ``task``, its ``parameters`` or its ``values``."""
    signature: str | None = None
    """The signature of the task that refused it; None: the task itself is unknown."""
    task: str | None = None
    """The job's task, queue, attempt and most attempts, for the log: set by the dispatcher, where it knows the job."""
    queue: str | None = None
    attempt: int | None = None
    max_attempts: int | None = None


class Recorded(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The execution has ended, and there is nothing left to write. Not `accepted`: the job was no longer ours to write."""

    id: int
    claims: int
    started: int
    accepted: bool
    unstored: str | None = None
    """Why its result was not stored, if it was not."""


class Run(msgspec.Struct, array_like=True, tag=1):
    """To the runner: execute these, in this order, unless the slot table says that their serials are taken back.

    `first`: the first one's serial; the others follow. `worker`: in whose name they are claimed.
    """

    first: int
    worker: UUID
    jobs: list[Job]


class CancelJobs(msgspec.Struct, array_like=True, tag=2):
    """To the runner: an operator wants these stopped, or (`stopping`) the worker shuts down."""

    ids: list[int]
    stopping: bool = False


class TaskFacts(msgspec.Struct, array_like=True, frozen=True):
    """What the dispatcher must know of a task to handle its jobs when no runner can be asked."""

    name: str
    queue: str
    isolated: bool
    """Its jobs run in a process of their own."""
    retries_timeout: bool
    """Whether a job that timed out is tried again."""
    backoff_base: float
    backoff_cap: float
    groups: tuple[str, int | None, str | None] | None = None
    """How the groups of its queue are to run: mode, limit, and what a retry does to the others."""
    signature: str = ""
    """Names its parameters: see `Arguments.fingerprint`."""
    backoff_delays: tuple[float, ...] = ()
    """Instead of base and cap: a list's delays, or what a function said of the first attempts."""
    backoff_jitter: bool | None = None


class ScheduleFacts(msgspec.Struct, array_like=True, frozen=True):
    """A schedule that the application declares, checked. `args` and `headers` are JSON."""

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


class Hello(msgspec.Struct, array_like=True, tag=3):
    """From the runner: the application is imported; these tasks can be run, and these schedules are declared."""

    tasks: list[TaskFacts]
    schedules: list[ScheduleFacts] = []


class Outcomes(msgspec.Struct, array_like=True, tag=4):
    """From the runner: executions that have ended."""

    successes: list[Success]
    setbacks: list[Setback]
    recorded: list[Recorded] = []


class Progress(msgspec.Struct, array_like=True, tag=5):
    """From the runner: what a running job says of itself."""

    id: int
    claims: int
    started: int
    done: int
    total: int | None


class ImportFailed(msgspec.Struct, array_like=True, tag=6):
    """From the runner: the application cannot be imported; the runner exits."""

    message: str
    traceback: str


ToRunner = Run | CancelJobs
FromRunner = Hello | Outcomes | Progress | ImportFailed

_encoder = msgspec.msgpack.Encoder()
_to_runner = msgspec.msgpack.Decoder(ToRunner)
_from_runner = msgspec.msgpack.Decoder(FromRunner)


def head(items: list[T], size: Callable[[T], int], most: int) -> list[T]:
    """Return the first of `items`: at most `most`, and at most BATCH_BYTES by what `size` says of them (or one item)."""
    total = 0
    for number, item in enumerate(items[:most]):
        total += size(item)
        if number and total > BATCH_BYTES:
            return items[:number]
    return items[:most]


def batches(items: list[T], size: Callable[[T], int]) -> list[list[T]]:
    """Return `items` in lists of at most BATCH_BYTES each (or of one item), by what `size` says of them, in order."""
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


def outcome_size(outcome: Success | Setback | Recorded) -> int:
    """Return about how many bytes an outcome takes, in a frame or a statement."""
    if isinstance(outcome, Success):
        return len(outcome.result)
    if isinstance(outcome, Recorded):
        return 0
    return len(outcome.message or "") + len(outcome.traceback or "")


def encode(message: ToRunner | FromRunner) -> bytes:
    """Return the frame of `message`, its length before it."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def length(prefix: bytes) -> int:
    """Return the length of the body that follows `prefix`; raise ValueError for one that no peer of ours sends."""
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
