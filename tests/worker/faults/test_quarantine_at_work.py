"""A task whose jobs end their runners: after a few of them its jobs run alone, and harm those of others no more."""

from __future__ import annotations

from collections.abc import Callable

from jobq.diagnostics.snapshot import Snapshot
from jobq.diagnostics.workers import WORKER_CHECKS
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


def test_a_stream_of_crashing_jobs_leaves_the_others_alone(jobs: Jobs, worker: StartWorker) -> None:
    running = worker("--processes", "1", "--concurrency", "4")
    while "its jobs run alone" not in running.log:
        assert jobs.wait(apps.crash.enqueue(jobs.connection, "exit").id)["state"] == "failed"
    beside = [apps.wait.enqueue(jobs.connection, 6.0, str(n)).id for n in range(3)]
    wait_until(lambda: all(jobs.traces(job) for job in beside), what="the neighbours")
    crashing = [apps.crash.enqueue(jobs.connection, "exit").id for _ in range(2)]
    for job in beside:
        ended = jobs.wait(job)
        assert (ended["state"], ended["claims"], ended["crashes"]) == ("succeeded", 1, 0), jobs.attempts(job)
    for job in crashing:
        assert (ended := jobs.wait(job, timeout=60))["state"] == "failed", ended
        assert [row["outcome"] for row in jobs.attempts(job)] == ["crashed"] * 3
    problems = "SELECT problems FROM jobq.worker"
    assert [(p["what"], p["task"]) for p in jobs.one(problems)] == [("run beside others", apps.crash.name)]
    (finding,) = WORKER_CHECKS["problems"][0](Snapshot(jobs.connection, "jobq"))
    assert apps.crash.name in finding.message
    assert "runs beside others again" in (finding.fix or "")


def test_many_jobs_that_wait_to_run_alone_keep_no_other_from_its_place(jobs: Jobs, worker: StartWorker) -> None:
    running = worker("--processes", "1", "--concurrency", "4", "--isolated", "1")
    while "its jobs run alone" not in running.log:
        jobs.wait(apps.crash.enqueue(jobs.connection, "exit").id)
    apps.q.enqueue_many(jobs.connection, [apps.crash.job("exit") for _ in range(40)])
    for n in range(10):
        assert jobs.wait(apps.record.enqueue(jobs.connection, str(n)).id)["claims"] == 1
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE task = %s", apps.crash.name) > 10
