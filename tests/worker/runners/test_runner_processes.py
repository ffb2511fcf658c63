"""The dispatcher's side of a runner, whatever befalls its process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable
from uuid import uuid4

import pytest

from jobq._worker.ipc.messages import FromRunner, Job, RunnerReady
from jobq._worker.runners.process import RunnerProcess
from tests.support.specs import spec


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def _runner(
    on_exit: Callable[[RunnerProcess, int], None],
    on_message: Callable[[RunnerProcess, FromRunner], None] = lambda *_: None,
) -> RunnerProcess:
    return RunnerProcess(spec(), on_message=on_message, on_exit=on_exit)


def _job(job_id: int) -> Job:
    return Job(job_id, 1, "noop", "default", b"{}", 1, 1, 0, None, b"{}")


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), OSError("no processes left")])
async def test_a_runner_that_cannot_be_started_ends(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """Its jobs are judged at its end: they would wait for it for ever, and a worker that stops would wait for them."""

    async def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    ended: list[int] = []
    before = _descriptors()
    runner = _runner(lambda _, status: ended.append(status))
    runner.open()
    runner.send([_job(1)], uuid4(), 0.0)
    async with asyncio.timeout(10):
        await runner.closed()
    assert ended == [71]
    assert runner.killed_for == "it could not be started"
    assert _descriptors() == before


async def test_what_came_after_a_recall_is_recalled_as_well() -> None:
    """A worker that stops takes back everything, though the runner was being asked for some of it already."""
    runner = _runner(lambda *_: None)
    runner.send([_job(1), _job(2)], uuid4(), 0.0)
    runner.held.revoke(10.0)
    runner.send([_job(3)], uuid4(), 10.01)
    runner.held.revoke(10.02)
    assert runner.held.take_revoked(10.06) == []
    assert [job.id for job in runner.held.take_revoked(10.08)] == [1, 2, 3]
    assert runner.jobs == {}
    await runner.closed()


async def test_an_idle_runner_outlives_the_lease_and_gets_nothing_until_there_is_another() -> None:
    """Else it ends, and its successor as soon as it is up, for as long as the database is away."""
    ended: list[tuple[int, bool]] = []
    ready = asyncio.Event()

    def hear(runner: RunnerProcess, message: FromRunner) -> None:
        if isinstance(message, RunnerReady):
            runner.on_ready(time.monotonic())
            ready.set()

    runner = _runner(lambda runner, status: ended.append((status, runner.table.ended_by_lease)), hear)
    runner.open()
    over = time.monotonic()
    async with asyncio.timeout(30):
        while not ready.is_set():
            runner.extend_deadline(over, time.monotonic())
            await asyncio.sleep(0.02)
    # Long enough for its pulse to look at the lease, a few times.
    beats = _beats(runner)
    async with asyncio.timeout(10):
        while _beats(runner) < beats + 0.3:
            runner.extend_deadline(over, time.monotonic())
            await asyncio.sleep(0.02)
    takes_jobs = [runner.ready]
    runner.extend_deadline(time.monotonic() + 60, time.monotonic())
    takes_jobs.append(runner.ready)
    assert takes_jobs == [False, True]
    assert ended == []
    # With a job it must end.
    runner.send([_job(1)], uuid4(), time.monotonic())
    runner.extend_deadline(over, time.monotonic())
    async with asyncio.timeout(10):
        await runner.closed()
    # By its own hand, with the programs that it has started.
    assert ended == [(-signal.SIGKILL, True)]


def _beats(runner: RunnerProcess) -> float:
    """Return when its pulse was last felt."""
    at, _ = runner.table.pulse
    return at
