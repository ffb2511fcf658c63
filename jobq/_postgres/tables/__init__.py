"""The tables, as SQLAlchemy metadata: the one truth that Alembic and the status page read.

What a table promises and why it is shaped so stands beside it. `docs/architecture.md` draws the whole.
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
    Sequence,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from jobq.flowtables import GROUP_MODES, GROUP_RETRIES, gates, turns
from jobq.pagetables import operations, rollups, users
from jobq.scheduletables import schedules

JOB_STATES = ("ready", "running", "parked", "waiting")
FINISHED_STATES = ("succeeded", "failed", "cancelled", "expired")
ATTEMPT_OUTCOMES = ("error", "timeout", "crashed", "cancelled", "failed", "released")
KEY_HOLDS = ("period", "until_finished", "until_started")
WORKER_STATES = ("starting", "running", "quiet", "draining")
WORKER_ASKED = ("quiet", "stop")

# Autovacuum of the hot tables: by a fixed number of dead rows, at full speed. A share of the table's size would wait
# longest just when the backlog is largest.
_HOT = {
    "autovacuum_vacuum_threshold": "5000",
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_cost_delay": "0",
}


def _timestamp(name: str, *, now: bool = False, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=text("now()") if now else None)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


@lru_cache(maxsize=16)
def metadata(schema: str = "jobq") -> MetaData:
    """Return the tables in `schema`. The same object for the same name."""
    meta = MetaData(
        schema=schema,
        naming_convention={"pk": "%(table_name)s_pkey", "ck": "%(table_name)s_%(constraint_name)s"},
    )
    _job(meta)
    _job_history(meta)
    _job_attempt(meta)
    _job_key(meta)
    _queue(meta)
    _worker(meta)
    _chore(meta)
    _audit(meta)
    _wake(meta)
    turns(meta, _HOT)
    gates(meta, _HOT)
    rollups(meta)
    operations(meta)
    users(meta)
    schedules(meta)
    return meta


def _job(meta: MetaData) -> None:
    """Live jobs only. Everything that a claim must skip is either elsewhere or behind the end of its index range."""
    Table(
        "job",
        meta,
        # CACHE 1: ids below a horizon can then only surface by a late commit, never out of another session's cache.
        Column("id", BigInteger, Identity(always=False, cache=1), nullable=False),
        Column("claims", Integer, nullable=False, server_default=text("0")),
        Column("attempt", Integer, nullable=False, server_default=text("0")),
        Column("max_attempts", Integer, nullable=False, server_default=text("10")),
        Column("priority", SmallInteger, nullable=False, server_default=text("5")),
        Column("crashes", SmallInteger, nullable=False, server_default=text("0")),
        # Those of the crashes that were a whole worker's: most of the jobs that it held are not to blame.
        Column("losses", SmallInteger, nullable=False, server_default=text("0")),
        Column("queue", Text, nullable=False, server_default=text("'default'")),
        Column("task", Text, nullable=False),
        Column("state", Text, nullable=False, server_default=text("'ready'")),
        # The moment of the insert, not of the transaction's begin: claims rely on it (worker/cursor.py).
        Column("run_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
        _timestamp("created_at", now=True),
        _timestamp("started_at", nullable=True),
        _timestamp("expires_at", nullable=True),
        _timestamp("cancel_requested_at", nullable=True),
        Column("worker_id", UUID(as_uuid=True)),
        Column("timeout", Float(53)),
        Column("key", Text),
        Column("group_key", Text),
        Column("args", JSONB, nullable=False, server_default=text("'{}'")),
        Column("headers", JSONB, nullable=False, server_default=text("'{}'")),
        # What the task last said of itself: {"done": n, "total": m}.
        Column("progress", JSONB),
        # Claimed under its queue's limits, by claim_managed: while it runs it counts against them.
        Column("managed", Boolean, nullable=False, server_default=text("false")),
        # Of a managed job that runs: the number of its claim, given out under the queue's lock, so each is above all before it.
        # NULL: it was counted after its claim (manage_running.sql, manage_own.sql). A plain claim leaves a former number.
        Column("permit", BigInteger),
        # How its key holds, or held: what a retry of the dead job takes it again for. NULL without a key.
        Column("key_holds", Text),
        # Whether its key holds until it starts, and it has not started: the key is free from that commit on.
        Column("key_until_started", Boolean, nullable=False, server_default=text("false")),
        # Whether it has cost a runner its life: it is given to a runner of its own from then on.
        Column("run_alone", Boolean, nullable=False, server_default=text("false")),
        # How often it was given back because its runner ended under it for another job's sake, or without a word.
        Column("releases", SmallInteger, nullable=False, server_default=text("0")),
        # Refused by the code of the workers that claimed it, which do not know its task or its parameters: since when, why in
        # words, which signatures of the task refused it (with spaces between; NULL: the task itself is unknown), and the last
        # claim that ended so. Once a later claim has ended otherwise, these are of the past. State `parked`: it waits for a
        # worker with other code; in a queue with rules it is `ready` or `waiting` instead, with a delay.
        _timestamp("parked_at", nullable=True),
        Column("parked_reason", Text),
        Column("parked_signature", Text),
        Column("parked_claims", Integer),
        # `global`: its key is one for all tasks. NULL: the key, if it has one, is its task's own.
        Column("key_scope", Text),
        PrimaryKeyConstraint("id"),
        CheckConstraint(_one_of("state", JOB_STATES), name="state_check"),
        CheckConstraint("priority BETWEEN 0 AND 9", name="priority_check"),
        CheckConstraint("max_attempts >= 1", name="max_attempts_check"),
        # Within what every client can read: no infinity, no NaN.
        CheckConstraint("timeout > 0 AND timeout <= 3155760000", name="timeout_check"),
        CheckConstraint("length(queue) BETWEEN 1 AND 100", name="queue_check"),
        CheckConstraint("length(task) BETWEEN 1 AND 200", name="task_check"),
        # Within what every client can read: no infinity, no year 10,000.
        CheckConstraint(
            "run_at >= '1970-01-01 00:00:00+00' AND run_at < '9999-01-01 00:00:00+00'", name="run_at_check"
        ),
        CheckConstraint("jsonb_typeof(args) = 'object'", name="args_check"),
        CheckConstraint("jsonb_typeof(headers) = 'object'", name="headers_check"),
        # The claim reads one (queue, priority) at a time, so run_at ends its range and future jobs cost nothing.
        Index("job_claim_idx", "queue", "priority", "run_at", "id", postgresql_where=text("state = 'ready'")),
        Index("job_running_idx", "worker_id", postgresql_where=text("state = 'running'")),
        # Plain jobs are in none of these. `waiting`: for its group's turn; in order of enqueue, and in order of time.
        Index("job_waiting_idx", "queue", "group_key", "id", postgresql_where=text("state = 'waiting'")),
        Index("job_waiting_due_idx", "queue", "group_key", "run_at", "id", postgresql_where=text("state = 'waiting'")),
        # The running jobs of a queue with limits, or of a group: the permits that are in use.
        Index("job_managed_idx", "queue", "group_key", postgresql_where=text("state = 'running' AND managed")),
        # The same in the order of claims: what is known of older ones need not be read again.
        Index("job_permit_idx", "queue", "permit", postgresql_where=text("state = 'running' AND managed")),
        Index("job_grouped_idx", "queue", "id", postgresql_where=text("state = 'ready' AND group_key IS NOT NULL")),
        # Claimed by workers that know the task, and by no other.
        Index("job_parked_idx", "task", "priority", "run_at", "id", postgresql_where=text("parked_at IS NOT NULL")),
        # What a chore looks for: jobs that no worker has claimed in time.
        Index(
            "job_expires_idx",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL AND state <> 'running'"),
        ),
        postgresql_with={"fillfactor": "70", **_HOT},
    )


def _job_history(meta: MetaData) -> None:
    """Finished jobs. Partitioned by state, then by UTC day of finished_at: retention drops partitions, never rows."""
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
        _timestamp("run_at"),
        _timestamp("created_at"),
        _timestamp("started_at", nullable=True),
        _timestamp("finished_at"),
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
        Index("job_history_id_idx", "id"),
        postgresql_partition_by="LIST (state)",
    )


def _job_attempt(meta: MetaData) -> None:
    """One row per attempt that did not succeed: what an operator reads to learn why. Partitioned by UTC day."""
    Table(
        "job_attempt",
        meta,
        Column("job_id", BigInteger, nullable=False),
        Column("claims", Integer, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("outcome", Text, nullable=False),
        Column("worker_id", UUID(as_uuid=True)),
        _timestamp("started_at", nullable=True),
        _timestamp("finished_at", now=True),
        _timestamp("retry_at", nullable=True),
        Column("error_type", Text),
        Column("message", Text),
        Column("traceback", Text),
        CheckConstraint(_one_of("outcome", ATTEMPT_OUTCOMES), name="outcome_check"),
        Index("job_attempt_job_id_idx", "job_id"),
        postgresql_partition_by="RANGE (finished_at)",
    )


def _job_key(meta: MetaData) -> None:
    """Idempotency keys. A row outlives its job when it holds for a period; no foreign key.

    The key is the first column of the primary key: whatever lets keys go (claims, acknowledgements, rescues) finds a job's row
    by `key` and `job_id`, whatever its scope, so these statements know nothing of scopes and cost what they did.
    """
    Table(
        "job_key",
        meta,
        Column("job_id", BigInteger, nullable=False),
        _timestamp("created_at", now=True),
        _timestamp("until", nullable=True),
        Column("key", Text, nullable=False),
        Column("holds", Text, nullable=False),
        # Among which jobs the key is one: those of the task of this name, or all ('').
        Column("scope", Text, nullable=False, server_default=text("''")),
        # The holder's task, where the scope does not say it. NULL as well: not known (a key from before revision 0006).
        Column("task", Text),
        PrimaryKeyConstraint("key", "scope"),
        CheckConstraint(_one_of("holds", KEY_HOLDS), name="holds_check"),
        CheckConstraint("(holds = 'period') = (until IS NOT NULL)", name="until_check"),
        CheckConstraint("length(key) BETWEEN 1 AND 500", name="key_check"),
        # By which keys whose period is over are found.
        Index("job_key_until_idx", "until", postgresql_where=text("until IS NOT NULL")),
        postgresql_with=dict(_HOT),
    )


def _queue(meta: MetaData) -> None:
    """What operators set for a queue. One without a row is simply not paused and not limited: rows are made when first needed.

    A queue with a limit, a rate or a rule for its groups is *managed*: its jobs are claimed by claim_managed.
    """
    Table(
        "queue",
        meta,
        Column("name", Text, nullable=False),
        _timestamp("created_at", now=True),
        _timestamp("paused_at", nullable=True),
        Column("paused_by", Text),
        Column("pause_reason", Text),
        # Most of its jobs that run at a time, over all workers.
        Column("max_running", Integer),
        # At most `jobs` starts in `seconds`, and a burst on top of that in any one window.
        *_rate("rate"),
        Column("group_mode", Text),
        Column("group_limit", Integer),
        # What a job that waits for its retry does to the others of its ordered group.
        Column("group_retry", Text),
        *_rate("group_rate"),
        _timestamp("changed_at", nullable=True),
        PrimaryKeyConstraint("name"),
        CheckConstraint("max_running >= 1", name="max_running_check"),
        CheckConstraint(
            "(rate_jobs IS NULL AND rate_seconds IS NULL AND rate_burst IS NULL) "
            "OR (rate_jobs IS NOT NULL AND rate_seconds IS NOT NULL AND rate_burst IS NOT NULL "
            "AND rate_jobs >= 1 AND rate_seconds > 0 AND rate_burst >= 1)",
            name="rate_check",
        ),
        CheckConstraint("rate_seconds <= 3155760000 AND group_rate_seconds <= 3155760000", name="rate_seconds_check"),
        CheckConstraint(_one_of("group_mode", GROUP_MODES), name="group_mode_check"),
        CheckConstraint(
            "group_limit >= 1 AND group_mode IS NOT NULL AND group_mode <> 'ordered' OR group_limit IS NULL",
            name="group_limit_check",
        ),
        CheckConstraint(
            f"{_one_of('group_retry', GROUP_RETRIES)} AND group_mode IS NOT NULL AND group_mode = 'ordered' "
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


def _worker(meta: MetaData) -> None:
    """One row per dispatcher, rewritten at every heartbeat: only the primary key is indexed, so the update stays HOT."""
    Table(
        "worker",
        meta,
        Column("id", UUID(as_uuid=True), nullable=False),
        # Of the session advisory lock that the dispatcher holds while its connection lives.
        Column("lock_key", BigInteger, nullable=False),
        # When the server started in which the lock was taken; a free lock tells something in that server only. NULL: none was.
        _timestamp("lock_server_start", nullable=True),
        _timestamp("started_at", now=True),
        _timestamp("heartbeat_at", now=True),
        Column("beats", BigInteger, nullable=False, server_default=text("0")),
        Column("pid", Integer, nullable=False),
        Column("slots", Integer, nullable=False),
        Column("running", Integer, nullable=False, server_default=text("0")),
        Column("state", Text, nullable=False, server_default=text("'starting'")),
        Column("host", Text, nullable=False),
        Column("version", Text, nullable=False),
        Column("app", Text),
        # NULL: every queue.
        Column("queues", ARRAY(Text)),
        Column("tasks", ARRAY(Text), nullable=False, server_default=text("'{}'")),
        # The schedules that its application declares.
        Column("schedules", ARRAY(Text), nullable=False, server_default=text("'{}'")),
        # What an operator wants of it, heard at each heartbeat: claim no more, or end. NULL: go on.
        Column("asked", Text),
        # Bytes of memory, the runners' together with the dispatcher's.
        Column("rss", BigInteger),
        # One signature for each of `tasks`, in their order: workers with the same one take the same arguments.
        Column("signatures", ARRAY(Text), nullable=False, server_default=text("'{}'")),
        # What this worker cannot do at present: [{"what": …, "error": …, "job": …, "since": …, "tries": n}, …].
        Column("problems", JSONB, nullable=False, server_default=text("'[]'")),
        # Seconds without a heartbeat after which it counts as dead.
        Column("lease", Float(53)),
        PrimaryKeyConstraint("id"),
        CheckConstraint(_one_of("state", WORKER_STATES), name="state_check"),
        CheckConstraint(_one_of("asked", WORKER_ASKED), name="asked_check"),
        postgresql_with={"fillfactor": "50", "autovacuum_vacuum_threshold": "500", **_without_threshold()},
    )


def _without_threshold() -> dict[str, str]:
    return {name: value for name, value in _HOT.items() if name != "autovacuum_vacuum_threshold"}


def _chore(meta: MetaData) -> None:
    """Maintenance work, claimed with SKIP LOCKED by whichever dispatcher finds it due: no leader to lose."""
    Table(
        "chore",
        meta,
        Column("name", Text, nullable=False),
        _timestamp("due_at", now=True),
        _timestamp("last_run_at", nullable=True),
        Column("last_worker", UUID(as_uuid=True)),
        Column("last_report", Text),
        Column("last_error", Text),
        PrimaryKeyConstraint("name"),
    )


def _audit(meta: MetaData) -> None:
    """Operators' actions, written in the same transaction as the action."""
    Table(
        "audit",
        meta,
        Column("id", BigInteger, Identity(always=False), nullable=False),
        _timestamp("at", now=True),
        Column("actor", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("target", JSONB, nullable=False),
        Column("reason", Text),
        # As whom (viewer, operator, admin) and from where it came over the page; NULL for the command line and Python.
        Column("role", Text),
        Column("address", Text),
        # What the action changed, where that is a value: {"priority": 5} and {"priority": 9}.
        Column("before", JSONB),
        Column("after", JSONB),
        PrimaryKeyConstraint("id"),
    )


def _wake(meta: MetaData) -> None:
    """The mode of waking (`jobq.worker.brisk.Mode`): a sequence, since its value is read and set outside MVCC.

    Only a sentinel sets it, over the session that holds the sentinel's lock.
    """
    Sequence("wake", data_type=SmallInteger, start=1, minvalue=1, maxvalue=3, cache=1, metadata=meta)
