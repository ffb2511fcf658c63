"""The tables of the status page: rollups for its charts, bulk operations, and its own users.

They are part of `jobq._postgres.tables.metadata`, but separate because jobs do not use them.
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

from jobq._postgres.tables.columns import one_of
from jobq.job import FINISHED_STATES

OPERATION_STATES = ("draft", "running", "paused", "cancelled", "done", "failed")
OPERATION_ACTIONS = ("retry", "cancel", "snooze", "move", "delete")
WEB_ROLES = ("viewer", "operator", "admin")


def rollups(meta: MetaData) -> None:
    """Finished jobs by queue and by task, in spans of 1, 10 and 60 minutes: charts read no jobs.

    `waits` and `runs` are histograms (`jobq._core.histograms` has their bounds): their sums give
    percentiles of any longer time. There are two narrow tables, because by queue *and* task they
    would be as long as the history. The queue '' is all queues together. It has a row for every
    span, even if nothing finished: without a row, no worker has counted.
    """
    for of in ("queue", "task"):
        depth = (Column("ready", Integer), Column("oldest_ready_seconds", Float(53))) if of == "queue" else ()
        Table(
            f"rollup_{of}",
            meta,
            # Seconds: 60, 600 or 3600; `at` is the start of the span.
            Column("span", Integer, nullable=False),
            Column("at", DateTime(timezone=True), nullable=False),
            *(Column(state, Integer, nullable=False, server_default=text("0")) for state in FINISHED_STATES),
            # The value at the end of the span.
            *depth,
            Column(of, Text, nullable=False),
            Column("waits", ARRAY(Integer), nullable=False, server_default=text("'{}'")),
            Column("runs", ARRAY(Integer), nullable=False, server_default=text("'{}'")),
            PrimaryKeyConstraint("span", "at", of),
        )
    # The number of pages of a partition at a time: history grows at its end, so later rows follow
    # them.
    Table(
        "rollup_mark",
        meta,
        Column("at", DateTime(timezone=True), nullable=False),
        Column("pages", BigInteger, nullable=False),
        Column("part", Text, nullable=False),
        PrimaryKeyConstraint("part", "at"),
    )


def operations(meta: MetaData) -> None:
    """Bulk changes over a filter.

    The request is a row before it begins; batches commit with progress.
    """
    Table(
        "operation",
        meta,
        Column("id", BigInteger, Identity(always=False), nullable=False),
        # The highest job id when it was requested: jobs that match later are not changed.
        Column("up_to", BigInteger, nullable=False),
        # The last handled id.
        Column("after_id", BigInteger, nullable=False, server_default=text("-1")),
        *(Column(name, BigInteger, nullable=False, server_default=text("0")) for name in ("seen", "done", "refused")),
        # The number that the preview counted; NULL: more than its limit.
        Column("expected", BigInteger),
        # The number at which the count stopped: the user must type it to start.
        Column("counted", BigInteger, nullable=False, server_default=text("0")),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        *(Column(name, DateTime(timezone=True)) for name in ("started_at", "progressed_at", "finished_at")),
        # Jobs a second; NULL: no limit.
        Column("rate", Float(53)),
        Column("state", Text, nullable=False, server_default=text("'draft'")),
        Column("action", Text, nullable=False),
        Column("filter", Text, nullable=False),
        Column("actor", Text, nullable=False),
        *(Column(name, Text) for name in ("role", "address", "reason", "error")),
        # The action's options: {"seconds": 60}, {"queue": "slow", "priority": 3}.
        Column("options", JSONB, nullable=False, server_default=text("'{}'")),
        # The number of unchanged jobs, by reason.
        Column("refusals", JSONB, nullable=False, server_default=text("'{}'")),
        PrimaryKeyConstraint("id"),
        CheckConstraint(one_of("state", OPERATION_STATES), name="state_check"),
        CheckConstraint(one_of("action", OPERATION_ACTIONS), name="action_check"),
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
    """The users that may log in to the page, if it has its own users. Only the page reads them.

    See deploy/roles.sql.
    """
    Table(
        "web_user",
        meta,
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        # The last change of the password or role: older sessions end.
        Column("changed_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Column("name", Text, nullable=False),
        Column("role", Text, nullable=False),
        Column("password_hash", Text, nullable=False),
        PrimaryKeyConstraint("name"),
        CheckConstraint("length(name) BETWEEN 1 AND 100", name="name_check"),
        CheckConstraint(one_of("role", WEB_ROLES), name="role_check"),
    )
