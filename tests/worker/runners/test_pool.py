"""The runners of a worker as one, without processes: who gets which job, and what follows when a runner ends or wears out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from jobq._worker.ipc.messages import (
    AlreadyCommitted,
    CancelJobs,
    Disposition,
    Failure,
    ImportFailed,
    Outcomes,
    Progress,
    Run,
    Success,
)
from jobq._worker.runners.pool import NO_LEASE
from jobq._worker.runners.process import RunnerProcess
from jobq._worker.runners.scaling import pause_before_start
from jobq.errors import AppImportError
from tests.support.runners import WORKER, Stage, job

MakeStage = Callable[..., Stage]


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeStage]:
    made: list[Stage] = []

    def make(**options: Any) -> Stage:
        made.append(Stage(monkeypatch, **options))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def ids(jobs: object) -> list[int]:
    assert isinstance(jobs, Run)
    return [each.id for each in jobs.jobs]


def why(runner: RunnerProcess) -> str | None:
    """Why the runner was killed; None: it was not."""
    return runner.killed_for


# --- starting ----------------------------------------------------------------------------------------------------------


async def test_a_pool_starts_its_runners_and_is_ready_with_the_first(stage: MakeStage) -> None:
    on = stage(processes=3)
    starting = asyncio.create_task(on.pool.start())
    await on.turn()
    assert (len(on.started), on.pool.ready, on.pool.slots) == (3, False, 0)
    assert "3 importing the application 'shop:q'" in str(on.pool.unready)
    # The first one starts the worker; the others wait for it.
    on.imports(on.started[0])
    async with asyncio.timeout(10):
        await starting
    assert (on.pool.runners_ready, on.pool.slots, on.pool.unready, on.ready) == (1, 2, None, 1)
    assert on.pool.application.tasks == ["bad", "work"]


async def test_an_application_that_cannot_be_imported_ends_the_start(stage: MakeStage) -> None:
    on = stage()
    starting = asyncio.create_task(on.pool.start())
    await on.turn()
    on.pool._on_message(on.started[0], ImportFailed("no module named shop", "Traceback"))
    async with asyncio.timeout(10):
        with pytest.raises(AppImportError, match=r"'shop:q' cannot be imported: no module named shop"):
            await starting
    told = [on.pool.unready]
    on.pool._worker_start.ended(on.started[0])
    on.pool._worker_start.started(on.started[1])
    on.imports(on.started[1])
    told.append(on.pool.unready)
    assert told == ["the application 'shop:q' cannot be imported: no module named shop", None]


async def test_schedules_stay_those_of_the_first_import(stage: MakeStage) -> None:
    """A runner that starts later may read newer code, which this worker's dispatcher does not know."""
    on = stage()
    await on.staffed()
    first = on.pool.application.schedules
    on.imports(on.started[1])
    assert on.pool.application.schedules is first


# --- giving ------------------------------------------------------------------------------------------------------------


async def test_jobs_go_to_the_least_loaded_runner_and_to_a_slow_one_last(stage: MakeStage) -> None:
    on = stage()
    first, second = await on.staffed()
    on.pool.give([job(n) for n in range(1, 5)], WORKER)
    assert [ids(message) for message in on.sent(first)] == [[1, 3]]
    assert [ids(message) for message in on.sent(second)] == [[2, 4]]
    assert (on.pool.load, on.pool.held, on.pool.room(0), on.pool.room(3)) == (4, 4, 0, 3)
    on.starts(first, 1)
    on.ends(first, 1)
    first.table.beat(on.clock.now, 1.0)
    on.pool.give([job(5)], WORKER)
    assert 5 in second.jobs


async def test_a_job_of_an_unknown_task_is_parked_and_given_to_no_runner(stage: MakeStage) -> None:
    on = stage()
    await on.staffed()
    on.pool.give([job(1, "wrok"), job(2)], WORKER)
    [parked] = on.setbacks
    assert (parked.id, parked.ending, parked.refused) == (1, Disposition.PARK, "task")
    assert "(there is 'work')" in str(parked.message)
    assert on.pool.held == 1


async def test_a_runner_gets_no_more_jobs_than_it_may_run_in_its_life(stage: MakeStage) -> None:
    on = stage(processes=1, concurrency=16, max_jobs_per_runner=3)
    [runner] = await on.staffed()
    assert on.pool.room(10) == 3
    on.pool.give([job(n) for n in range(1, 6)], WORKER)
    assert list(runner.jobs) == [1, 2, 3]
    assert on.back() == [4, 5]


async def test_isolated_jobs_get_a_process_each_and_take_no_slot(stage: MakeStage) -> None:
    on = stage(isolated=2)
    ordinary = await on.staffed(isolated=("alone",))
    on.pool.give([job(1, "alone"), job(2, "alone"), job(3, "alone"), job(4)], WORKER)
    alone = on.started[len(ordinary) :]
    assert [list(runner.jobs) for runner in alone] == [[1], [2]]
    assert [runner.slots for runner in alone] == [1, 1]
    # The third waits here for a second, then in the database.
    assert (on.pool.slots, on.pool.held) == (4, 4)
    on.starts(ordinary[0], 4)
    await on.pass_time(1.2)
    assert on.back() == [3]


async def test_a_job_that_crashed_twice_or_must_run_alone_gets_a_runner_of_its_own(stage: MakeStage) -> None:
    on = stage(isolated=3)
    ordinary = await on.staffed()
    on.pool.give([job(1, crashes=2), job(2, run_alone=True), job(3, releases=2), job(4, crashes=1)], WORKER)
    assert sorted(list(runner.jobs) for runner in on.started[len(ordinary) :]) == [[1], [2], [3]]
    assert [list(runner.jobs) for runner in ordinary] == [[4], []]


async def test_an_id_that_is_issued_again_never_shares_a_runner(stage: MakeStage) -> None:
    on = stage(processes=1)
    [runner] = await on.staffed()
    on.pool.give([job(1, started=5)], WORKER)
    on.pool.give([job(1, started=9), job(2)], WORKER)
    assert {held.job.started for held in runner.jobs.values() if held.job.id == 1} == {5}
    assert [held.job.started for held in on.started[1].jobs.values()] == [9]
    assert on.pool.holds(1, 1, 5)
    assert on.pool.holds(1, 1, 9)
    assert not on.pool.holds(1, 1, 7)


# --- reports -----------------------------------------------------------------------------------------------------------


async def test_an_outcome_is_passed_on_once_and_only_by_the_runner_that_holds_the_job(stage: MakeStage) -> None:
    on = stage()
    first, second = await on.staffed()
    on.pool.give([job(1), job(2), job(3), job(4)], WORKER)
    success = Success(1, 1, 0, b"null", 0.1)
    setback = Failure(3, 1, 0, Disposition.RETRY)
    record = AlreadyCommitted(2, 1, 0, accepted=True)
    foreign = Success(1, 2, 0, b"null", 0.1)
    on.pool._on_message(second, Outcomes([success, foreign], [setback], [record]))
    assert (on.successes, on.setbacks, on.recorded) == ([], [], [record])
    for _ in range(2):
        on.pool._on_message(first, Outcomes([success, foreign], [setback]))
    assert on.successes == [success]
    [told] = on.setbacks
    assert (told.id, told.task, told.queue, told.attempt, told.max_attempts) == (3, "work", "default", 1, 10)
    assert on.pool.held == 1


async def test_progress_is_passed_on(stage: MakeStage) -> None:
    on = stage()
    runner, _ = await on.staffed()
    on.pool._on_message(runner, Progress(1, 1, 0, 3, 10))
    assert on.progress == [Progress(1, 1, 0, 3, 10)]


async def test_an_isolated_runner_that_reports_takes_the_job_that_waits(stage: MakeStage) -> None:
    on = stage(isolated=1)
    ordinary = await on.staffed(isolated=("alone",))
    on.pool.give([job(1, "alone"), job(2, "alone")], WORKER)
    alone = on.started[len(ordinary)]
    on.imports(alone, isolated=("alone",))
    on.starts(alone, 1)
    on.ends(alone, 1)
    assert list(alone.jobs) == [2]
    assert len(on.started) == len(ordinary) + 1


# --- a runner that ends ------------------------------------------------------------------------------------------------


async def test_a_runner_that_crashes_is_replaced_and_its_jobs_are_judged(stage: MakeStage) -> None:
    on = stage(processes=1)
    [runner] = await on.staffed()
    on.pool.give([job(1), job(2), job(3)], WORKER)
    on.starts(runner, 1)
    on.exits(runner)
    assert {each.id: (each.ending, each.recorded) for each in on.setbacks} == {
        1: (Disposition.CRASH, "crashed"),
        2: (Disposition.RELEASE, None),
        3: (Disposition.RELEASE, None),
    }
    assert on.pool.deaths == {"crashed": 1}
    assert (on.pool.ready, on.pool.held) == (False, 0)
    await on.turn()
    assert len(on.started) == 2
    assert on.pool.changed.is_set()


async def test_runners_that_end_before_they_are_ready_are_followed_ever_later(
    stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr("jobq._worker.runners.scaling.asyncio.sleep", sleep)
    real = asyncio.get_running_loop()

    async def turn() -> None:
        for _ in range(5):
            done: asyncio.Future[None] = real.create_future()
            real.call_soon(done.set_result, None)
            await done

    on = stage(processes=1)
    on.pool.supervise(NO_LEASE)
    await turn()
    for number in range(1, 5):
        assert len(on.started) == number
        on.exits(on.started[-1], 1)
        await turn()
    assert paused == [pause_before_start(failed) for failed in (2, 3, 4)]
    assert paused == sorted(paused)
    # One that gets ready ends the waiting.
    on.imports(on.started[-1])
    assert on.pool.failed_starts == 0
    on.exits(on.started[-1])
    await turn()
    assert len(paused) == 3
    assert len(on.started) == 6


def test_the_pause_before_a_start_is_bounded() -> None:
    assert [pause_before_start(number) for number in (0, 1)] == [0.0, 0.0]
    pauses = [pause_before_start(number) for number in range(2, 40)]
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < 1
    assert pauses[-1] <= 60


async def test_a_task_that_ends_one_runner_after_the_other_runs_alone(stage: MakeStage) -> None:
    on = stage(processes=1, isolated=1)
    await on.staffed()
    for number in range(1, 4):
        on.pool.give([job(number, "bad")], WORKER)
        runner = on.started[-1]
        assert number in runner.jobs
        on.starts(runner, number)
        on.exits(runner)
        await on.turn()
        on.imports(on.started[-1])
    on.pool.give([job(4, "bad"), job(5, "work")], WORKER)
    ordinary, alone = on.started[-2:]
    assert (list(ordinary.jobs), list(alone.jobs), alone.slots) == ([5], [4], 1)


async def test_a_runner_that_ended_with_its_lease_blames_no_job(stage: MakeStage) -> None:
    on = stage(processes=1)
    [runner] = await on.staffed()
    on.pool.give([job(1)], WORKER)
    on.starts(runner, 1)
    runner.table.end_by_lease(on.clock.now - 1)
    on.exits(runner, 75)
    [setback] = on.setbacks
    assert (setback.ending, setback.recorded, setback.releases) == (Disposition.RELEASE, "released", 0)
    assert on.pool.deaths == {"killed": 1}


async def test_a_runner_whose_job_put_its_clock_ahead_blames_it(stage: MakeStage) -> None:
    on = stage(processes=1)
    [runner] = await on.staffed()
    on.pool.give([job(1)], WORKER)
    on.starts(runner, 1)
    runner.table.end_by_lease(on.clock.now + 1000)
    on.exits(runner, 75)
    [setback] = on.setbacks
    assert (setback.ending, setback.recorded, setback.run_alone) == (Disposition.CRASH, "crashed", True)


# --- looking after them ------------------------------------------------------------------------------------------------


async def test_a_job_that_does_not_start_within_a_second_goes_back(stage: MakeStage) -> None:
    on = stage(processes=1)
    [runner] = await on.staffed()
    on.pool.give([job(1), job(2), job(3)], WORKER)
    on.starts(runner, 1)
    on.starts(runner, 2)
    await on.pass_time(0.9)
    assert on.back() == []
    await on.pass_time(0.4)
    assert on.back() == [3]
    assert sorted(runner.jobs) == [1, 2]
    # What is taken back does not count among those that it may run in its life.
    assert runner.held.given == 2


async def test_a_runner_that_does_not_react_gets_a_stand_in_which_stays_for_a_while(stage: MakeStage) -> None:
    on = stage(processes=1)
    [stuck] = await on.staffed()
    on.pool.give([job(1), job(2), job(3)], WORKER)
    on.starts(stuck, 1)
    await on.pass_time(0.7, dead=(stuck,))
    # No other runner: what waits behind it goes back at once, and no more is claimed.
    assert sorted(on.back()) == [2, 3]
    assert (on.pool.slots, on.pool.room(5)) == (0, 5)
    assert "1 runners do not react" in str(on.pool.unready)
    await on.pass_time(1.2, dead=(stuck,))
    assert len(on.started) == 2
    on.imports(on.started[1])
    assert on.pool.slots == 2
    # It reacts again: both stay for a while, then the one with less to do goes.
    await on.pass_time(5)
    assert on.pool.slots == 4
    await on.pass_time(6)
    assert [runner.draining for runner in on.started] == [None, "its help is no longer needed"]
    assert on.started[1].dismissed
    assert len(on.started) == 2


async def test_a_runner_that_has_run_most_of_its_jobs_is_replaced_without_a_gap(stage: MakeStage) -> None:
    on = stage(processes=1, concurrency=10, max_jobs_per_runner=10)
    [old] = await on.staffed()
    on.pool.give([job(n) for n in range(1, 9)], WORKER)
    for number in range(1, 9):
        on.starts(old, number)
    await on.pass_time(0.2)
    assert old.needs_replacement == "it will soon have run its 10 jobs"
    assert len(on.started) == 2
    assert old.ready
    on.imports(on.started[1])
    await on.pass_time(0.1)
    # The successor is there: the old one gets no more, and goes once it has nothing left.
    assert (old.draining, old.ready, old.dismissed) == ("it will soon have run its 10 jobs", False, False)
    on.pool.give([job(9)], WORKER)
    assert 9 in on.started[1].jobs
    on.ends(old, *range(1, 9))
    await on.pass_time(0.1)
    assert old.dismissed
    on.exits(old, 0)
    await on.turn()
    assert on.pool.deaths == {}
    assert len(on.started) == 2


@pytest.mark.parametrize(("grown", "killed"), [(1.2, False), (1.6, True)])
async def test_a_runner_that_has_grown_is_replaced_or_killed(
    stage: MakeStage, monkeypatch: pytest.MonkeyPatch, grown: float, killed: bool
) -> None:
    on = stage(processes=1, max_rss_mb=100)
    [runner] = await on.staffed()
    on.pool.give([job(1)], WORKER)
    on.starts(runner, 1)
    monkeypatch.setattr(type(runner), "rss", property(lambda each: int(grown * 100 * 2**20) if each is runner else 0))
    await on.pass_time(0.1)
    if killed:
        assert why(runner) == "it used 160 MiB, far above max_rss_mb=100"
        on.exits(runner, -9)
        [setback] = on.setbacks
        assert (setback.recorded, setback.run_alone) == ("crashed", True)
    else:
        assert runner.needs_replacement == "it used 120 MiB, above max_rss_mb=100"
        assert why(runner) is None
        await on.turn()
        assert len(on.started) == 2


async def test_an_import_that_hangs_is_ended(stage: MakeStage) -> None:
    on = stage(processes=1, import_timeout=3)
    on.pool.supervise(NO_LEASE)
    await on.turn()
    await on.pass_time(2.5)
    assert why(on.started[0]) is None
    await on.pass_time(1)
    assert why(on.started[0]) == "it had not imported the application after 3 s"


async def test_a_runner_that_owes_an_outcome_and_sends_nothing_is_killed(stage: MakeStage) -> None:
    on = stage(processes=1)
    [runner] = await on.staffed()
    on.pool.give([job(1), job(2)], WORKER)
    on.starts(runner, 1)
    on.starts(runner, 2)
    runner.table.clear(0)
    await on.pass_time(9)
    assert why(runner) is None
    await on.pass_time(2)
    assert why(runner) == "it did not tell how its jobs had ended"
    on.exits(runner, -9)
    assert {each.id: each.error_type for each in on.setbacks} == {1: "OutcomeLost", 2: "Released"}


async def test_a_job_over_its_timeout_ends_its_runner_after_the_jobs_beside_it(stage: MakeStage) -> None:
    on = stage(processes=1, timeout_grace=1, bystander_grace=5)
    [runner] = await on.staffed()
    on.pool.give([job(1, timeout=1.0), job(2)], WORKER)
    on.starts(runner, 1, deadline=on.clock.now + 1)
    on.starts(runner, 2)
    await on.pass_time(1.9)
    assert on.pool.ready
    await on.pass_time(0.3)
    # It gets no more jobs, and has a successor meanwhile.
    assert (runner.draining, why(runner)) == ("a job passed its timeout", None)
    assert len(on.started) == 2
    on.ends(runner, 2)
    await on.pass_time(0.1)
    assert why(runner) == "a job passed its timeout"
    on.exits(runner, -9)
    [setback] = on.setbacks
    assert (setback.id, setback.recorded, setback.run_alone) == (1, "timeout", True)


async def test_the_jobs_beside_one_over_its_timeout_have_only_so_long(stage: MakeStage) -> None:
    on = stage(processes=1, timeout_grace=1, bystander_grace=5)
    [runner] = await on.staffed()
    on.pool.give([job(1, timeout=1.0), job(2)], WORKER)
    on.starts(runner, 1, deadline=on.clock.now + 1)
    on.starts(runner, 2)
    await on.pass_time(6.5)
    assert why(runner) is None
    await on.pass_time(1)
    assert why(runner) == "a job passed its timeout"


async def test_an_idle_runner_outlives_the_lease_and_gets_nothing(stage: MakeStage) -> None:
    on = stage(processes=2)
    idle, busy = await on.staffed()
    on.pool.give([job(1), job(2)], WORKER)
    on.starts(busy, 2)
    on.starts(idle, 1)
    on.ends(idle, 1)
    on.pool.supervise(on.clock.now - 1)
    # The one with a job must end; the other would only be followed by one that ends as well.
    assert (idle.table.lease_ends, busy.table.lease_ends) == (0.0, on.clock.now - 1)
    assert (on.pool.ready, on.pool.unready) == (False, "the lease is over: no heartbeat for too long")
    on.pool.supervise(on.clock.now + 60)
    assert on.pool.ready
    # New room is told.
    assert on.ready == 3


# --- stopping ----------------------------------------------------------------------------------------------------------


async def test_a_worker_that_stops_takes_back_what_has_not_started_and_starts_no_runner(stage: MakeStage) -> None:
    on = stage(processes=2)
    on.pool.supervise(NO_LEASE)
    await on.turn()
    runner, importing = on.started
    on.imports(runner)
    on.pool.give([job(1), job(2)], WORKER)
    on.starts(runner, 1)
    on.pool.drain()
    assert why(importing) == "the worker stops"
    on.exits(importing, -9)
    await on.pass_time(0.3)
    assert on.back() == [2]
    assert (list(runner.jobs), runner.dismissed) == ([1], False)
    on.ends(runner, 1)
    await on.pass_time(0.1)
    assert runner.dismissed
    assert len(on.started) == 2


async def test_a_cancelled_job_is_told_to_its_runner_or_goes_back_if_it_waits(stage: MakeStage) -> None:
    on = stage(processes=1, isolated=1)
    [runner] = await on.staffed(isolated=("alone",))
    on.pool.give([job(1), job(2, "alone"), job(3, "alone")], WORKER)
    on.pool.starts.give([job(4)], WORKER, time.monotonic())
    on.pool.cancel([1, 3, 4, 99])
    assert on.sent(runner)[-1] == CancelJobs([1])
    assert sorted(on.back()) == [3, 4]
    on.pool.cancel_all()
    assert on.sent(runner)[-1] == CancelJobs([1], stopping=True)


async def test_a_lost_lease_kills_the_runners_that_have_jobs_only(stage: MakeStage) -> None:
    on = stage(processes=2)
    busy, idle = await on.staffed()
    on.pool.give([job(1)], WORKER)
    on.pool.kill_all("the lease is lost")
    assert (why(busy), busy.of_worker, why(idle)) == ("the lease is lost", True, None)
    on.exits(busy, -9)
    [setback] = on.setbacks
    assert (setback.ending, setback.recorded) == (Disposition.RELEASE, None)
    on.pool.end_all()
    assert why(idle) == "the worker stops"
