"""A primary and its synchronous standby, for tests of failover."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from jobq.dev import drop_privileges
from jobq.postmaster import RunAs
from tests.support import postgres
from tests.support.waiting import wait_until


class Pair:
    """`url` names both servers and asks for the one that can be written to. A commit that was answered is on both."""

    def __init__(self, primary: postgres.OwnServer) -> None:
        self.primary = primary
        self._primary_port = _port(primary.url)
        self._directory = Path(tempfile.mkdtemp(prefix="jobq-test-"))
        self._as: RunAs = drop_privileges()
        self._programs = postgres.programs()
        self._give(self._directory)
        self._data = self._directory / "data"
        self.log = self._directory / "standby.log"
        self._run(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(self._primary_port), "-U", "postgres",
            "-D", str(self._data), "-R", "-X", "stream", "-c", "fast", "--no-sync",
        )  # fmt: skip
        self._port = postgres.unused_port()
        self._process: subprocess.Popen[bytes] | None = self._start()
        wait_until(self._streams, timeout=30, what="a standby that streams")
        # After the copy was made: the standby, once promoted, has nobody to wait for.
        with primary.server.admin() as admin:
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            admin.execute("SELECT pg_reload_conf()")
        wait_until(lambda: self._asked("sync_state = 'sync'"), timeout=30, what="a synchronous standby")

    @property
    def url(self) -> str:
        """Both hosts, the one to be written to preferred."""
        return f"{self._hosts('127.0.0.1,127.0.0.1', f'{self._primary_port},{self._port}')}&target_session_attrs=read-write"

    @property
    def standby_url(self) -> str:
        """The standby alone."""
        return self._hosts("127.0.0.1", str(self._port))

    def promote(self) -> None:
        """Make the standby a primary, and wait until it takes writes."""
        with psycopg.connect(self.standby_url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote(true, 30)")

    def close(self) -> None:
        """End the standby."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def _hosts(self, hosts: str, ports: str) -> str:
        return f"postgresql:///test?user=postgres&host={hosts}&port={ports}"

    def _give(self, path: Path) -> None:
        if self._as:
            os.chown(path, self._as["user"], self._as["group"])

    def _run(self, program: str, *args: str) -> None:
        command = [str(self._programs / program), *args]
        done = subprocess.run(command, check=False, capture_output=True, cwd="/", **self._as)
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def _start(self) -> subprocess.Popen[bytes]:
        command = [
            str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self._port), "-k", str(self._directory),
            "-c", "synchronous_commit=on", *postgres.FAST.split(),
        ]  # fmt: skip
        with self.log.open("wb") as log:
            return subprocess.Popen(command, cwd="/", stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self._as)

    def _streams(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return self._asked("state = 'streaming'")

    def _asked(self, condition: str) -> bool:
        with self.primary.server.admin() as admin:
            row: Any = admin.execute(
                f"SELECT count(*) FROM pg_stat_replication WHERE {condition}".encode()
            ).fetchone()
            return bool(row[0])


def _port(url: str) -> int:
    with psycopg.connect(url) as connection:
        return connection.info.port
