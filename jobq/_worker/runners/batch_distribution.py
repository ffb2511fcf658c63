"""Batches, seen from the dispatcher: how many jobs fill the slots, and which runner gets them.

Which jobs run together is decided in the runner (`_worker/runner/batch_queue.py`). Here is what
makes that many: a claim asks for as many jobs as fill the free slots, and jobs of one task go to one
runner until its batch is full, instead of a few to each runner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobq._worker.ipc.batch_limits import batch_limit
from jobq._worker.ipc.messages import Job, TaskInfo
from jobq._worker.runners.process import RunnerProcess

Share = tuple[RunnerProcess, list[Job]]


class BatchMix:
    """How many jobs the next claim should ask for, for each free slot.

    A claim cannot choose tasks: it takes the next jobs of the queues. So the jobs of the last claims
    say what the next ones will bring. If a queue has batches and then other jobs, one claim may bring
    more of those than there are slots; they go back after a second like other prefetched jobs. The
    object is true if batch tasks have had jobs lately.
    """

    def __init__(self) -> None:
        self._jobs = 0.0
        """Number of claimed jobs; each claim halves the weight of those before."""
        self._slots = 0.0
        """Number of slots that these jobs take."""

    def __bool__(self) -> bool:
        return self._jobs > self._slots

    def saw(self, jobs: list[Job], batches: Mapping[str, TaskInfo]) -> None:
        """Note which jobs a claim has brought. `batches`: the batch tasks by name."""
        if not jobs:
            return
        slots = 0.0
        for job in jobs:
            task = batches.get(job.task)
            slots += 1.0 if task is None else 1 / batch_limit(task.batch, job)
        self._jobs = self._jobs / 2 + len(jobs)
        self._slots = self._slots / 2 + slots

    def jobs_for(self, slots: int) -> int:
        """Return how many jobs fill `slots` slots. It may be below 0."""
        return round(slots * self._jobs / self._slots) if self else slots


@dataclass(slots=True)
class _Target:
    """The runner that gets the next jobs of a task."""

    runner: RunnerProcess
    left: int
    """Number of jobs until its batch is full."""
    until: float
    """When the batch begins even if it is not full."""


class BatchDistribution:
    """Chooses a runner for each batch. The least loaded runner gets the next one."""

    def __init__(self) -> None:
        self._targets: dict[str, _Target] = {}

    def distribute(
        self,
        jobs: list[Job],
        ready: list[RunnerProcess],
        most: int | None,
        batches: Mapping[str, TaskInfo],
        now: float,
    ) -> tuple[list[Share], list[Job], list[Job]]:
        """Return each runner's jobs, the jobs that no runner takes, and the jobs that run alone.

        Args:
            jobs: The jobs to distribute.
            ready: The runners that accept jobs.
            most: How many jobs a runner gets during its life; None for no limit.
            batches: The batch tasks by name.
            now: Current time.monotonic().
        """
        alone: list[Job] = []
        by_task: dict[str, list[Job]] = {}
        for job in jobs:
            task = batches.get(job.task)
            if task is None or batch_limit(task.batch, job) == 1:
                alone.append(job)
            else:
                by_task.setdefault(job.task, []).append(job)
        loads = {runner: runner.load for runner in ready}
        room = {runner: len(jobs) if most is None else most - runner.held.given for runner in ready}
        shares: dict[RunnerProcess, list[Job]] = {}
        left: list[Job] = []
        for name, given in by_task.items():
            waiting = given
            while waiting:
                target = self._target(batches[name], loads, room, now)
                if target is None:
                    left += waiting
                    break
                count = min(target.left, room[target.runner], len(waiting))
                shares.setdefault(target.runner, []).extend(waiting[:count])
                waiting = waiting[count:]
                target.left -= count
                room[target.runner] -= count
        return list(shares.items()), left, alone

    def _target(
        self, task: TaskInfo, loads: dict[RunnerProcess, int], room: dict[RunnerProcess, int], now: float
    ) -> _Target | None:
        target = self._targets.get(task.name)
        if target is not None and target.left > 0 and now <= target.until and room.get(target.runner, 0) > 0:
            return target
        usable = [runner for runner in loads if room[runner] > 0]
        if not usable:
            return None
        runner = min(usable, key=lambda runner: loads[runner])
        loads[runner] += 1
        target = self._targets[task.name] = _Target(runner, task.batch, now + task.linger)
        return target
