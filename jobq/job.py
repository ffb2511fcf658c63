"""A job before it is inserted: `JobOptions`, `NewJob`. `jobq.refs` is about it afterwards, `jobq.current` while it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from jobq import bounds, jsontext
from jobq.errors import InvalidArguments, InvalidOption

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
        text = jsontext.encode(dict(headers), "headers", 64 * 1024)
    except ValueError as error:
        raise InvalidOption(str(error)) from None
    if headers and (read := json.loads(text)) != dict(headers):
        name = next(name for name, value in headers.items() if read[name] != value)
        raise InvalidOption(
            f"headers[{name!r}]={headers[name]!r} would be read as {read[name]!r}: pass lists, and dicts with text as keys"
        )
    return text
