"""What follows from the end of a runner for each job that it held: a table of cases, with no process."""

from __future__ import annotations

from typing import Any

import pytest

from jobq._worker.ipc.messages import Disposition, Failure, Job, TaskInfo
from jobq._worker.ipc.slot_table import Started
from jobq._worker.runners.crash_policy import STOPPING, RunnerExit, Verdict, judge, unserved
from jobq._worker.runners.held_jobs import HeldJob

NOW = 1000.0
GRACE = 5.0


def job(number: int, task: str = "bad", **changes: Any) -> Job:
    values: dict[str, Any] = {"attempt": 1, "max_attempts": 10, "crashes": 0, "timeout": None, **changes}
    return Job(number, 1, task, "default", b"{}", headers=b"{}", **values)


def ended(
    *running: Job, unheard: tuple[Job, ...] = (), waiting: tuple[Job, ...] = (), late: float | None = None, **how: Any
) -> RunnerExit:
    """A runner that has ended and was executing `running`, each `late` by so many seconds.

    It had not reported `unheard`, and not started `waiting`.
    """
    begun = [*unheard, *running]
    held = [HeldJob(each, NOW - 10, serial) for serial, each in enumerate([*begun, *waiting], 1)]
    deadline = None if late is None else NOW - late
    slots = [Started(each.id, each.claims, NOW - 3, deadline) for each in running]
    unstarted = frozenset(each.id for each in waiting)
    return RunnerExit(status=-11, at=NOW, held=held, running=slots, unstarted=unstarted, **how)


def judged(end: RunnerExit, facts: dict[str, TaskInfo] | None = None) -> Verdict:
    return judge(end, facts or {}, max_crashes=3, timeout_grace=GRACE)


def by_job(verdict: Verdict) -> dict[int, Failure]:
    found = {setback.id: setback for setback in verdict.setbacks}
    assert len(found) == len(verdict.setbacks)
    return found


def test_what_had_not_begun_goes_back_as_if_it_had_not_been_claimed() -> None:
    verdict = judged(ended(job(1), waiting=(job(2), job(3))))
    setbacks = by_job(verdict)
    assert setbacks[2] == Failure(2, 1, 0, Disposition.RELEASE)
    assert setbacks[3] == Failure(3, 1, 0, Disposition.RELEASE)


@pytest.mark.parametrize(
    ("tasks", "guilty", "suspected"),
    [(["bad"], ["bad"], set()), (["bad", "other"], [], {"bad", "other"})],
)
def test_which_job_has_ended_a_runner_that_crashed(tasks: list[str], guilty: list[str], suspected: set[str]) -> None:
    """All that ran are counted as crashed. Only the one that ran alone is certain to be the reason."""
    verdict = judged(ended(*(job(n, task) for n, task in enumerate(tasks))))
    assert (verdict.guilty, verdict.suspected) == (guilty, suspected)
    assert {(each.ending, each.recorded, each.run_alone) for each in verdict.setbacks} == {
        (Disposition.CRASH, "crashed", False)
    }
    assert verdict.setbacks[0].message == "its runner was killed by SIGSEGV while it ran"
    assert verdict.setbacks[0].seconds == 3.0


def test_a_first_crash_runs_again_at_once_later_ones_wait_and_the_last_is_a_dead_letter() -> None:
    first, second, last = (by_job(judged(ended(job(1, crashes=crashes))))[1] for crashes in (0, 1, 2))
    assert (first.ending, first.delay) == (Disposition.CRASH, 0.0)
    assert second.ending is Disposition.CRASH
    assert second.delay > 0
    assert (last.ending, last.delay) == (Disposition.FAIL, 0.0)
    assert str(last.message).endswith("3 times now")


def test_a_job_whose_outcome_was_not_heard_is_released_once_and_then_blamed() -> None:
    """Nothing ran: one of those that had ended is the reason. A kill may come between an end and its report, so once only."""
    released, blamed = (judged(ended(unheard=(job(1, releases=releases),))) for releases in (0, 1))
    assert (released.guilty, blamed.guilty) == (["bad"], ["bad"])
    [first], [second] = released.setbacks, blamed.setbacks
    assert (first.ending, first.recorded, first.releases, first.run_alone) == (Disposition.RELEASE, "released", 1, True)
    assert (second.ending, second.recorded, second.run_alone) == (Disposition.CRASH, "crashed", True)


def test_of_several_jobs_whose_outcomes_were_not_heard_none_is_guilty() -> None:
    verdict = judged(ended(unheard=(job(1), job(2))))
    assert verdict.guilty == []
    assert {(each.error_type, each.run_alone) for each in verdict.setbacks} == {("OutcomeLost", False)}


def test_an_unheard_job_beside_one_that_crashed_is_released() -> None:
    verdict = judged(ended(job(1, "runs"), unheard=(job(2, "ended"),)))
    setbacks = by_job(verdict)
    assert setbacks[1].ending is Disposition.CRASH
    assert (setbacks[2].ending, setbacks[2].recorded, setbacks[2].releases) == (Disposition.RELEASE, "released", 1)
    # It may also have been the one that had ended.
    assert (verdict.guilty, verdict.suspected) == ([], {"runs"})


@pytest.mark.parametrize(("jobs", "recorded"), [(2, "released"), (1, "crashed")])
def test_a_runner_that_is_cut_off_before_the_job_that_did_so_has_ended(jobs: int, recorded: str) -> None:
    """Beside others it is not known which job that was: they are released, and run alone the next time. Alone it is known."""
    verdict = judged(ended(*(job(n) for n in range(jobs)), cut_off=True))
    assert {each.recorded for each in verdict.setbacks} == {recorded}


def test_what_runs_in_a_runner_that_cannot_report_is_spared() -> None:
    end = ended(job(1), unheard=(job(2),), killed_for="it did not tell", cannot_report=True, to_blame=True)
    setbacks = by_job(judged(end))
    assert (setbacks[1].ending, setbacks[1].error_type) == (Disposition.RELEASE, "Released")
    assert (setbacks[2].ending, setbacks[2].error_type) == (Disposition.RELEASE, "OutcomeLost")


@pytest.mark.parametrize(("over", "alone"), [(GRACE - 1, False), (GRACE + 1, True)])
def test_a_job_over_its_timeout_gets_a_timeout_and_runs_alone_if_it_cost_a_runner(over: float, alone: bool) -> None:
    verdict = judged(ended(job(1, timeout=2.0), late=over, killed_for="a job passed its timeout"))
    [setback] = verdict.setbacks
    assert (setback.ending, setback.recorded, setback.run_alone) == (Disposition.RETRY, "timeout", alone)
    assert setback.delay > 0
    assert verdict.guilty == (["bad"] if alone else [])


@pytest.mark.parametrize(
    ("attempt", "retries", "ending"),
    [(1, True, Disposition.RETRY), (10, True, Disposition.FAIL), (1, False, Disposition.FAIL)],
)
def test_a_timeout_by_force_is_retried_as_the_task_says(attempt: int, retries: bool, ending: Disposition) -> None:
    facts = {"bad": TaskInfo("bad", "default", False, retries, 4.0, 60.0, backoff_jitter=False)}
    end = ended(job(1, timeout=2.0, attempt=attempt), late=GRACE + 1, killed_for="a job passed its timeout")
    [setback] = judged(end, facts).setbacks
    assert (setback.ending, setback.delay) == (ending, 4.0 if ending is Disposition.RETRY else 0.0)


def test_jobs_beside_one_that_was_ended_by_force_go_back_and_the_release_is_counted() -> None:
    late = Started(1, 1, NOW - 9, NOW - GRACE - 1)
    end = ended(job(1, timeout=2.0), job(2), killed_for="a job passed its timeout")
    end = RunnerExit(
        status=-9,
        at=NOW,
        held=end.held,
        running=[late, end.running[1]],
        unstarted=frozenset(),
        killed_for=end.killed_for,
    )
    setbacks = by_job(judged(end))
    assert setbacks[1].recorded == "timeout"
    assert (setbacks[2].ending, setbacks[2].recorded, setbacks[2].releases) == (Disposition.RELEASE, "released", 1)
    assert "was killed (a job passed its timeout)" in str(setbacks[2].message)


def test_a_runner_that_the_worker_ended_for_its_own_sake_blames_no_task() -> None:
    end = ended(job(1, timeout=1.0), late=1000.0, killed_for="no heartbeat for too long", of_worker=True)
    verdict = judged(end)
    assert (verdict.guilty, verdict.suspected) == ([], set())
    assert len(verdict.setbacks) == 1
    [setback] = judged(ended(job(1), killed_for="no heartbeat for too long", of_worker=True)).setbacks
    assert (setback.recorded, setback.releases) == ("released", 0)


def test_a_worker_that_stops_leaves_no_trace_in_the_jobs_that_it_gives_back() -> None:
    [setback] = judged(ended(job(1), killed_for=STOPPING, of_worker=True)).setbacks
    assert setback == Failure(1, 1, 0, Disposition.RELEASE, seconds=3.0)


def test_a_runner_killed_for_what_its_only_job_did_makes_it_run_alone() -> None:
    one = judged(ended(job(1), killed_for="it used 900 MiB", to_blame=True))
    two = judged(ended(job(1), job(2), killed_for="it used 900 MiB", to_blame=True))
    assert [(each.ending, each.run_alone) for each in one.setbacks] == [(Disposition.CRASH, True)]
    assert [(each.ending, each.run_alone) for each in two.setbacks] == [(Disposition.CRASH, False)] * 2


def test_suspects_that_found_no_process_wait_longer_each_time() -> None:
    plain = unserved(job(1), suspect=False)
    assert (plain.ending, plain.recorded) == (Disposition.RELEASE, None)
    assert 1 <= plain.delay <= 3
    waited = Job(1, 12, "bad", "default", b"{}", 1, 10, 0, None, b"{}")
    assert 20 <= unserved(waited, suspect=True).delay <= 60


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({}, "was killed by SIGSEGV"),
        ({"killed_for": "it used 900 MiB"}, "was killed (it used 900 MiB)"),
        ({"killed_for": "it has run its 10 jobs", "dismissed": True}, "has ended (it has run its 10 jobs)"),
        ({"cut_off": True}, "ended since it could not send outcomes any more: a task has closed its descriptors"),
    ],
)
def test_how_a_runner_ended_is_told(how: dict[str, Any], told: str) -> None:
    assert ended(**how).how == told
    assert RunnerExit(status=3, at=NOW, held=[], running=[], unstarted=frozenset()).how == "ended with status 3"
    assert RunnerExit(status=-200, at=NOW, held=[], running=[], unstarted=frozenset()).how == "was killed by signal 200"
