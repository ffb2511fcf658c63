"""Batches, seen from the dispatcher: what a runner holds, who gets which jobs, and what its end means for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from jobq._worker.ipc.messages import Disposition, Job, Run, RunnerReady, Success, TaskInfo, WorkerStarted
from jobq._worker.ipc.slot_table import MARKS, SETTLED, SlotTable
from jobq._worker.runners.batch_distribution import BatchMix
from jobq._worker.runners.crash_policy import RunnerExit, judge
from jobq._worker.runners.exits import exit_of
from jobq._worker.runners.held_jobs import HeldJobs
from jobq._worker.runners.liveness import Liveness
from jobq._worker.runners.process import RunnerProcess
from tests.support.runners import WORKER, Stage, job

INDEX = TaskInfo("index", "default", False, True, 4.0, 60.0, batch=10, linger=2.0)
BATCHES = {"index": INDEX}


def many(numbers: range, task: str = "index", **changes: Any) -> list[Job]:
    return [job(number, task, **changes) for number in numbers]


# --- what a runner holds


@pytest.fixture
def table() -> Iterator[SlotTable]:
    table = SlotTable.create(2)
    yield table
    table.close()


@pytest.fixture
def held(table: SlotTable) -> HeldJobs:
    return HeldJobs(table, 5.0)


def start(held: HeldJobs, table: SlotTable, slot: int, number: int, ids: list[int]) -> None:
    pairs = [(held.by_id[each].serial, held.by_id[each].mark) for each in ids]
    table.start_batch(slot, number, pairs, now=6.0, deadline=None)


def test_only_jobs_of_batch_tasks_get_marks(held: HeldJobs) -> None:
    jobs = [job(1), job(2, "index"), job(3, "index")]
    held.assign(jobs, 6.0, BATCHES)
    assert held.marks(jobs) == [0, 1, 2]
    assert held.marks(jobs[:1]) == []


def test_a_job_of_a_batch_is_started_when_its_mark_says_so(held: HeldJobs, table: SlotTable) -> None:
    held.assign([*many(range(1, 4)), job(4), *many(range(5, 6))], 6.0, BATCHES)
    assert table.start(0, 4, 4, 1, now=6.0, deadline=None)
    assert [each.job.id for each in held.unstarted()] == [1, 2, 3, 5]
    start(held, table, 1, 1, [1, 2])
    assert [each.job.id for each in held.unstarted()] == [3, 5]
    assert sorted(slot.id for slot in held.running()) == [1, 2, 4]


def test_jobs_that_wait_for_their_batch_are_taken_back_and_running_ones_are_not(
    held: HeldJobs, table: SlotTable
) -> None:
    held.assign(many(range(1, 6)), 6.0, BATCHES)
    start(held, table, 0, 1, [1, 2])
    held.revoke(7.0)
    assert [each.id for each in held.take_revoked(7.0 + 2 * SETTLED)] == [3, 4, 5]
    assert sorted(held.by_id) == [1, 2]
    # Their marks are given to others, which have not started.
    held.assign(many(range(6, 9)), 8.0, BATCHES)
    assert [each.job.id for each in held.unstarted()] == [6, 7, 8]


def test_a_mark_that_is_used_again_says_that_its_job_has_not_started(held: HeldJobs, table: SlotTable) -> None:
    held.assign(many(range(1, 2)), 6.0, BATCHES)
    start(held, table, 0, 1, [1])
    table.clear(0)
    held.take([Success(1, 1, 0, b"", 0.1)])
    held.assign(many(range(2, 3)), 7.0, BATCHES)
    assert held.by_id[2].mark == 1
    assert [each.job.id for each in held.unstarted()] == [2]


def test_a_batch_takes_one_slot_and_waiting_jobs_as_many_as_they_fill(held: HeldJobs, table: SlotTable) -> None:
    assert held.load == 0
    held.assign([*many(range(1, 13)), job(50)], 6.0, BATCHES)
    assert held.load == 3
    start(held, table, 0, 1, list(range(1, 4)))
    # One slot for those three, one for the other nine, and one for the job that is alone.
    assert held.load == 3
    held.take([Success(each, 1, 0, b"", 0.1) for each in (*range(1, 13), 50)])
    table.clear(0)
    assert held.load == 0


def test_jobs_that_run_alone_take_a_slot_each(held: HeldJobs) -> None:
    held.assign(many(range(1, 4), crashes=1), 6.0, BATCHES)
    assert held.load == 3


def test_a_job_without_a_mark_left_runs_by_itself(held: HeldJobs) -> None:
    held.assign(many(range(1, MARKS + 1)), 6.0, BATCHES)
    assert held.marks_left == 0
    held.assign(many(range(MARKS + 1, MARKS + 2)), 6.0, BATCHES)
    assert held.by_id[MARKS + 1].mark == 0
    held.take([Success(1, 1, 0, b"", 0.1)])
    held.assign(many(range(MARKS + 2, MARKS + 3)), 6.0, BATCHES)
    assert held.by_id[MARKS + 2].mark == 1


def test_a_runner_owes_the_outcomes_of_a_batch_that_has_ended(held: HeldJobs, table: SlotTable) -> None:
    liveness = Liveness(table, held)
    held.assign(many(range(1, 4)), 6.0, BATCHES)
    start(held, table, 0, 1, [1, 2])
    liveness.check_reports(table.started(), 0)
    liveness.check_reports(table.started(), 0)
    assert liveness.silent_checks == 0
    table.clear(0)
    liveness.check_reports(table.started(), 0)
    assert liveness.silent_checks == 1


# --- how many jobs to ask for


def test_claims_grow_with_the_share_of_batches_in_those_before() -> None:
    mix = BatchMix()
    assert (bool(mix), mix.jobs_for(3)) == (False, 3)
    mix.saw(many(range(20)), BATCHES)
    assert mix.jobs_for(3) == 30
    assert mix.jobs_for(-1) == -10
    mix.saw(many(range(20), "work"), BATCHES)
    # 30 jobs, the older ones with half their weight, take 21 slots.
    assert mix.jobs_for(21) == 30
    for _ in range(60):
        mix.saw(many(range(20), "work"), BATCHES)
    assert mix.jobs_for(20) == 20


# --- who gets them


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    stage = Stage(monkeypatch)
    yield stage
    await stage.close()


async def staffed(stage: Stage) -> list[RunnerProcess]:
    runners = await stage.staffed()
    tasks = [TaskInfo("work", "default", False, True, 4.0, 60.0), INDEX]
    stage.pool._on_message(runners[0], WorkerStarted())
    for runner in runners:
        stage.pool._on_message(runner, RunnerReady(tasks))
    return runners


def given(stage: Stage, runner: RunnerProcess) -> list[list[int]]:
    return [[each.id for each in sent.jobs] for sent in stage.sent(runner) if isinstance(sent, Run)]


async def test_a_batch_goes_to_one_runner_and_the_next_to_another(stage: Stage) -> None:
    first, second = await staffed(stage)
    stage.pool.give(many(range(1, 5)), WORKER)
    stage.pool.give(many(range(5, 15)), WORKER)
    assert [given(stage, first), given(stage, second)] == [[[1, 2, 3, 4], list(range(5, 11))], [[11, 12, 13, 14]]]
    # Later, the first batch has begun without them.
    stage.clock.advance(3.0)
    stage.pool.give(many(range(15, 17)), WORKER)
    assert [given(stage, first)[2:], given(stage, second)[1:]] == [[[15, 16]], []]


async def test_other_jobs_go_to_the_runner_with_fewer_slots_taken(stage: Stage) -> None:
    first, second = await staffed(stage)
    stage.pool.give(many(range(1, 11)), WORKER)
    stage.pool.give([job(20), job(21)], WORKER)
    assert given(stage, first) == [list(range(1, 11)), [21]]
    assert given(stage, second) == [[20]]


async def test_room_counts_slots_and_not_jobs(stage: Stage) -> None:
    runners = await staffed(stage)
    assert stage.pool.room(0) == 4
    stage.pool.give(many(range(1, 5)), WORKER)
    # The last claim had only batches: three slots for ten jobs each are idle.
    assert stage.pool.room(0) == 30
    stage.pool.give(many(range(5, 41)), WORKER)
    assert [runner.held.load for runner in runners] == [2, 2]
    assert (stage.pool.load, stage.pool.room(0)) == (4, 0)
    # A batch may wait for each runner if slots become idle soon.
    assert [stage.pool.room(0, soon) for soon in (5.0, 10.0, 100.0)] == [0, 10, 20]


async def test_a_job_that_lingers_is_not_taken_back_before_its_time(stage: Stage) -> None:
    await staffed(stage)
    stage.pool.give(many(range(1, 3)), WORKER)
    await stage.pass_time(2.5)
    assert stage.back() == []
    # It waits for the linger of two seconds, and then as long as any other job.
    await stage.pass_time(1.0)
    assert stage.back() == [1, 2]


# --- what the end of a runner means for them


async def test_the_end_of_a_runner_blames_the_jobs_of_its_batch_only(stage: Stage) -> None:
    runner, _ = await staffed(stage)
    runner.send([*many(range(1, 5)), *many(range(5, 7))], WORKER, stage.clock.now, BATCHES)
    start(runner.held, runner.table, 0, 3, [1, 2, 3])
    start(runner.held, runner.table, 1, 4, [4])
    runner.table.clear(1)
    verdict = judge(exit_of(runner, -9, stage.clock.now), {}, max_crashes=3, timeout_grace=5.0)
    found = {each.id: (each.ending, each.recorded) for each in verdict.setbacks}
    assert found == {
        **dict.fromkeys((1, 2, 3), (Disposition.CRASH, "crashed")),
        # It had ended, and its outcome was not received.
        4: (Disposition.RELEASE, "released"),
        5: (Disposition.RELEASE, None),
        6: (Disposition.RELEASE, None),
    }
    assert (verdict.guilty, verdict.suspected) == ([], {"index"})


@pytest.mark.parametrize(("size", "alone"), [(1, True), (3, False)])
async def test_a_batch_past_its_timeout_is_one_death_and_its_jobs_run_in_smaller_batches(
    stage: Stage, size: int, alone: bool
) -> None:
    runner, _ = await staffed(stage)
    runner.send(many(range(1, 1 + size), timeout=1.0), WORKER, stage.clock.now, BATCHES)
    pairs = [(held.serial, held.mark) for held in runner.jobs.values()]
    runner.table.start_batch(0, 1, pairs, now=stage.clock.now, deadline=stage.clock.now + 1)
    end: RunnerExit = exit_of(runner, -9, stage.clock.now + 60)
    verdict = judge(end, {}, max_crashes=3, timeout_grace=5.0)
    assert verdict.guilty == ["index"]
    assert {(each.recorded, each.run_alone) for each in verdict.setbacks} == {("timeout", alone)}
