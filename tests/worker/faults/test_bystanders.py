"""Jobs that cost their runner its life end alone, and those beside them end, too, within bounds, and with a record."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from jobq.task import BaseTask
from tests.apps import rough, trouble
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.rough:q"
QUICK = ("--timeout-grace", "0.2")


def test_jobs_beside_one_that_hangs_end_before_their_runner_does(jobs: Jobs, worker: StartWorker) -> None:
    beside = [rough.work.enqueue(jobs.connection, 4.0).id for _ in range(3)]
    running = worker("--processes", "1", *QUICK, app=APP)
    wait_until(lambda: all(jobs.traces(job) for job in beside), what="the neighbours")
    hanging = rough.hang.enqueue(jobs.connection).id
    after = [rough.work.enqueue(jobs.connection, 0.1).id for _ in range(3)]
    # Another runner has taken its place meanwhile.
    assert {jobs.wait(job)["claims"] for job in after} <= {1, 2}
    ended = jobs.wait(hanging)
    assert (ended["state"], ended["error"][:21]) == ("failed", "timed out after 0.3 s")
    for job in beside:
        ended = jobs.wait(job)
        assert (ended["state"], ended["claims"], ended["attempt"]) == ("succeeded", 1, 1), jobs.attempts(job)
    assert running.is_running()


@pytest.mark.parametrize("grace", ["0", "1"])
def test_a_long_job_beside_a_stream_of_hanging_ones_ends(jobs: Jobs, worker: StartWorker, grace: str) -> None:
    """Without a grace that is long enough it is interrupted twice, and runs alone then."""
    long = rough.work.enqueue(jobs.connection, 6.0).id
    worker("--processes", "1", "--bystander-grace", grace, *QUICK, app=APP)
    wait_until(lambda: jobs.traces(long), what="the long job")
    until = time.monotonic() + 60
    # A stream: as soon as one has ended, there is the next.
    while jobs.finished(long) is None:
        assert time.monotonic() < until, jobs.live(long)
        jobs.wait(rough.hang.enqueue(jobs.connection).id)
    ended = jobs.finished(long) or {}
    assert (ended["state"], ended["attempt"], ended["crashes"]) == ("succeeded", 1, 0)
    attempts = jobs.attempts(long)
    assert {row["outcome"] for row in attempts} == {"released"}
    assert 1 <= len(attempts) <= 2
    assert ended["claims"] == len(attempts) + 1
    assert all("was killed (a job passed its timeout)" in row["message"] for row in some(attempts))


def test_a_job_that_cost_a_runner_by_its_timeout_runs_alone_next(jobs: Jobs, worker: StartWorker) -> None:
    hanging = rough.hang_twice.enqueue(jobs.connection).id
    running = worker("--processes", "1", "--bystander-grace", "0", *QUICK, app=APP)
    wait_until(lambda: jobs.attempts(hanging), what="the first end by force")
    assert (jobs.live(hanging) or jobs.finished(hanging) or {}).get("run_alone", True)
    beside = rough.work.enqueue(jobs.connection, 4.0).id
    ended = jobs.wait(hanging)
    assert (ended["state"], ended["attempt"]) == ("failed", 2)
    first, second = jobs.traces(hanging)
    assert first != second
    assert jobs.wait(beside)["claims"] == 1
    assert running.is_running()


def test_hanging_jobs_that_run_alone_leave_room_for_those_that_were_interrupted(
    jobs: Jobs, worker: StartWorker
) -> None:
    """They take every place of theirs, for as long as their timeouts last."""
    for _ in range(3):
        job = trouble.hang.enqueue(jobs.connection, 3600.0).id  # of another application: any args will do
        jobs.connection.execute(
            "UPDATE jobq.job SET run_alone = true, task = %s, args = '{\"seconds\": 3600}' WHERE id = %s",
            (rough.work.name, job),
        )
    worker("--processes", "1", "--isolated", "1", app=APP)
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running'"), what="one that runs alone")
    interrupted = rough.work.enqueue(jobs.connection, 0.5).id
    jobs.connection.execute("UPDATE jobq.job SET releases = 2 WHERE id = %s", (interrupted,))
    plain = rough.work.enqueue(jobs.connection, 0.5).id
    assert jobs.wait(interrupted)["state"] == "succeeded"
    assert jobs.wait(plain)["state"] == "succeeded"


@pytest.mark.parametrize("task", [rough.close_descriptors, rough.shut_sockets], ids=["closed", "shut"])
def test_a_job_after_which_its_runner_cannot_report_fails(
    jobs: Jobs, worker: StartWorker, task: BaseTask[[], str]
) -> None:
    beside = rough.work.enqueue(jobs.connection, 8.0).id
    running = worker("--processes", "1", app=APP)
    wait_until(lambda: jobs.traces(beside), what="the neighbour")
    job = task.enqueue(jobs.connection).id
    ended = jobs.wait(job, timeout=40)
    assert (ended["state"], ended["crashes"]) == ("failed", 3)
    # If the job's end is heard before the runner's, the outcome is what is missing; else the runner itself tells why.
    said = "its outcome never arrived|its runner ended since it could not send outcomes any more"
    assert re.search(said, ended["error"]), ended["error"]
    assert [row["outcome"] for row in jobs.attempts(job)] == ["released", "crashed", "crashed", "crashed"]
    # The one beside it was interrupted once, for the next time the job was alone.
    ended = jobs.wait(beside, timeout=40)
    # Not the number of claims: one that a slow machine has not begun within a second goes back.
    assert (ended["state"], ended["attempt"], ended["crashes"]) == ("succeeded", 1, 0)
    assert [row["outcome"] for row in jobs.attempts(beside)] == ["released"]
    assert running.is_running()


@pytest.mark.parametrize("keep", [False, True])
def test_a_job_whose_outcome_goes_nowhere_is_noticed(jobs: Jobs, worker: StartWorker, keep: bool) -> None:
    """Its runner goes on: only that the outcome does not come tells of it, or that the socket is closed."""
    job = rough.replace_sockets.enqueue(jobs.connection, keep).id
    worker("--processes", "1", "--max-crashes", "1", app=APP)
    ended = jobs.wait(job, timeout=60)
    assert (ended["state"], ended["crashes"]) == ("failed", 1)
    assert ended["error"].startswith("its outcome never arrived: its runner was killed (it "), ended["error"]
    assert [row["outcome"] for row in jobs.attempts(job)] == ["released", "crashed"]
