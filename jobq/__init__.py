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
    from jobq.jobs import JobRef, NewJob
    from jobq.queuehandle import QueueHandle
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
    "JobFailed",
    "JobIdUnknown",
    "JobNotFound",
    "JobQ",
    "JobRef",
    "JobqError",
    "KeyConflict",
    "NewJob",
    "NoCurrentJob",
    "NotTransactional",
    "PermissionDenied",
    "QueueHandle",
    "QueueSettings",
    "Rate",
    "ResultError",
    "ResultTimeout",
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
        "JobRef": "jobs",
        "NewJob": "jobs",
        "QueueHandle": "queuehandle",
        "QueueSettings": "flow",
        "Rate": "flow",
        "Task": "tasks",
        "current_job": "current",
    }

    def __getattr__(name: str) -> object:
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

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
