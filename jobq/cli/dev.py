"""``jobq dev`` and ``jobq demo``: jobq on this machine, for development and for a first look."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobq.cli import output
from jobq.cli.options import APP_METAVAR, database_options, json_option, log_options, yes_option
from jobq.cli.session import Session, current
from jobq.errors import ConfigurationError
from jobq.settings import read_secret

if TYPE_CHECKING:
    from jobq.dev import DevPostgres
    from jobq.dev.supervise import Program

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
    help="Directory of the embedded Postgres, which runs if no database is configured.",
)
@click.option(
    "--pg-port",
    type=click.IntRange(1, 65_535),
    show_envvar=True,
    help="TCP port of the embedded Postgres (default: none, a Unix socket only).",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8642,
    show_default=True,
    show_envvar=True,
    help="Port of the status page; if it is taken, a free one.",
)
@click.option("--no-web", is_flag=True, show_envvar=True, help="Do not run the status page.")
@click.option("--no-reload", is_flag=True, show_envvar=True, help="Do not restart the worker when files change.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=16,
    show_default=True,
    show_envvar=True,
    help="Concurrent jobs.",
)
@click.option(
    "--shutdown-timeout",
    type=click.FloatRange(0, 86_400),
    metavar="SECONDS",
    default=5.0,
    show_default=True,
    show_envvar=True,
    help="How long running jobs may continue when the worker is restarted or stopped. A shorter time restarts faster.",
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
    """Run Postgres, migrations, a worker for MODULE:ATTRIBUTE (or JOBQ_APP) and the status page,
    until Ctrl-C.

    Without JOBQ_DATABASE_URL, this starts an embedded Postgres with its data in --home. The worker
    is restarted when a Python file below the current directory changes. Processes that die are
    restarted.
    """
    from jobq.dev import supervise
    from jobq.dev.reload import Watcher

    session = current()
    # A signal that comes while Postgres starts is kept, and obeyed as soon as everything can be
    # stopped in order.
    with supervise.stop_signals() as stop, ExitStack() as stack:
        postgres = None if session.settings.database_url else stack.enter_context(_postgres(session, home, pg_port))
        if stop.is_set():
            return
        with nullcontext() if postgres is not None else _chosen_database(session, home):
            _migrate(session, ask=postgres is None and not yes)
        # If the user has configured the URL, a second terminal gets it from the same place, and a
        # password stays hidden.
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
            output.note("no status page: it needs Flask; run pip install 'jobq[web]'")
        elif not no_web:
            wanted, port = port, _free_port(port)
            if wanted not in (0, port):
                output.note(
                    f"port {wanted} is in use by another program: the status page uses port {port} instead (see --port)"
                )
            commands["status page"] = ["web", "--host", _HOST, "--port", str(port), *logs]
            output.note(f"status page: http://{_HOST}:{port}/")
        programs = [_program(session, name, command, shutdown_timeout) for name, command in commands.items()]
        try:
            watcher = None if no_reload else Watcher(Path.cwd())
            supervise.run(programs, postgres=postgres, watcher=watcher, stop=stop, say=output.note)
        finally:
            supervise.end(programs, stop)


@contextmanager
def _postgres(session: Session, home: Path, port: int | None) -> Iterator[DevPostgres]:
    from jobq.dev import DevPostgres

    output.note(f"starting Postgres, with its data in {home}")
    if session.settings.direct_url:
        output.note(
            "JOBQ_DIRECT_URL is ignored: it is the way around the pooler of a JOBQ_DATABASE_URL, which is not set"
        )
    with DevPostgres(home, port=port) as postgres:
        session.database_url = session.direct_url = postgres.url()
        session.__dict__.pop("settings", None)  # computed again, with this URL
        yield postgres
        output.note("stopping Postgres")


@contextmanager
def _chosen_database(session: Session, home: Path) -> Iterator[None]:
    """Say why no Postgres is started, above all if the configured database cannot be reached."""
    from jobq.errors import DatabaseUnavailable
    from jobq.settings import Settings

    _, origin = Settings.origins(**session.overrides)["database_url"]
    name = "--database-url" if origin == "argument" else origin
    output.note(f"{name} is set: using that database instead of a Postgres in {home}")
    try:
        yield
    except DatabaseUnavailable as error:
        fix = "omit it" if origin == "argument" else f"`unset {name}`"
        raise DatabaseUnavailable(
            f"{error}. Because {name} is set, `jobq dev` does not start the Postgres in {home}; to use that one, {fix}"
        ) from error


def _migrate(session: Session, *, ask: bool) -> None:
    from jobq import migrate

    url = session.unpooled_url
    steps = migrate.pending(url, session.schema)
    if not steps:
        return
    if ask:
        output.note(f"schema {session.schema!r} of {_shown(session)} needs:")
        for step in steps:
            output.note(f"  {step.id}  {step.title}")
        output.confirm("Apply?", yes=False)
    applied = migrate.upgrade(url, session.schema, session_mode=session.settings.pooler == "none")
    output.note(f"migrated schema {session.schema!r}: {', '.join(applied)}")


def _shown(session: Session) -> str:
    from jobq.settings import redact_url

    return redact_url(session.url)


def _free_port(wanted: int) -> int:
    """Return `wanted` if that port is free, else a free port."""
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
    from jobq.dev.supervise import Program

    return Program(
        name,
        [sys.executable, "-m", "jobq", *command],
        environment=session.child_environment(),
        # The worker enforces its own timeout; this one is for a worker that hangs.
        patience=shutdown_timeout + 10,
        say=output.note,
    )


@click.command(short_help="Run the example application on an embedded Postgres.")
@click.option(
    "--once",
    is_flag=True,
    show_envvar=True,
    help="Upload the pictures, wait until all jobs are done, print a summary, and exit (default: run until Ctrl-C).",
)
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path),
    show_envvar=True,
    help="Directory of pictures to upload (default: a small generated set).",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    show_envvar=True,
    help="Port of the gallery on this machine (default: a free one).",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    show_envvar=True,
    help="Data directory (default: .jobq, or a temporary one with --once).",
)
@click.option(
    "--database-url",
    metavar="URL",
    allow_from_autoenv=False,
    help="Use this Postgres instead of an embedded one. JOBQ_DATABASE_URL is ignored, since the demo creates tables.",
)
@click.option(
    "--database-url-file",
    metavar="PATH",
    allow_from_autoenv=False,
    help="File that contains that URL, which keeps it out of `ps`; - for standard input.",
)
@json_option
def demo(
    *,
    once: bool,
    photos: Path | None,
    port: int | None,
    home: Path | None,
    database_url: str | None,
    database_url_file: str | None,
    as_json: bool,
) -> None:
    """Run the example application: a photo gallery, its worker, and the status page, on an embedded
    Postgres.

    Without --once it runs until Ctrl-C. With --once it exits with 0 if every job and file is as
    expected.
    """
    try:
        from jobq.gallery.demo import run
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"the demo needs {error.name}: pip install 'jobq[demo]'") from error
    if database_url_file is not None:
        database_url = read_secret(database_url_file, "--database-url-file")
    code = run(once=once, photos=photos, as_json=as_json, port=port, home=home, database_url=database_url)
    click.get_current_context().exit(code)
