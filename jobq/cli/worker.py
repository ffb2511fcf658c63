"""``jobq worker``."""

from __future__ import annotations

import atexit
import logging
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from jobq.cli.config import unknown_variables
from jobq.cli.options import APP_METAVAR, database_options, log_options
from jobq.cli.session import current
from jobq.errors import ConfigurationError

if TYPE_CHECKING:
    from jobq._worker.queue_spec import QueueSpec


def _queues(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[QueueSpec, ...] | None:
    if value is None:
        return None
    from jobq._worker import queue_spec

    if not value.strip():
        raise click.BadParameter("expected queue names separated by commas; omit the option to serve every queue")
    try:
        return queue_spec.parse(value)
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


@click.command(short_help="Run jobs until told to stop.")
@click.argument("app", metavar=APP_METAVAR, envvar="JOBQ_APP")
@database_options
@click.option(
    "--queues",
    metavar="A,B:3,C:max=2,…",
    callback=_queues,
    show_envvar=True,
    help="Serve only these queues (default: every queue). A:3: weight 3 relative to the others (default: "
    "1). A:max=2 or A:3:max=2: hold at most 2 jobs of A at a time.",
)
@click.option(
    "--queue-order",
    type=click.Choice(["priority", "shares", "strict"]),
    show_envvar=True,
    help="How to choose between queues. priority: higher priorities first over all queues. shares: by "
    "weight, and by priority within a queue. strict: a queue gets only the slots that the queues before "
    "it leave free. (default: shares if --queues has a weight, else priority)",
)
@click.option(
    "--aging",
    type=click.FloatRange(0, 86_400, min_open=True),
    metavar="SECONDS",
    show_envvar=True,
    help="Raise the priority of a due job by one for each SECONDS that it waits (default: never). "
    "Prevents starvation of low priorities, at the cost of strict priority order.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=16,
    show_default=True,
    show_envvar=True,
    help="Jobs that one runner process executes at a time. More suits jobs that wait for I/O, and takes more memory.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1_000),
    show_envvar=True,
    help="Runner processes (default: the number of CPUs). More use more memory; fewer leave CPUs idle.",
)
@click.option(
    "--isolated",
    type=click.IntRange(1, 1_000),
    default=2,
    show_default=True,
    show_envvar=True,
    help="Most processes for isolated jobs, which each run alone in one. More run more of them at once, "
    "and take more memory.",
)
@click.option(
    "--preload/--no-preload",
    default=False,
    show_default=True,
    show_envvar=True,
    help="Fork runners from a process that has imported the application: ready in milliseconds.",
)
@click.option(
    "--max-jobs-per-runner",
    type=click.IntRange(min=1),
    show_envvar=True,
    help="Replace a runner after this many jobs (default: never). Limits leaks, at the cost of a restart.",
)
@click.option(
    "--max-rss-mb",
    type=click.IntRange(min=1),
    metavar="MIB",
    show_envvar=True,
    help="Replace a runner that exceeds this memory; kill it at one and a half times that (default: no limit).",
)
@click.option(
    "--drain", is_flag=True, show_envvar=True, help="Exit when no job is left that can run now (default: keep running)."
)
@_seconds(
    "--shutdown-timeout",
    25.0,
    "How long running jobs may continue after SIGTERM or Ctrl-C. Then they are put back and run again elsewhere.",
)
@_seconds(
    "--timeout-grace",
    2.0,
    "Time between a job's timeout and the forced end of its runner. A longer time lets more tasks end by themselves.",
)
@_seconds(
    "--bystander-grace",
    30.0,
    "How long other jobs in a runner may continue before the runner is killed because of one job.",
)
@_seconds("--import-timeout", 120.0, "How long a runner may take to import the application before it is restarted.")
@_seconds(
    "--poll-interval",
    1.0,
    "Time between two polls of the queues without a notification. A shorter time costs more queries.",
)
@_seconds(
    "--heartbeat-interval",
    2.0,
    "Time between two heartbeats. A shorter time detects lost workers earlier, and costs more writes.",
)
@_seconds(
    "--lease",
    30.0,
    "Time without a heartbeat after which other workers take over this one's jobs. If it is too short, a slow "
    "database makes jobs run twice.",
)
@_seconds("--suspicion", 3.5, "The same, if the worker's process is known to be gone.")
@click.option(
    "--max-crashes",
    type=click.IntRange(1, 1_000),
    default=3,
    show_default=True,
    show_envvar=True,
    help="How often a job may crash its runner before it fails permanently. More tolerates bad luck, and "
    "costs more restarts.",
)
@click.option(
    "--park-patience",
    type=click.FloatRange(0, 31_536_000),
    metavar="SECONDS",
    default=3600.0,
    show_default=True,
    show_envvar=True,
    help="How long a job waits for a worker whose code accepts its arguments, before it fails. Longer "
    "covers slow deployments.",
)
@click.option(
    "--keep-succeeded-days",
    type=click.FloatRange(0, min_open=True),
    default=7.0,
    show_default=True,
    show_envvar=True,
    help="How long succeeded jobs stay in the history, and succeeded runs of workflows. Longer needs more disk space.",
)
@click.option(
    "--keep-failed-days",
    type=click.FloatRange(0, min_open=True),
    default=90.0,
    show_default=True,
    show_envvar=True,
    help="How long failed, cancelled and expired jobs, and all attempts, stay in the history. Longer "
    "needs more disk space.",
)
@click.option(
    "--health-address",
    metavar="HOST:PORT|unix:PATH",
    envvar="JOBQ_HEALTH_ADDRESS",
    show_envvar=True,
    help="Serve /livez, /readyz and /metrics at this address, without a password (default: not served).",
)
@click.option(
    "--log-tracebacks",
    is_flag=True,
    show_envvar=True,
    help="Log the traceback of each failed attempt (default: only its error). Logs become longer.",
)
@log_options
def worker(
    *,
    app: str,
    queues: tuple[QueueSpec, ...] | None,
    queue_order: str | None,
    processes: int | None,
    log_format: str | None,
    log_level: str,
    **options: Any,
) -> None:
    """Run the jobs of the application MODULE:ATTRIBUTE (or JOBQ_APP) until told to stop.

    After SIGTERM or Ctrl-C, running jobs may finish within --shutdown-timeout; the others are put
    back. A second signal ends the wait.
    """
    from jobq._core import output
    from jobq._core.logs import formats

    # The reader of the log, a terminal or a pipe, may stop reading. The worker must continue.
    output.guard()
    session = current()
    session.url  # noqa: B018 - raises if no database is configured
    chosen: formats.LogFormat = "json" if (log_format or formats.default_format()) == "json" else "text"
    formats.configure(chosen, log_level)
    logging.captureWarnings(True)
    for each in unknown_variables():
        logging.getLogger("jobq.cli").warning(str(each), extra={"variable": each.name})
    atexit.register(output.finish)
    from jobq._worker import WorkerOptions, queue_spec, run

    if processes is not None:
        options["processes"] = processes
    code = run(
        WorkerOptions(
            app=app,
            settings=session.settings,
            queues=tuple(queue.name for queue in queues) if queues is not None else None,
            queue_weights={queue.name: queue.weight for queue in queues or () if queue.weight is not None},
            queue_caps={queue.name: queue.cap for queue in queues or () if queue.cap is not None},
            queue_order=queue_spec.QueueOrder(queue_order) if queue_order is not None else None,
            log_format=chosen,
            log_level=log_level.upper(),
            **options,
        )
    )
    # Ignore further signals during the last steps: the exit code must say how the worker ended.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    click.get_current_context().exit(code)
