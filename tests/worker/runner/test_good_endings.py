"""A runner that ends in good order runs exit handlers, flushes, and ends what was left behind; within bounds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.apps import rough
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess
from tests.worker.health.test_probes import Probe

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.rough:q"


def lines(notes: Path) -> list[str]:
    return notes.read_text().splitlines() if notes.exists() else []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_stops_lets_its_runners_end_in_good_order(
    jobs: Jobs, worker: StartWorker, tmp_path: Path, number: int
) -> None:
    notes = tmp_path / "notes"
    probe = Probe(tmp_path)
    running = worker("--processes", "2", *probe.option, app=APP, env={"ROUGH_NOTES": str(notes)})
    probe.wait_ready()
    wait_until(lambda: probe.metrics()["jobq_runners_ready",] == 2, what="both runners")
    pid = jobs.wait(rough.log_something.enqueue(jobs.connection).id)["result"]
    assert jobs.wait(rough.leave_coroutine.enqueue(jobs.connection).id)["state"] == "succeeded"
    wait_until(lambda: running.log.count("working") == 1, what="the worker")
    os.kill(running.pid, number)
    assert running.wait(20) == 0
    noted = lines(notes)
    assert f"buffered by {pid}" in noted
    assert f"{pid} atexit" in noted
    assert sum(line.endswith(" tidied") for line in noted) == 1
    assert sum(line.endswith(" atexit") for line in noted) == 2
    assert "printed" in running.log


def test_a_hangup_is_no_crash_of_what_runs(jobs: Jobs, worker: StartWorker) -> None:
    job = rough.work.enqueue(jobs.connection, 2.0).id
    running = worker("--processes", "1", app=APP)
    wait_until(lambda: jobs.traces(job), what="the job")
    os.kill(running.pid, signal.SIGHUP)
    assert running.wait(20) == 0
    ended = jobs.finished(job) or {}
    assert (ended["state"], ended["claims"], ended["crashes"]) == ("succeeded", 1, 0)


def test_a_hangup_is_ignored_under_nohup(jobs: Jobs, worker: StartWorker) -> None:
    running = worker("--processes", "1", app=APP, program=("nohup", *_program()))
    wait_until(lambda: "working" in running.log, what="the worker")
    os.kill(running.pid, signal.SIGHUP)
    assert jobs.wait(rough.in_thread.enqueue(jobs.connection).id)["state"] == "succeeded"
    assert running.is_running()


def _program() -> tuple[str, ...]:
    import sys

    return (sys.executable, "-m", "jobq")


def test_a_runner_that_is_replaced_ends_in_good_order(jobs: Jobs, worker: StartWorker, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    worker("--processes", "1", "--max-jobs-per-runner", "1", app=APP, env={"ROUGH_NOTES": str(notes)})
    first = jobs.wait(rough.log_something.enqueue(jobs.connection).id)["result"]
    assert jobs.wait(rough.log_something.enqueue(jobs.connection).id)["result"] != first
    wait_until(lambda: f"{first} atexit" in lines(notes), what="the first runner's end")
    assert f"buffered by {first}" in lines(notes)


def test_threads_that_never_end_keep_a_runner_only_so_long(jobs: Jobs, worker: StartWorker, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    running = worker("--processes", "1", app=APP, env={"ROUGH_NOTES": str(notes)})
    pid = jobs.wait(rough.leave_thread.enqueue(jobs.connection).id)["result"]
    began = time.monotonic()
    running.terminate()
    assert running.wait(30) == 0
    assert time.monotonic() - began < 15
    assert f"{pid} atexit" in lines(notes)


def test_a_second_signal_waits_for_no_thread(jobs: Jobs, worker: StartWorker, tmp_path: Path) -> None:
    running = worker("--processes", "1", app=APP, env={"ROUGH_NOTES": str(tmp_path / "notes")})
    jobs.wait(rough.leave_thread.enqueue(jobs.connection).id)
    running.terminate()
    wait_until(lambda: "stopping" in running.log, what="the first signal's notice")
    running.terminate()
    assert running.wait(10) == 0
