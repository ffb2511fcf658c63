"""The tables of workflows. Part of `jobq._postgres.tables.metadata`.

There are no foreign keys: their checks would lock the parent's row at each insert, and every end of
a job inserts a result. Retention deletes a run's rows in the order that keeps them consistent
(functions/workflows/workflow_prune.sql).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from jobq._postgres.tables.columns import HOT, one_of, timestamp

RUN_STATES = ("running", "succeeded", "failed", "cancelled")
ON_FAILURE = ("hold", "cancel", "continue")
CANCELLED_AS = ("cancelled", "failed")
NODE_KINDS = ("task", "map")
JOIN_KINDS = ("nodes", "map", "end")
TURN_KINDS = ("expand", "stopped", "cancel", "undo", "prune")

# Tables whose rows are few and change often: vacuumed after fewer dead rows than HOT says.
_SMALL = {**HOT, "autovacuum_vacuum_threshold": "500"}


def workflows(meta: MetaData) -> None:
    """Runs of workflows, their nodes, the joins between nodes, and the results."""
    _run(meta)
    _node(meta)
    _join(meta)
    _arrival(meta)
    _turn(meta)
    _result(meta)


def _run(meta: MetaData) -> None:
    """One row for each run, written when the run is inserted, cancelled or retried, and when it ends.

    The end of a node does not change it: all nodes of a run would wait for one row. So it has no
    counts of nodes in each state; readers count results. A run is blocked if a join is complete and
    bad, and nothing of the run moves: that is computed (`workflow_status.sql`), not stored.

    Releases and cancellations agree by an advisory lock of the run, not by this row
    (functions/workflows/workflow_advance.sql).
    """
    Table(
        "workflow",
        meta,
        Column("id", BigInteger, Identity(always=False, cache=1), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
        # The end of its last node. NULL: it runs.
        timestamp("finished_at", nullable=True),
        # A worker's loop cancels it after this time, and it ends as failed.
        timestamp("deadline_at", nullable=True),
        # From then on no node starts. The run ends when its last job has ended.
        timestamp("cancel_requested_at", nullable=True),
        # The durable job that has started it and waits for its end.
        Column("parent_job_id", BigInteger),
        # The run that undoes what its nodes have done (functions/workflows/workflow_undo.sql).
        Column("undo_id", BigInteger),
        # The run that this one undoes.
        Column("undoes_id", BigInteger),
        # The number of nodes; a map is one.
        Column("nodes", Integer, nullable=False),
        Column("name", Text, nullable=False),
        # Unique among the runs of this name, for as long as the row exists.
        Column("key", Text),
        Column("state", Text, nullable=False, server_default=text("'running'")),
        Column("on_failure", Text, nullable=False, server_default=text("'hold'")),
        # The state that a cancelled run ends in. NULL: it is not being cancelled.
        Column("cancel_as", Text),
        # Why it was cancelled.
        Column("reason", Text),
        PrimaryKeyConstraint("id"),
        CheckConstraint("length(name) BETWEEN 1 AND 200", name="name_check"),
        CheckConstraint("length(key) BETWEEN 1 AND 500", name="key_check"),
        CheckConstraint(one_of("state", RUN_STATES), name="state_check"),
        CheckConstraint(one_of("on_failure", ON_FAILURE), name="on_failure_check"),
        CheckConstraint(one_of("cancel_as", CANCELLED_AS), name="cancel_as_check"),
        Index("workflow_key_idx", "name", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
        # The lists of runs by name and by state (sql/read/workflows/workflow_list.sql).
        Index("workflow_name_idx", "name", "id"),
        Index("workflow_state_idx", "state", "id"),
        Index(
            "workflow_deadline_idx",
            "deadline_at",
            postgresql_where=text("state = 'running' AND deadline_at IS NOT NULL"),
        ),
        Index("workflow_parent_idx", "parent_job_id", postgresql_where=text("parent_job_id IS NOT NULL")),
        # For retention: each state has its own period.
        Index("workflow_finished_idx", "state", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    )


def _node(meta: MetaData) -> None:
    """The nodes of runs: everything that is needed to insert their jobs later.

    Rows change when their own job adds nodes (`added_by`; its `feeds` grow), when a large map starts
    (`given`), and when a run is retried from a node on.

    The id is that of the node's job, from the sequence of `job`: a job's page finds its node, and a
    retry finds the job. The items of a map are jobs of their own, with `job.node_id`. A node that
    waits has no job, so claims and counts of jobs do not see it.
    """
    Table(
        "workflow_node",
        meta,
        Column("id", BigInteger, nullable=False),
        Column("workflow_id", BigInteger, nullable=False),
        # The join that it waits for. NULL: it waits for nothing, and started with the run.
        Column("join_id", BigInteger),
        # A map: the join that its items feed.
        Column("members_join_id", BigInteger),
        # The node whose job has added it to the run. NULL: it was inserted with the run.
        Column("added_by", BigInteger),
        # Its place in the run, from 1; nodes that were added and removed leave gaps.
        Column("number", Integer, nullable=False),
        # The claims of its former job, if a retry of the run lets the node run again: those of the next
        # one follow them (functions/workflows/workflow_retry_from.sql).
        Column("claims", Integer, nullable=False, server_default=text("0")),
        # As in `job`; delay and expires_in are seconds after the start.
        Column("max_attempts", Integer),
        Column("priority", SmallInteger),
        *(Column(name, Float(53)) for name in ("delay", "timeout", "expires_in")),
        # A map: the share of items that must succeed. NULL: all.
        Column("min_success", Float(53)),
        Column("name", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("task", Text, nullable=False),
        Column("queue", Text, nullable=False),
        Column("group_key", Text),
        # A map: the parameter that takes the item.
        Column("item_parameter", Text),
        # The joins that count its end. Negative: a failure does not count there. They stand here,
        # not in a table of edges, so an end reads one row for each node that ended.
        Column("feeds", ARRAY(BigInteger), nullable=False),
        Column("args", JSONB, nullable=False),
        Column("headers", JSONB, nullable=False),
        # References to results, with their places in `args` (functions/workflows/workflow_args.sql).
        Column("inputs", JSONB),
        # A reference; if its value is false or empty, the node is skipped.
        Column("condition", JSONB),
        # A map: the list of its items, or a reference to it.
        Column("items", JSONB),
        # A map that workers expand: its items, args and inputs as they were inserted, because these
        # columns then have the values that the references had at the start.
        Column("given", JSONB),
        # How it is undone: the row of a node, and the parameter that gets the result.
        Column("undo", JSONB),
        PrimaryKeyConstraint("id"),
        CheckConstraint(one_of("kind", NODE_KINDS), name="kind_check"),
        Index("workflow_node_number_idx", "workflow_id", "number", unique=True),
        # The nodes that a node which runs again has added (functions/workflows/workflow_remove_added.sql).
        Index("workflow_node_added_idx", "added_by", postgresql_where=text("added_by IS NOT NULL")),
        # Whether a run that fails has something to undo.
        Index("workflow_node_undo_idx", "workflow_id", postgresql_where=text("undo IS NOT NULL")),
        # The nodes that a release starts.
        Index("workflow_node_join_idx", "join_id", postgresql_where=text("join_id IS NOT NULL")),
    )


def _join(meta: MetaData) -> None:
    """What nodes wait for: one row for each distinct set of parents, with the number that have not ended.

    Nodes with the same parents share a join: the end of a parent changes one row, not one for each
    node that waits. A map has a join of its items, and a run one of the nodes that no other needs.

    A join is released once: then `released_at` is set, and its nodes start or end. Its counts are
    those of the ends that were added to it; `workflow_arrival` has the others. Only statements that
    hold the row's lock change them (functions/workflows/workflow_advance.sql).
    """
    Table(
        "workflow_join",
        meta,
        Column("id", BigInteger, Identity(always=False, cache=1), nullable=False),
        Column("workflow_id", BigInteger, nullable=False),
        # The map whose items it counts.
        Column("node_id", BigInteger),
        timestamp("released_at", nullable=True),
        Column("parents", Integer, nullable=False),
        # 0: it is complete.
        Column("remaining", Integer, nullable=False),
        *(Column(name, Integer, nullable=False, server_default=text("0")) for name in ("failed", "skipped")),
        # The number of failed parents with which it is still good.
        Column("tolerated", Integer, nullable=False, server_default=text("0")),
        Column("kind", Text, nullable=False),
        PrimaryKeyConstraint("id"),
        CheckConstraint(one_of("kind", JOIN_KINDS), name="kind_check"),
        Index("workflow_join_workflow_idx", "workflow_id"),
        # A map's join changes at every acknowledgement of its items: these updates stay HOT.
        postgresql_with={"fillfactor": "50", **_SMALL},
    )


def _arrival(meta: MetaData) -> None:
    """Ends that are to be added to a join, because another transaction held the join's lock.

    Ends of many nodes of a map commit at the same time on several workers. Without this table each
    would wait for the one before it. The next holder of the lock adds the rows and deletes them.
    """
    Table(
        "workflow_arrival",
        meta,
        Column("id", BigInteger, Identity(always=False, cache=1), nullable=False),
        Column("join_id", BigInteger, nullable=False),
        # A retry takes ends back: then they are negative.
        *(Column(name, Integer, nullable=False) for name in ("ends", "failed", "skipped")),
        PrimaryKeyConstraint("id"),
        Index("workflow_arrival_join_idx", "join_id"),
        postgresql_with=dict(HOT),
    )


def _turn(meta: MetaData) -> None:
    """What workers have to do: insert the rest of a large map's jobs, cancel a run, or remove one.

    `expand`: the jobs of the map `subject_id`, from an item on. `stopped`: the same, after the run was
    cancelled; a retry of the run makes it `expand` again. `cancel`: the run `subject_id`, by its
    rule for failures. `prune`: the rows of the run `subject_id`, whose own row retention has removed
    (functions/workflows/workflow_prune.sql).
    """
    Table(
        "workflow_turn",
        meta,
        Column("id", BigInteger, Identity(always=False, cache=1), nullable=False),
        Column("subject_id", BigInteger, nullable=False),
        Column("from_item", Integer, nullable=False, server_default=text("0")),
        Column("kind", Text, nullable=False),
        PrimaryKeyConstraint("id"),
        CheckConstraint(one_of("kind", TURN_KINDS), name="kind_check"),
        Index("workflow_turn_subject_idx", "subject_id"),
        postgresql_with=dict(_SMALL),
    )


def _result(meta: MetaData) -> None:
    """How nodes and items of maps ended: one row for each, written in the transaction of the end.

    The row is what counts the end: a trigger adds it to the joins, once, because the primary key
    admits one end of a node. A retry deletes the row, and the trigger takes the end back. So
    a role that ends a job needs one INSERT, and no statement can end a node without counting it.

    It repeats the result of `job_history`, because that table's partitions are dropped by day: a
    run that lasts longer than history is kept still finds the results that its nodes need.
    """
    Table(
        "workflow_result",
        meta,
        Column("node_id", BigInteger, nullable=False),
        # NULL: it ended without a job (skipped, cancelled before its start, or a map itself).
        Column("job_id", BigInteger),
        timestamp("started_at", nullable=True),
        timestamp("finished_at"),
        # The item of a map, from 0; 0 for a task; -1: the map itself.
        Column("item", Integer, nullable=False),
        # succeeded, failed, cancelled, expired, deleted, skipped or upstream_failed. Unchecked,
        # because every end of a job would pay for a check.
        Column("state", Text, nullable=False),
        Column("error", Text),
        Column("result", JSONB),
        PrimaryKeyConstraint("node_id", "item"),
        # The failures of a run, among many items.
        Index("workflow_result_failed_idx", "node_id", postgresql_where=text("state NOT IN ('succeeded', 'skipped')")),
    )
