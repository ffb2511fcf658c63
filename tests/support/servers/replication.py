"""A primary and a streaming standby, which a test may promote. Each stops as its test ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from jobq.dev import drop_privileges
from tests.support.servers.postgres import _programs
from tests.support.waiting import wait_until


def free_port() -> int:
    """Return a port of the loopback that is not in use at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Node:
    """One server of a pair."""

    def __init__(self, data: Path) -> None:
        self.data, self.port = data, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *args: str | Path) -> None:
        """Run one of Postgres' programs to its end, as the servers' user."""
        run_as = drop_privileges()
        done = subprocess.run(
            [_programs() / program, *args], cwd="/", capture_output=True, text=True, check=False, **run_as
        )
        if done.returncode:
            raise AssertionError(f"{program}: {done.stderr}")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        run_as = drop_privileges()
        settings = {
            "port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
            "max_connections": "100", "wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on",
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.data.parent / f"{self.data.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [_programs() / "postgres", "-D", self.data, *options], cwd="/", stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, **run_as,
            )  # fmt: skip
        wait_until(self.answers, timeout=60, what=f"the server on port {self.port}")

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def end(self, number: int) -> None:
        """Send a signal, SIGKILL (a crash) or SIGINT (a clean stop), and wait for the end of every process."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        process.wait(60)
        # Children of a killed postmaster leave by themselves, and hold its shared memory until then.
        deadline = time.monotonic() + 20
        while number == signal.SIGKILL and time.monotonic() < deadline:
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.02)


class Pair:
    """A primary, and a standby that follows it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="jobq-test-pair-"))
        if run_as := drop_privileges():
            os.chown(self.directory, run_as["user"], run_as["group"])
        self.primary, self.standby = Node(self.directory / "a"), Node(self.directory / "b")
        self.primary.run("initdb", "-D", self.primary.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.primary.start()
        self.standby.run(
            "pg_basebackup", "-D", self.standby.data, "-d", self.primary.url, "-R", "--no-sync", "-c", "fast"
        )
        self.standby.start()

    @property
    def url(self) -> str:
        """Both hosts, for clients that want the one that can be written to."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres:secret@{hosts}/postgres?target_session_attrs=read-write"

    def caught_up(self) -> None:
        """Wait until the standby has everything that the primary has written."""
        with psycopg.connect(self.primary.url, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
        assert row is not None
        with psycopg.connect(self.standby.url, autocommit=True) as connection:
            wait_until(
                lambda: connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone() == (True,),
                what="the standby to catch up",
            )

    def promote(self) -> None:
        """Make the standby the primary, and wait until it can be written to."""
        with psycopg.connect(self.standby.url, autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)

    def demote(self) -> None:
        """Stop the primary cleanly, promote the standby, and let the old primary come back as its standby."""
        self.primary.end(signal.SIGINT)
        self.promote()
        (self.primary.data / "standby.signal").touch()
        if run_as := drop_privileges():
            os.chown(self.primary.data / "standby.signal", run_as["user"], run_as["group"])
        with (self.primary.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = 'host=127.0.0.1 port={self.standby.port} user=postgres'\n")
        self.primary.start()

    def close(self) -> None:
        for node in (self.primary, self.standby):
            node.end(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)
