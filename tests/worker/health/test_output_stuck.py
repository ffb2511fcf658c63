"""The reader of a worker's output stops reading: the worker goes on, and says afterwards what it did not say."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps import noisy
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import ROOT

pytestmark = pytest.mark.process

APP = "tests.apps.noisy:q"


class Reader:
    """A worker whose standard output and error lead to a reader that reads only when it is told to."""

    def __init__(self, kind: str, database_url: str, *args: str, env: dict[str, str] | None = None) -> None:
        if kind == "pipe":
            self._ours, theirs = os.pipe()
        elif kind == "terminal":
            self._ours, theirs = pty.openpty()
            tty.setraw(theirs)
            attributes = termios.tcgetattr(theirs)
            attributes[0] |= termios.IXON
            termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        else:
            one, other = socket.socketpair()
            self._ours, theirs = one.detach(), other.detach()
        self._terminal = kind == "terminal"
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobq", "worker", APP, "--processes", "1", *args],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "JOBQ_DATABASE_URL": database_url, **(env or {})},
        )  # fmt: skip
        os.close(theirs)
        flags = fcntl.fcntl(self._ours, fcntl.F_GETFL)
        fcntl.fcntl(self._ours, fcntl.F_SETFL, flags | os.O_NONBLOCK)

    def stop_reading(self) -> None:
        """Ctrl-S; of a pipe nothing more is read."""
        if self._terminal:
            os.write(self._ours, b"\x13")

    def go_on(self) -> None:
        """Ctrl-Q."""
        if self._terminal:
            os.write(self._ours, b"\x11")

    def read(self) -> str:
        """Read what there is, and return all that was read so far."""
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self._ours, 1 << 16):
                self.text += data.decode(errors="replace")
        return self.text

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._ours)
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def started(database_url: str) -> Iterator[list[Reader]]:
    readers: list[Reader] = []
    yield readers
    for reader in readers:
        reader.close()


def heartbeat_age(jobs: Jobs) -> float:
    return float(jobs.one("SELECT extract(epoch FROM clock_timestamp() - max(heartbeat_at)) FROM jobq.worker"))


@pytest.mark.parametrize(
    ("kind", "format"), [("pipe", "text"), ("pipe", "json"), ("terminal", "text"), ("socket", "json")]
)
def test_a_worker_goes_on_when_its_output_is_not_read(
    database_url: str, jobs: Jobs, started: list[Reader], tmp_path: Path, kind: str, format: str
) -> None:
    health = tmp_path / "health"
    reader = Reader(kind, database_url, "--log-format", format, "--health-address", f"unix:{health}")
    started.append(reader)
    jobs.wait(noisy.calm.enqueue(jobs.connection).id, timeout=30)
    wait_until(lambda: "working" in reader.read(), what="the first lines")
    reader.stop_reading()
    # Both kinds: what the dispatcher logs of failures, and what the runner's own logger says. Beyond pipe and queue.
    noisy.q.enqueue_many(jobs.connection, [noisy.fail.job() for _ in range(1200)])
    noisy.q.enqueue_many(jobs.connection, [noisy.log.job(2_000) for _ in range(1200)])
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job") == 0, timeout=60, what="the end of all jobs")
    os.kill(reader.process.pid, signal.SIGQUIT)
    jobs.wait(noisy.calm.enqueue(jobs.connection).id, timeout=20)
    before = jobs.one("SELECT max(beats) FROM jobq.worker")
    wait_until(lambda: jobs.one("SELECT max(beats) FROM jobq.worker") > before, timeout=20, what="a heartbeat")

    reader.go_on()
    wait_until(lambda: re.search(r"dropped\W+\d+", reader.read()), timeout=20, what="the count of what was dropped")
    if format == "json":
        # No line is cut by another process's, or by the stacks that SIGQUIT printed.
        records = [json.loads(line) for line in reader.read().split("\n")[:-1] if '"ts":' in line]
        told = [record for record in records if "dropped" in record]
        assert told[0]["dropped"] > 0
        assert told[0]["level"] == "warning"
    metrics = scrape(health)
    assert float(re.findall(r"jobq_log_records_dropped_total (\d\S*)", metrics)[0]) > 0

    # The runner may have been the first to tell its count: what the dispatcher says is dropped until its own queue is empty.
    failed: list[int] = []

    def is_told_again() -> bool:
        failed.append(noisy.fail.enqueue(jobs.connection).id)
        jobs.wait(failed[-1])
        return any(re.search(rf"job\W+{job}\b", reader.read()) for job in failed)

    wait_until(is_told_again, timeout=60, what="a failure that the dispatcher logs")
    reader.process.terminate()
    wait_until(lambda: (reader.read(), reader.process.poll())[1] == 0, timeout=30, what="its end")
    assert "stopped" in reader.read(), "the last line is not lost"


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_a_worker_stops_in_time_though_nothing_is_read(
    database_url: str, jobs: Jobs, started: list[Reader], kind: str
) -> None:
    reader = Reader(kind, database_url, "--shutdown-timeout", "1")
    started.append(reader)
    jobs.wait(noisy.calm.enqueue(jobs.connection).id, timeout=30)
    reader.stop_reading()
    noisy.q.enqueue_many(jobs.connection, [noisy.fail.job() for _ in range(300)])
    # Tasks that print wait for the reader themselves; the dispatcher ends them.
    noisy.q.enqueue_many(jobs.connection, [noisy.shout.job(100_000) for _ in range(4)])
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job") <= 4, timeout=60, what="the failures")
    began = time.monotonic()
    reader.process.terminate()
    assert reader.process.wait(60) == 0
    assert time.monotonic() - began < 25, "1 s for running jobs, and a few for each step after"


def test_heartbeats_go_on_while_a_task_waits_for_the_reader(
    database_url: str, jobs: Jobs, started: list[Reader]
) -> None:
    """A task that prints waits itself; its runner's pulse goes on, and so do the jobs beside it."""
    reader = Reader("pipe", database_url, "--concurrency", "4")
    started.append(reader)
    jobs.wait(noisy.calm.enqueue(jobs.connection).id, timeout=30)
    shouting = noisy.shout.enqueue(jobs.connection, 300_000).id
    wait_until(lambda: jobs.one("SELECT state = 'running' FROM jobq.job WHERE id = %s", shouting), what="the shouting")
    for _ in range(20):
        jobs.wait(noisy.calm.enqueue(jobs.connection).id, timeout=20)
    jobs.wait(noisy.fail.enqueue(jobs.connection).id, timeout=20)
    assert jobs.one("SELECT claims FROM jobq.job WHERE id = %s", shouting) == 1, "its runner was not killed"
    wait_until(
        lambda: (reader.read(), jobs.one("SELECT count(*) FROM jobq.job"))[1] == 0, what="the end of the shouting"
    )


def test_an_application_that_logs_by_itself(database_url: str, jobs: Jobs, started: list[Reader]) -> None:
    """Its handlers wait for the reader: tasks that log wait, our own threads do not."""
    reader = Reader("pipe", database_url, env={"NOISY_LOGGING": "own"})
    started.append(reader)
    jobs.wait(noisy.calm.enqueue(jobs.connection).id, timeout=30)
    noisy.q.enqueue_many(jobs.connection, [noisy.log.job(4_000) for _ in range(100)])
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'running'") >= 16, what="jobs that wait")
    before = jobs.one("SELECT max(beats) FROM jobq.worker")
    wait_until(lambda: jobs.one("SELECT max(beats) FROM jobq.worker") >= before + 2, timeout=20, what="heartbeats")
    assert jobs.one("SELECT max(crashes) FROM jobq.job") == 0
    wait_until(lambda: (reader.read(), jobs.one("SELECT count(*) FROM jobq.job"))[1] == 0, timeout=30, what="all jobs")


def test_the_reader_is_gone(database_url: str, jobs: Jobs, started: list[Reader]) -> None:
    reader = Reader("pipe", database_url)
    started.append(reader)
    jobs.wait(noisy.calm.enqueue(jobs.connection).id, timeout=30)
    os.close(reader._ours)
    noisy.q.enqueue_many(jobs.connection, [noisy.fail.job() for _ in range(100)])
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job") == 0, timeout=60, what="the failures")
    jobs.wait(noisy.calm.enqueue(jobs.connection).id, timeout=20)
    reader.process.terminate()
    assert reader.process.wait(30) == 0


def scrape(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := client.recv(1 << 16):
            answer += data
    return answer.decode()
