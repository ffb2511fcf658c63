"""Operators' writes, for the command line, the status page and Python.

The modules go by subject: jobs by id (`jobs.py`), queues (`queues.py` pauses them,
`queue_settings.py` limits them), schedules, workers, workflows, signals, and bulk operations over a filter (`bulk.py`,
`bulk_steps.py`).

Each operation writes the actor and the action to `audit`, in the same transaction. On a connection
without an open transaction, each call and each batch commits by itself. Inside the caller's
transaction it is a savepoint, and locks last until the caller commits. Keep that transaction
short: a worker that finishes one of the jobs waits for it.
"""

from __future__ import annotations

from jobq.job import CANCELLABLE_STATES, DELETABLE_STATES, MOVABLE_STATES, RETRYABLE_STATES, SNOOZABLE_STATES
from jobq.operations.audit import Actor
from jobq.operations.bulk import cancel_operation, draft, pause_operation, resume_operation, start
from jobq.operations.bulk_steps import Step, run_batch, run_operation, running_operations, step
from jobq.operations.by_filter import cancel_where, count_where, retry_where
from jobq.operations.jobs import Changed, cancel, delete, move, retry, run_now, snooze
from jobq.operations.queue_settings import UNSET, QueueChange, configure, configure_group
from jobq.operations.queues import pause, resume
from jobq.operations.schedules import (
    pause_schedule,
    remove_schedule,
    resume_schedule,
    run_schedule,
    set_schedule,
)
from jobq.operations.signals import send_signal, send_workflow_signal
from jobq.operations.workers import ask_worker
from jobq.operations.workflows import RunChange, cancel_workflow, retry_workflow, undo_workflow
from jobq.queries.values.bulk import Operation

__all__ = [
    "CANCELLABLE_STATES",
    "DELETABLE_STATES",
    "MOVABLE_STATES",
    "RETRYABLE_STATES",
    "SNOOZABLE_STATES",
    "UNSET",
    "Actor",
    "Changed",
    "Operation",
    "QueueChange",
    "RunChange",
    "Step",
    "ask_worker",
    "cancel",
    "cancel_operation",
    "cancel_where",
    "cancel_workflow",
    "configure",
    "configure_group",
    "count_where",
    "delete",
    "draft",
    "move",
    "pause",
    "pause_operation",
    "pause_schedule",
    "remove_schedule",
    "resume",
    "resume_operation",
    "resume_schedule",
    "retry",
    "retry_where",
    "retry_workflow",
    "run_batch",
    "run_now",
    "run_operation",
    "run_schedule",
    "running_operations",
    "send_signal",
    "send_workflow_signal",
    "set_schedule",
    "snooze",
    "start",
    "step",
    "undo_workflow",
]
