"""Which tasks run alone for a while, because their jobs have ended this worker's runners.

A runner is shared by many jobs. Its end costs a start of the application, and each job beside the guilty one an attempt. A
job that is guilty runs alone the next time; but a task whose every job is like it would still end a runner for each. So when
a task has ended `DEATHS` runners, and that is no rare event among its jobs, all its jobs run alone, until none of them has
ended a runner for `LASTS` seconds. A task with a bad job in a thousand goes on as usual.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

logger = logging.getLogger("jobq.worker")

# What a worker cannot do with such a task, in its row.
PROBLEM = "run beside others"
# Runners that a task must have ended, each at most `LASTS` seconds after the one before.
DEATHS = 3
# Of the task's jobs that have ended meanwhile, this share must have ended a runner.
SHARE = 0.05
# Seconds.
LASTS = 60.0


@dataclass(slots=True)
class _Watched:
    last: float
    """When it last ended a runner, in time.monotonic()."""
    deaths: int = 0
    ended: int = 0
    """Its jobs that have ended otherwise since it is watched."""
    alone: bool = False


class Quarantine:
    """`task in quarantine` tells whether the task's jobs are to run alone. Costs nothing while no runner dies."""

    def __init__(self, on_change: Callable[[str, int], object] = lambda task, deaths: None) -> None:
        """`on_change` is told which task runs alone, at each runner that it ends, and how many these are; 0: no longer."""
        self._on_change = on_change
        self._watched: dict[str, _Watched] = {}

    def __contains__(self, task: str) -> bool:
        return task in self._watched and self._watched[task].alone

    def __bool__(self) -> bool:
        """Whether any task is watched: then `heard` is to be told of its jobs."""
        return bool(self._watched)

    def judged(self, guilty: Iterable[str], suspected: Iterable[str], now: float) -> None:
        """A runner has ended: by jobs of the tasks `guilty`, for certain; or by a job of one of those `suspected`.

        Of these, it was a task that has ended a runner for certain lately.
        """
        for task in guilty:
            self.blame(task, now)
        for task in suspected:
            if task in self._watched:
                self.blame(task, now)

    def blame(self, task: str, now: float) -> None:
        """A job of `task` has ended a runner."""
        watched = self._watched.setdefault(task, _Watched(now))
        watched.last = now
        watched.deaths += 1
        # The first was before the others were counted.
        later = watched.deaths - 1
        rare = later < SHARE * (later + watched.ended)
        if not watched.alone and watched.deaths >= DEATHS and not rare:
            watched.alone = True
            logger.warning(
                "a task has ended several runners: its jobs run alone",
                extra={"task": task, "runners": watched.deaths, "others": watched.ended},
            )
        if watched.alone:
            self._on_change(task, watched.deaths)

    def heard(self, tasks: Iterable[str]) -> None:
        """Jobs of these tasks have ended, and their runner goes on."""
        for task in tasks:
            if (watched := self._watched.get(task)) is not None:
                watched.ended += 1

    def tend(self, now: float) -> None:
        """Release the tasks that have ended no runner for a while."""
        for task in [task for task, watched in self._watched.items() if now - watched.last > LASTS]:
            if self._watched.pop(task).alone:
                logger.info("a task has ended no runner for a while: its jobs run beside others", extra={"task": task})
                self._on_change(task, 0)
