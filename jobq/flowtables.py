"""The tables by which groups, limits and rates are kept. Part of `jobq.schema.metadata`; plain jobs touch none of them."""

from __future__ import annotations

from sqlalchemy import (
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
    """
    Table(
        "job_turn",
        meta,
        Column("queue", Text, nullable=False),
        Column("group_key", Text, nullable=False),
        Column("due_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
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
        PrimaryKeyConstraint("queue", "group_key"),
        CheckConstraint("max_running >= 1", name="max_running_check"),
        postgresql_with={"fillfactor": "50", **hot, "autovacuum_vacuum_threshold": "500"},
    )
