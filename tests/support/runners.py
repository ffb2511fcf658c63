"""A worker's runners without processes: what they are sent is kept, and a test says what they do."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from jobq._worker.ipc.messages import (
    AlreadyCommitted,
    Failure,
    Job,
    Outcomes,
    Progress,
    RunnerReady,
    Success,
    TaskInfo,
    ToRunner,
    WorkerStarted,
)
from jobq._worker.options import WorkerOptions
from jobq._worker.runners import application_info, exits, held_jobs, liveness, pool, process, runner_set
from jobq._worker.runners.pool import RunnerPool
from jobq._worker.runners.process import RunnerProcess
from jobq.settings import Settings

WORKER = UUID(int=1)


def job(number: int, task: str = "work", **changes: Any) -> Job:
    values: dict[str, Any] = {"claims": 1, "attempt": 1, "max_attempts": 10, "crashes": 0, "timeout": None, **changes}
    return Job(id=number, task=task, queue="default", args=b"{}", headers=b"{}", **values)


class Clock:
    """Stands for the module `time` in the runners' modules: time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Stage:
    """A pool of runners without processes, and all that it reports."""

    def __init__(self, patch: pytest.MonkeyPatch, **options: Any) -> None:
        self.clock = Clock()
        for module in (application_info, process, exits, held_jobs, liveness, pool, runner_set):
            if hasattr(module, "time"):
                patch.setattr(module, "time", self.clock)
        patch.setattr(RunnerProcess, "open", lambda runner: self.started.append(runner))
        self.started: list[RunnerProcess] = []
        """Every runner that was ever started, in order."""
        self.successes: list[Success] = []
        self.setbacks: list[Failure] = []
        self.recorded: list[AlreadyCommitted] = []
        self.progress: list[Progress] = []
        self.ready = 0
        """How often the pool said that there is more room."""
        self.options = WorkerOptions(app="shop:q", settings=Settings(), **{"processes": 2, "concurrency": 2, **options})
        self.pool = RunnerPool(
            self.options,
            on_success=self.successes.extend,
            on_setback=self.setbacks.append,
            on_recorded=self.recorded.append,
            on_progress=self.progress.append,
            on_ready=self._on_ready,
        )

    def _on_ready(self) -> None:
        self.ready += 1

    async def staffed(self, *, isolated: tuple[str, ...] = ()) -> list[RunnerProcess]:
        """Start the runners, have all of them import the application, and return them."""
        self.pool.supervise(pool.NO_LEASE)
        await self.turn()
        for runner in self.started:
            self.imports(runner, isolated=isolated)
        return list(self.started)

    @staticmethod
    async def turn() -> None:
        """Let what the pool has begun go on."""
        for _ in range(5):
            await asyncio.sleep(0)

    def imports(self, runner: RunnerProcess, *, isolated: tuple[str, ...] = ()) -> None:
        """The runner has imported the application, which has the tasks `work`, `bad` and those `isolated`."""
        runner.table.beat(self.clock.now, 0.0)
        tasks = [
            TaskInfo(name, "default", name in isolated, True, 4.0, 60.0) for name in sorted({"work", "bad", *isolated})
        ]
        if self.pool._worker_start._starter is runner:
            self.pool._on_message(runner, WorkerStarted())
        self.pool._on_message(runner, RunnerReady(tasks))

    def starts(self, runner: RunnerProcess, number: int, *, deadline: float | None = None) -> None:
        """The runner starts a job that it holds, in the first free slot."""
        held = runner.jobs[number]
        slot = next(slot for slot in range(runner.slots) if runner.table.at(slot) is None)
        assert runner.table.start(slot, held.serial, number, held.job.claims, now=self.clock.now, deadline=deadline), (
            "taken back"
        )

    def ends(self, runner: RunnerProcess, *numbers: int) -> None:
        """These jobs, which the runner has started, succeed."""
        done = []
        for number in numbers:
            for slot in range(runner.slots):
                if (running := runner.table.at(slot)) is not None and running.id == number:
                    runner.table.clear(slot)
            held = runner.jobs[number].job
            done.append(Success(number, held.claims, held.started, b"null", 0.1))
        self.pool._on_message(runner, Outcomes(done, []))

    def exits(self, runner: RunnerProcess, status: int = -11) -> None:
        """The runner's process has ended."""
        self.pool._on_exit(runner, status)

    async def pass_time(self, seconds: float, *, dead: tuple[RunnerProcess, ...] = ()) -> None:
        """Let time pass, with a look after the runners every tenth of a second; those but the `dead` react."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            for runner in self.pool.runners:
                if runner.imported and runner not in dead:
                    runner.table.beat(self.clock.now, 0.0)
            self.pool.supervise(pool.NO_LEASE)
            await self.turn()

    def sent(self, runner: RunnerProcess) -> list[ToRunner]:
        """Return what the runner was sent."""
        return runner._channel._unsent

    def back(self) -> list[int]:
        """Return the ids of the jobs that came back without a success, and forget them."""
        found = [setback.id for setback in self.setbacks]
        self.setbacks.clear()
        return found

    async def close(self) -> None:
        """End the pool, and release what the runners used."""
        for runner in self.pool.runners:
            runner.jobs.clear()
        await self.pool.close()
        for runner in self.started:
            await runner.closed()
