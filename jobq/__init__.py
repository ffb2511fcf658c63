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
    from jobq._core.injection import Resource, injected
    from jobq.app import JobQ
    from jobq.batch import CurrentBatch, current_batch
    from jobq.batch_middleware import AsyncBatchRunNext, BatchRunNext
    from jobq.batch_task import AsyncBatchTask, BatchTask
    from jobq.context import CurrentJob, current_job
    from jobq.errors import (
        AppImportError,
        BatchResultError,
        Cancel,
        ChildFailed,
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
        MiddlewareError,
        NoCurrentJob,
        NotDurable,
        NotTransactional,
        PermissionDenied,
        ResourceNotInjected,
        ResultError,
        ResultTimeout,
        Retry,
        SchemaError,
        SignalNotSent,
        Snooze,
        StepChanged,
        StepFailed,
        TaskDefinitionError,
        TimedOut,
        TransactionEnded,
        UndoFailed,
        UnknownQueue,
        UnknownSchedule,
        UnknownTask,
        UnsupportedConnection,
        WorkflowError,
        WorkflowFailed,
        WorkflowNotFound,
    )
    from jobq.job import NewJob
    from jobq.jobref import JobProgress, JobRef
    from jobq.limits import Groups, QueueSettings, Rate
    from jobq.middleware import AsyncEnqueueNext, AsyncRunNext, EnqueueNext, RunNext
    from jobq.queue import QueueHandle
    from jobq.retry import Backoff
    from jobq.steps import step
    from jobq.task import AsyncTask, Task
    from jobq.workflow import Workflow
    from jobq.workflow.node import Many, Node, NodeOutcome
    from jobq.workflow.run import WorkflowRun

    __version__: str

__all__ = [
    "AppImportError",
    "AsyncBatchRunNext",
    "AsyncBatchTask",
    "AsyncEnqueueNext",
    "AsyncRunNext",
    "AsyncTask",
    "Backoff",
    "BatchResultError",
    "BatchRunNext",
    "BatchTask",
    "Cancel",
    "ChildFailed",
    "ConfigurationError",
    "ConnectionNotUsable",
    "CurrentBatch",
    "CurrentJob",
    "DatabaseUnavailable",
    "EnqueueNext",
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
    "Many",
    "MiddlewareError",
    "NewJob",
    "NoCurrentJob",
    "Node",
    "NodeOutcome",
    "NotAwaited",
    "NotDurable",
    "NotTransactional",
    "PermissionDenied",
    "QueueHandle",
    "QueueSettings",
    "Rate",
    "Resource",
    "ResourceNotInjected",
    "ResultError",
    "ResultTimeout",
    "Retry",
    "RunNext",
    "SchemaError",
    "SignalNotSent",
    "Snooze",
    "StepChanged",
    "StepFailed",
    "Task",
    "TaskDefinitionError",
    "TimedOut",
    "TransactionEnded",
    "UndoFailed",
    "UnknownQueue",
    "UnknownSchedule",
    "UnknownTask",
    "UnsupportedConnection",
    "Workflow",
    "WorkflowError",
    "WorkflowFailed",
    "WorkflowNotFound",
    "WorkflowRun",
    "__version__",
    "current_batch",
    "current_job",
    "injected",
    "step",
]

if not TYPE_CHECKING:
    # Imported at the first use, so that `jobq --help` does not wait for pydantic and the
    # driver.
    _ELSEWHERE = {
        "AsyncBatchRunNext": "batch_middleware",
        "AsyncBatchTask": "batch_task",
        "AsyncEnqueueNext": "middleware",
        "AsyncRunNext": "middleware",
        "AsyncTask": "task",
        "Backoff": "retry",
        "BatchRunNext": "batch_middleware",
        "BatchTask": "batch_task",
        "CurrentBatch": "batch",
        "CurrentJob": "context",
        "EnqueueNext": "middleware",
        "Groups": "limits",
        "JobQ": "app",
        "JobProgress": "jobref",
        "JobRef": "jobref",
        "Many": "workflow.node",
        "NewJob": "job",
        "Node": "workflow.node",
        "NodeOutcome": "workflow.node",
        "QueueHandle": "queue",
        "QueueSettings": "limits",
        "Rate": "limits",
        "Resource": "_core.injection",
        "RunNext": "middleware",
        "Task": "task",
        "Workflow": "workflow",
        "WorkflowRun": "workflow.run",
        "current_batch": "batch",
        "current_job": "context",
        "injected": "_core.injection",
        "step": "steps",
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
