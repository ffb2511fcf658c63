"""``jobq worker``."""

from __future__ import annotations

import atexit
import logging
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from jobq.cli import variables
from jobq.cli.options import APP_METAVAR, database_options, log_options
from jobq.cli.session import current
from jobq.errors import ConfigurationError

if TYPE_CHECKING:
    from jobq.worker.served import ServedQueue


def _queues(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[ServedQueue, ...] | None:
    if value is None:
        return None
    from jobq.worker import served

    if not value.strip():
        raise click.BadParameter("give queue names separated by commas, or leave the option out for every queue")
    try:
        return served.parse(value)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error


def _seconds(flag: str, default: float, text: str) -> Callable[[Any], Any]:
    return click.option(
        flag,
        type=click.FloatRange(0, 86_400),
        metavar="SECONDS",
        default=default,
        show_default=True,
        show_envvar=True,
        help=text,
    )


@click.command(short_help="Work jobs until told to stop.")
@click.argument("app", metavar=APP_METAVAR, envvar="JOBQ_APP")
@database_options
@click.option(
    "--queues",
    metavar="A,B:3,C:max=2,…",
    callback=_queues,
    show_envvar=True,
    help="Only these queues (default: every queue). A:3: weight 3 beside the others (default: 1). A:max=2 or A:3:max=2: "
    "hold at most 2 of its jobs at a time.",
)
@click.option(
    "--queue-order",
    type=click.Choice(["priority", "shares", "strict"]),
    show_envvar=True,
    help="How to choose between queues. priority: higher priorities first over all of them. shares: by weight, priorities "
    "within a queue. strict: a queue gets what those named before it leave. (default: shares when --queues has a weight, "
    "else priority)",
)
@click.option(
    "--aging",
    type=click.FloatRange(0, 86_400, min_open=True),
    metavar="SECONDS",
    show_envvar=True,
    help="Let a due job count as one priority higher for each SECONDS that it waits (default: never).",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=16,
    show_default=True,
    show_envvar=True,
    help="Jobs that one runner process executes at a time.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1_000),
    show_envvar=True,
    help="Runner processes (default: as many as CPUs).",
)
@click.option(
    "--isolated",
    type=click.IntRange(1, 1_000),
    default=2,
    show_default=True,
    show_envvar=True,
    help="Most processes for jobs that run alone.",
)
@click.option(
    "--max-jobs-per-runner",
    type=click.IntRange(min=1),
    show_envvar=True,
    help="Replace a runner after so many jobs (default: never).",
)
@click.option(
    "--max-rss-mb",
    type=click.IntRange(min=1),
    metavar="MIB",
    show_envvar=True,
    help="Replace a runner above so much memory, kill it at one and a half times that (default: no limit).",
)
@click.option("--drain", is_flag=True, show_envvar=True, help="Exit when no job is left that can run now.")
@_seconds("--shutdown-timeout", 25.0, "How long jobs may go on after SIGTERM or Ctrl-C before they are put back.")
@_seconds("--timeout-grace", 2.0, "Time between a job's timeout and the end of its runner by force.")
@_seconds("--bystander-grace", 30.0, "What the jobs beside one that is to be ended by force get to end by themselves.")
@_seconds("--import-timeout", 120.0, "How long a runner may take to import the application.")
@_seconds("--poll-interval", 1.0, "Time between looks at the queues when no notification comes.")
@_seconds("--heartbeat-interval", 2.0, "Time between heartbeats.")
@_seconds("--lease", 30.0, "Silence after which another worker may take this one's jobs.")
@_seconds("--suspicion", 3.5, "The same when the silent worker's process is known to have gone.")
@click.option(
    "--max-crashes",
    type=click.IntRange(1, 1_000),
    default=3,
    show_default=True,
    show_envvar=True,
    help="Times that a job may take its runner down before it fails for good.",
)
@click.option(
    "--park-patience",
    type=click.FloatRange(0, 31_536_000),
    metavar="SECONDS",
    default=3600.0,
    show_default=True,
    show_envvar=True,
    help="How long a job waits whose arguments fit no live worker's code, before it fails.",
)
@click.option(
    "--keep-succeeded-days",
    type=click.FloatRange(0, min_open=True),
    default=7.0,
    show_default=True,
    show_envvar=True,
    help="How long succeeded jobs stay in history.",
)
@click.option(
    "--keep-failed-days",
    type=click.FloatRange(0, min_open=True),
    default=90.0,
    show_default=True,
    show_envvar=True,
    help="How long failed, cancelled and expired jobs, and all attempts, stay in history.",
)
@click.option(
    "--health-address",
    metavar="HOST:PORT|unix:PATH",
    envvar="JOBQ_HEALTH_ADDRESS",
    show_envvar=True,
    help="Serve /livez, /readyz and /metrics there, without a password (default: nowhere).",
)
@click.option(
    "--log-tracebacks",
    is_flag=True,
    show_envvar=True,
    help="Log the traceback of each failed attempt, not only its error.",
)
@log_options
def worker(
    *,
    app: str,
    queues: tuple[ServedQueue, ...] | None,
    queue_order: str | None,
    processes: int | None,
    log_format: str | None,
    log_level: str,
    **options: Any,
) -> None:
    """Work the jobs of the application MODULE:ATTRIBUTE (or JOBQ_APP) until told to stop.

    SIGTERM or Ctrl-C lets running jobs finish, up to --shutdown-timeout, and puts the others back. A second
    signal ends the wait.
    """
    from jobq import logs, output

    # The reader of the log, the terminal or the pipe may stop reading. The worker goes on.
    output.guard()
    session = current()
    session.url  # noqa: B018 - without a database there is nothing to start
    chosen: logs.LogFormat = "json" if (log_format or logs.default_format()) == "json" else "text"
    logs.configure(chosen, log_level)
    logging.captureWarnings(True)
    for each in variables.unknown():
        logging.getLogger("jobq.cli").warning(str(each), extra={"variable": each.name})
    atexit.register(output.finish)
    from jobq.worker import WorkerOptions, run, served

    if processes is not None:
        options["processes"] = processes
    code = run(
        WorkerOptions(
            app=app,
            settings=session.settings,
            queues=tuple(queue.name for queue in queues) if queues is not None else None,
            queue_weights={queue.name: queue.weight for queue in queues or () if queue.weight is not None},
            queue_caps={queue.name: queue.cap for queue in queues or () if queue.cap is not None},
            queue_order=served.QueueOrder(queue_order) if queue_order is not None else None,
            log_format=chosen,
            log_level=log_level.upper(),
            **options,
        )
    )
    # What is left to do takes a moment, and its exit code says how the worker ended.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    click.get_current_context().exit(code)
