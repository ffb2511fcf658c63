"""The worker daemon: `run` it with `WorkerOptions`, as `jobq worker` does."""

from __future__ import annotations

from jobq.worker.options import WorkerOptions

__all__ = ["WorkerOptions", "run"]


def run(options: WorkerOptions) -> int:
    """Run a worker in this process until it is told to stop, and return its exit code: 0.

    Must be called from the main thread, which receives the signals. Raises ConfigurationError or SchemaError (78) when it
    cannot work as it is set up (a health address that is taken, for one), AppImportError (78) for the application,
    DatabaseUnavailable (69) when the database cannot be reached at the start; once started, a worker rides out the
    database's absence. When the schema is newer than this code and does not say that it works with it, the worker waits.
    """
    # Here, so that a runner, which is a module of this package, need not load what only the dispatcher uses.
    import asyncio
    import signal
    from importlib.metadata import version

    import psycopg

    from jobq import output
    from jobq.config import unreachable
    from jobq.errors import DatabaseUnavailable
    from jobq.worker.compatibility import await_schema, stopping_signals
    from jobq.worker.dispatcher import Dispatcher
    from jobq.worker.errors import PartFailed
    from jobq.worker.notify import Notifier

    # The handlers may be an application's, and wait for their reader.
    output.defer_logging("jobq", "jobq.worker", "asyncio", "psycopg", "psycopg.pool", "py.warnings")
    notifier = Notifier.from_environment()
    # Until the event loop is there; see stacks.py.
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
            # It has stopped: a signal that comes now is not to make a failure of that.
            for number in before:
                signal.signal(number, signal.SIG_IGN)

    try:
        asyncio.run(work())
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(unreachable(url, error)) from error
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        # What is in the database, not the command line.
        raise PartFailed(f"the start: {error}") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
