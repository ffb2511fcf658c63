"""A job before it is inserted (`JobOptions`, `NewJob`) and after (`JobRef`); `jobq.current` is about one that runs."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

from jobq import bounds, jsontext
from jobq.errors import InvalidArguments, InvalidOption, JobFailed, JobIdUnknown, JobNotFound, ResultTimeout

R_co = TypeVar("R_co", covariant=True)

KeyHolds = Literal["period", "until_finished", "until_started"]
KeyScope = Literal["task", "global"]
OnConflict = Literal["return", "replace", "raise"]
JobState = Literal["ready", "running", "parked", "waiting", "succeeded", "failed", "cancelled", "expired"]

DEFAULT_KEY_PERIOD = timedelta(days=7)
_DEFAULT_KEY_SECONDS = DEFAULT_KEY_PERIOD.total_seconds()
_KEY_HOLDS = get_args(KeyHolds)
_KEY_SCOPES = get_args(KeyScope)
_ON_CONFLICT = get_args(OnConflict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """All of a job that has not been inserted yet, but for its arguments. Jobs that were made alike share one.

    Raises InvalidOption for a value that cannot be stored.
    """

    task: str
    """Name of the task."""
    queue: str = "default"
    """Queue to wait in: 1 to 100 characters."""
    priority: int = 5
    """0 to 9; 9 runs first."""
    run_at: datetime | None = None
    """Earliest start, with a time zone. None: as soon as the transaction commits."""
    delay: float | None = None
    """Seconds to wait before the start, by the database's clock, counted from the insert. Excludes `run_at`."""
    max_attempts: int = 10
    """How often to try, the first time included."""
    timeout: float | None = None
    """Seconds that one attempt may take. None: as long as it likes."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    """A JSON object that travels with the job beside its arguments: trace context, tags."""
    key: str | None = None
    """Idempotency key: while it is held, no other job of its scope is inserted with it. 1 to 500 characters."""
    key_scope: KeyScope = "task"
    """Among which jobs the key is one: those of this task, or all with ``key_scope="global"``."""
    key_holds: KeyHolds = "period"
    """How long the key is held: for `key_period`, until the job has finished, or until it has started."""
    key_period: float = _DEFAULT_KEY_SECONDS
    """Seconds for which a key with ``key_holds="period"`` is held, counted from the insert."""
    on_conflict: OnConflict = "return"
    """When the key is held: return its job; give its job these arguments, headers, time and expiry; or raise KeyConflict."""
    group: str | None = None
    """Group within the queue: 1 to 200 characters. How groups run is the queue's matter: in order, with a limit, in turns."""
    expires_in: float | None = None
    """Seconds from the insert after which the job, if it has not started, ends as expired. None: it waits."""
    columns: Mapping[str, str | None] = field(init=False, repr=False, compare=False)
    """The options of every job as the parameters of a statement: text, so that a driver has no types to choose."""

    def __post_init__(self) -> None:
        queue, task = bounds.text("queue", self.queue, 100), bounds.text("task", self.task, 200)
        bounds.whole("priority", self.priority, 0, 9)
        bounds.whole("max_attempts", self.max_attempts, 1, 2**31 - 1)
        run_at = None if self.run_at is None else bounds.moment("run_at", self.run_at)
        if run_at is not None and self.delay is not None:
            raise InvalidOption("run_at and delay are both given: give one of them")
        if self.delay is not None:
            bounds.duration("delay", self.delay, "give a number of seconds between 0 and 100 years", zero=True)
        if self.timeout is not None:
            bounds.duration(
                "timeout", self.timeout, "give a number of seconds above 0, at most 100 years, or None for no limit"
            )
        if self.key_scope not in _KEY_SCOPES:
            raise InvalidOption(f"key_scope={bounds.brief(self.key_scope)}: give one of {', '.join(_KEY_SCOPES)}")
        if self.key is not None:
            bounds.key(self.key, task if self.key_scope == "task" else "")
        if self.key_holds not in _KEY_HOLDS:
            raise InvalidOption(f"key_holds={bounds.brief(self.key_holds)}: give one of {', '.join(_KEY_HOLDS)}")
        if self.key_period != _DEFAULT_KEY_SECONDS:
            bounds.duration("key_period", self.key_period, "give a number of seconds above 0, at most 100 years")
        if self.on_conflict not in _ON_CONFLICT:
            raise InvalidOption(f"on_conflict={bounds.brief(self.on_conflict)}: give one of {', '.join(_ON_CONFLICT)}")
        group = None if self.group is None else bounds.text("group", self.group, 200)
        if self.expires_in is not None:
            self._check_expiry(self.expires_in, run_at)
        columns = {
            "task": task,
            "queue": queue,
            "priority": str(int(self.priority)),
            "run_at": None if run_at is None else run_at.isoformat(),
            "delay": None if self.delay is None else str(float(self.delay)),
            "max_attempts": str(int(self.max_attempts)),
            "timeout": None if self.timeout is None else str(float(self.timeout)),
            "headers": jsontext.ascii_only(headers_json(self.headers)) if self.headers else "{}",
            "group_key": group,
            "expires_in": None if self.expires_in is None else str(float(self.expires_in)),
        }
        object.__setattr__(self, "columns", columns)

    def _check_expiry(self, expires_in: float, run_at: datetime | None) -> None:
        bounds.duration(
            "expires_in", expires_in, "give a number of seconds above 0, at most 100 years, or None for no expiry"
        )
        if self.delay is not None and self.delay >= expires_in:
            raise InvalidOption(
                f"expires_in={expires_in!r} is no longer than delay={self.delay!r}: the job would expire before it is due"
            )
        if run_at is not None and run_at >= datetime.now(UTC) + timedelta(seconds=expires_in):
            raise InvalidOption(
                f"expires_in={expires_in!r} ends before run_at={self.run_at!r}: the job would expire before it is due"
            )


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that has not been inserted yet. Make it with ``task.job(…)``, which checks the arguments.

    Raises InvalidArguments when `args_json` is not the text of a JSON object.
    """

    options: JobOptions
    """What the job is, but for its arguments."""
    args_json: str = "{}"
    """The arguments by parameter name, as the text of a JSON object."""

    def __post_init__(self) -> None:
        # Texts are joined to one on their way to the server: one that is no JSON would change what its neighbours are.
        try:
            found = json.loads(self.args_json)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArguments(f"args_json={self.args_json!r} is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise InvalidArguments(f"args_json={self.args_json!r}: give a JSON object by parameter name")
        try:
            jsontext.encode(found, "args_json")
        except ValueError as error:
            raise InvalidArguments(str(error)) from None

    @classmethod
    def checked(cls, options: JobOptions, args_json: str) -> NewJob:
        """Return a job with arguments that have been checked and encoded, and are not looked at again."""
        new = object.__new__(cls)
        _set_options(new, options)
        _set_args_json(new, args_json)
        return new


# `object.__setattr__` would look each name up again; a bulk makes 100,000 of these.
_set_options = vars(NewJob)["options"].__set__
_set_args_json = vars(NewJob)["args_json"].__set__


def headers_json(headers: Mapping[str, Any]) -> str:
    """Return `headers` as JSON text. Raises InvalidOption unless they are a JSON object."""
    if not isinstance(headers, Mapping) or not all(isinstance(name, str) for name in headers):
        raise InvalidOption(f"headers={headers!r}: give a dict with text as keys and JSON as values")
    try:
        return jsontext.encode(dict(headers), "headers", 64 * 1024)
    except ValueError as error:
        raise InvalidOption(str(error)) from None


# --- After the insert -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the database says of a job: its state, its result as JSON text, its last error."""

    state: JobState
    result: str | None = None
    error: str | None = None

    @property
    def finished(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled", "expired")


class JobSource(Protocol):
    """Where a JobRef looks its job up, on a connection of its own. None: there is no such job."""

    def look_up(self, job_id: int) -> Found | None: ...

    async def look_up_async(self, job_id: int) -> Found | None: ...


class JobRef(Generic[R_co]):
    """A job that was inserted, or that holds the key under which one was to be inserted."""

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

    def result(self, timeout: float | None = None) -> R_co:
        """Wait until the job has finished and return what the task returned.

        Waits at most `timeout` seconds (None: for ever) and holds no connection meanwhile. Raises ResultTimeout
        (the job goes on), JobFailed when it ended any other way than ``succeeded``, and JobNotFound when there is
        no such job: its transaction has not committed, or retention has removed it.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        for pause in _pauses():
            found = self._check(self._source.look_up(self.id))
            if found.finished:
                return self._unpack(found)
            if (left := deadline - time.monotonic()) <= 0:
                raise self._late(found, timeout)
            time.sleep(min(pause, left))
        raise AssertionError("unreachable")

    async def result_async(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109  # as `result`
        """Wait for the job and return what the task returned, like `result`."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        for pause in _pauses():
            found = self._check(await self._source.look_up_async(self.id))
            if found.finished:
                return self._unpack(found)
            if (left := deadline - time.monotonic()) <= 0:
                raise self._late(found, timeout)
            await asyncio.sleep(min(pause, left))
        raise AssertionError("unreachable")

    def __repr__(self) -> str:
        key = "" if self.key is None else f", key={self.key!r}"
        return f"JobRef(id={self._id}, created={self.created}{key})"

    def _check(self, found: Found | None) -> Found:
        if found is None:
            raise JobNotFound(
                f"job {self.id} is neither live nor in history: its transaction has not committed or was rolled "
                "back, or retention has removed it"
            )
        return found

    def _unpack(self, found: Found) -> R_co:
        if found.state != "succeeded":
            raise JobFailed(self.id, found.state, found.error)
        return self._decode("null" if found.result is None else found.result)

    def _late(self, found: Found, timeout: float | None) -> ResultTimeout:
        return ResultTimeout(f"job {self.id} is still {found.state} after {timeout} s; it goes on")


def _pauses() -> Iterator[float]:
    """Yield how long to wait between two looks: 10 ms at first, then ever longer, up to half a second."""
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.5, 0.5)
