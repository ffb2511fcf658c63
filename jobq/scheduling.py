"""The part of JobQ that makes schedules: in code, and at run time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar

import psycopg

from jobq.config import Settings
from jobq.declarations import Declaration, Declarations
from jobq.schedules import DEFAULT_MAX_MISSED, Missed, Schedule
from jobq.tasks import BaseTask
from jobq.ticks import when

F = TypeVar("F", bound=Callable[..., Any])


class Scheduling(ABC):
    """What an application does with schedules."""

    _declarations: Declarations

    @property
    @abstractmethod
    def settings(self) -> Settings: ...

    @abstractmethod
    def get_task(self, name: str) -> BaseTask[..., Any]: ...

    @abstractmethod
    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]: ...

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """The declared schedules by name. Raises TaskDefinitionError when one was put on a function that is no task."""
        return self._declarations.all

    def schedule(
        self,
        cron: str | None = None,
        *,
        every: timedelta | None = None,
        timezone: str | None = None,
        missed: Missed = "last",
        max_missed: int = DEFAULT_MAX_MISSED,
        name: str | None = None,
        args: Mapping[str, Any] | None = None,
        tick_argument: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
    ) -> Callable[[F], F]:
        """Declare a schedule: ``@q.schedule("0 7 * * mon-fri", timezone="Europe/Berlin")`` above ``@q.task``, or below it.

        A worker of this application writes it down when it starts. Each tick becomes one job, however many workers there
        are. ``q.schedule(…)(task)`` does the same for a task that is defined elsewhere.

        :param cron: minute, hour, day of month, month, day of week; or six fields, seconds first; or ``@daily`` and the like.
        :param every: instead of `cron`, a timedelta of a second or more, counted from 1970-01-01 00:00 UTC.
        :param timezone: IANA name of the zone whose clock `cron` means (default: UTC). In one with daylight saving a fixed
            time that the clock skips comes right after the gap, and one that it shows twice counts the first time; times that
            recur (``*`` in minute or hour) come as the clock shows them.
        :param missed: what to do about ticks at which no worker was alive. ``last`` (default): the latest one is made up
            for, so that a nightly run happens late rather than never. ``skip``: none older than a minute. ``all``: each,
            up to `max_missed`, all at once.
        :param max_missed: how many ticks are made up for at most, the latest ones (default: 100).
        :param name: the schedule's name, 1 to 200 characters (default: the task's). It is one in the database.
        :param args: the jobs' arguments by parameter name, checked here.
        :param tick_argument: the parameter that gets the tick's time, a datetime in UTC (default: none; the task can ask
            ``current_job().tick``).
        :param queue: where its jobs wait (default: the task's queue).
        :param priority: theirs (default: the task's).

        Raises InvalidOption for a value that cannot be, InvalidArguments for `args` that do not fit the task, and
        TaskDefinitionError for a name that is taken.
        """
        declaration = Declaration(
            when=when(cron, every, timezone),
            name=name,
            args=args,
            tick_argument=tick_argument,
            missed=missed,
            max_missed=max_missed,
            queue=queue,
            priority=priority,
        )

        def declare(task: F) -> F:
            self._declarations.add(task, declaration)
            return task

        return declare

    def add_schedule(
        self,
        task: str | BaseTask[..., Any],
        cron: str | None = None,
        *,
        name: str,
        actor: str,
        every: timedelta | None = None,
        timezone: str | None = None,
        missed: Missed = "last",
        max_missed: int = DEFAULT_MAX_MISSED,
        args: Mapping[str, Any] | None = None,
        tick_argument: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        replace: bool = False,
        reason: str | None = None,
    ) -> bool:
        """Make a schedule at run time, in a transaction of its own: one a customer, say. True when it is new.

        What it takes is as in `schedule`, checked against the task in the same way; `actor` and `reason` are for the audit.
        With `replace` a schedule of that name, made at run time, gets these values. ``jobq.operations`` removes, pauses and
        resumes it. Raises as `schedule` does, UnknownTask, and InvalidOption for a name that is taken.
        """
        from jobq import operations

        declaration = Declaration(
            when=when(cron, every, timezone),
            name=name,
            args=args,
            tick_argument=tick_argument,
            missed=missed,
            max_missed=max_missed,
            queue=queue,
            priority=priority,
        )
        made = declaration.of(self.get_task(task if isinstance(task, str) else task.name))
        with self.connection() as conn:
            return operations.set_schedule(
                conn, self.settings.schema, made, actor=actor, reason=reason, replace=replace
            )
