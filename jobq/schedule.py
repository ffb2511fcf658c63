"""What a schedule is, and which of its ticks are due: values and arithmetic, without a clock and without a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from jobq import jsontext
from jobq.bounds import whole
from jobq.errors import InvalidArguments, InvalidOption
from jobq.jobs import JobOptions, headers_json
from jobq.ticks import Cron, Every, When, latest

Missed = Literal["skip", "last", "all"]
MISSED: tuple[str, ...] = get_args(Missed)
DEFAULT_MAX_MISSED = 100
# They are one transaction.
MOST_MISSED = 10_000
GRACE = timedelta(seconds=60)
"""With ``missed="skip"`` a tick that is later than this is left out: as long as a worker's restart may take."""

MAX_ARGS_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A task, when its jobs are to be inserted, and what they are like. Raises InvalidOption, InvalidArguments."""

    name: str
    """1 to 200 characters; there is one schedule of a name."""
    task: str
    when: When
    args: Mapping[str, Any] = field(default_factory=dict)
    """The jobs' arguments by parameter name, as JSON's own types."""
    queue: str = "default"
    priority: int = 5
    max_attempts: int = 10
    timeout: float | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    missed: Missed = "last"
    """Which ticks at which no worker was alive are made up for: none older than GRACE, the latest one, or all of them."""
    max_missed: int = DEFAULT_MAX_MISSED
    """How many ticks are made up for at most, the latest ones; each is a job, and all at once."""
    tick_argument: str | None = None
    """The parameter that gets the tick's time, as text in ISO 8601."""

    def __post_init__(self) -> None:
        text("name", self.name, 200)
        JobOptions(
            task=self.task,
            queue=self.queue,
            priority=self.priority,
            max_attempts=self.max_attempts,
            timeout=self.timeout,
            headers=self.headers,
        )
        if self.missed not in MISSED:
            raise InvalidOption(f"missed={self.missed!r}: give one of {', '.join(MISSED)}")
        whole("max_missed", self.max_missed, 1, MOST_MISSED)
        if self.tick_argument is not None:
            text("tick_argument", self.tick_argument, 200)
            if self.tick_argument in self.args:
                raise InvalidOption(
                    f"tick_argument={self.tick_argument!r} is given by args as well: leave it out of one of them"
                )
        _ = self.args_json, self.headers_json

    @property
    def args_json(self) -> str:
        """The arguments as JSON text."""
        if not isinstance(self.args, Mapping) or not all(isinstance(name, str) for name in self.args):
            raise InvalidArguments(f"args={self.args!r}: give a dict by parameter name")
        try:
            return jsontext.encode(dict(self.args), "args", MAX_ARGS_BYTES)
        except ValueError as error:
            raise InvalidArguments(str(error)) from None

    @property
    def headers_json(self) -> str:
        """The headers as JSON text."""
        return headers_json(self.headers)

    def columns(self) -> dict[str, Any]:
        """Return it as the parameters of the statements that store it."""
        return {
            "name": self.name,
            "task": self.task,
            "cron": self.when.expression if isinstance(self.when, Cron) else None,
            "every": self.when.interval if isinstance(self.when, Every) else None,
            "timezone": self.when.timezone if isinstance(self.when, Cron) else "UTC",
            "args": self.args_json,
            "queue": self.queue,
            "priority": self.priority,
            "max_attempts": self.max_attempts,
            "timeout": self.timeout,
            "headers": self.headers_json,
            "missed": self.missed,
            "max_missed": self.max_missed,
            "tick_argument": self.tick_argument,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What is to be done for a schedule now: the ticks whose jobs are to be inserted, and the first one that is to come."""

    ticks: list[datetime]
    next_at: datetime
    left_out: bool
    """Whether the policy left out ticks that were missed."""


def due(when: When, since: datetime, now: datetime, *, missed: str, max_missed: int = DEFAULT_MAX_MISSED) -> Due:
    """Return what is due at `now` of the ticks from `since` on: the first one that no worker has looked at.

    Raises NeverAgain when there is no tick after `now`.
    """
    next_at = when.next(now)
    if since > now:
        return Due(ticks=[], next_at=since, left_out=False)
    begin = max(since, now - GRACE) if missed == "skip" else since
    ticks = latest(when, begin, now, 1 if missed == "last" else max_missed)
    first = when.next(since - timedelta(microseconds=1))
    return Due(ticks=ticks, next_at=next_at, left_out=first <= now and (not ticks or first < ticks[0]))


def text(name: str, value: object, longest: int) -> str:
    """Return `value`, or raise InvalidOption unless it is text of 1 to `longest` characters that can be stored."""
    if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.strip():
        raise InvalidOption(f"{name}={str(value)[:60]!r}: give text of 1 to {longest} characters")
    if not value.isprintable():
        raise InvalidOption(f"{name}={value[:60]!r} contains a control character: remove it")
    return value
