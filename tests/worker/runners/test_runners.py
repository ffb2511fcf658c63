"""Runners are started, kept apart, relieved and replaced; no job pays for it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from tests.apps import trouble
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.trouble:q"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_isolated_jobs_have_a_process_to_themselves(jobs: Jobs, worker: StartWorker) -> None:
    alone = [trouble.pid_alone.enqueue(jobs.connection, 0.5).id for _ in range(6)]
    beside = [trouble.pid.enqueue(jobs.connection).id for _ in range(20)]
    worker("--isolated", "2", app=APP)
    results = [jobs.wait(job, timeout=60)["result"] for job in alone]
    pids = {pid for pid, _, _ in results}
    assert len(pids) == 2
    for pid in pids:
        spans = sorted((start, end) for process, start, end in results if process == pid)
        assert all(before[1] <= after[0] for before, after in some(pairwise(spans))), spans
    assert not pids & {jobs.wait(job)["result"] for job in beside}


def test_isolated_jobs_take_no_slot_from_the_others(jobs: Jobs, worker: StartWorker) -> None:
    alone = [trouble.pid_alone.enqueue(jobs.connection, 30.0).id for _ in range(2)]
    running = worker("--isolated", "2", "--processes", "1", "--concurrency", "2", app=APP)
    wait_until(lambda: len(children(running.pid)) == 3, what="the processes of both")
    beside = [trouble.calm.enqueue(jobs.connection).id for _ in range(20)]
    assert {jobs.wait(job, timeout=15)["state"] for job in beside} == {"succeeded"}
    assert [(jobs.live(job) or {})["state"] for job in alone] == ["running"] * 2


def test_the_crash_of_an_isolated_job_is_its_own(jobs: Jobs, worker: StartWorker) -> None:
    beside = [trouble.hang.enqueue(jobs.connection, 3.0).id for _ in range(4)]
    job = trouble.die_alone.enqueue(jobs.connection).id
    worker("--max-crashes", "2", app=APP)
    ended = jobs.wait(job, timeout=30)
    assert (ended["state"], ended["crashes"]) == ("failed", 2)
    assert "ended with status 3" in ended["error"]
    assert [jobs.wait(other)["claims"] for other in beside] == [1] * 4


def test_a_runner_is_replaced_after_its_jobs(jobs: Jobs, worker: StartWorker) -> None:
    refs = trouble.q.enqueue_many(jobs.connection, [trouble.pid.job() for _ in range(23)])
    running = worker("--max-jobs-per-runner", "5", "--processes", "1", "--concurrency", "3", app=APP)
    ends = [jobs.wait(ref.id, timeout=60) for ref in refs]
    pids = Counter(end["result"] for end in ends)
    assert len(pids) >= 5
    assert max(pids.values()) <= 5
    assert {(end["state"], end["attempt"], end["crashes"]) for end in ends} == {("succeeded", 1, 0)}
    wait_until(lambda: len(children(running.pid)) == 1, what="the end of the last but one")


def test_a_runner_that_has_grown_is_replaced(jobs: Jobs, worker: StartWorker) -> None:
    long = trouble.hang.enqueue(jobs.connection, 3.0).id
    running = worker("--max-rss-mb", "400", "--processes", "1", app=APP)
    wait_until(lambda: jobs.live(long) and jobs.live(long)["state"] == "running", what="the long job")  # type: ignore[index]
    first = jobs.wait(trouble.leak.enqueue(jobs.connection, 420).id)["result"]
    wait_until(lambda: first not in children(running.pid), what="the first runner's end")
    # It was let end what it had.
    assert jobs.wait(long)["claims"] == 1
    assert jobs.wait(trouble.pid.enqueue(jobs.connection).id)["result"] != first


def test_a_job_that_eats_memory_fails_with_the_reason(jobs: Jobs, worker: StartWorker) -> None:
    job = trouble.bomb.enqueue(jobs.connection).id
    running = worker("--max-rss-mb", "150", "--max-crashes", "2", app=APP)
    ended = jobs.wait(job, timeout=60)
    assert (ended["state"], ended["crashes"]) == ("failed", 2)
    assert "far above max_rss_mb=150" in ended["error"]
    assert jobs.wait(trouble.pid.enqueue(jobs.connection).id)["state"] == "succeeded"
    assert running.is_running()


def test_a_held_interpreter_stops_nobody_else(jobs: Jobs, worker: StartWorker, tmp_path: Path) -> None:
    """One runner, held by a call into C: another stands in, and what waited behind the call goes back unpunished."""
    running = worker("--processes", "1", app=APP)
    wait_until(lambda: "working" in running.log, what="the worker")
    held = tmp_path / "held"
    job = trouble.hold_the_interpreter.enqueue(jobs.connection, 25, str(held)).id
    # Not sooner: what another slot has begun before the call into C waits for its end as well.
    wait_until(held.exists, what="the call into C")
    others = [trouble.calm.enqueue(jobs.connection, str(n)).id for n in range(30)]
    ends = [jobs.wait(other, timeout=15) for other in others]
    assert {(end["state"], end["attempt"], end["crashes"]) for end in ends} == {("succeeded", 1, 0)}
    assert jobs.live(job)["state"] == "running"  # type: ignore[index]
    ended = jobs.wait(job, timeout=60)
    assert (ended["state"], ended["claims"]) == ("succeeded", 1)
    wait_until(lambda: len(children(running.pid)) == 1, what="the stand-in's end, or the first one's")


def test_what_has_ended_behind_a_held_interpreter_is_not_run_again(
    jobs: Jobs, worker: StartWorker, tmp_path: Path
) -> None:
    """Its outcome is on the way, for as long as the call into C lasts. What was never started runs elsewhere meanwhile."""
    notes = tmp_path / "notes"
    some = [trouble.note_in_file.job(str(notes)) for _ in range(3)]
    hold = trouble.hold_the_interpreter_at_once.job(4)
    refs = trouble.q.enqueue_many(jobs.connection, [*some, hold, *some])
    worker("--processes", "1", "--concurrency", "8", app=APP)
    ends = [jobs.wait(ref.id, timeout=60) for ref in refs]
    assert {(end["state"], end["attempt"], end["crashes"]) for end in ends} == {("succeeded", 1, 0)}
    ran = Counter(int(line) for line in notes.read_text().split())
    assert ran == {ref.id: 1 for number, ref in enumerate(refs) if number != 3}


def test_a_stopped_runner_gives_back_what_it_had_not_started(jobs: Jobs, worker: StartWorker) -> None:
    """Taking back needs no answer. When it goes on, it does not run what is no longer its own."""
    running = worker("--processes", "1", "--concurrency", "1", "--heartbeat-interval", "0.5", app=APP)
    wait_until(lambda: "working" in running.log, what="the worker")
    (runner,) = children(running.pid)
    os.kill(runner, signal.SIGSTOP)
    try:
        refs = trouble.q.enqueue_many(jobs.connection, [trouble.calm.job(str(n)) for n in range(50)])
        for ref in some(refs):
            assert jobs.wait(ref.id, timeout=20)["state"] == "succeeded"
    finally:
        os.kill(runner, signal.SIGCONT)
    more = [trouble.calm.enqueue(jobs.connection, "more").id for _ in range(20)]
    assert {jobs.wait(job)["state"] for job in more} == {"succeeded"}
    assert jobs.one("SELECT count(*) = count(DISTINCT job) AND count(*) = 70 FROM ran")


def test_a_runner_that_dies_at_import_is_reported_and_tried_again(
    jobs: Jobs, worker: StartWorker, tmp_path: Path
) -> None:
    deadly = tmp_path / "deadly"
    deadly.touch()
    running = worker("--processes", "1", app=APP, env={"TROUBLE_DIE": str(deadly)})
    wait_until(lambda: "waiting before the next runner is started" in running.log, what="the back-off")
    assert "was killed by SIGSEGV before it had imported 'tests.apps.trouble:q'" in running.log
    deadly.unlink()
    assert jobs.wait(trouble.calm.enqueue(jobs.connection, "at last").id)["state"] == "succeeded"


def test_an_import_that_hangs_is_ended(jobs: Jobs, worker: StartWorker) -> None:
    running = worker("--processes", "1", "--import-timeout", "0.4", app=APP, env={"TROUBLE_IMPORT": "60"})
    wait_until(lambda: "it had not imported the application after 0.4 s" in running.log, what="the notice")
    running.terminate()
    assert running.wait(20) == 0
