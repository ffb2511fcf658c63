"""The tables by which groups, limits and rates are kept. Part of `jobq.schema.metadata`; plain jobs touch none of them."""

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

GROUP_MODES = ("ordered", "limited", "fair")
GROUP_RETRIES = ("hold", "pass")


def turns(meta: MetaData, hot: dict[str, str]) -> None:
    """Which groups are to be looked at, from when on: a group has a turn whenever it may have a job that can be claimed.

    Whatever makes that possible (a job that is inserted, one that ends or goes back) inserts a turn in its own transaction;
    only a claim, under the queue's lock, deletes them. So nothing is lost, and one turn too many only costs a look. It is
    a line, too: a group whose turn was taken goes to the end.

    `from_id` and `from_at` say which waiting jobs of the group the turn may stand for: none has a lower id, nor an earlier
    run_at. A claim folds them into the group's `gate.head_id` and `head_at`. The defaults stand for any job. The end of a job
    only makes room, and gives the greatest values. Too low a value costs a claim time; too high a one hides a job.
    """
    Table(
        "job_turn",
        meta,
        Column("queue", Text, nullable=False),
        Column("group_key", Text, nullable=False),
        Column("due_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
        Column("from_id", BigInteger, nullable=False, server_default=text("0")),
        Column("from_at", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")),
        Index("job_turn_idx", "queue", "due_at"),
        postgresql_with={"fillfactor": "70", **hot},
    )


def gates(meta: MetaData, hot: dict[str, str]) -> None:
    """What is set for one group alone, and up to when its rate is used up. The group '' is the queue as a whole.

    How many run is not counted here: the running jobs themselves are the permits, so none can be lost.
    """
    Table(
        "gate",
        meta,
        Column("queue", Text, nullable=False),
        Column("group_key", Text, nullable=False),
        # Instead of the queue's group_limit.
        Column("max_running", Integer),
        # The generic cell rate algorithm's theoretical arrival time: each start moves it on by one job's share.
        Column("paid_until", DateTime(timezone=True)),
        # Bounds of the group's waiting jobs, kept by claims so that they step over the dead index entries of what was claimed
        # before: none has a lower id (in an ordered queue), nor an earlier run_at (in others), but for those that a turn stands
        # for. NULL: nothing is known. Forgetting one is always right.
        Column("head_id", BigInteger),
        Column("head_at", DateTime(timezone=True)),
        PrimaryKeyConstraint("queue", "group_key"),
        CheckConstraint("max_running >= 1", name="max_running_check"),
        Index("gate_limit_idx", "queue", postgresql_where=text("max_running IS NOT NULL")),
        postgresql_with={"fillfactor": "50", **hot, "autovacuum_vacuum_threshold": "500"},
    )
