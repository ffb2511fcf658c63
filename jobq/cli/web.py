"""``jobq web``."""

from __future__ import annotations

import signal

import click

from jobq.cli import output
from jobq.cli.options import database_options, log_options
from jobq.cli.session import current
from jobq.errors import ConfigurationError
from jobq.worker.notify import Notifier


@click.command(short_help="Serve the status page.")
@database_options
@click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8642,
    show_default=True,
    show_envvar=True,
    help="Port to listen on; 0 for a free one.",
)
@log_options
def web(*, host: str, port: int, log_format: str | None, log_level: str) -> None:
    """Serve the status page: queues, jobs, workers; retry and cancel."""
    from jobq import logs

    session = current()
    session.url  # noqa: B018 - without a database there is nothing to show
    logs.configure("json" if (log_format or logs.default_format()) == "json" else "text", log_level)
    try:
        from jobq.web import create_app, serve
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"the status page needs {error.name}: pip install 'jobq[web]'") from error
    notifier = Notifier.from_environment()

    def ready(address: str) -> None:
        output.note(f"the status page is at {address}")
        notifier.tell(READY=1, STATUS=f"serving {address}")

    def leave(_number: int, _frame: object) -> None:
        notifier.tell(STOPPING=1)
        # The server closes its sockets on its way out, as it does at Ctrl-C.
        raise SystemExit(0)

    app = create_app(session.settings)
    signal.signal(signal.SIGTERM, leave)
    serve(app, host, port, ready=ready)
