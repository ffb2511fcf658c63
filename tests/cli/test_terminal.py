"""The command line at a terminal, and as a process that is interrupted."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from tests.support.rows import add_job, add_worker
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def environment(url: str, **more: str) -> dict[str, str]:
    return {**os.environ, "JOBQ_DATABASE_URL": url, "TERM": "xterm", "COLUMNS": "120", **more}


class Terminal:
    """A `jobq` that believes that it talks to a person."""

    def __init__(self, *arguments: str, url: str, columns: int = 120) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobq", *arguments],
            env=environment(url, COLUMNS=str(columns)),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self._shown = b""

    def text(self) -> str:
        """Everything that has been shown so far."""
        try:
            while more := os.read(self._ours, 65536):
                self._shown += more
        except (BlockingIOError, OSError):  # nothing yet, or the other side is closed
            pass
        return self._shown.decode(errors="replace")

    def shows(self, text: str) -> None:
        wait_until(lambda: text in self.text(), timeout=60, what=f"{text!r} on the terminal")

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def ended(self) -> int:
        def code() -> list[int]:
            self.text()  # a full terminal would hold it up
            found = self.process.poll()
            return [] if found is None else [found]

        [code_] = wait_until(code, timeout=60, what="the end")
        self.text()
        return code_

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(database_url: str) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(*arguments: str, columns: int = 120) -> Terminal:
        made.append(Terminal(*arguments, url=database_url, columns=columns))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_a_long_change_shows_its_progress(terminal: Callable[..., Terminal], db: Conn) -> None:
    db.execute("INSERT INTO jobq.job (task) SELECT 'mail.send' FROM generate_series(1, 5000)")
    screen = terminal("jobs", "cancel", "--task", "mail.send")
    screen.shows("Cancel 5,000 jobs? [y/N]")
    screen.type("y\n")
    assert screen.ended() == 0
    assert "/5000" in screen.text()
    assert "cancelled 5,000 jobs" in screen.text()


def test_ctrl_c_at_the_question_exits_with_130_and_changes_nothing(terminal: Callable[..., Terminal], db: Conn) -> None:
    add_job(db)
    screen = terminal("jobs", "cancel", "--queue", "default")
    screen.shows("[y/N]")
    screen.process.send_signal(signal.SIGINT)
    assert screen.ended() == 130
    assert "Traceback" not in screen.text()
    assert db.execute("SELECT state FROM jobq.job").fetchall() == [("ready",)]


def test_a_table_fits_the_terminal(terminal: Callable[..., Terminal], db: Conn) -> None:
    add_job(db, task="t" * 150)
    add_worker(db)
    screen = terminal("jobs", "list")
    assert screen.ended() == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen.text())
    assert max(map(len, plain.splitlines())) <= 120
    doctor = terminal("doctor")
    assert doctor.ended() == 1
    assert "no live worker of queue default knows task ttt" in doctor.text()


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("command", ["jobs list", "queues list", "workers list", "schedules list"])
def test_a_narrow_terminal_is_readable(terminal: Callable[..., Terminal], db: Conn, columns: int, command: str) -> None:
    """No word of a state, a task or a queue is broken that would fit, and no line is longer than the terminal."""
    db.execute("INSERT INTO jobq.queue (name, paused_at, max_running) VALUES ('payments', now(), 20)")
    add_job(db, task="mail.send_receipt", queue="payments", run_at=datetime(2099, 1, 2, tzinfo=UTC))
    add_worker(db, queues=["payments"])
    db.execute(
        "INSERT INTO jobq.schedule (name, task, cron, timezone, next_at, source, queue, priority, max_attempts, missed, "
        "max_missed) VALUES ('nightly', 'mail.send_receipt', '30 2 * * *', 'UTC', now() + '1 h', 'runtime', 'payments', 5, 3, "
        "'last', 1)"
    )
    screen = terminal(*command.split(), columns=columns)
    assert screen.ended() == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", screen.text())
    assert max(map(len, shown.splitlines())) <= columns, shown
    for word in {
        "jobs list": ("scheduled", "mail.send_receipt", "payments"),
        "queues list": ("payments", "paused"),
        "workers list": ("running", "payments"),
        "schedules list": ("nightly", "mail.send_receipt"),
    }[command]:
        assert word in shown, shown


def test_worker_options_reach_the_worker(worker: Callable[..., WorkerProcess], db: Conn) -> None:
    started = worker("--queues", "mail, slow", "--processes", "1", env={"JOBQ_WORKER_CONCURRENCY": "3"})
    query = "SELECT queues, slots, app FROM jobq.worker WHERE state = 'running'"
    row = wait_until(lambda: db.execute(query).fetchone(), timeout=60, what="the worker's row")
    assert row == (["mail", "slow"], 3, "tests.apps.plain:q")
    assert started.is_running()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["no_such_module:q"], 78),
        (["json:loads"], 78),
        (["nocolon"], 78),
        (["json:loads", "--queues", ","], 64),
        (["json:loads", "--concurrency", "0"], 64),
        (["json:loads", "--lease", "1"], 78),
    ],
)
def test_a_worker_that_cannot_start_says_why(arguments: list[str], code: int, database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobq", "worker", *arguments],
        env=environment(database_url),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("jobq: ")


def test_a_worker_without_migration_or_database_says_so(empty_database_url: str) -> None:
    for url, code in ((empty_database_url, 78), ("postgresql://127.0.0.1:1/none", 69)):
        done = subprocess.run(
            [sys.executable, "-m", "jobq", "worker", "tests.apps.plain:q", "--drain"],
            env=environment(url, JOBQ_CONNECT_TIMEOUT="2"),
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == code, done.stderr
