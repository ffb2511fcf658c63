"""The tables that the status page keeps: rollups for its charts, bulk operations, its own users.

Part of `jobq.schema.metadata`; they stand apart because no job touches them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Identity,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

OPERATION_STATES = ("draft", "running", "paused", "cancelled", "done", "failed")
OPERATION_ACTIONS = ("retry", "cancel", "snooze", "move", "delete")
WEB_ROLES = ("viewer", "operator", "admin")


def rollups(meta: MetaData) -> None:
    """What finished, by queue and by task, in spans of a minute, ten minutes and an hour: the charts read no job.

    `waits` and `runs` are histograms (`jobq.histograms` has their bounds), so that percentiles of any longer time come by
    adding up. Two narrow tables: by queue *and* task they would be as long as history. The queue '' is all queues together; it
    has a row for every span, also when nothing finished: without a row, no worker has counted.
    """
    for of in ("queue", "task"):
        depth = (Column("ready", Integer), Column("oldest_ready_seconds", Float(53))) if of == "queue" else ()
        Table(
            f"rollup_{of}",
            meta,
            # Seconds: 60, 600 or 3600; `at` is when the span begins.
            Column("span", Integer, nullable=False),
            Column("at", DateTime(timezone=True), nullable=False),
            *(
                Column(state, Integer, nullable=False, server_default=text("0"))
                for state in ("succeeded", "failed", "cancelled", "expired")
            ),
            # As found at the end of the span.
            *depth,
            Column(of, Text, nullable=False),
            Column("waits", ARRAY(Integer), nullable=False, server_default=text("'{}'")),
            Column("runs", ARRAY(Integer), nullable=False, server_default=text("'{}'")),
            PrimaryKeyConstraint("span", "at", of),
        )
    # How many pages a partition had at a time: history grows at its end, so what came later stands behind them.
    Table(
        "rollup_mark",
        meta,
        Column("at", DateTime(timezone=True), nullable=False),
        Column("pages", BigInteger, nullable=False),
        Column("part", Text, nullable=False),
        PrimaryKeyConstraint("part", "at"),
    )


def operations(meta: MetaData) -> None:
    """Bulk changes over a filter: what was asked is a row before it begins, and each batch commits with its progress."""
    Table(
        "operation",
        meta,
        Column("id", BigInteger, Identity(always=False), nullable=False),
        # The highest job id when it was asked for: jobs that come to match later are not touched.
        Column("up_to", BigInteger, nullable=False),
        # How far it has come.
        Column("after_id", BigInteger, nullable=False, server_default=text("-1")),
        *(Column(name, BigInteger, nullable=False, server_default=text("0")) for name in ("seen", "done", "refused")),
        # How many the preview counted; NULL: more than it would count.
        Column("expected", BigInteger),
        # How many it had counted when it stopped: what has to be typed to start.
        Column("counted", BigInteger, nullable=False, server_default=text("0")),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        *(Column(name, DateTime(timezone=True)) for name in ("started_at", "progressed_at", "finished_at")),
        # Jobs a second; NULL: as fast as it goes.
        Column("rate", Float(53)),
        Column("state", Text, nullable=False, server_default=text("'draft'")),
        Column("action", Text, nullable=False),
        Column("filter", Text, nullable=False),
        Column("actor", Text, nullable=False),
        *(Column(name, Text) for name in ("role", "address", "reason", "error")),
        # What the action needs: {"seconds": 60}, {"queue": "slow", "priority": 3}.
        Column("options", JSONB, nullable=False, server_default=text("'{}'")),
        # How many were left as they are, by the reason.
        Column("refusals", JSONB, nullable=False, server_default=text("'{}'")),
        PrimaryKeyConstraint("id"),
        CheckConstraint(_one_of("state", OPERATION_STATES), name="state_check"),
        CheckConstraint(_one_of("action", OPERATION_ACTIONS), name="action_check"),
        CheckConstraint("length(filter) BETWEEN 1 AND 2000", name="filter_check"),
        CheckConstraint("rate > 0", name="rate_check"),
    )
    # The outcome of each job; one row for each batch.
    Table(
        "operation_batch",
        meta,
        Column("operation_id", BigInteger, nullable=False),
        Column("n", Integer, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Column("done", ARRAY(BigInteger), nullable=False),
        # {"812": "it is running"}
        Column("refused", JSONB, nullable=False),
        PrimaryKeyConstraint("operation_id", "n"),
    )


def users(meta: MetaData) -> None:
    """The users that may log in to the page, where it has users of its own. Only the page reads them (deploy/roles.sql)."""
    Table(
        "web_user",
        meta,
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        # Of the password or the role: sessions that are older end.
        Column("changed_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Column("name", Text, nullable=False),
        Column("role", Text, nullable=False),
        Column("password_hash", Text, nullable=False),
        PrimaryKeyConstraint("name"),
        CheckConstraint("length(name) BETWEEN 1 AND 100", name="name_check"),
        CheckConstraint(_one_of("role", WEB_ROLES), name="role_check"),
    )


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
