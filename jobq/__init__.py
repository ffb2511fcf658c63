"""jobq: durable jobs on PostgreSQL, inserted in your transaction, run at least once.

from jobq import JobQ

q = JobQ()

@q.task(queue="mail")
def send_receipt(order_id: int) -> str: ...

send_receipt.enqueue(connection, order.id)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Redundant aliases: exported, though not by `*`, since the page needs the extra `web`.
    from jobq import operations as operations
    from jobq import queries as queries
    from jobq import web as web
    from jobq.app import JobQ
    from jobq.backoff import Backoff
    from jobq.current import CurrentJob, current_job
    from jobq.errors import (
        AppImportError,
        Cancel,
        ConfigurationError,
        ConnectionNotUsable,
        DatabaseUnavailable,
        Fail,
        InvalidArguments,
        InvalidOption,
        JobBusy,
        JobFailed,
        JobIdUnknown,
        JobNotFound,
        JobqError,
        KeyConflict,
        NoCurrentJob,
        NotTransactional,
        PermissionDenied,
        ResultError,
        ResultTimeout,
        Retry,
        SchemaError,
        Snooze,
        TaskDefinitionError,
        TimedOut,
        TransactionEnded,
        UnknownQueue,
        UnknownSchedule,
        UnknownTask,
        UnsupportedConnection,
    )
    from jobq.flow import Groups, QueueSettings, Rate
    from jobq.jobs import NewJob
    from jobq.queuehandle import QueueHandle
    from jobq.refs import JobProgress, JobRef
    from jobq.tasks import AsyncTask, Task

    __version__: str

__all__ = [
    "AppImportError",
    "AsyncTask",
    "Backoff",
    "Cancel",
    "ConfigurationError",
    "ConnectionNotUsable",
    "CurrentJob",
    "DatabaseUnavailable",
    "Fail",
    "Groups",
    "InvalidArguments",
    "InvalidOption",
    "JobBusy",
    "JobFailed",
    "JobIdUnknown",
    "JobNotFound",
    "JobProgress",
    "JobQ",
    "JobRef",
    "JobqError",
    "KeyConflict",
    "NewJob",
    "NoCurrentJob",
    "NotAwaited",
    "NotTransactional",
    "PermissionDenied",
    "QueueHandle",
    "QueueSettings",
    "Rate",
    "ResultError",
    "ResultTimeout",
    "Retry",
    "SchemaError",
    "Snooze",
    "Task",
    "TaskDefinitionError",
    "TimedOut",
    "TransactionEnded",
    "UnknownQueue",
    "UnknownSchedule",
    "UnknownTask",
    "UnsupportedConnection",
    "__version__",
    "current_job",
]

if not TYPE_CHECKING:
    # Imported at the first use: `jobq --help` should not wait for pydantic and the database driver.
    _ELSEWHERE = {
        "AsyncTask": "tasks",
        "Backoff": "backoff",
        "CurrentJob": "current",
        "Groups": "flow",
        "JobQ": "app",
        "JobProgress": "refs",
        "JobRef": "refs",
        "NewJob": "jobs",
        "QueueHandle": "queuehandle",
        "QueueSettings": "flow",
        "Rate": "flow",
        "Task": "tasks",
        "current_job": "current",
    }

    _SUBMODULES = ("operations", "queries", "web")

    def __getattr__(name: str) -> object:
        if name in _SUBMODULES:
            return _submodule(name)
        if name not in __all__:
            raise AttributeError(f"module 'jobq' has no attribute {name!r}")
        if name == "__version__":
            from importlib.metadata import version

            value = version("jobq")
        else:
            from importlib import import_module

            value = getattr(import_module(f"jobq.{_ELSEWHERE.get(name, 'errors')}"), name)
        globals()[name] = value
        return value

    def _submodule(name: str) -> object:
        from importlib import import_module

        try:
            return import_module(f"jobq.{name}")
        except ModuleNotFoundError as error:
            if name == "web" and error.name in ("flask", "waitress"):
                raise ModuleNotFoundError(
                    f"jobq.web needs {error.name}: pip install 'jobq[web]'", name=error.name
                ) from error
            raise

    def __dir__() -> list[str]:
        dunders = {name for name in globals() if name.startswith("__") and name.endswith("__")}
        return sorted({*dunders, *__all__, *_SUBMODULES} - {"__getattr__", "__dir__"})
