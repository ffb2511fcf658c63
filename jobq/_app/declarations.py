"""Schedules declared in code: checked against their tasks' signatures, and kept by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from jobq._core import json_text
from jobq._core.text import brief
from jobq._core.validation import check_seconds, is_by_name
from jobq.cron import When
from jobq.enqueueing import TaskOptions
from jobq.errors import InvalidArguments, InvalidOption, TaskDefinitionError
from jobq.job import headers_json
from jobq.schedule import Missed, Schedule
from jobq.task import BaseTask

# Used as the tick's time when arguments are checked.
_SOME_TICK = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The arguments of ``@q.schedule(…)``, before the task is known. None: use the task's value."""

    when: When
    name: str | None = None
    args: Mapping[str, Any] | None = None
    tick_argument: str | None = None
    missed: Missed
    max_missed: int
    queue: str | None = None
    priority: int | None = None
    headers: Mapping[str, Any] | None = None
    group: str | None = None
    key: str | None = None
    expires_in: float | timedelta | None = None

    def of(self, task: BaseTask[..., Any]) -> Schedule:
        """Return the schedule of `task`.

        Raises InvalidOption, and InvalidArguments if they do not fit.
        """
        if self.headers is not None:
            headers_json(self.headers)
        made = Schedule(
            name=task.name if self.name is None else self.name,
            task=task.name,
            when=self.when,
            queue=task.queue if self.queue is None else self.queue,
            priority=task.priority if self.priority is None else self.priority,
            max_attempts=task.max_attempts,
            timeout=task.timeout,
            headers=task.headers if self.headers is None else {**task.headers, **self.headers},
            group=self.group,
            key=self.key,
            expires_in=None if self.expires_in is None else check_seconds("expires_in", self.expires_in),
            missed=self.missed,
            max_missed=self.max_missed,
            tick_argument=self.tick_argument,
        )
        return replace(made, args=fitting(task, self.args or {}, self.tick_argument))


def fitting(task: BaseTask[..., Any], args: Mapping[str, Any], tick_argument: str | None) -> dict[str, Any]:
    """Return constant arguments by name as JSON types.

    They are checked together with a tick's time, if one is passed. Raises InvalidArguments if they
    do not fit the task's signature, and InvalidOption if one of them is the tick argument.
    """
    if not is_by_name(args):
        raise InvalidArguments(f"{task.name}: args={brief(args, 100)}: expected a dict by parameter name")
    given = dict(args)
    if tick_argument is not None:
        if tick_argument in given:
            raise InvalidOption(
                f"tick_argument={tick_argument!r} is given by args as well: leave it out of one of them"
            )
        given[tick_argument] = _SOME_TICK
    try:
        encoded: dict[str, Any] = json.loads(task.encode_arguments((), given))
    except InvalidArguments as error:
        fix = f" (tick_argument={tick_argument!r} passes a datetime)" if tick_argument is not None else ""
        raise InvalidArguments(f"{error}{fix}") from None
    if tick_argument is not None:
        encoded.pop(tick_argument)
    return encoded


def read(task: BaseTask[..., Any], arguments: Mapping[str, Any], tick_argument: str | None) -> dict[str, Any]:
    """Return arguments given as JSON types as the task's types: "2030-01-31" fits a date.

    Raises InvalidArguments.
    """
    given = dict(arguments)
    if tick_argument is not None and tick_argument not in given:
        given[tick_argument] = _SOME_TICK.isoformat()
    try:
        text = json_text.encode(given, f"{task.name}: arguments", task.app.settings.max_args_bytes)
    except ValueError as error:
        raise InvalidArguments(str(error)) from None
    try:
        values = task.decode_arguments(text)
    except InvalidArguments as error:
        # Nothing is stored yet.
        raise InvalidArguments(str(error).replace(": stored arguments", ": arguments", 1)) from None
    if tick_argument is not None and tick_argument not in arguments:
        values.pop(tick_argument)
    return values


class Declarations:
    """The schedules of one application."""

    def __init__(self, get_task: Callable[[str], BaseTask[..., Any]]) -> None:
        self._get_task = get_task
        self._schedules: dict[str, Schedule] = {}
        self._waiting: list[tuple[Any, Declaration]] = []
        """Declarations below ``@q.task``, whose functions are not tasks yet."""

    def add(self, target: Any, declaration: Declaration) -> None:
        """Declare a schedule for `target`: a task, or a function that will become one.

        Raises TaskDefinitionError for anything else, and if the name is taken.
        """
        if isinstance(target, BaseTask):
            self._keep(target, declaration)
        elif isinstance(target, TaskOptions) or not callable(target):
            raise TaskDefinitionError(f"@q.schedule: {target!r} is no task: put it on a function with @q.task")
        else:
            self._waiting.append((target, declaration))

    def became(self, function: Any, task: BaseTask[..., Any]) -> None:
        """Record that `function` has become `task`."""
        for target, declaration in [pair for pair in self._waiting if pair[0] is function]:
            self._waiting.remove((target, declaration))
            self._keep(task, declaration)

    def forget(self, task: BaseTask[..., Any]) -> None:
        """Remove the schedules of a task that is defined again."""
        self._schedules = {name: kept for name, kept in self._schedules.items() if kept.task != task.name}

    @property
    def all(self) -> Mapping[str, Schedule]:
        """The schedules by name.

        Raises TaskDefinitionError if one was declared on a function that is no task.
        """
        for target, _ in self._waiting:
            raise TaskDefinitionError(
                f"@q.schedule on {getattr(target, '__qualname__', target)}: that is no task; put @q.task on it as well"
            )
        return MappingProxyType(self._schedules)

    def _keep(self, task: BaseTask[..., Any], declaration: Declaration) -> None:
        try:
            if self._get_task(task.name) is not task:
                raise TaskDefinitionError(f"@q.schedule: {task!r} belongs to another JobQ: use that one's schedule")
        except LookupError:
            raise TaskDefinitionError(
                f"@q.schedule: {task!r} belongs to another JobQ: use that one's schedule"
            ) from None
        schedule = declaration.of(task)
        if (taken := self._schedules.get(schedule.name)) is not None:
            raise TaskDefinitionError(
                f"schedule {schedule.name!r} is taken, by one of task {taken.task!r}: pass name=… to one of them"
            )
        self._schedules[schedule.name] = schedule
