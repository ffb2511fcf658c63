"""Runners for one job at a time: how many wait for one, and how soon the next is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast
from uuid import uuid4

from jobq._worker.ipc.messages import Job
from jobq._worker.runners.isolated import IsolatedRunners
from jobq._worker.runners.process import RunnerProcess


def job(number: int, task: str = "bad", *, claims: int = 1, timeout: float | None = None) -> Job:
    return Job(number, claims, task, "default", b"{}", 1, 10, 0, timeout, b"{}")


class Fake:
    """A runner as `IsolatedRunners` sees it."""

    killed_for = needs_replacement = draining = None
    imported, dismissed = True, False

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.held = SimpleNamespace(given=0, idle_since=0.0)

    def send(self, jobs: list[Job], worker: object, now: float) -> None:
        self.jobs |= {each.id: each for each in jobs}


def solos(limit: int) -> tuple[IsolatedRunners, list[Fake]]:
    started: list[Fake] = []

    def start_runner() -> RunnerProcess:
        started.append(Fake())
        return cast(RunnerProcess, started[-1])

    return IsolatedRunners(limit, None, start_runner), started


def test_no_more_jobs_wait_than_there_may_be_runners() -> None:
    alone, started = solos(2)
    alone.give([job(n) for n in range(10)], uuid4(), 0.0)
    assert [list(runner.jobs) for runner in started] == [[0], [1]]
    assert [each.id for each in alone.surplus()] == [9, 8, 7, 6, 5, 4]
    assert [each.id for each in alone.waiting()] == [2, 3]
    assert alone.surplus() == []


def test_runners_that_end_one_after_the_other_are_followed_ever_later() -> None:
    alone, started = solos(1)
    now, waited = 0.0, []
    for number in range(8):
        alone.give([job(number)], uuid4(), now)
        began = now
        while len(started) <= number:
            now += 0.05
            alone.assign(now)
        waited.append(round(now - began, 1))
        alone.on_exit(cast(RunnerProcess, started[-1]), now)
    assert waited[:3] == [0.0, 0.0, 0.0]
    assert waited[3] > 0
    assert max(waited) <= 2.1
    # After half a minute without an end the next is followed at once again.
    now += 40.0
    alone.give([job(100)], uuid4(), now)
    alone.on_exit(cast(RunnerProcess, started[-1]), now)
    alone.give([job(101)], uuid4(), now)
    assert len(started) == 10
