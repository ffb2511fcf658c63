"""A job before it is inserted: `JobOptions`, `NewJob`. `jobq.refs` is about it afterwards, `jobq.current` while it runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from jobq import jsontext
from jobq.errors import InvalidArguments, InvalidOption

KeyHolds = Literal["period", "until_finished", "until_started"]
OnConflict = Literal["return", "replace", "raise"]
JobState = Literal["ready", "running", "parked", "waiting", "succeeded", "failed", "cancelled", "expired"]

DEFAULT_KEY_PERIOD = timedelta(days=7)
_KEY_HOLDS = get_args(KeyHolds)
_ON_CONFLICT = get_args(OnConflict)
_LONGEST = 100 * 365.25 * 86400


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
    """Idempotency key: while it is held, no other job is inserted with it. 1 to 500 characters."""
    key_holds: KeyHolds = "period"
    """How long the key is held: for `key_period`, until the job has finished, or until it has started."""
    key_period: float = DEFAULT_KEY_PERIOD.total_seconds()
    """Seconds for which a key with ``key_holds="period"`` is held, counted from the insert."""
    on_conflict: OnConflict = "return"
    """When the key is held: return its job, give its job these arguments, or raise KeyConflict."""
    group: str | None = None
    """Group within the queue: 1 to 200 characters. How groups run is the queue's matter: in order, with a limit, in turns."""
    expires_in: float | None = None
    """Seconds from the insert after which the job, if it has not started, ends as expired. None: it waits."""
    columns: Mapping[str, str | None] = field(init=False, repr=False, compare=False)
    """The options of every job as the parameters of a statement: text, so that a driver has no types to choose."""

    def __post_init__(self) -> None:
        _text("queue", self.queue, 100)
        _text("task", self.task, 200)
        whole("priority", self.priority, 0, 9)
        whole("max_attempts", self.max_attempts, 1, 2**31 - 1)
        if self.run_at is not None:
            _moment("run_at", self.run_at)
            if self.delay is not None:
                raise InvalidOption("run_at and delay are both given: give one of them")
        if self.delay is not None and not 0 <= self.delay <= _LONGEST:
            raise InvalidOption(f"delay={self.delay!r}: give a number of seconds between 0 and 100 years")
        if self.timeout is not None and not 0 < self.timeout <= _LONGEST:
            raise InvalidOption(f"timeout={self.timeout!r}: give a number of seconds above 0, or None for no limit")
        if self.key is not None:
            _text("key", self.key, 500)
        if self.key_holds not in _KEY_HOLDS:
            raise InvalidOption(f"key_holds={self.key_holds!r}: give one of {', '.join(_KEY_HOLDS)}")
        if not 0 < self.key_period <= _LONGEST:
            raise InvalidOption(f"key_period={self.key_period!r}: give a number of seconds above 0")
        if self.on_conflict not in _ON_CONFLICT:
            raise InvalidOption(f"on_conflict={self.on_conflict!r}: give one of {', '.join(_ON_CONFLICT)}")
        if self.group is not None:
            _text("group", self.group, 200)
        if self.expires_in is not None:
            if not 0 < self.expires_in <= _LONGEST:
                raise InvalidOption(
                    f"expires_in={self.expires_in!r}: give a number of seconds above 0, or None for never"
                )
            if self.delay is not None and self.delay >= self.expires_in:
                raise InvalidOption(
                    f"expires_in={self.expires_in!r} is no longer than delay={self.delay!r}: "
                    "the job would expire before it is due"
                )
        columns = {
            "task": self.task,
            "queue": self.queue,
            "priority": str(self.priority),
            "run_at": None if self.run_at is None else self.run_at.isoformat(),
            "delay": None if self.delay is None else str(self.delay),
            "max_attempts": str(self.max_attempts),
            "timeout": None if self.timeout is None else str(self.timeout),
            "headers": headers_json(self.headers) if self.headers else "{}",
            "group_key": self.group,
            "expires_in": None if self.expires_in is None else str(self.expires_in),
        }
        object.__setattr__(self, "columns", columns)


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


def seconds(name: str, value: float | timedelta) -> float:
    """Return `value` in seconds. Raises InvalidOption, naming the option, unless it is a finite number."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidOption(f"{name}={value!r}: give a number of seconds or a timedelta")
    return float(value)


def _text(name: str, value: object, longest: int) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        shown = f"of {len(value)} characters" if isinstance(value, str) and value else f"{value!r}"
        raise InvalidOption(f"{name} {shown}: give text of 1 to {longest} characters")
    if "\0" in value:
        raise InvalidOption(f"{name}={value!r} contains a NUL character, which PostgreSQL cannot store: remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidOption(f"{name}={value!r} contains a lone surrogate: give Unicode text") from None


def whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidOption(f"{name}={value!r}: give a whole number between {least} and {most}")


def _moment(name: str, value: object) -> None:
    if not isinstance(value, datetime):
        raise InvalidOption(f"{name}={value!r}: give a datetime with a time zone")
    if value.utcoffset() is None:
        raise InvalidOption(
            f"{name}={value!r} has no time zone: give an aware datetime, such as datetime.now(timezone.utc)"
        )
