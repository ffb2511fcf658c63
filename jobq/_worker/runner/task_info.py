"""Describes the application for the dispatcher, which never imports it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from jobq._worker.ipc.messages import RunnerReady, ScheduleInfo, TaskInfo
from jobq.app import JobQ
from jobq.errors import TimedOut
from jobq.retry import Backoff
from jobq.task import BaseTask

# Delays from a function are computed for this many attempts in advance. The dispatcher retries a
# job whose runner it had to kill, but cannot call the function.
_ASKED = 20


def describe(app: JobQ) -> RunnerReady:
    """Return the facts about the application's tasks and schedules that the dispatcher needs."""
    return RunnerReady(
        [_facts(task) for _, task in sorted(app.tasks.items())],
        [ScheduleInfo(**schedule.columns()) for _, schedule in sorted(app.schedules.items())],
    )


def _facts(task: BaseTask[..., Any]) -> TaskInfo:
    return TaskInfo(
        task.name,
        task.queue,
        task.isolation == "process",
        task.retries(TimedOut()),
        task.backoff.base,
        task.backoff.cap,
        None if task.groups is None else (task.groups.mode, task.groups.limit, task.groups.retry),
        task.arguments.fingerprint,
        _delays(task.backoff),
        task.backoff.jitter,
        task.batch or 0,
        task.linger,
    )


def _delays(backoff: Backoff) -> tuple[float, ...]:
    if backoff.delays is None:
        return ()
    if not callable(backoff.delays):
        return tuple(backoff.longest(number) for number in range(1, len(backoff.delays) + 1))
    found: list[float] = []
    # If the function raises, the last delay before is used, or the default.
    with suppress(Exception):
        found.extend(backoff.longest(number) for number in range(1, _ASKED + 1))
    return tuple(found)
