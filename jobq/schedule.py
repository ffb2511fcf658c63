"""Schedules, and which of their ticks are due: values and arithmetic, no clock, no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from jobq._core import json_text
from jobq._core.text import brief
from jobq._core.validation import check_choice, check_int, check_text, is_by_name
from jobq.cron import Cron, Every, When, latest
from jobq.errors import InvalidArguments, InvalidOption
from jobq.job import JobOptions, headers_json

Missed = Literal["skip", "last", "all"]
MISSED: tuple[str, ...] = get_args(Missed)
DEFAULT_MAX_MISSED = 100
# All of them are inserted in one transaction.
MOST_MISSED = 10_000
GRACE = timedelta(seconds=60)
"""With ``missed="skip"``, a later tick is left out. A worker's restart may take this long."""

MAX_ARGS_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A task, the times of its jobs, and their options. Raises InvalidOption, InvalidArguments."""

    name: str
    """1 to 200 characters; names are unique."""
    task: str
    when: When
    args: Mapping[str, Any] = field(default_factory=dict)
    """The jobs' arguments by parameter name, as JSON types."""
    queue: str = "default"
    priority: int = 5
    max_attempts: int = 10
    timeout: float | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    """The jobs' group within their queue, 1 to 200 characters."""
    key: str | None = None
    """The jobs' idempotency key, 1 to 500 characters. Each job holds it until it has finished.

    If a job of the task holds the key at a tick, the tick inserts none and is recorded as skipped.
    """
    expires_in: float | None = None
    """Seconds from a job's insert after which it expires if it has not started."""
    missed: Missed = "last"
    """Which missed ticks are made up for: none older than GRACE, the latest one, or all.

    A tick is missed if no worker was alive at its time.
    """
    max_missed: int = DEFAULT_MAX_MISSED
    """Most missed ticks to make up for, counted from the latest.

    Each is a job; all start at once.
    """
    tick_argument: str | None = None
    """The parameter that receives the tick's time, as ISO 8601 text."""

    def __post_init__(self) -> None:
        check_text("name", self.name, 200, printable=True)
        JobOptions(
            task=self.task,
            queue=self.queue,
            priority=self.priority,
            max_attempts=self.max_attempts,
            timeout=self.timeout,
            headers=self.headers,
            group=self.group,
            key=self.key,
            expires_in=self.expires_in,
        )
        check_choice("missed", self.missed, MISSED)
        check_int("max_missed", self.max_missed, 1, MOST_MISSED)
        if self.tick_argument is not None:
            check_text("tick_argument", self.tick_argument, 200, printable=True)
            if self.tick_argument in self.args:
                raise InvalidOption(
                    f"tick_argument={self.tick_argument!r} is given by args as well: leave it out of one of them"
                )
        _ = self.args_json, self.headers_json

    @property
    def args_json(self) -> str:
        """The arguments as JSON text."""
        if not is_by_name(self.args):
            raise InvalidArguments(f"args={brief(self.args, 100)}: expected a dict by parameter name")
        try:
            return json_text.encode(dict(self.args), "args", MAX_ARGS_BYTES)
        except ValueError as error:
            raise InvalidArguments(str(error)) from None

    @property
    def headers_json(self) -> str:
        """The headers as JSON text."""
        return headers_json(self.headers)

    def columns(self) -> dict[str, Any]:
        """Return the parameters of the statements that store it."""
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
            "group_key": self.group,
            "key": self.key,
            "expires_in": None if self.expires_in is None else float(self.expires_in),
            "missed": self.missed,
            "max_missed": self.max_missed,
            "tick_argument": self.tick_argument,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What is due for a schedule now: ticks whose jobs are to be inserted, and the next tick."""

    ticks: list[datetime]
    next_at: datetime
    left_out: bool
    """Whether the policy left out missed ticks."""


def due(when: When, since: datetime, now: datetime, *, missed: str, max_missed: int = DEFAULT_MAX_MISSED) -> Due:
    """Return which ticks from `since` on are due at `now`.

    `since` is the first tick that no worker has looked at. Raises NoNextRun if there is no tick
    after `now`.
    """
    next_at = when.next(now)
    if since > now:
        return Due(ticks=[], next_at=since, left_out=False)
    begin = max(since, now - GRACE) if missed == "skip" else since
    ticks = latest(when, begin, now, 1 if missed == "last" else max_missed)
    first = when.next(since - timedelta(microseconds=1))
    return Due(ticks=ticks, next_at=next_at, left_out=first <= now and (not ticks or first < ticks[0]))
