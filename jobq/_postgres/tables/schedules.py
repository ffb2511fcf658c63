"""The tables of schedules. Part of `jobq.schema.metadata`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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

SCHEDULE_SOURCES = ("code", "run time")
SCHEDULE_MISSED = ("skip", "last", "all")


def schedules(meta: MetaData) -> None:
    """What is to be inserted when. A tick and its job are inserted in one transaction, which also moves `next_at`."""
    Table(
        "schedule",
        meta,
        # The first tick that no worker has looked at. The epoch: not known yet, as in a row that was written by hand.
        Column("next_at", DateTime(timezone=True), nullable=False, server_default=text("'epoch'")),
        Column("last_tick", DateTime(timezone=True)),
        # Of the last tick.
        Column("last_job_id", BigInteger),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Column("changed_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Column("paused_at", DateTime(timezone=True)),
        # Since when live workers of its application no longer declare it.
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
        Column("source", Text, nullable=False, server_default=text("'run time'")),
        # Which application declares it (module:attribute), and who made it: a worker's host, or an operator.
        *(Column(name, Text) for name in ("app", "made_by")),
        Column("tick_argument", Text),
        *(Column(name, Text) for name in ("paused_by", "pause_reason")),
        # Why it does not tick, when it cannot be understood or its job not be inserted.
        Column("last_error", Text),
        Column("args", JSONB, nullable=False, server_default=text("'{}'")),
        Column("headers", JSONB, nullable=False, server_default=text("'{}'")),
        PrimaryKeyConstraint("name"),
        CheckConstraint("length(name) BETWEEN 1 AND 200", name="name_check"),
        CheckConstraint("(cron IS NULL) <> (every IS NULL)", name="when_check"),
        CheckConstraint(_one_of("missed", SCHEDULE_MISSED), name="missed_check"),
        CheckConstraint(_one_of("source", SCHEDULE_SOURCES), name="source_check"),
        CheckConstraint("max_missed BETWEEN 1 AND 10000", name="max_missed_check"),
        CheckConstraint("jsonb_typeof(args) = 'object' AND jsonb_typeof(headers) = 'object'", name="json_check"),
        Index("schedule_next_idx", "next_at", postgresql_where=text("paused_at IS NULL AND withdrawn_at IS NULL")),
    )
    # The key is what makes a tick one job, however many workers see it due.
    Table(
        "schedule_tick",
        meta,
        Column("tick", DateTime(timezone=True), nullable=False),
        Column("inserted_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Column("job_id", BigInteger, nullable=False),
        Column("schedule", Text, nullable=False),
        PrimaryKeyConstraint("schedule", "tick"),
        # For retention.
        Index("schedule_tick_inserted_at_idx", "inserted_at"),
    )


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
