"""The tables of durable tasks. Part of `jobq._postgres.tables.metadata`.

There are no foreign keys, for the reasons of `workflows.py`. Rows stay after the end of their job,
because a retry of a failed job goes on where it was; retention removes them
(`_worker/maintenance/step_retention.py`).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from jobq._postgres.tables.columns import HOT, one_of, timestamp

STEP_KINDS = ("run", "sleep", "signal", "child", "since", "undo")
STEP_STATES = ("waiting", "retrying", "done", "failed", "timed_out")


def steps(meta: MetaData) -> None:
    """Steps of durable jobs, signals, and what has to be woken."""
    _step(meta)
    _signal(meta)
    _wakeup(meta)


def _step(meta: MetaData) -> None:
    """What a durable job has done, and what it waits for: one row for each step.

    The key is what identifies a step when the task's function is called again: its kind, its name,
    a hash of its arguments, and its number among steps that are equal in these. So steps are found
    in any order, and no step is stored twice: of two executions that commit the same step, the
    second one fails.

    Only the execution that holds the job writes its rows (sql/steps/).
    """
    Table(
        "job_step",
        meta,
        Column("job_id", BigInteger, nullable=False),
        # `child`: the workflow's run that runs the child.
        Column("child_id", BigInteger),
        # A step that waits: the run to which its job belongs. Signals to that run wake it.
        Column("workflow_id", BigInteger),
        timestamp("started_at"),
        timestamp("finished_at", nullable=True),
        # When a sleep ends, a wait times out, or the next try is due.
        timestamp("wake_at", nullable=True),
        # Its place in the order in which the steps were written, from 1.
        Column("place", Integer, nullable=False),
        # From 0: its number among steps of the same kind, name and arguments.
        Column("number", Integer, nullable=False),
        # The attempt of the job that wrote it.
        Column("attempt", Integer, nullable=False),
        # How often its function was called.
        Column("tries", Integer, nullable=False, server_default=text("1")),
        Column("kind", Text, nullable=False),
        Column("name", Text, nullable=False),
        Column("args_hash", Text, nullable=False),
        Column("state", Text, nullable=False),
        # Its arguments as JSON text, shortened: for people and for messages.
        Column("args", Text),
        # The task that undoes it, and with which arguments: as JSON text.
        Column("undo", Text),
        Column("result", JSONB),
        # {"type", "message", "args"} of its exception.
        Column("error", JSONB),
        PrimaryKeyConstraint("job_id", "kind", "name", "args_hash", "number"),
        CheckConstraint(one_of("kind", STEP_KINDS), name="kind_check"),
        CheckConstraint(one_of("state", STEP_STATES), name="state_check"),
        # Those that a signal to a run may wake.
        Index(
            "job_step_workflow_idx",
            "workflow_id",
            "name",
            postgresql_where=text("state = 'waiting' AND workflow_id IS NOT NULL"),
        ),
        # For retention.
        Index("job_step_age_idx", "started_at", "job_id"),
        postgresql_with={"fillfactor": "90", **HOT},
    )


def _signal(meta: MetaData) -> None:
    """Signals, from the moment they are sent. The step that takes one marks it, with its checkpoint."""
    Table(
        "job_signal",
        meta,
        Column("id", BigInteger, Identity(always=False, cache=1), nullable=False),
        # The job to which it was sent, or the workflow's run: any node of the run may take it.
        Column("job_id", BigInteger),
        Column("workflow_id", BigInteger),
        # The job that has taken it.
        Column("taken_by", BigInteger),
        Column("sent_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
        timestamp("taken_at", nullable=True),
        Column("name", Text, nullable=False),
        Column("sent_by", Text),
        Column("payload", JSONB, nullable=False),
        PrimaryKeyConstraint("id"),
        CheckConstraint("length(name) BETWEEN 1 AND 200", name="name_check"),
        CheckConstraint("(job_id IS NULL) <> (workflow_id IS NULL)", name="target_check"),
        Index("job_signal_job_idx", "job_id", "id", postgresql_where=text("job_id IS NOT NULL")),
        Index("job_signal_workflow_idx", "workflow_id", "id", postgresql_where=text("workflow_id IS NOT NULL")),
        # For retention.
        Index("job_signal_age_idx", "sent_at", "id"),
    )


def _wakeup(meta: MetaData) -> None:
    """Jobs that wait, or runs whose jobs may wait, for what may have happened by now.

    A signal writes a row, and so does a job that begins to wait, in the transaction that puts it
    back. A worker looks at a row after that transaction has committed. So of a signal and a job
    that begins to wait for it, the later one finds the other (functions/steps/try_send_signal.sql).
    """
    Table(
        "job_wakeup",
        meta,
        Column("id", BigInteger, Identity(always=False, cache=1), nullable=False),
        Column("job_id", BigInteger),
        Column("workflow_id", BigInteger),
        PrimaryKeyConstraint("id"),
        postgresql_with={**HOT, "autovacuum_vacuum_threshold": "500"},
    )
