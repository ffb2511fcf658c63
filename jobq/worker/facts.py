"""What a runner tells its dispatcher of the application, which the dispatcher itself never imports."""

from __future__ import annotations

from typing import Any

from jobq.app import JobQ
from jobq.errors import TimedOut
from jobq.tasks import BaseTask
from jobq.worker.frames import Hello, ScheduleFacts, TaskFacts


def describe(app: JobQ) -> Hello:
    """Return what the dispatcher must know of the application's tasks and schedules."""
    return Hello(
        [_facts(task) for _, task in sorted(app.tasks.items())],
        [ScheduleFacts(**schedule.columns()) for _, schedule in sorted(app.schedules.items())],
    )


def _facts(task: BaseTask[..., Any]) -> TaskFacts:
    return TaskFacts(
        task.name,
        task.queue,
        task.isolation == "process",
        task.retries(TimedOut()),
        task.backoff.base,
        task.backoff.cap,
        None if task.groups is None else (task.groups.mode, task.groups.limit, task.groups.retry),
        task.arguments.fingerprint,
    )
