"""Operators' reads: one module for the command line, the status page and whatever counts.

Each takes a psycopg connection and the schema, runs plain SELECTs and leaves the transaction to the caller.
None takes longer because a table is larger: lists go by id, counts stop at COUNT_LIMIT, and a filter without
an index searches a bounded range of ids at a time.
"""

from __future__ import annotations

from jobq.bulk import Operation, OperationBatch
from jobq.filters import HISTORY_STATES, LIVE_STATES, STATES
from jobq.queries.bulk import operation, operation_batches, operations
from jobq.queries.cursor import Cursor
from jobq.queries.exports import export
from jobq.queries.failures import FAILURE_SORTS, KnownFailures, failure, failures
from jobq.queries.finished import ORDERS
from jobq.queries.groups import groups, queue_settings
from jobq.queries.health import DueTask, Failing, Stranded, due_tasks, failing, stranded
from jobq.queries.jobs import get_job
from jobq.queries.onequeue import queue
from jobq.queries.parked import ParkedTask, parked_tasks
from jobq.queries.rest import audit_log, chores, oldest_program, schema_revision, workers
from jobq.queries.rollups import series, sparklines
from jobq.queries.schedules import ScheduleInfo, TickInfo, next_ticks, schedule, schedule_ticks, schedules
from jobq.queries.search import list_jobs, search_jobs
from jobq.queries.suggestions import suggest
from jobq.queries.system import system
from jobq.queries.totals import CountedQueues, counted_queues, overview, queue_names, queues, stats, throughput
from jobq.queries.values import (
    COUNT_LIMIT,
    Attempt,
    AuditEntry,
    ChoreInfo,
    JobDetail,
    JobPage,
    JobRow,
    Minute,
    Overview,
    QueueInfo,
    Stats,
    Throughput,
    WorkerInfo,
)
from jobq.queries.values_stats import (
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
from jobq.queries.values_system import IndexInfo, System, TableInfo, XminHolder
from jobq.queries.waiting import why_waiting

__all__ = [
    "COUNT_LIMIT",
    "FAILURE_SORTS",
    "HISTORY_STATES",
    "LIVE_STATES",
    "ORDERS",
    "STATES",
    "Attempt",
    "AuditEntry",
    "ChoreInfo",
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
    "JobPage",
    "JobRow",
    "KnownFailures",
    "Minute",
    "Operation",
    "OperationBatch",
    "Overview",
    "ParkedTask",
    "Percentiles",
    "QueueDetail",
    "QueueInfo",
    "QueueTask",
    "ScheduleInfo",
    "Series",
    "Stats",
    "Stranded",
    "System",
    "TableInfo",
    "Throughput",
    "TickInfo",
    "WorkerInfo",
    "XminHolder",
    "audit_log",
    "chores",
    "counted_queues",
    "due_tasks",
    "export",
    "failing",
    "failure",
    "failures",
    "get_job",
    "groups",
    "list_jobs",
    "next_ticks",
    "oldest_program",
    "operation",
    "operation_batches",
    "operations",
    "overview",
    "parked_tasks",
    "queue",
    "queue_names",
    "queue_settings",
    "queues",
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
    "system",
    "throughput",
    "why_waiting",
    "workers",
]
