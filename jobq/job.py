"""The states of a job, and a job before it is inserted: `JobOptions`, `NewJob`.

`jobq.jobref` describes a job after its insert, `jobq.context` while it runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

from jobq._core import json_text
from jobq._core.text import brief
from jobq._core.validation import (
    check_aware,
    check_choice,
    check_duration,
    check_int,
    check_key,
    check_text,
    is_by_name,
)
from jobq.errors import InvalidArguments, InvalidOption

KeyHolds = Literal["period", "until_finished", "until_started"]
KeyScope = Literal["task", "global"]
OnConflict = Literal["return", "replace", "raise"]
JobState = Literal["ready", "running", "parked", "waiting", "succeeded", "failed", "cancelled", "expired"]

STORED_STATES = ("ready", "running", "parked", "waiting")
"""The values of `state` in the table of live jobs."""
LIVE_STATES = ("ready", "scheduled", "running", "parked", "waiting")
"""The states of a live job as they are shown.

A job whose stored state is ready is shown as scheduled until its `run_at`, then as ready.
"""
IDLE_STATES = ("ready", "scheduled", "parked", "waiting")
"""The states of a live job that is not running."""
FINISHED_STATES = ("succeeded", "failed", "cancelled", "expired")
"""The final states. A job in one of them is in the history."""
STATES = LIVE_STATES + FINISHED_STATES
"""Every state that is shown to users, in the order of lists and choices."""
QUEUE_STATES = ("ready", "scheduled", "waiting", "parked", "running", "failed")
"""The states whose jobs are counted for each queue."""

REDRIVABLE_STATES = ("failed", "cancelled", "expired")
"""The states of finished jobs that can be run again."""
RUN_NOW_STATES = ("scheduled", "parked")
"""The states of live jobs that can be made due at once."""
RETRYABLE_STATES = REDRIVABLE_STATES + RUN_NOW_STATES
CANCELLABLE_STATES = (*IDLE_STATES, "running")
SNOOZABLE_STATES = IDLE_STATES
MOVABLE_STATES = IDLE_STATES
DELETABLE_STATES = FINISHED_STATES + IDLE_STATES

DEFAULT_KEY_PERIOD = timedelta(days=7)
_DEFAULT_KEY_SECONDS = DEFAULT_KEY_PERIOD.total_seconds()
KEY_HOLDS = get_args(KeyHolds)
KEY_SCOPES = get_args(KeyScope)
ON_CONFLICT = get_args(OnConflict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Options of a job to be inserted: everything except its arguments.

    Jobs that were made alike share one instance. Raises InvalidOption for a value that cannot be
    stored.
    """

    task: str
    """Name of the task."""
    queue: str = "default"
    """Name of its queue: 1 to 100 characters."""
    priority: int = 5
    """0 to 9; 9 runs first."""
    run_at: datetime | None = None
    """Earliest start, an aware datetime. None: as soon as the transaction commits."""
    delay: float | None = None
    """Seconds from the insert to the start, by the database's clock. It excludes `run_at`."""
    max_attempts: int = 10
    """Number of attempts, including the first."""
    timeout: float | None = None
    """Most seconds that one attempt may take. None: no limit."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    """A JSON object stored with the job beside its arguments: trace context, tags."""
    key: str | None = None
    """Idempotency key, 1 to 500 characters.

    While it is held, no job of its scope is inserted with it.
    """
    key_scope: KeyScope = "task"
    """Where the key is unique.

    It is unique among the jobs of this task, or (``"global"``) among all jobs with this scope.
    """
    key_holds: KeyHolds = "period"
    """How long the key is held.

    It is held for `key_period`, until the job has finished, or until it starts.
    """
    key_period: float = _DEFAULT_KEY_SECONDS
    """Seconds from the insert for which a key with ``key_holds="period"`` is held."""
    on_conflict: OnConflict = "return"
    """What to do if the key is held: return its job, replace that job's data, or raise KeyConflict.

    ``replace`` changes the arguments, headers, time and expiry.
    """
    group: str | None = None
    """Group within the queue: 1 to 200 characters. The queue's rule says how groups run."""
    expires_in: float | None = None
    """Seconds from the insert after which a job that has not started expires. None: never."""
    columns: Mapping[str, str | None] = field(init=False, repr=False, compare=False)
    """The options as parameters of an insert. All are text, so a driver has no types to choose."""

    def __post_init__(self) -> None:
        queue, task = check_text("queue", self.queue, 100), check_text("task", self.task, 200)
        check_int("priority", self.priority, 0, 9)
        check_int("max_attempts", self.max_attempts, 1, 2**31 - 1)
        run_at = None if self.run_at is None else check_aware("run_at", self.run_at, none="run at once")
        if run_at is not None and self.delay is not None:
            raise InvalidOption("run_at and delay are both given: pass only one of them")
        if self.delay is not None:
            check_duration("delay", self.delay, zero=True)
        if self.timeout is not None:
            check_duration("timeout", self.timeout, none="no limit")
        check_choice("key_scope", self.key_scope, KEY_SCOPES)
        if self.key is not None:
            check_key(self.key, task if self.key_scope == "task" else "")
        check_choice("key_holds", self.key_holds, KEY_HOLDS)
        if self.key_period != _DEFAULT_KEY_SECONDS:
            check_duration("key_period", self.key_period)
        check_choice("on_conflict", self.on_conflict, ON_CONFLICT)
        group = None if self.group is None else check_text("group", self.group, 200)
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
            "headers": json_text.ascii_only(headers_json(self.headers)) if self.headers else "{}",
            "group_key": group,
            "expires_in": None if self.expires_in is None else str(float(self.expires_in)),
        }
        object.__setattr__(self, "columns", columns)

    def _check_expiry(self, expires_in: float, run_at: datetime | None) -> None:
        check_duration("expires_in", expires_in, none="no expiry")
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
    """Everything except the arguments."""
    args_json: str = "{}"
    """The arguments by parameter name, as the text of a JSON object."""

    def __post_init__(self) -> None:
        # Texts are joined on their way to the server: invalid JSON would corrupt its neighbours.
        try:
            found = json.loads(self.args_json)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArguments(f"args_json={self.args_json!r} is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise InvalidArguments(f"args_json={self.args_json!r}: expected a JSON object by parameter name")
        try:
            json_text.encode(found, "args_json")
        except ValueError as error:
            raise InvalidArguments(str(error)) from None

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.options.task

    def with_headers(self, headers: Mapping[str, Any]) -> NewJob:
        """Return this job with `headers` merged over its own.

        Raises InvalidOption unless they are a JSON object.
        """
        return self.with_options(headers={**self.options.headers, **headers})

    def with_options(self, **changes: Any) -> NewJob:
        """Return this job with other options: any fields of `JobOptions`.

        Raises InvalidOption and TypeError.
        """
        return NewJob.checked(replace(self.options, **changes), self.args_json)

    @classmethod
    def checked(cls, options: JobOptions, args_json: str) -> NewJob:
        """Return a job with arguments that are already checked and encoded.

        They are not checked again.
        """
        new = object.__new__(cls)
        _set_options(new, options)
        _set_args_json(new, args_json)
        return new


class InsertResult(NamedTuple):
    """What an insert did for one job.

    `id` is None if the transaction's snapshot cannot see the job that holds the key.
    """

    id: int | None
    created: bool
    replaced: bool


# `object.__setattr__` would look up each name again; a bulk insert makes 100,000 of these.
_set_options = vars(NewJob)["options"].__set__
_set_args_json = vars(NewJob)["args_json"].__set__


def headers_json(headers: Mapping[str, Any]) -> str:
    """Return `headers` as JSON text. Raises InvalidOption unless they are a JSON object."""
    if not is_by_name(headers):
        raise InvalidOption(f"headers={brief(headers, 100)}: expected a dict with text as keys and JSON as values")
    try:
        text = json_text.encode(dict(headers), "headers", 64 * 1024)
    except ValueError as error:
        raise InvalidOption(str(error)) from None
    if headers and (read := json.loads(text)) != dict(headers):
        name = next(name for name, value in headers.items() if read[name] != value)
        raise InvalidOption(
            f"headers[{name!r}]={headers[name]!r} would be read as {read[name]!r}: pass lists, and dicts with text as keys"
        )
    return text
