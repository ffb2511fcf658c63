"""The tables of schedules. Part of `jobq._postgres.tables.metadata`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import INTERVAL, JSONB

from jobq._postgres.tables.columns import one_of

SCHEDULE_SOURCES = ("code", "runtime")
SCHEDULE_MISSED = ("skip", "last", "all")


def schedules(meta: MetaData) -> None:
    """The schedules. One transaction inserts a tick and its job, and moves `next_at`."""
    Table(
        "schedule",
        meta,
        # The first tick that no worker has looked at. The epoch: unknown, as in a row written by
        # hand.
        Column("next_at", DateTime(timezone=True), nullable=False, server_default=text("'epoch'")),
        Column("last_tick", DateTime(timezone=True)),
        # The job of the last tick.
        Column("last_job_id", BigInteger),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Column("changed_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Column("paused_at", DateTime(timezone=True)),
        # When live workers of its application stopped declaring it.
        Column("withdrawn_at", DateTime(timezone=True)),
        Column("every", INTERVAL),
        Column("timeout", Float(53)),
        Column("max_attempts", Integer, nullable=False, server_default=text("10")),
        Column("max_missed", Integer, nullable=False, server_default=text("100")),
        Column("priority", SmallInteger, nullable=False, server_default=text("5")),
        Column("name", Text, nullable=False),
        Column("task", Text, nullable=False),
        Column("queue", Text, nullable=False, server_default=text("'default'")),
        Column("cron", Text),
        Column("timezone", Text, nullable=False, server_default=text("'UTC'")),
        Column("missed", Text, nullable=False, server_default=text("'last'")),
        Column("source", Text, nullable=False, server_default=text("'runtime'")),
        # The application that declares it (module:attribute), and its author: a worker's host, or
        # an operator.
        *(Column(name, Text) for name in ("app", "made_by")),
        Column("tick_argument", Text),
        *(Column(name, Text) for name in ("paused_by", "pause_reason")),
        # Why it does not tick: it is invalid, or its job cannot be inserted.
        Column("last_error", Text),
        Column("args", JSONB, nullable=False, server_default=text("'{}'")),
        Column("headers", JSONB, nullable=False, server_default=text("'{}'")),
        # Its jobs' group, their key (each holds it until it has finished), and the seconds after
        # which they expire.
        *(Column(name, Text) for name in ("group_key", "key")),
        Column("expires_in", Float(53)),
        PrimaryKeyConstraint("name"),
        CheckConstraint("length(name) BETWEEN 1 AND 200", name="name_check"),
        CheckConstraint("(cron IS NULL) <> (every IS NULL)", name="when_check"),
        CheckConstraint(one_of("missed", SCHEDULE_MISSED), name="missed_check"),
        CheckConstraint(one_of("source", SCHEDULE_SOURCES), name="source_check"),
        CheckConstraint("max_missed BETWEEN 1 AND 10000", name="max_missed_check"),
        CheckConstraint("jsonb_typeof(args) = 'object' AND jsonb_typeof(headers) = 'object'", name="json_check"),
        Index("schedule_next_idx", "next_at", postgresql_where=text("paused_at IS NULL AND withdrawn_at IS NULL")),
    )
    # The primary key makes a tick one job, however many workers see it due.
    Table(
        "schedule_tick",
        meta,
        Column("tick", DateTime(timezone=True), nullable=False),
        Column("inserted_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        # For a skipped tick: the job that held the schedule's key; -1: unknown.
        Column("job_id", BigInteger, nullable=False),
        Column("schedule", Text, nullable=False),
        Column("skipped", Boolean, nullable=False, server_default=text("false")),
        PrimaryKeyConstraint("schedule", "tick"),
        # For retention.
        Index("schedule_tick_inserted_at_idx", "inserted_at"),
    )
