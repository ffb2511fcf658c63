"""Operators' reads, for the command line, the status page and monitoring.

Each function takes a psycopg connection and the schema, runs plain SELECTs, and leaves the
transaction to the caller. No read takes longer because a table is larger: lists go by id, counts
stop at COUNT_LIMIT, and a filter without an index searches a bounded range of ids at a time.
"""

from __future__ import annotations

from jobq.job import FINISHED_STATES, LIVE_STATES, STATES
from jobq.queries.bulk import operation, operation_batches, operations
from jobq.queries.cursor import Cursor
from jobq.queries.exports import export
from jobq.queries.failures import FAILURE_SORTS, KnownFailures, failure, failures
from jobq.queries.finished import ORDERS
from jobq.queries.fleet import audit_log, maintenance_tasks, schema_revision, supports_this_version, workers
from jobq.queries.groups import groups, queue_settings
from jobq.queries.health import DueTask, Failing, Stranded, due_tasks, failing, stranded
from jobq.queries.jobs import get_job
from jobq.queries.parked import ParkedTask, parked_tasks
from jobq.queries.queue_detail import queue
from jobq.queries.reasons.explain import why_waiting
from jobq.queries.rollups import series, sparklines
from jobq.queries.schedules import ScheduleInfo, TickInfo, next_ticks, schedule, schedule_ticks, schedules
from jobq.queries.search import list_jobs, search_jobs
from jobq.queries.steps import job_signals, job_steps, job_waits, run_signals, run_waits
from jobq.queries.suggestions import suggest
from jobq.queries.summary import CountedQueues, counted_queues, overview, queue_names, queues, stats, throughput
from jobq.queries.system import system
from jobq.queries.values import (
    COUNT_LIMIT,
    Attempt,
    AuditEntry,
    JobDetail,
    JobNode,
    JobPage,
    JobRow,
    MaintenanceTaskInfo,
    Minute,
    Overview,
    QueueInfo,
    Stats,
    Throughput,
    WorkerInfo,
)
from jobq.queries.values.bulk import Operation, OperationBatch
from jobq.queries.values.stats import (
    FailureDetail,
    FailureGroup,
    Failures,
    GroupInfo,
    GroupLimit,
    Groups,
    Percentiles,
    QueueDetail,
    QueueTask,
    Series,
)
from jobq.queries.values.steps import JobSteps, JobWait, JobWaits, RunWait, SignalInfo, StepInfo
from jobq.queries.values.system import IndexInfo, System, TableInfo, XminHolder
from jobq.queries.workflows import (
    WORKFLOW_STATES,
    NodeInfo,
    WorkflowDetail,
    WorkflowInfo,
    get_workflow,
    workflow_names,
    workflows,
)

__all__ = [
    "COUNT_LIMIT",
    "FAILURE_SORTS",
    "FINISHED_STATES",
    "LIVE_STATES",
    "ORDERS",
    "STATES",
    "WORKFLOW_STATES",
    "Attempt",
    "AuditEntry",
    "CountedQueues",
    "Cursor",
    "DueTask",
    "Failing",
    "FailureDetail",
    "FailureGroup",
    "Failures",
    "GroupInfo",
    "GroupLimit",
    "Groups",
    "IndexInfo",
    "JobDetail",
    "JobNode",
    "JobPage",
    "JobRow",
    "JobSteps",
    "JobWait",
    "JobWaits",
    "KnownFailures",
    "MaintenanceTaskInfo",
    "Minute",
    "NodeInfo",
    "Operation",
    "OperationBatch",
    "Overview",
    "ParkedTask",
    "Percentiles",
    "QueueDetail",
    "QueueInfo",
    "QueueTask",
    "RunWait",
    "ScheduleInfo",
    "Series",
    "SignalInfo",
    "Stats",
    "StepInfo",
    "Stranded",
    "System",
    "TableInfo",
    "Throughput",
    "TickInfo",
    "WorkerInfo",
    "WorkflowDetail",
    "WorkflowInfo",
    "XminHolder",
    "audit_log",
    "counted_queues",
    "due_tasks",
    "export",
    "failing",
    "failure",
    "failures",
    "get_job",
    "get_workflow",
    "groups",
    "job_signals",
    "job_steps",
    "job_waits",
    "list_jobs",
    "maintenance_tasks",
    "next_ticks",
    "operation",
    "operation_batches",
    "operations",
    "overview",
    "parked_tasks",
    "queue",
    "queue_names",
    "queue_settings",
    "queues",
    "run_signals",
    "run_waits",
    "schedule",
    "schedule_ticks",
    "schedules",
    "schema_revision",
    "search_jobs",
    "series",
    "sparklines",
    "stats",
    "stranded",
    "suggest",
    "supports_this_version",
    "system",
    "throughput",
    "why_waiting",
    "workers",
    "workflow_names",
    "workflows",
]
