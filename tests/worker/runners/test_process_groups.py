"""A runner and what its jobs have started are a process group of their own: it ends as a whole, and ends nothing else."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.apps import rough
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.rough:q"
_unique = itertools.count(1)


def seconds() -> str:
    """An argument of `sleep` that no other process has."""
    return f"47.{os.getpid()}{next(_unique):03}"


def programs(duration: str) -> list[int]:
    """The processes `sleep duration` and the shells around them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] in (b"sleep", b"sh") and duration.encode() in b" ".join(words):
            found.append(int(path.parent.name))
    return found


def test_programs_of_a_job_that_timed_out_end_with_its_runner(jobs: Jobs, worker: StartWorker) -> None:
    duration = seconds()
    job = rough.convert.enqueue(jobs.connection, duration).id
    running = worker("--timeout-grace", "0.3", app=APP)
    assert jobs.wait(job, timeout=30)["state"] == "failed"
    assert len(jobs.attempts(job)) == 2
    wait_until(lambda: not programs(duration), what="the end of the programs")
    assert running.is_running()


def test_programs_of_a_job_that_crashed_end_with_its_runner(jobs: Jobs, worker: StartWorker) -> None:
    duration = seconds()
    job = rough.crash_with_program.enqueue(jobs.connection, duration).id
    worker("--max-crashes", "1", app=APP)
    assert jobs.wait(job)["state"] == "failed"
    wait_until(lambda: not programs(duration), what="the end of the programs")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_programs_end_with_the_worker(jobs: Jobs, worker: StartWorker, number: int) -> None:
    """However it ends. The program ignores SIGTERM, and the job that has started it has ended long ago."""
    duration = seconds()
    running = worker("--processes", "1", app=APP)
    assert jobs.wait(rough.leave_program.enqueue(jobs.connection, duration).id)["state"] == "succeeded"
    assert programs(duration)
    os.kill(running.pid, number)
    running.process.wait(20)
    wait_until(lambda: not programs(duration), what="the end of the programs")


def test_programs_end_with_a_killed_worker_whose_runner_never_comes_to_it(jobs: Jobs, worker: StartWorker) -> None:
    """No code of the runner has to run for it: it is stopped."""
    duration = seconds()
    running = worker("--processes", "1", app=APP)
    runner = jobs.wait(rough.leave_program.enqueue(jobs.connection, duration).id)["result"]
    os.kill(runner, signal.SIGSTOP)
    running.kill()
    wait_until(lambda: not programs(duration), what="the end of the programs")
    wait_until(lambda: not Path(f"/proc/{runner}/cmdline").exists(), what="the end of the runner")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_its_own_group_is_the_programs_matter(jobs: Jobs, worker: StartWorker, number: int) -> None:
    beside = rough.work.enqueue(jobs.connection, 2.0).id
    running = worker("--processes", "1", app=APP)
    wait_until(lambda: jobs.traces(beside), what="the neighbour")
    ended = jobs.wait(rough.signal_group.enqueue(jobs.connection, int(number)).id)
    assert (ended["state"], ended["claims"]) == ("succeeded", 1)
    ended = jobs.wait(beside)
    assert (ended["state"], ended["claims"], ended["crashes"]) == ("succeeded", 1, 0)
    assert running.is_running()
    assert "a runner" not in running.log


def test_a_job_that_kills_its_own_group_kills_its_runner_only(jobs: Jobs, worker: StartWorker) -> None:
    job = rough.signal_group.enqueue(jobs.connection, int(signal.SIGKILL)).id
    running = worker("--max-crashes", "2", app=APP)
    ended = jobs.wait(job)
    assert (ended["state"], ended["crashes"]) == ("failed", 2)
    assert "was killed by SIGKILL" in ended["error"]
    assert jobs.wait(rough.in_thread.enqueue(jobs.connection).id)["state"] == "succeeded"
    assert running.is_running()


SUBREAPER = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def test_a_worker_that_adopts_orphans_reaps_them(jobs: Jobs, worker: StartWorker) -> None:
    """As process 1 of a container does; a "child subreaper" stands for that here."""
    ids = [rough.orphan.enqueue(jobs.connection).id for _ in range(20)]
    running = worker("--max-crashes", "2", app=APP, program=(sys.executable, "-c", SUBREAPER, "-m", "jobq"))
    assert {jobs.wait(job)["state"] for job in ids} == {"succeeded"}
    # Its runners' own exit statuses are not lost by it.
    crash = rough.crash_with_program.enqueue(jobs.connection, seconds()).id
    ended = jobs.wait(crash)
    assert (ended["state"], ended["crashes"]) == ("failed", 2)
    assert "ended with status 3" in ended["error"]
    wait_until(lambda: not zombies(running.pid), what="the end of the zombies")
    # And it goes on reaping: all of these have ended a moment after their jobs.
    more = [rough.orphan.enqueue(jobs.connection).id for _ in range(5)]
    assert {jobs.wait(job)["state"] for job in more} == {"succeeded"}
    until = time.monotonic() + 20
    wait_until(lambda: not orphans(running.pid), timeout=until - time.monotonic(), what="the end of the orphans")
    running.terminate()
    assert running.wait() == 0


def _below(parent: int) -> list[tuple[str, str]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, above = rest.split()[:2]
        if int(above) == parent:
            found.append((name, state))
    return found


def zombies(parent: int) -> list[str]:
    return [name for name, state in _below(parent) if state == "Z"]


def orphans(parent: int) -> list[str]:
    return [name for name, _ in _below(parent) if name == "sleep"]
