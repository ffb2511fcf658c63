"""The tables of groups, limits and rates. Plain jobs do not use them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)


def turns(meta: MetaData, hot: dict[str, str]) -> None:
    """Ready groups: the groups to look at, and from when on.

    Each row says: this group may have a job.

    Every change that can make a job of a group claimable (an insert, an end, a job that is put
    back) inserts a row in its own transaction. Only a claim, under the queue's lock, deletes rows.
    Nothing is therefore lost, and a surplus row only costs one look. The rows are also a queue: a
    group whose row was taken goes to the end.

    `from_id` and `from_at` say which waiting jobs of the group the row may stand for: none has a
    lower id, nor an earlier run_at. A claim merges them into the group's `rate_state.head_id` and
    `head_at`. The defaults stand for any job. The end of a job only makes room, and gives the
    greatest values. A value that is too low costs a claim time; one that is too high hides a job.
    """
    Table(
        "group_ready",
        meta,
        Column("queue", Text, nullable=False),
        Column("group_key", Text, nullable=False),
        Column("due_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
        Column("from_id", BigInteger, nullable=False, server_default=text("0")),
        Column("from_at", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")),
        Index("group_ready_idx", "queue", "due_at"),
        postgresql_with={"fillfactor": "70", **hot},
    )


def gates(meta: MetaData, hot: dict[str, str]) -> None:
    """Rate states: a group's own settings, and up to when its rate is used. '' is the whole queue.

    The number of running jobs is not stored here: the running jobs themselves are the permits, so
    none can be lost.
    """
    Table(
        "rate_state",
        meta,
        Column("queue", Text, nullable=False),
        Column("group_key", Text, nullable=False),
        # Replaces the queue's group_limit.
        Column("max_running", Integer),
        # The theoretical arrival time of the generic cell rate algorithm: each start adds one job's
        # share.
        Column("paid_until", DateTime(timezone=True)),
        # Lower bounds of the group's waiting jobs, kept by claims so that they skip dead index
        # entries of earlier claims: no job has a lower id (in an ordered queue), nor an earlier
        # run_at (in others), except jobs that a ready group row stands for. NULL: unknown. Clearing
        # one is always correct.
        Column("head_id", BigInteger),
        Column("head_at", DateTime(timezone=True)),
        PrimaryKeyConstraint("queue", "group_key"),
        CheckConstraint("max_running >= 1", name="max_running_check"),
        Index("rate_state_limit_idx", "queue", postgresql_where=text("max_running IS NOT NULL")),
        postgresql_with={"fillfactor": "50", **hot, "autovacuum_vacuum_threshold": "500"},
    )
