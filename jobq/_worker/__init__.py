"""The worker daemon: `run` runs it with `WorkerOptions`, as `jobq worker` does."""

from __future__ import annotations

from jobq._worker.options import WorkerOptions

__all__ = ["WorkerOptions", "run"]


def run(options: WorkerOptions) -> int:
    """Run a worker in this process until it is asked to stop, and return its exit code: 0.

    This must be called from the main thread, which receives the signals. Once started, a worker
    survives an outage of the database. If the schema is newer than this code and does not support
    it, the worker waits.

    Raises ConfigurationError or SchemaError (78) if its set-up is unusable (for example, a health
    address that is taken), AppImportError (78) for the application, and DatabaseUnavailable (69) if
    the database cannot be reached at the start.
    """
    # Imported here so that a runner, a module of this package, does not load dispatcher modules.
    import asyncio
    import signal
    from importlib.metadata import version

    import psycopg

    from jobq._core import output
    from jobq._worker.compatibility import await_schema, stopping_signals
    from jobq._worker.database_errors import PartFailed
    from jobq._worker.dispatcher import Dispatcher
    from jobq._worker.health.systemd import Notifier
    from jobq.errors import DatabaseUnavailable
    from jobq.settings import unreachable

    # The handlers may belong to an application, and wait for their reader.
    output.defer_logging("jobq", "jobq.worker", "asyncio", "psycopg", "psycopg.pool", "py.warnings")
    notifier = Notifier.from_environment()
    # Until the event loop exists; see stacks.py.
    signal.signal(signal.SIGQUIT, lambda *_: None)
    settings = options.settings
    url = settings.require_database_url()
    if not await_schema(url, settings.schema, notifier, wait=not options.drain):
        return 0
    before = {number: signal.getsignal(number) for number in stopping_signals()}

    async def work() -> None:
        try:
            await Dispatcher(options, version("jobq"), notifier).run()
        finally:
            # The worker has stopped: a signal that comes now must not turn this into a failure.
            for number in before:
                signal.signal(number, signal.SIG_IGN)

    try:
        asyncio.run(work())
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(unreachable(url, error)) from error
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        # The cause is the database's content, not the command line.
        raise PartFailed(f"the start: {error}") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
