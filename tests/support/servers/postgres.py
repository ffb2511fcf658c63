"""Test servers through testing.postgresql: with the binaries that jobq.dev finds, as root and as a user."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import psycopg
import testing.postgresql
from psycopg import sql

from jobq.dev import drop_privileges, reachable_bindir

_INITDB = "-U postgres -A trust -E UTF8 --locale=C --no-sync"
# A machine crash would lose these servers; killed processes do not.
_FAST = (
    "-h 127.0.0.1 -F -c full_page_writes=off -c max_connections=200 -c autovacuum_naptime=10min "
    "-c max_prepared_transactions=10"
)


# Copying the files of a database costs a tenth in memory of what it costs on a disk.
_MEMORY = Path("/dev/shm")
_ROOM = 4 * 2**30


@cache
def _place() -> Path:
    """Where servers keep their data: what JOBQ_TEST_DATA says, else memory if there is room, else the usual place."""
    if given := os.environ.get("JOBQ_TEST_DATA"):
        return Path(given)
    if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
        # What killed processes have left behind would stay until the machine's end.
        for left in _MEMORY.glob("jobq-test-*"):
            pid = left.name.split("-")[2]
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
        return _MEMORY
    return Path(tempfile.gettempdir())


def data_directory() -> str:
    """Make a directory for the data of a server; its name holds the id of the process that is to remove it."""
    return tempfile.mkdtemp(prefix=f"jobq-test-{os.getpid()}-", dir=_place())


@cache
def _programs() -> Path:
    """Postgres' programs, where the server's user may read them."""
    copies = Path(tempfile.mkdtemp(prefix="jobq-test-"))
    copies.chmod(0o755)
    atexit.register(shutil.rmtree, copies, ignore_errors=True)
    return reachable_bindir(drop_privileges(), copies)


@cache
def _new_cluster(initdb: str) -> Path:
    """The data directory of a server that has never been started: each server begins with a copy."""
    directory = Path(data_directory())
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    if run_as := drop_privileges():
        os.chown(directory, run_as["user"], run_as["group"])
    command = [*_as_other(), initdb, "-D", str(directory / "data"), *_INITDB.split()]
    subprocess.run(command, check=True, capture_output=True, cwd="/")
    return directory / "data"


def _as_other() -> list[str]:
    """How to run a program as the server's user."""
    if not (run_as := drop_privileges()):
        return []
    # setpriv execs, so that the process we know stays the postmaster.
    return ["setpriv", f"--reuid={run_as['user']}", f"--regid={run_as['group']}", "--clear-groups", "--"]


class Server(testing.postgresql.Postgresql):  # type: ignore[misc]
    """A throw-away server of testing.postgresql."""

    def __init__(self, **settings: Any) -> None:
        programs = _programs()
        # Given a directory, testing.postgresql does not remove it.
        self._own_directory = data_directory() if "base_dir" not in settings else None
        super().__init__(
            initdb=str(programs / "initdb"),
            postgres=str(programs / "postgres"),
            initdb_args=_INITDB,
            **{"base_dir": self._own_directory, **settings},
        )

    def initialize_database(self) -> None:
        data = self.get_data_directory()
        if run_as := drop_privileges():
            for root, _, files in os.walk(self.base_dir):
                for path in (root, *(os.path.join(root, file) for file in files)):
                    os.chown(path, run_as["user"], run_as["group"])
        if not os.path.exists(os.path.join(data, "PG_VERSION")):
            command = [*_as_other(), "cp", "-a", f"{_new_cluster(self.initdb)}/.", data]
            subprocess.run(command, check=True, capture_output=True, cwd="/")

    def cleanup(self) -> None:
        super().cleanup()
        if self.child_process is None and self._own_directory is not None:
            shutil.rmtree(self._own_directory, ignore_errors=True)

    def get_server_commandline(self) -> list[str]:
        return [*_as_other(), *super().get_server_commandline()]

    def database_url(self, name: str) -> str:
        return str(self.url(database=name))

    def admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.database_url("postgres"), autocommit=True)


def start(args: str = f"{_FAST} -c synchronous_commit=off", **settings: Any) -> Server:
    """Start a server; a port that another process took in between is no failure."""
    for tries_left in (2, 1, 0):
        try:
            return Server(postgres_args=args, **settings)
        except RuntimeError as error:
            if not tries_left or "Address already in use" not in str(error):
                raise
    raise AssertionError


@contextmanager
def database(server: Server, template: str = "template1") -> Iterator[str]:
    """Create a database from `template`, which must have no connections; yield its URL; drop it."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with server.admin() as admin:
        # Copying files takes half the time of copying through the log.
        how = " STRATEGY file_copy" if admin.info.server_version >= 150000 else ""
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}" + how)
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield server.database_url(name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


class OwnServer:
    """A server for one test, which may crash it. `url` stays the same over restarts; commits are kept."""

    def __init__(self) -> None:
        # Given a directory, testing.postgresql does not remove it when a start fails.
        self._directory = data_directory()
        self.server = start(f"{_FAST} -c synchronous_commit=on", base_dir=self._directory)
        self.url = self.server.database_url("test")

    def kill(self) -> None:
        """kill -9 the postmaster, as a crash would; its children leave by themselves."""
        process = self.server.child_process
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.server.child_process = None

    def processes(self) -> set[int]:
        """Every process of the server."""
        parent = self.server.child_process.pid
        return {parent} | {child.pid for child in psutil.Process(parent).children(recursive=True)}

    def stop_at_once(self) -> None:
        """`pg_ctl stop -m immediate`: every process leaves as it stands; the next start recovers."""
        process = self.server.child_process
        process.send_signal(signal.SIGQUIT)
        process.wait()
        self.server.child_process = None

    def restart(self, timeout: float = 20) -> None:
        """Start it again; after `kill`, or instead of a clean stop and start."""
        self.server.terminate(signal.SIGINT)
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.server.child_process = None
                self.server.start()
                return
            except RuntimeError:
                # A child of the killed postmaster still holds its shared memory.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        self.server.stop(signal.SIGINT)
        shutil.rmtree(self._directory, ignore_errors=True)
