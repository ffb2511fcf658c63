"""Operators' writes, for the command line, the status page and Python alike.

By subject: jobs by their ids (`jobs.py`), queues (paused in `queues.py`, limited in `settings.py`), schedules, workers, and
bulk operations over a filter (`bulk.py`, `steps.py`).

Each writes who did what into `audit`, in the same transaction. On a connection without an open transaction
each call, and each batch, commits by itself; inside the caller's transaction it is a
savepoint, and locks last until the caller commits: keep that short, since a worker that finishes one of the
jobs waits for it.
"""

from __future__ import annotations

from jobq.bulk import Operation
from jobq.operations.actors import Actor
from jobq.operations.bulk import cancel_operation, draft, pause_operation, resume_operation, start
from jobq.operations.changes import (
    CANCELLABLE_STATES,
    DELETABLE_STATES,
    MOVABLE_STATES,
    RETRYABLE_STATES,
    SNOOZABLE_STATES,
)
from jobq.operations.jobs import Changed, cancel, delete, move, retry, run_now, snooze
from jobq.operations.queues import pause, resume
from jobq.operations.schedules import (
    pause_schedule,
    remove_schedule,
    resume_schedule,
    run_schedule,
    set_schedule,
)
from jobq.operations.settings import UNCHANGED, QueueChange, configure, configure_group
from jobq.operations.steps import Step, run_operation, running_operations, step, take_step
from jobq.operations.where import cancel_where, count_where, retry_where
from jobq.operations.workers import ask_worker

__all__ = [
    "CANCELLABLE_STATES",
    "DELETABLE_STATES",
    "MOVABLE_STATES",
    "RETRYABLE_STATES",
    "SNOOZABLE_STATES",
    "UNCHANGED",
    "Actor",
    "Changed",
    "Operation",
    "QueueChange",
    "Step",
    "ask_worker",
    "cancel",
    "cancel_operation",
    "cancel_where",
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
    "run_now",
    "run_operation",
    "run_schedule",
    "running_operations",
    "set_schedule",
    "snooze",
    "start",
    "step",
    "take_step",
]
