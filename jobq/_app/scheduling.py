"""The part of JobQ that creates schedules, in code and at run time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar

import psycopg

from jobq._app.declarations import Declaration, Declarations
from jobq.cron import when
from jobq.schedule import DEFAULT_MAX_MISSED, Missed, Schedule
from jobq.settings import Settings
from jobq.task import BaseTask

F = TypeVar("F", bound=Callable[..., Any])


class Scheduling(ABC):
    """An application's methods for schedules."""

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
        """The declared schedules by name.

        Raises TaskDefinitionError if one was put on a function that is no task.
        """
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
        headers: Mapping[str, Any] | None = None,
        group: str | None = None,
        key: str | None = None,
        expires_in: float | timedelta | None = None,
    ) -> Callable[[F], F]:
        """Declare a schedule: ``@q.schedule("0 7 * * mon-fri", timezone="Europe/Berlin")``.

        It stands above or below ``@q.task``. ``q.schedule(…)(task)`` does the same for a task that
        is defined elsewhere. A worker of this application stores the schedule when it starts. Each
        tick inserts one job, however many workers there are.

        Args:
            cron: minute, hour, day of month, month, day of week; or six fields, seconds first; or
                ``@daily`` and the like.
            every: instead of `cron`: a timedelta of a second or more, counted from 1970-01-01
                00:00 UTC.
            timezone: IANA name of the time zone of `cron` (default: UTC). In a zone with daylight
                saving, a fixed time that the clock skips comes right after the gap; one that the
                clock shows twice counts the first time. Recurring times (``*`` in minute or hour)
                come as the clock shows them.
            missed: what to do about ticks at which no worker was alive. ``last`` (default): the
                latest one is made up for, so a nightly run is late instead of lost. ``skip``: none
                older than a minute. ``all``: all of them, up to `max_missed`, at once.
            max_missed: most ticks to make up for, counted from the latest (default: 100).
            name: the schedule's name, 1 to 200 characters (default: the task's). It is unique in
                the database.
            args: the jobs' arguments by parameter name, checked here.
            tick_argument: the parameter that gets the tick's time, a datetime in UTC (default:
                none; the task can use ``current_job().tick``).
            queue: the jobs' queue (default: the task's).
            priority: the jobs' priority (default: the task's).
            headers: JSON object, merged over the task's own headers.
            group: the jobs' group within their queue, 1 to 200 characters (default: none).
            key: the jobs' idempotency key, 1 to 500 characters (default: none). Each job holds it
                until it has finished. If a job of the task holds the key, the tick is skipped and
                recorded as skipped: no two of these jobs overlap.
            expires_in: seconds or timedelta from a job's insert. If a job has not started by then,
                it ends as expired (default: none).

        Raises:
            InvalidOption: an option has an unusable value.
            InvalidArguments: `args` do not fit the task.
            TaskDefinitionError: the name is taken.
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
            headers=headers,
            group=group,
            key=key,
            expires_in=expires_in,
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
        headers: Mapping[str, Any] | None = None,
        group: str | None = None,
        key: str | None = None,
        expires_in: float | timedelta | None = None,
        replace: bool = False,
        reason: str | None = None,
    ) -> bool:
        """Create a schedule at run time, in a separate transaction, for example for one customer.

        The other parameters are those of `schedule`, and are checked against the task in the same
        way. ``jobq.operations`` removes, pauses and resumes the schedule.

        Args:
            task: the task or its name.
            name: the schedule's name.
            actor: who the audit log names.
            replace: whether to replace a schedule of this name that was created at run time.
            reason: text for the audit log.

        Returns:
            True if the schedule is new.

        Raises:
            JobqError: the errors of `schedule`.
            UnknownTask: there is no such task.
            InvalidOption: the name is taken.
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
            headers=headers,
            group=group,
            key=key,
            expires_in=expires_in,
        )
        made = declaration.of(self.get_task(task if isinstance(task, str) else task.name))
        with self.connection() as conn:
            return operations.set_schedule(
                conn, self.settings.schema, made, actor=actor, reason=reason, replace=replace
            )
