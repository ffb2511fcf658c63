"""Runners for one job at a time: how many wait for one, how soon the next is started, and whose fault an end was."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from jobq.config import Settings
from jobq.worker import verdicts
from jobq.worker.children import Child, Held
from jobq.worker.frames import Job
from jobq.worker.options import WorkerOptions
from jobq.worker.slots import Started
from jobq.worker.solos import Solos

OPTIONS = WorkerOptions(app="shop:q", settings=Settings())


def job(number: int, task: str = "bad", *, claims: int = 1, timeout: float | None = None) -> Job:
    return Job(number, claims, task, "default", b"{}", 1, 10, 0, timeout, b"{}")


class Fake:
    """A runner as `Solos` and `judge` see it."""

    killed_for = worn = retiring = None
    imported, dismissed, of_worker, to_blame, mute, ended_cut_off = True, False, False, False, False, False
    given = newest = 0

    def __init__(self) -> None:
        self.jobs: dict[int, Any] = {}
        self._started: list[Started] = []

    def send(self, jobs: list[Job], worker: object, now: float) -> None:
        self.jobs |= {each.id: each for each in jobs}

    def runs(self, *jobs: Job, deadline: float | None = None) -> Fake:
        now = time.monotonic()
        self.jobs = {each.id: Held(each, now, 0) for each in jobs}
        self._started = [SimpleNamespace(id=each.id, claims=each.claims, since=now, deadline=deadline) for each in jobs]  # type: ignore[misc]
        return self

    def started(self) -> list[Started]:
        return self._started


def solos(limit: int) -> tuple[Solos, list[Fake]]:
    hired: list[Fake] = []

    def hire() -> Child:
        hired.append(Fake())
        return cast(Child, hired[-1])

    return Solos(limit, None, hire), hired


def test_no_more_jobs_wait_than_there_may_be_runners() -> None:
    alone, hired = solos(2)
    alone.give([job(n) for n in range(10)], uuid4(), 0.0)
    assert [list(child.jobs) for child in hired] == [[0], [1]]
    assert [each.id for each in alone.surplus()] == [9, 8, 7, 6, 5, 4]
    assert [each.id for each in alone.waiting()] == [2, 3]
    assert alone.surplus() == []


def test_runners_that_end_one_after_the_other_are_followed_ever_later() -> None:
    alone, hired = solos(1)
    now, waited = 0.0, []
    for number in range(8):
        alone.give([job(number)], uuid4(), now)
        began = now
        while len(hired) <= number:
            now += 0.05
            alone.assign(now)
        waited.append(round(now - began, 1))
        alone.buried(cast(Child, hired[-1]), now)
    assert waited[:3] == [0.0, 0.0, 0.0]
    assert waited[3] > 0
    assert max(waited) <= 2.1
    # After half a minute without an end the next is followed at once again.
    now += 40.0
    alone.give([job(100)], uuid4(), now)
    alone.buried(cast(Child, hired[-1]), now)
    alone.give([job(101)], uuid4(), now)
    assert len(hired) == 10


@pytest.mark.parametrize(
    ("tasks", "guilty", "suspected"),
    [(["bad"], ["bad"], set()), (["bad", "other"], [], {"bad", "other"})],
)
def test_who_has_ended_a_runner_that_crashed(tasks: list[str], guilty: list[str], suspected: set[str]) -> None:
    child = Fake().runs(*(job(n, task) for n, task in enumerate(tasks)))
    found = verdicts.judge(cast(Child, child), "was killed by SIGSEGV", time.monotonic(), {}, OPTIONS)
    assert (found.guilty, found.suspected) == (guilty, suspected)


@pytest.mark.parametrize("of_worker", [False, True])
def test_a_job_that_passed_its_timeout_by_force_is_guilty_unless_the_worker_ended_all(of_worker: bool) -> None:
    child = Fake().runs(job(1, timeout=1.0), deadline=time.monotonic() - 1000.0)
    child.killed_for, child.of_worker = "a reason", of_worker  # type: ignore[assignment]
    found = verdicts.judge(cast(Child, child), "was killed", time.monotonic(), {}, OPTIONS)
    assert found.guilty == ([] if of_worker else ["bad"])
    assert len(found.setbacks) == 1


@pytest.mark.parametrize(("jobs", "recorded"), [(2, "released"), (1, "crashed")])
def test_a_runner_that_is_cut_off_before_the_job_that_did_so_has_ended(jobs: int, recorded: str) -> None:
    """Beside others it is not known which job that was: they are released, and run alone the next time. Alone it is known."""
    child = Fake().runs(*(job(n) for n in range(jobs)))
    child.ended_cut_off = True
    found = verdicts.judge(cast(Child, child), "ended", time.monotonic(), {}, OPTIONS)
    assert {setback.recorded for setback in found.setbacks} == {recorded}
