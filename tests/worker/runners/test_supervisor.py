"""Runners are judged by what they could have done: a time in which the whole machine did not run is not held against them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from jobq._worker.ipc.messages import Job
from jobq._worker.ipc.slot_table import SlotTable
from jobq._worker.options import WorkerOptions
from jobq._worker.runners.held_jobs import HeldJob
from jobq._worker.runners.process import RunnerProcess
from jobq._worker.runners.supervisor import RunnerSupervisor
from jobq.settings import Settings
from tests.support.specs import spec

OPTIONS = WorkerOptions(app="app:q", settings=Settings(), timeout_grace=0.2, bystander_grace=30, processes=1)


class Watched:
    """A runner without a process, and the supervisor that looks at it."""

    def __init__(self) -> None:
        self.runner = RunnerProcess(
            spec(concurrency=2), on_message=lambda _runner, _message: None, on_exit=lambda _runner, _status: None
        )
        self.runner.imported = True
        self.table: SlotTable = self.runner.table
        self._supervisor = RunnerSupervisor(OPTIONS)

    def start(self, job_id: int, *, deadline: float | None) -> None:
        """Have it execute a job, in a slot of its own."""
        job = Job(job_id, 1, "task", "default", b"[]", 1, 1, 0, None, b"{}")
        self.runner.jobs[job_id] = HeldJob(job, 9.0, job_id)
        self.table.start(job_id - 1, job_id, job_id, 1, now=9.0, deadline=deadline)

    def end(self, job_id: int) -> None:
        """The job has ended, and its outcome was heard."""
        del self.runner.jobs[job_id]
        self.table.clear(job_id - 1)

    def look(self, at: float, *, pulse: float) -> str | None:
        """Look once; return why the runner was killed, if it was."""
        self.table.beat(pulse, 0.0)
        self._supervisor.begin([self.runner], at)
        self._supervisor.look(self.runner, at)
        return self.runner.killed_for


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    asyncio.run(watched.runner.closed())


def test_a_pause_of_the_machine_costs_no_runner_its_grace(watched: Watched) -> None:
    """The timeout was over in the pause: the runner interrupts its job only after it."""
    watched.start(1, deadline=10.1)
    assert watched.look(10.0, pulse=10.0) is None
    assert watched.look(15.0, pulse=10.0) is None
    assert watched.look(15.1, pulse=15.05) is None
    assert watched.look(15.3, pulse=15.25) == "a job passed its timeout"


def test_a_pause_of_the_machine_costs_nothing_beside_a_job_that_hangs(watched: Watched) -> None:
    watched.start(1, deadline=None)
    watched.start(2, deadline=10.0)
    assert watched.look(10.3, pulse=10.3) is None
    # Two pauses, one after the other: at neither end had the runner run yet.
    assert watched.look(11.2, pulse=10.5) is None
    assert watched.look(13.2, pulse=10.5) is None
    assert watched.look(13.3, pulse=13.25) is None
    assert watched.look(40.0, pulse=40.0) is None
    watched.end(1)
    assert watched.look(40.1, pulse=40.1) is None
    assert watched.look(40.3, pulse=40.3) == "a job passed its timeout"


def test_a_runner_that_does_not_react_is_not_waited_for(watched: Watched) -> None:
    """What holds its interpreter holds up the jobs beside it as well."""
    watched.start(1, deadline=None)
    watched.start(2, deadline=10.0)
    looks = 0
    while watched.look(10.3 + looks / 10, pulse=9.9) is None:
        looks += 1
        assert looks < 30
    assert looks >= 10
