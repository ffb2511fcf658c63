"""SIGQUIT to a real worker: everyone says what he is doing, and goes on."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.apps import plain as apps
from tests.apps import trouble
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import ROOT, WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.trouble:q"


def runners(worker: WorkerProcess) -> list[int]:
    found = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    return [int(pid) for pid in found]


def dump(worker: WorkerProcess, ends: int) -> str:
    """Send SIGQUIT to the dispatcher and return what came, once `ends` processes are done with saying it."""
    before = len(worker.log)
    os.kill(worker.pid, signal.SIGQUIT)
    wait_until(lambda: worker.log[before:].count("end of its stacks") == ends, what="the dumps")
    return worker.log[before:]


def test_everyone_tells_and_goes_on(jobs: Jobs, worker: StartWorker) -> None:
    running = worker("--processes", "2", "--concurrency", "2")
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.worker"), what="the worker")
    sync = apps.wait.enqueue(jobs.connection, 600.0).id
    coroutine = apps.wait_async.enqueue(jobs.connection, 600.0).id
    wait_until(lambda: jobs.traces(sync) and jobs.traces(coroutine), what="both starts")
    wait_until(lambda: len(runners(running)) == 2, what="both runners")
    said = dump(running, 3)
    assert f"=== jobq dispatcher {running.pid}: its threads" in said
    for loop in ("claims", "heartbeats", "notifications", "maintenance", "runners", "presence"):
        assert f"\ntask {loop}\n" in said
    assert "loop.py" in said
    for pid in some(runners(running)):
        assert said.count(f"=== jobq runner {pid}: its threads") == 1
        assert f"runner {pid} is asked for its stacks" in said
    assert re.search(rf"0x[0-9a-f]{{16}} jobq-slot-\d: job {sync}, task wait, for \d+\.\d s", said)
    assert re.search(rf"jobq-slot-\d: job {coroutine}, task wait_async", said)
    # The C layer's threads are those of the list, and the coroutine is shown down to the line of user code.
    (ident,) = re.findall(rf"(0x[0-9a-f]+) jobq-slot-\d: job {sync},", said)
    assert f"Thread {ident} (most recent call first)" in said
    assert re.search(r'File ".*plain\.py", line \d+ in wait_async', said)
    assert re.search(r'File ".*plain\.py", line \d+ in wait\n', said)

    jobs.wait(apps.record.enqueue(jobs.connection, "after").id)
    assert running.is_running()
    assert jobs.one("SELECT max(claims) FROM jobq.job") == 1, "no runner was harmed"
    assert jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running'") == 2


def test_a_task_that_keeps_the_interpreter_busy(jobs: Jobs, worker: StartWorker) -> None:
    spinning = trouble.spin.enqueue(jobs.connection, 20.0).id
    also = trouble.spin_async.enqueue(jobs.connection, 20.0).id
    running = worker("--processes", "1", app=APP)
    wait_until(lambda: jobs.traces(spinning) and jobs.traces(also), what="both starts")
    said = dump(running, 2)
    assert re.search(r'File ".*trouble\.py", line \d+ in spin\n', said)
    assert re.search(r'File ".*trouble\.py", line \d+ in spin_async\n', said)
    assert f"job {spinning}, task spin" in said


def test_a_runner_that_hangs_in_c(jobs: Jobs, worker: StartWorker) -> None:
    """It holds the interpreter's lock in a C function: its names cannot be had, its stacks can."""
    hung = trouble.hang_in_c.enqueue(jobs.connection, 20).id
    running = worker("--processes", "1", "--concurrency", "2", app=APP)
    wait_until(lambda: jobs.traces(hung), what="the start")
    before = len(running.log)
    os.kill(running.pid, signal.SIGQUIT)
    wait_until(lambda: re.search(r'File ".*trouble\.py", line \d+ in hang_in_c\n', running.log[before:]), what="stacks")
    assert "dispatcher" in running.log[before:]
    assert jobs.wait(hung, timeout=60)["state"] == "succeeded"


def test_a_runner_that_is_still_importing(worker: StartWorker) -> None:
    """Hangs at import are what one wants to see; and a runner that is not that far does not die of the signal."""
    running = worker("--processes", "1", app=APP, env={"TROUBLE_IMPORT": "4"})
    pids = wait_until(lambda: running.is_running() and runners(running), what="the runner") or []
    for _ in range(20):
        os.kill(pids[0], signal.SIGQUIT)
        time.sleep(0.01)  # at as many moments of its start as may be

    def seen() -> bool:
        os.kill(pids[0], signal.SIGQUIT)
        time.sleep(0.1)
        return re.search(r'File ".*trouble\.py", line \d+ in <module>', running.log) is not None

    wait_until(seen, what="the import's stack")
    wait_until(lambda: '"working"' in running.log, what="the worker")
    assert runners(running) == pids


def test_more_threads_than_the_c_layer_shows(jobs: Jobs, worker: StartWorker) -> None:
    running = worker("--processes", "1", "--concurrency", "150", app=APP)
    ids = [ref.id for ref in trouble.q.enqueue_many(jobs.connection, [trouble.hang.job(60.0) for _ in range(150)])]
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running'") == 150, what="the starts")

    def all_seen() -> bool:
        said = dump(running, 2)
        time.sleep(1.2)  # the runner is mute for a second after each dump
        return all(f"job {job}, task hang" in said for job in ids) and said.count(" in hang\n") >= 150

    wait_until(all_seen, what="every job with its stack")


@pytest.mark.parametrize("times", [1, 2])
def test_the_terminals_quit_key(database_url: str, jobs: Jobs, tmp_path: Path, times: int) -> None:
    """It reaches the whole group: each process tells once, and none ends."""
    job = apps.wait.enqueue(jobs.connection, 600.0).id
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "import os,sys,fcntl,termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
         "os.execv(sys.executable, [sys.executable, '-m', 'jobq', 'worker', 'tests.apps.plain:q', '--processes', '1'])"],
        cwd=ROOT, stdin=slave, stdout=slave, stderr=(tmp_path / "log").open("wb"),
        env={**os.environ, "JOBQ_DATABASE_URL": database_url},
    )  # fmt: skip
    os.close(slave)

    def log() -> str:
        return (tmp_path / "log").read_text(errors="replace")

    try:
        wait_until(lambda: jobs.traces(job), what="the start")
        (pid,) = (int(each) for each in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        for _ in range(times):
            os.write(master, b"\x1c")
        wait_until(lambda: f"runner {pid} is asked" in log(), what="the dispatcher's asking")
        wait_until(lambda: f"jobq runner {pid}: end of its stacks" in log(), what="the runner's stacks")
        jobs.wait(apps.record.enqueue(jobs.connection, "after").id)
        assert log().count(f"=== jobq runner {pid}: its threads") == 1
        assert len(re.findall(r'plain\.py", line \d+ in wait\n', log())) == 1
        assert process.poll() is None
    finally:
        process.terminate()
        process.terminate()
        process.kill()
        process.wait()
        os.close(master)
