"""``jobq dev``."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobq.cli import output
from jobq.cli.options import APP_METAVAR, database_options, log_options, yes_option
from jobq.cli.session import Session, current

if TYPE_CHECKING:
    from jobq.cli.supervise import Program
    from jobq.dev import DevPostgres

_TICK = 0.2  # seconds
_LOOK_EVERY = 3  # ticks
_HOST = "127.0.0.1"


@click.command(short_help="Run Postgres, migrations, a worker and the status page for development.")
@click.argument("app", metavar=APP_METAVAR, envvar="JOBQ_APP")
@database_options
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".jobq"),
    show_default=True,
    show_envvar=True,
    help="Directory of the embedded Postgres, used when no database is given.",
)
@click.option(
    "--pg-port",
    type=click.IntRange(1, 65_535),
    show_envvar=True,
    help="TCP port of the embedded Postgres (default: a Unix socket only).",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8642,
    show_default=True,
    show_envvar=True,
    help="Port of the status page; a free one when this is taken.",
)
@click.option("--no-web", is_flag=True, show_envvar=True, help="No status page.")
@click.option("--no-reload", is_flag=True, show_envvar=True, help="Do not restart the worker when files change.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=16,
    show_default=True,
    show_envvar=True,
    help="Jobs at a time.",
)
@click.option(
    "--shutdown-timeout",
    type=click.FloatRange(0, 86_400),
    metavar="SECONDS",
    default=5.0,
    show_default=True,
    show_envvar=True,
    help="How long running jobs may go on when the worker is restarted or ended.",
)
@yes_option
@log_options
def dev(
    *,
    app: str,
    home: Path,
    pg_port: int | None,
    port: int,
    no_web: bool,
    no_reload: bool,
    concurrency: int,
    shutdown_timeout: float,
    yes: bool,
    log_format: str | None,
    log_level: str,
) -> None:
    """Run Postgres, migrations, a worker for MODULE:ATTRIBUTE (or JOBQ_APP) and the status page, until Ctrl-C.

    Without JOBQ_DATABASE_URL an embedded Postgres is started, with its data in --home. The worker is restarted when
    a Python file below the current directory changes. What dies is started again.
    """
    session = current()
    # An order to end that comes while Postgres starts is kept, and obeyed as soon as everything can be stopped in order.
    with _signals() as stop, ExitStack() as stack:
        postgres = None if session.settings.database_url else stack.enter_context(_postgres(session, home, pg_port))
        if stop.is_set():
            return
        with nullcontext() if postgres is not None else _chosen_database(session, home):
            _migrate(session, ask=postgres is None and not yes)
        # If the user has set the address, a second terminal gets it from the same place, and a password is not shown.
        output.note(
            f"database: {_shown(session)}"
            if postgres is None
            else f"database: export JOBQ_DATABASE_URL='{_shown(session)}'"
        )
        logs = ["--log-level", log_level, "--log-format", log_format or "text"]
        commands = {
            "worker": [
                "worker",
                app,
                "--concurrency",
                str(concurrency),
                "--shutdown-timeout",
                str(shutdown_timeout),
                "--log-tracebacks",
                *logs,
            ]
        }
        if not no_web and find_spec("flask") is None:
            output.note("no status page: it needs flask, pip install 'jobq[web]'")
        elif not no_web:
            wanted, port = port, _free_port(port)
            if wanted not in (0, port):
                output.note(
                    f"port {wanted} is taken by another program: the status page gets another one (--port chooses it)"
                )
            commands["status page"] = ["web", "--host", _HOST, "--port", str(port), *logs]
            output.note(f"status page: http://{_HOST}:{port}/")
        programs = [_program(session, name, command, shutdown_timeout) for name, command in commands.items()]
        try:
            _run(programs, postgres, stop, reload=not no_reload)
        finally:
            _end(programs, stop)


@contextmanager
def _signals() -> Iterator[_Stop]:
    """Yield an event that SIGINT and SIGTERM set; a second one is seen as the event ``stop.again``."""
    stop = _Stop()
    before = {number: signal.signal(number, stop.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stop(threading.Event):
    def __init__(self) -> None:
        super().__init__()
        self.again = False

    def on_signal(self, _number: int, _frame: object) -> None:
        self.again = self.is_set()
        self.set()


@contextmanager
def _postgres(session: Session, home: Path, port: int | None) -> Iterator[DevPostgres]:
    from jobq.dev import DevPostgres

    output.note(f"starting Postgres, with its data in {home}")
    with DevPostgres(home, port=port) as postgres:
        session.database_url = postgres.url()
        session.__dict__.pop("settings", None)  # made again, with this address
        yield postgres
        output.note("stopping Postgres")


@contextmanager
def _chosen_database(session: Session, home: Path) -> Iterator[None]:
    """Tell why no Postgres is started here, which is most surprising when the chosen one cannot be reached."""
    from jobq.config import Settings
    from jobq.errors import DatabaseUnavailable

    _, origin = Settings.origins(**session.overrides)["database_url"]
    name = "--database-url" if origin == "argument" else origin
    output.note(f"{name} is set: using that database, and starting no Postgres in {home}")
    try:
        yield
    except DatabaseUnavailable as error:
        fix = "leave it out" if origin == "argument" else f"`unset {name}`"
        raise DatabaseUnavailable(
            f"{error}. Since {name} is set, `jobq dev` does not start the Postgres in {home}: {fix} to have that one"
        ) from error


def _migrate(session: Session, *, ask: bool) -> None:
    from jobq import migrate

    steps = migrate.pending(session.url, session.schema)
    if not steps:
        return
    if ask:
        output.note(f"schema {session.schema!r} of {_shown(session)} needs:")
        for step in steps:
            output.note(f"  {step.id}  {step.title}")
        output.confirm("Apply?", yes=False)
    applied = migrate.upgrade(session.url, session.schema)
    output.note(f"migrated schema {session.schema!r}: {', '.join(applied)}")


def _shown(session: Session) -> str:
    from jobq.config import redact_url

    return redact_url(session.url)


def _free_port(wanted: int) -> int:
    """Return `wanted` when it is free, else one that is."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    return wanted


def _program(session: Session, name: str, command: Sequence[str], shutdown_timeout: float) -> Program:
    from jobq.cli.supervise import Program

    return Program(
        name,
        [sys.executable, "-m", "jobq", *command],
        environment=session.child_environment(),
        # The worker keeps its own time; this is for one that hangs.
        patience=shutdown_timeout + 10,
        say=output.note,
    )


def _run(programs: Sequence[Program], postgres: DevPostgres | None, stop: threading.Event, *, reload: bool) -> None:
    from jobq.cli.watch import Watcher

    watcher = Watcher(Path.cwd()) if reload else None
    server = _Server(postgres) if postgres is not None else None
    for program in programs:
        program.start()
    ticks = 0
    while not stop.wait(_TICK):
        ticks += 1
        if server is not None:
            server.tick()
        for program in programs:
            program.tick()
        if watcher is not None and ticks % _LOOK_EVERY == 0 and (changed := watcher.poll()):
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            output.note(f"{changed[0]}{more} changed: restarting the worker")
            programs[0].restart()


class _Server:
    """Starts the embedded Postgres again when it has died."""

    def __init__(self, postgres: DevPostgres) -> None:
        self._postgres = postgres
        self._deaths = 0
        self._start_at: float | None = None
        self._started_at = time.monotonic()

    def tick(self) -> None:
        """Do what is due."""
        from jobq.cli.supervise import STABLE, pause_before_restart
        from jobq.errors import EmbeddedPostgresError

        now = time.monotonic()
        if self._postgres.is_running:
            return
        if self._start_at is None:
            self._deaths = 1 if now - self._started_at >= STABLE else self._deaths + 1
            pause = pause_before_restart(self._deaths)
            self._start_at = now + pause
            output.note(f"Postgres died; it is started again in {pause:g} s")
        elif now >= self._start_at:
            self._start_at = None
            try:
                self._postgres.stop()
                self._postgres.start()
            except EmbeddedPostgresError as error:
                output.note(f"Postgres could not be started: {error}")
            self._started_at = time.monotonic()


def _end(programs: Sequence[Program], stop: _Stop) -> None:
    """End the programs and wait for them: in order at the first signal, at once at the second."""
    for program in programs:
        program.stop()
    left = list(programs)
    while left := [program for program in left if program.tick()]:
        if stop.again:
            for program in left:
                program.kill()
        time.sleep(_TICK / 4)
