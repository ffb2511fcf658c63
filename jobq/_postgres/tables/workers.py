"""The tables of workers, of maintenance tasks, and of the notify mode.

They are part of `jobq._postgres.tables.metadata`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
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

from jobq._postgres.tables.columns import HOT, one_of, timestamp

WORKER_STATES = ("starting", "running", "quiet", "draining")
WORKER_ASKED = ("quiet", "stop")


def workers(meta: MetaData) -> None:
    """One row for each dispatcher, updated at every heartbeat.

    Only the primary key is indexed, so the update stays HOT.
    """
    Table(
        "worker",
        meta,
        Column("id", UUID(as_uuid=True), nullable=False),
        # The key of the session advisory lock that the dispatcher holds while its connection lives.
        Column("lock_key", BigInteger, nullable=False),
        # The start time of the server in which the lock was taken: only in that server does a free
        # lock mean anything. NULL: no lock was taken.
        timestamp("lock_server_start", nullable=True),
        timestamp("started_at", now=True),
        timestamp("heartbeat_at", now=True),
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
        # The state that an operator requests, read at each heartbeat: stop claiming, or end. NULL:
        # continue.
        Column("requested_state", Text),
        # Bytes of memory of the runners and the dispatcher.
        Column("rss", BigInteger),
        # A signature for each of `tasks`, in their order: workers with equal ones accept equal
        # arguments.
        Column("signatures", ARRAY(Text), nullable=False, server_default=text("'{}'")),
        # What this worker cannot do now: [{"what": …, "error": …, "job": …, "since": …, "tries":
        # n}, …].
        Column("problems", JSONB, nullable=False, server_default=text("'[]'")),
        # Seconds without a heartbeat after which other workers, and all displays, consider it dead.
        Column("lease", Float(53), nullable=False, server_default=text("30")),
        # The same if its connection is known to be gone. It fences itself by these two.
        Column("suspicion", Float(53), nullable=False, server_default=text("3.5")),
        PrimaryKeyConstraint("id"),
        CheckConstraint(one_of("state", WORKER_STATES), name="state_check"),
        CheckConstraint(one_of("requested_state", WORKER_ASKED), name="requested_state_check"),
        postgresql_with={"fillfactor": "50", "autovacuum_vacuum_threshold": "500", **_without_threshold()},
    )


def _without_threshold() -> dict[str, str]:
    return {name: value for name, value in HOT.items() if name != "autovacuum_vacuum_threshold"}


def maintenance_tasks(meta: MetaData) -> None:
    """Maintenance tasks.

    The dispatcher that finds one due claims it with SKIP LOCKED; no leader.
    """
    Table(
        "maintenance_task",
        meta,
        Column("name", Text, nullable=False),
        timestamp("due_at", now=True),
        timestamp("last_run_at", nullable=True),
        Column("last_worker", UUID(as_uuid=True)),
        Column("last_report", Text),
        Column("last_error", Text),
        PrimaryKeyConstraint("name"),
    )


def notify_mode(meta: MetaData) -> None:
    """The notify mode (`jobq._worker.wakeup.policy.NotifyMode`).

    It is a sequence, because its value is read and set outside MVCC. Only the lead poller sets it,
    in the session that holds the lead poller's lock.
    """
    Sequence("notify_mode", data_type=SmallInteger, start=1, minvalue=1, maxvalue=3, cache=1, metadata=meta)
