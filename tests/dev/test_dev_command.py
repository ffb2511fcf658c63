"""``jobq dev`` as a process: it sets everything up, follows changes, replaces what dies, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from jobq import migrate
from tests.support.servers.pgbouncer import PgBouncer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

APP = """
from jobq import JobQ

q = JobQ()

@q.task
def tell() -> str:
    return "first"
"""


class Dev:
    """A running `jobq dev` in a directory of its own."""

    def __init__(
        self, place: Path, *arguments: str, url: str | None, answer: int = subprocess.DEVNULL, **more: str
    ) -> None:
        self.log_path = place / "dev.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBQ_")}
        environment |= more
        if url is not None:
            environment["JOBQ_DATABASE_URL"] = url
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jobq", "dev", "devapp:q", "--port", "0", *arguments],
                cwd=place,
                env=environment,
                stdin=answer,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.family = psutil.Process(self.process.pid)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def says(self, text: str) -> None:
        def seen() -> bool:
            assert self.process.poll() is None or text in self.log, self.log
            return text in self.log

        wait_until(seen, timeout=60, what=f"{text!r} in the log")

    def child(self, command: str) -> psutil.Process:
        def find() -> psutil.Process | None:
            for child in self.family.children():
                try:
                    if command in child.cmdline():
                        return child
                except psutil.NoSuchProcess:
                    continue
            return None

        found = wait_until(find, what=f"a child that runs {command}")
        assert found is not None
        return found

    def end(self, number: int = signal.SIGINT) -> int:
        """Send the signal, wait, and return the exit code; nothing may be left of the family."""
        family = self.family.children(recursive=True)
        self.process.send_signal(number)
        code = self.process.wait(60)
        wait_until(lambda: not any(_lives(member) for member in family), what="the end of all children")
        return code


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "devapp.py").write_text(APP)
    return tmp_path


@pytest.fixture
def dev(place: Path) -> Iterator[Callable[..., Dev]]:
    made: list[Dev] = []

    def start(*arguments: str, url: str | None, **options: Any) -> Dev:
        made.append(Dev(place, *arguments, url=url, **options))
        return made[-1]

    yield start
    for running in made:
        if running.process.poll() is None:
            for member in running.family.children(recursive=True):
                member.kill()
            running.process.kill()
            running.process.wait()


def result(url: str) -> Any:
    """Enqueue a job and wait for what it returns."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT jobq.enqueue('tell')").fetchone()
        assert row is not None

        def outcome() -> tuple[Any, ...] | None:
            query = "SELECT state, result FROM jobq.job_history WHERE id = %s"
            return connection.execute(query, row).fetchone()

        ended = wait_until(outcome, timeout=60, what="the job's end")
        assert ended is not None
        assert ended[0] == "succeeded"
        return ended[1]


def test_it_migrates_works_follows_changes_and_ends_cleanly(
    dev: Callable[..., Dev], place: Path, empty_database_url: str
) -> None:
    running = dev("--yes", url=empty_database_url)
    running.says("migrated schema 'jobq'")
    assert result(empty_database_url) == "first"
    before = running.child("worker").pid
    (place / "devapp.py").write_text(APP.replace("first", "second"))
    running.says("devapp.py changed: restarting the worker")
    wait_until(lambda: running.child("worker").pid != before, timeout=60, what="a new worker")
    assert result(empty_database_url) == "second"
    assert running.end() == 0
    assert "Traceback" not in running.log


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize(("mode", "direct", "pooler"), [("transaction", True, "auto"), ("session", False, "none")])
def test_it_works_behind_a_pooler(
    dev: Callable[..., Dev], empty_database_url: str, mode: str, direct: bool, pooler: str
) -> None:
    """Migrations need one session: on the way around the pooler, or because its mode is that of a session."""
    between = PgBouncer(empty_database_url, mode=mode, size=40, ignore_options=True)
    try:
        more = {"JOBQ_DIRECT_URL": empty_database_url} if direct else {}
        running = dev("--yes", "--no-web", url=between.url, JOBQ_POOLER=pooler, **more)
        running.says("migrated schema 'jobq'")
        assert result(empty_database_url) == "first"
        assert running.end() == 0
    finally:
        between.close()


def test_what_dies_is_started_again(dev: Callable[..., Dev], database_url: str) -> None:
    running = dev(url=database_url)
    assert result(database_url) == "first"
    worker = running.child("worker")
    worker.kill()
    running.says("the worker was killed by SIGKILL; restarting it in 0.5 s")
    assert result(database_url) == "first"
    page = running.child("web")
    page.kill()
    running.says("the status page was killed by SIGKILL")
    running.child("web")
    assert running.end(signal.SIGTERM) == 0


def test_a_broken_application_is_told_and_tried_again_when_mended(
    dev: Callable[..., Dev], place: Path, database_url: str
) -> None:
    (place / "devapp.py").write_text("raise RuntimeError('not yet')")
    running = dev("--no-web", url=database_url)
    running.says("the worker exited with 78")
    assert "not yet" in running.log
    (place / "devapp.py").write_text(APP)
    assert result(database_url) == "first"
    assert running.end() == 0


def test_a_database_that_is_not_ours_is_not_migrated_without_a_yes(
    dev: Callable[..., Dev], empty_database_url: str
) -> None:
    running = dev(url=empty_database_url)
    assert running.process.wait(60) == 64
    assert "--yes" in running.log
    assert migrate.current(empty_database_url) is None


def test_a_database_that_cannot_be_reached_is_no_riddle(dev: Callable[..., Dev], place: Path) -> None:
    """The variable of the tutorial, in the shell of yesterday."""
    running = dev(url=f"postgresql://postgres@/jobq?host={place}&port=5432")
    assert running.process.wait(60) == 69
    assert (
        "Because JOBQ_DATABASE_URL is set, `jobq dev` does not start the Postgres in .jobq; to use that one, `unset "
        "JOBQ_DATABASE_URL`"
    ) in running.log
    assert "cannot reach the database" in running.log
    assert not (place / ".jobq").exists()


def test_a_taken_port_and_a_failing_task_are_told(dev: Callable[..., Dev], place: Path, database_url: str) -> None:
    (place / "devapp.py").write_text(APP.replace('return "first"', 'raise ConnectionError("the mail server is away")'))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = dev("--port", str(port), url=database_url)
        running.says(f"port {port} is in use by another program: the status page uses port")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT jobq.enqueue('tell', queue => 'mail', max_attempts => 3)")
    running.says("job set back")
    running.says("raise ConnectionError(")
    line = next(line for line in running.log.splitlines() if "job set back" in line)
    for part in (
        "task=tell",
        "queue=mail",
        "attempt=1",
        "max_attempts=3",
        'error="ConnectionError: the mail server is away"',
    ):
        assert part in line
    assert running.end() == 0


def test_kill_9_leaves_nothing_behind(dev: Callable[..., Dev], database_url: str) -> None:
    running = dev("--no-web", url=database_url)
    assert result(database_url) == "first"
    assert running.end(signal.SIGKILL) == -9


def test_it_brings_its_own_postgres(dev: Callable[..., Dev], place: Path) -> None:
    # A way around no pooler would lead to another database.
    running = dev("--no-reload", url=None, JOBQ_DIRECT_URL="postgresql://nobody@127.0.0.1:1/nothing")
    running.says("JOBQ_DIRECT_URL is ignored")
    running.says("status page: http://")
    assert (place / ".jobq" / ".gitignore").read_text() == "*\n"
    line = next(line for line in running.log.splitlines() if "export JOBQ_DATABASE_URL=" in line)
    url = line.partition("JOBQ_DATABASE_URL='")[2].rstrip("'")
    assert running.child("worker").environ()["JOBQ_DIRECT_URL"] == url
    assert result(url) == "first"
    page = next(line for line in running.log.splitlines() if line.startswith("status page: ")).split()[-1]

    def answers() -> bool:
        try:
            with urllib.request.urlopen(page, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    wait_until(answers, timeout=60, what="the status page")
    server = next(child for child in running.family.children() if "postgres" in child.name())
    server.kill()
    running.says("Postgres died; restarting it in")
    wait_until(lambda: _reaches(url), timeout=60, what="Postgres")
    assert result(url) == "first"
    assert running.end() == 0
    assert "stopping Postgres" in running.log


def _reaches(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
