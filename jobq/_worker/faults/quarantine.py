"""Quarantine: tasks whose jobs run alone for a while because they have ended this worker's runners.

A runner is shared by many jobs. Its end costs a start of the application, and costs each job beside
the guilty one an attempt. A guilty job runs alone the next time. But if every job of a task behaves
like this, the task still ends a runner for each job. So all jobs of a task run alone if the task
has ended `DEATHS` runners, and if that is not rare among its jobs. This lasts until none of its
jobs has ended a runner for `LASTS` seconds. A task with one bad job in a thousand is not affected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

logger = logging.getLogger("jobq.worker")

# Number of runners that a task must have ended, each at most `LASTS` seconds after the one before.
DEATHS = 3
# Minimum share of the task's ended jobs that must have ended a runner.
SHARE = 0.05
# Seconds that the quarantine lasts after the last such end.
LASTS = 60.0


@dataclass(slots=True)
class _Watched:
    last: float
    """When the task last ended a runner, in time.monotonic() seconds."""
    deaths: int = 0
    ended: int = 0
    """Number of its jobs that have ended otherwise since the task is watched."""
    alone: bool = False


class Quarantine:
    """The tasks in quarantine: `task in quarantine` says whether the task's jobs must run alone.

    It costs nothing while no runner dies.
    """

    def __init__(self, on_change: Callable[[str, int], object] = lambda task, deaths: None) -> None:
        """Create an empty quarantine.

        Args:
            on_change: Called with a task in quarantine and the number of runners that it has ended,
                at each such end. The number is 0 when the task leaves quarantine.
        """
        self._on_change = on_change
        self._watched: dict[str, _Watched] = {}

    def __contains__(self, task: str) -> bool:
        return task in self._watched and self._watched[task].alone

    def __bool__(self) -> bool:
        """Whether any task is watched; then call `heard` for its jobs."""
        return bool(self._watched)

    def judged(self, guilty: Iterable[str], suspected: Iterable[str], now: float) -> None:
        """Blame tasks for the end of a runner.

        The jobs of the `guilty` tasks certainly ended it. If a job of one of the `suspected` tasks
        did, the tasks that have recently ended a runner for certain are blamed.
        """
        for task in guilty:
            self.blame(task, now)
        for task in suspected:
            if task in self._watched:
                self.blame(task, now)

    def blame(self, task: str, now: float) -> None:
        """Note that a job of `task` has ended a runner."""
        watched = self._watched.setdefault(task, _Watched(now))
        watched.last = now
        watched.deaths += 1
        # The first death came before the other jobs were counted.
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
        """Note that jobs of these tasks have ended while their runner continues."""
        for task in tasks:
            if (watched := self._watched.get(task)) is not None:
                watched.ended += 1

    def tend(self, now: float) -> None:
        """Release the tasks that have not ended a runner for a while."""
        for task in [task for task, watched in self._watched.items() if now - watched.last > LASTS]:
            if self._watched.pop(task).alone:
                logger.info("a task has ended no runner for a while: its jobs run beside others", extra={"task": task})
                self._on_change(task, 0)
