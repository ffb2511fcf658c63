"""A real PgBouncer in transaction mode before a test's server; it ends with its test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from jobq.dev import drop_privileges
from tests.support import programs
from tests.support.servers.replication import free_port
from tests.support.waiting import wait_until


class PgBouncer:
    """`url` leads through it to the database of `database_url`, as its user. `ignore_options`: drop `options`, as many do."""

    def __init__(
        self, database_url: str, *, mode: str = "transaction", size: int = 4, ignore_options: bool = False
    ) -> None:
        found = programs.find("pgbouncer")
        assert found is not None
        self.directory = Path(tempfile.mkdtemp(prefix="jobq-test-pgbouncer-"))
        server = urlsplit(database_url)
        port, name = free_port(), server.path.lstrip("/")
        user = server.username or "postgres"
        users = self.directory / "users.txt"
        users.write_text(f'"{user}" ""\n')
        config = self.directory / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n{name} = host=127.0.0.1 port={server.port} dbname={name} user={user}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"auth_file = {users}\npool_mode = {mode}\ndefault_pool_size = {size}\nmax_client_conn = 200\n"
            f"server_reset_query_always = 0\n{'ignore_startup_parameters = options' if ignore_options else ''}\n"
        )
        run_as = drop_privileges()
        if run_as:
            for path in (self.directory, users, config):
                os.chown(path, run_as["user"], run_as["group"])
        self.url = f"postgresql://{user}@127.0.0.1:{port}/{name}"
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [found, config],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **run_as,
            )
        wait_until(self._answers, what="PgBouncer")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
