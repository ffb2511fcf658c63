"""Runners that are forked from a process which has imported the application: they are runners like any other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jobq._worker.ipc.messages import Disposition, Failure, Job, Success
from jobq._worker.options import WorkerOptions
from jobq._worker.preload import launcher
from jobq._worker.preload.launcher import ForkedProcess
from jobq._worker.runners.pool import NO_LEASE, RunnerPool
from jobq._worker.runners.process import RunnerProcess
from jobq.settings import Settings
from tests.apps import preloaded
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

PATIENCE = 60.0
APP = "tests.apps.preloaded:q"
WORKER = uuid4()


class Preloading:
    """A pool that preloads, looked after as a dispatcher does it."""

    def __init__(self, **options: Any) -> None:
        self.ended: dict[int, Success | Failure] = {}
        self._numbers = count(1)
        self.pool = RunnerPool(
            WorkerOptions(app=APP, settings=Settings(), processes=1, concurrency=2, preload=True, **options),
            on_success=lambda successes: self.ended.update({each.id: each for each in successes}),
            on_setback=lambda setback: self.ended.update({setback.id: setback}),
            on_recorded=lambda _: None,
            on_progress=lambda _: None,
            on_ready=lambda: None,
        )
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.pool.start()
        self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            self.pool.supervise(NO_LEASE)
            await asyncio.sleep(0.05)

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    @property
    def template_ready(self) -> bool:
        assert self.pool._template is not None
        return self.pool._template.ready

    @property
    def template_pid(self) -> int:
        assert self.pool._template is not None
        assert self.pool._template._running is not None
        return self.pool._template._running.process.pid

    async def forked(self) -> RunnerProcess:
        """Wait for the template, end the runner that was started, and return the one that is forked in its place."""
        await self.until(lambda: self.template_ready)
        return await self.next_runner()

    async def next_runner(self) -> RunnerProcess:
        [before] = self.pool.ordinary
        before.kill("another is wanted", of_worker=True)
        await self.until(lambda: self.pool.ready and before not in self.pool.ordinary)
        [runner] = self.pool.ordinary
        return runner

    def give(self, task: str, **args: object) -> int:
        number = next(self._numbers)
        self.pool.give([Job(number, 1, task, "default", json.dumps(args).encode(), 1, 3, 0, None, b"{}")], WORKER)
        return number

    async def run(self, task: str, **args: object) -> Any:
        number = self.give(task, **args)
        await self.until(lambda: number in self.ended)
        ended = self.ended[number]
        assert isinstance(ended, Success), ended
        return json.loads(ended.result)

    async def fail(self, task: str, **args: object) -> Failure:
        number = self.give(task, **args)
        await self.until(lambda: number in self.ended)
        ended = self.ended[number]
        assert isinstance(ended, Failure)
        return ended

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await self.pool.close()


@pytest.fixture
async def preloading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Preloading]:
    monkeypatch.setenv("PRELOADED_NOTES", str(tmp_path / "imports"))
    made = Preloading()
    yield made
    await made.close()


def is_forked(runner: RunnerProcess) -> bool:
    return isinstance(runner._channel._process, ForkedProcess)


async def test_a_forked_runner_runs_jobs_and_imports_nothing(preloading: Preloading, tmp_path: Path) -> None:
    await preloading.start()
    await preloading.forked()
    imports = (tmp_path / "imports").read_text().split()
    # The first runner, and the template.
    assert len(imports) == 2
    assert str(preloading.template_pid) in imports
    who = await preloading.run("who")
    assert is_forked(preloading.pool.ordinary[0])
    assert (who["parent"], who["session"]) == (preloading.template_pid, who["pid"])
    assert await preloading.run("who_async") == who["pid"]
    await preloading.next_runner()
    other = await preloading.run("who")
    assert other["pid"] != who["pid"]
    # Random numbers are not those of the one before.
    assert other["number"] != who["number"]
    assert (tmp_path / "imports").read_text().split() == imports


@pytest.mark.parametrize(
    ("task", "args", "told"),
    [("end", {"status": 3}, "ended with status 3"), ("segfault", {}, "was killed by SIGSEGV")],
)
async def test_how_a_forked_runner_ends_is_told(
    preloading: Preloading, task: str, args: dict[str, object], told: str
) -> None:
    await preloading.start()
    await preloading.forked()
    setback = await preloading.fail(f"{task}", **args)
    assert (setback.ending, setback.recorded) == (Disposition.CRASH, "crashed")
    assert told in str(setback.message)
    await preloading.until(lambda: preloading.pool.ready)
    assert is_forked(preloading.pool.ordinary[0])


async def test_signals_reach_a_forked_runner_as_any_other(preloading: Preloading) -> None:
    """They do nothing to it, and end the processes that its tasks fork."""
    await preloading.start()
    runner = await preloading.forked()
    assert await preloading.run("terminate_self") == runner.pid
    assert await preloading.run("fork_and_terminate") == -signal.SIGTERM
    assert preloading.pool.ordinary == [runner]


async def test_programs_of_a_forked_runner_end_with_it(preloading: Preloading, tmp_path: Path) -> None:
    await preloading.start()
    runner = await preloading.forked()
    preloading.give("program", pid_file=str(tmp_path / "pid"))
    await preloading.until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    program = int((tmp_path / "pid").read_text())
    assert _lives(program)
    runner.kill("a job passed its timeout")
    await preloading.until(lambda: not _lives(program))


async def test_a_template_that_ends_takes_its_runners_with_it_and_blames_no_job(
    preloading: Preloading, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await preloading.start()
    runner = await preloading.forked()
    number = preloading.give("program", pid_file=str(tmp_path / "pid"))
    await preloading.until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    program = int((tmp_path / "pid").read_text())
    os.kill(preloading.template_pid, signal.SIGKILL)
    await preloading.until(lambda: number in preloading.ended)
    setback = preloading.ended[number]
    assert isinstance(setback, Failure)
    assert (setback.ending, setback.recorded, setback.releases) == (Disposition.RELEASE, "released", 0)
    assert "its template has ended" in str(setback.message)
    await preloading.until(lambda: preloading.pool.ready and runner not in preloading.pool.ordinary)
    # The next one imports the application, as without a template; there is no new one for a while.
    assert not is_forked(preloading.pool.ordinary[0])
    assert not _lives(program)
    assert "the template has ended" in caplog.text


async def test_a_template_that_does_not_fork_in_time_keeps_its_runners(
    preloading: Preloading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are sound. Others start without it, and it ends when the last of its runners has ended."""
    monkeypatch.setattr(launcher, "_FORK_WITHIN", 0.3)
    await preloading.start()
    runner = await preloading.forked()
    template = preloading.template_pid
    number = preloading.give("program", pid_file=str(tmp_path / "pid"))
    await preloading.until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    os.kill(template, signal.SIGSTOP)
    runner.needs_replacement = "another is wanted"
    await preloading.until(lambda: len(preloading.pool.ordinary) == 2 and preloading.pool.ordinary[-1].imported)
    assert not is_forked(preloading.pool.ordinary[-1])
    assert (number in preloading.ended, runner.killed_for) == (False, None)
    os.kill(template, signal.SIGCONT)
    runner.kill("the test is over", of_worker=True)
    await preloading.until(lambda: number in preloading.ended)
    await preloading.until(lambda: not _lives(template))


@pytest.mark.process
def test_what_the_import_prints_is_printed_once_and_starts_no_thread(
    tmp_path: Path, jobs: Jobs, database_url: str
) -> None:
    """To files, for which a thread writes in other processes, and which Python buffers."""
    environment = {"PRELOADED_NOTES": str(tmp_path / "imports"), "PRELOADED_DOES": "says", "PYTHONUNBUFFERED": ""}
    options = ("--preload", "--processes", "1", "--max-jobs-per-runner", "1")
    running = WorkerProcess(database_url, tmp_path / "worker.log", *options, app=APP, env=environment)
    try:
        wait_until(lambda: "the application is preloaded" in running.log, timeout=PATIENCE, what="the template")
        for _ in range(3):
            assert jobs.wait(preloaded.who.enqueue(jobs.connection).id, timeout=PATIENCE)["state"] == "succeeded"
        running.terminate()
        assert running.wait() == 0
    finally:
        running.close()
    imports = len((tmp_path / "imports").read_text().split())
    assert "cannot be forked" not in running.log
    assert sum(line == "imported" for line in running.log.splitlines()) == imports


PREPARE = """
from jobq._worker.preload.template import prepare
from jobq._worker.preload.messages import TemplateConfig
print(prepare(TemplateConfig(app=%r, control_fd=-1, alive_fd=-1, log_format="text", log_level="INFO")))
"""


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("thread", "the import has started 1 threads (pool-worker)"),
        ("temporary", "the import has made what ends with the process (TemporaryDirectory)"),
        ("connection", "the import has opened socket:"),
        ("loop", "the import has opened anon_inode:[eventpoll]"),
        ("file", "preloaded.py"),
        ("log", None),
        ("harmless", None),
        ("nothing", None),
    ],
)
def test_only_what_a_fork_leaves_sound_is_forked(tmp_path: Path, does: str, reason: str | None) -> None:
    environment = {**os.environ, "PRELOADED_NOTES": str(tmp_path / "imports"), "PRELOADED_DOES": does}
    command = [sys.executable, "-c", PREPARE % APP]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    if reason is None:
        assert told.startswith("<JobQ of")
    else:
        assert told.startswith("Unusable(")
        assert reason in told
        assert "forever=True" in told


async def test_without_a_template_runners_start_as_they_do_otherwise(
    preloading: Preloading, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("PRELOADED_DOES", "process")
    await preloading.start()
    await preloading.until(lambda: "runners cannot be forked" in caplog.text)
    assert "the import has started processes" in caplog.text
    assert "each imports the application itself" in caplog.text
    runner = await preloading.next_runner()
    assert not is_forked(runner)
    assert await preloading.run("who_async") == runner.pid
    # What the template's import started has ended with it, and the other runner's; the present one's goes on.
    started = [int(pid) for pid in (tmp_path / "imports.programs").read_text().split()]
    assert len(started) == 3
    await preloading.until(lambda: sum(map(_lives, started)) == 1)


async def test_runners_for_single_jobs_are_forked_as_well(preloading: Preloading) -> None:
    await preloading.start()
    await preloading.until(lambda: preloading.template_ready)
    number = next(preloading._numbers)
    alone = Job(number, 1, "who", "default", b"{}", 1, 3, 2, None, b"{}")
    preloading.pool.give([alone], WORKER)
    await preloading.until(lambda: number in preloading.ended)
    assert isinstance(preloading.ended[number], Success)
    [isolated] = preloading.pool.isolation.runners
    assert is_forked(isolated)


async def test_many_forks_at_once_and_their_ends_are_told_apart(preloading: Preloading) -> None:
    """No descriptor is left over, in the dispatcher or in the template, and no process."""
    await preloading.start()
    await preloading.forked()
    pool, template = preloading.pool, preloading.template_pid
    before = (_descriptors(os.getpid()), _descriptors(template))
    ended: dict[int, int] = {}
    assert pool._template is not None
    starter = pool._scaler._start_runner.__self__  # type: ignore[attr-defined]
    runners = []
    for slots in range(1, 9):
        runner = starter.start_isolated()
        runner._on_exit = lambda runner, status: ended.update({id(runner): status})
        runners.append((slots, runner))
    await preloading.until(lambda: all(runner.imported for _, runner in runners))
    for number, runner in some(runners):
        args = json.dumps({"status": number}).encode()
        job = Job(number, 1, "end", "default", args, 1, 3, 0, None, b"{}")
        runner.send([job], WORKER, time.monotonic())
    for number, runner in some(runners):
        await runner.closed()
        assert ended[id(runner)] == number
    await preloading.until(lambda: not _children(template) - {str(each.pid) for each in pool.ordinary})
    await preloading.until(lambda: (_descriptors(os.getpid()), _descriptors(template)) == before)


# --- a whole worker ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ends_leaves_neither_template_nor_runners(
    jobs: Jobs, worker: Callable[..., WorkerProcess], number: int
) -> None:
    running = worker("--processes", "1", "--preload", app=APP)
    wait_until(lambda: "the application is preloaded" in running.log, timeout=PATIENCE, what="the template")
    template = next(pid for pid in _children(running.pid) if b"jobq._worker.preload.template" in _command(pid))
    # The first runner was started: end it, and have the next one forked.
    [first] = [pid for pid in _children(running.pid) if pid != template]
    os.kill(int(first), signal.SIGKILL)
    wait_until(lambda: _children(int(template)), what="a forked runner")
    [runner] = _children(int(template))
    os.kill(running.pid, number)
    running.wait(30)
    for pid in (template, runner):
        wait_until(partial(_has_ended, int(pid)), what=f"the end of {pid}")


def _has_ended(pid: int) -> bool:
    return not _lives(pid)


def _command(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _children(pid: int) -> set[str]:
    found: set[str] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found.update(path.read_text().split())
    return found


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_template_without_a_dispatcher_ends() -> None:
    """Its socket is closed before it has said anything."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    config = {"app": APP, "control_fd": theirs.fileno(), "alive_fd": -1, "log_format": "text", "log_level": "INFO"}
    process = subprocess.Popen(
        [sys.executable, "-m", "jobq._worker.preload.template"],
        pass_fds=[theirs.fileno()],
        env={**os.environ, "JOBQ_TEMPLATE": json.dumps(config)},
        start_new_session=True,
    )
    theirs.close()
    ours.close()
    assert process.wait(PATIENCE) == 0
