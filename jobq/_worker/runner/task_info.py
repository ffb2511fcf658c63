"""What a runner tells its dispatcher of the application, which the dispatcher itself never imports."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from jobq.app import JobQ
from jobq.backoff import Backoff
from jobq.errors import TimedOut
from jobq.tasks import BaseTask
from jobq.worker.frames import Hello, ScheduleFacts, TaskFacts

# A function's delays are asked for so many attempts in advance: the dispatcher, which retries a job whose runner it had to
# kill, cannot call it.
_ASKED = 20


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
        _delays(task.backoff),
        task.backoff.jitter,
    )


def _delays(backoff: Backoff) -> tuple[float, ...]:
    if backoff.delays is None:
        return ()
    if not callable(backoff.delays):
        return tuple(backoff.longest(number) for number in range(1, len(backoff.delays) + 1))
    found: list[float] = []
    # A function may raise: then the delay before it stands in, or the default.
    with suppress(Exception):
        found.extend(backoff.longest(number) for number in range(1, _ASKED + 1))
    return tuple(found)
