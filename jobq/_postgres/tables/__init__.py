"""The tables as SQLAlchemy metadata: the single source for Alembic and the status page.

Each table's guarantees, and the reasons for its form, are documented beside it.
`docs/architecture.md` shows the whole.
"""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from jobq._postgres.tables.columns import HOT, one_of, timestamp
from jobq._postgres.tables.limits import gates, turns
from jobq._postgres.tables.page import operations, rollups, users
from jobq._postgres.tables.schedules import schedules
from jobq._postgres.tables.steps import steps
from jobq._postgres.tables.workers import maintenance_tasks, notify_mode, workers
from jobq._postgres.tables.workflows import workflows
from jobq.job import KEY_HOLDS, STORED_STATES
from jobq.limits import GROUP_MODES, GROUP_RETRIES

ATTEMPT_OUTCOMES = ("error", "timeout", "crashed", "cancelled", "failed", "released")


@lru_cache(maxsize=16)
def metadata(schema: str = "jobq") -> MetaData:
    """Return the tables in `schema`; always the same object for one name."""
    meta = MetaData(
        schema=schema,
        naming_convention={"pk": "%(table_name)s_pkey", "ck": "%(table_name)s_%(constraint_name)s"},
    )
    _job(meta)
    _job_history(meta)
    _job_attempt(meta)
    _job_key(meta)
    _queue(meta)
    workers(meta)
    maintenance_tasks(meta)
    _audit(meta)
    notify_mode(meta)
    turns(meta, HOT)
    gates(meta, HOT)
    rollups(meta)
    operations(meta)
    users(meta)
    schedules(meta)
    workflows(meta)
    steps(meta)
    return meta


def _job(meta: MetaData) -> None:
    """Live jobs only.

    Rows that a claim must skip are elsewhere, or after the end of its index range.
    """
    Table(
        "job",
        meta,
        # CACHE 1: an id below a horizon can then only appear through a late commit, never from
        # another session's cache.
        Column("id", BigInteger, Identity(always=False, cache=1), nullable=False),
        Column("claims", Integer, nullable=False, server_default=text("0")),
        Column("attempt", Integer, nullable=False, server_default=text("0")),
        Column("max_attempts", Integer, nullable=False, server_default=text("10")),
        Column("priority", SmallInteger, nullable=False, server_default=text("5")),
        Column("crashes", SmallInteger, nullable=False, server_default=text("0")),
        # Crashes in which the whole worker died: most of the jobs that it held are not at fault.
        Column("worker_deaths", SmallInteger, nullable=False, server_default=text("0")),
        Column("queue", Text, nullable=False, server_default=text("'default'")),
        Column("task", Text, nullable=False),
        Column("state", Text, nullable=False, server_default=text("'ready'")),
        # The time of the insert, not of the transaction's start: claims rely on it
        # (_worker/lanes/cursor.py).
        Column("run_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
        timestamp("created_at", now=True),
        timestamp("started_at", nullable=True),
        timestamp("expires_at", nullable=True),
        timestamp("cancel_requested_at", nullable=True),
        Column("worker_id", UUID(as_uuid=True)),
        Column("timeout", Float(53)),
        Column("key", Text),
        Column("group_key", Text),
        Column("args", JSONB, nullable=False, server_default=text("'{}'")),
        Column("headers", JSONB, nullable=False, server_default=text("'{}'")),
        # The task's last report: {"done": n, "total": m}.
        Column("progress", JSONB),
        # Claimed under its queue's limits, by claim_limited: while it runs, it counts against them.
        Column("limited", Boolean, nullable=False, server_default=text("false")),
        # The claim number of a running limited job, assigned under the queue's lock, so it is
        # higher than all earlier ones. NULL: it was counted after its claim (count_running.sql,
        # count_claimed.sql). A plain claim leaves an old number.
        Column("permit", BigInteger),
        # How its key holds, or held; a retry of the dead job takes the key again in this way. NULL:
        # no key.
        Column("key_holds", Text),
        # Whether its key holds until it starts, and it has not started. The commit of the start
        # frees it.
        Column("key_until_started", Boolean, nullable=False, server_default=text("false")),
        # Whether it has crashed a runner: from then on it gets a separate runner.
        Column("run_alone", Boolean, nullable=False, server_default=text("false")),
        # How often it was put back because its runner ended for another job's sake, or silently.
        Column("releases", SmallInteger, nullable=False, server_default=text("0")),
        # Refused by the code of workers that claimed it, which lack its task or its parameters:
        # since when, why in words, which signatures of the task refused it (separated by spaces;
        # NULL: the task is unknown), and the last claim that ended so. Once a later claim has ended
        # otherwise, these are outdated. State `parked`: it waits for a worker with other code. In a
        # queue with rules, it is `ready` or `waiting` instead, with a delay.
        timestamp("parked_at", nullable=True),
        Column("parked_reason", Text),
        Column("parked_signature", Text),
        Column("parked_claims", Integer),
        # `global`: all tasks share its key. NULL: the key, if any, belongs to its task.
        Column("key_scope", Text),
        # The node of a workflow that it runs, which has the same id unless the node is a map; and
        # the item of the map, from 0 (0 for a task). NULL: it belongs to no workflow.
        Column("node_id", BigInteger),
        Column("node_item", Integer),
        PrimaryKeyConstraint("id"),
        CheckConstraint(one_of("state", STORED_STATES), name="state_check"),
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority_check"),
        CheckConstraint("max_attempts >= 1", name="max_attempts_check"),
        # Within the range that every client can read: no infinity, no NaN.
        CheckConstraint("timeout > 0 AND timeout <= 3155760000", name="timeout_check"),
        CheckConstraint("length(queue) BETWEEN 1 AND 100", name="queue_check"),
        CheckConstraint("length(task) BETWEEN 1 AND 200", name="task_check"),
        # Within the range that every client can read: no infinity, no year 10,000.
        CheckConstraint(
            "run_at >= '1970-01-01 00:00:00+00' AND run_at < '9999-01-01 00:00:00+00'", name="run_at_check"
        ),
        CheckConstraint("jsonb_typeof(args) = 'object'", name="args_check"),
        CheckConstraint("jsonb_typeof(headers) = 'object'", name="headers_check"),
        # A claim reads one (queue, priority) at a time: run_at ends its range, so future jobs cost
        # nothing.
        Index("job_claim_idx", "queue", "priority", "run_at", "id", postgresql_where=text("state = 'ready'")),
        Index("job_running_idx", "worker_id", postgresql_where=text("state = 'running'")),
        # Plain jobs are in none of these. `waiting` for its group: by order of enqueue, and by
        # time.
        Index("job_waiting_idx", "queue", "group_key", "id", postgresql_where=text("state = 'waiting'")),
        Index("job_waiting_due_idx", "queue", "group_key", "run_at", "id", postgresql_where=text("state = 'waiting'")),
        # The running jobs of a limited queue, or of a group: the permits in use.
        Index("job_limited_idx", "queue", "group_key", postgresql_where=text("state = 'running' AND limited")),
        # The same in the order of claims: older claims that are known need not be read again.
        Index("job_permit_idx", "queue", "permit", postgresql_where=text("state = 'running' AND limited")),
        Index("job_grouped_idx", "queue", "id", postgresql_where=text("state = 'ready' AND group_key IS NOT NULL")),
        # Only workers that know the task claim these.
        Index("job_parked_idx", "task", "priority", "run_at", "id", postgresql_where=text("parked_at IS NOT NULL")),
        # The jobs of a workflow's nodes.
        Index("job_node_idx", "node_id", postgresql_where=text("node_id IS NOT NULL")),
        # For a maintenance task: jobs that no worker has claimed in time.
        Index(
            "job_expires_idx",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL AND state <> 'running'"),
        ),
        postgresql_with={"fillfactor": "70", **HOT},
    )


def _job_history(meta: MetaData) -> None:
    """Finished jobs, partitioned by state, then by UTC day of finished_at.

    Retention drops partitions, never rows.
    """
    Table(
        "job_history",
        meta,
        Column("id", BigInteger, nullable=False),
        Column("claims", Integer, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("max_attempts", Integer, nullable=False),
        Column("priority", SmallInteger, nullable=False),
        Column("crashes", SmallInteger, nullable=False),
        Column("queue", Text, nullable=False),
        Column("task", Text, nullable=False),
        Column("state", Text, nullable=False),
        timestamp("run_at"),
        timestamp("created_at"),
        timestamp("started_at", nullable=True),
        timestamp("finished_at"),
        Column("worker_id", UUID(as_uuid=True)),
        Column("timeout", Float(53)),
        Column("key", Text),
        Column("group_key", Text),
        Column("error", Text),
        Column("args", JSONB, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("result", JSONB),
        # How its key held, and for which tasks: see `job`.
        Column("key_holds", Text),
        Column("key_scope", Text),
        # The node of a workflow that it ran: see `job`.
        Column("node_id", BigInteger),
        Column("node_item", Integer),
        Index("job_history_id_idx", "id"),
        postgresql_partition_by="LIST (state)",
    )


def _job_attempt(meta: MetaData) -> None:
    """One row for each attempt that did not succeed: operators read why. Partitioned by UTC day."""
    Table(
        "job_attempt",
        meta,
        Column("job_id", BigInteger, nullable=False),
        Column("claims", Integer, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("outcome", Text, nullable=False),
        Column("worker_id", UUID(as_uuid=True)),
        timestamp("started_at", nullable=True),
        timestamp("finished_at", now=True),
        timestamp("retry_at", nullable=True),
        Column("error_type", Text),
        Column("message", Text),
        Column("traceback", Text),
        Column("log", Text),
        CheckConstraint(one_of("outcome", ATTEMPT_OUTCOMES), name="outcome_check"),
        Index("job_attempt_job_id_idx", "job_id"),
        postgresql_partition_by="RANGE (finished_at)",
    )


def _job_key(meta: MetaData) -> None:
    """Idempotency keys. There is no foreign key: a key that holds for a period outlives its job.

    The key is the first column of the primary key. Statements that release keys (claims,
    acknowledgements, rescues) find a job's row by `key` and `job_id` in any scope. They therefore
    do not depend on scopes, and scopes do not make them slower.
    """
    Table(
        "job_key",
        meta,
        Column("job_id", BigInteger, nullable=False),
        timestamp("created_at", now=True),
        timestamp("expires_at", nullable=True),
        Column("key", Text, nullable=False),
        Column("holds", Text, nullable=False),
        # The jobs among which the key is unique: those of the task with this name, or all ('').
        Column("scope", Text, nullable=False, server_default=text("''")),
        # The holder's task, if the scope does not name it. Also NULL if unknown: a key from before
        # scopes.
        Column("task", Text),
        PrimaryKeyConstraint("key", "scope"),
        CheckConstraint(one_of("holds", KEY_HOLDS), name="holds_check"),
        CheckConstraint("(holds = 'period') = (expires_at IS NOT NULL)", name="expires_at_check"),
        CheckConstraint("length(key) BETWEEN 1 AND 500", name="key_check"),
        # Finds keys whose period is over.
        Index("job_key_expires_at_idx", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
        postgresql_with=dict(HOT),
    )


def _queue(meta: MetaData) -> None:
    """Operators' settings of queues. Rows are inserted when first needed.

    A queue without a row is neither paused nor limited. A queue with a limit, a rate or a group
    rule is *limited*: claim_limited claims its jobs.
    """
    Table(
        "queue",
        meta,
        Column("name", Text, nullable=False),
        timestamp("created_at", now=True),
        timestamp("paused_at", nullable=True),
        Column("paused_by", Text),
        Column("pause_reason", Text),
        # Most of its jobs that run at a time, over all workers.
        Column("max_running", Integer),
        # At most `jobs` starts in `seconds`, plus a burst in any one window.
        *_rate("rate"),
        Column("group_mode", Text),
        Column("group_limit", Integer),
        # What a job of an ordered group that waits for its retry does to the others.
        Column("group_retry", Text),
        *_rate("group_rate"),
        timestamp("changed_at", nullable=True),
        PrimaryKeyConstraint("name"),
        CheckConstraint("max_running >= 1", name="max_running_check"),
        CheckConstraint(
            "(rate_jobs IS NULL AND rate_seconds IS NULL AND rate_burst IS NULL) "
            "OR (rate_jobs IS NOT NULL AND rate_seconds IS NOT NULL AND rate_burst IS NOT NULL "
            "AND rate_jobs >= 1 AND rate_seconds > 0 AND rate_burst >= 1)",
            name="rate_check",
        ),
        CheckConstraint("rate_seconds <= 3155760000 AND group_rate_seconds <= 3155760000", name="rate_seconds_check"),
        CheckConstraint(one_of("group_mode", GROUP_MODES), name="group_mode_check"),
        CheckConstraint(
            "group_limit >= 1 AND group_mode IS NOT NULL AND group_mode <> 'ordered' OR group_limit IS NULL",
            name="group_limit_check",
        ),
        CheckConstraint(
            f"{one_of('group_retry', GROUP_RETRIES)} AND group_mode IS NOT NULL AND group_mode = 'ordered' "
            "OR group_retry IS NULL",
            name="group_retry_check",
        ),
        CheckConstraint(
            "(group_rate_jobs IS NULL AND group_rate_seconds IS NULL AND group_rate_burst IS NULL) "
            "OR (group_mode IS NOT NULL AND group_rate_jobs IS NOT NULL AND group_rate_seconds IS NOT NULL "
            "AND group_rate_burst IS NOT NULL AND group_rate_jobs >= 1 AND group_rate_seconds > 0 "
            "AND group_rate_burst >= 1)",
            name="group_rate_check",
        ),
    )


def _rate(name: str) -> tuple[Column[int], Column[float], Column[int]]:
    return Column(f"{name}_jobs", Integer), Column(f"{name}_seconds", Float(53)), Column(f"{name}_burst", Integer)


def _audit(meta: MetaData) -> None:
    """Operators' actions, written in the transaction of the action."""
    Table(
        "audit",
        meta,
        Column("id", BigInteger, Identity(always=False), nullable=False),
        timestamp("at", now=True),
        Column("actor", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("target", JSONB, nullable=False),
        Column("reason", Text),
        # The role (viewer, operator, admin) and the address of a page user; NULL for command line
        # and Python.
        Column("role", Text),
        Column("address", Text),
        # The changed value, if there is one: {"priority": 5} and {"priority": 9}.
        Column("before", JSONB),
        Column("after", JSONB),
        PrimaryKeyConstraint("id"),
    )
