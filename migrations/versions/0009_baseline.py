"""Everything: jobs and their history, keys, queues, groups and limits, workers, schedules, what the page keeps.

Revision: 0009
Follows: nothing. A database at revision 0008 comes here by the bridge: see migrations/bridge.py.
"""

from __future__ import annotations

from alembic import op

from jobq.migrations.steps import execute, filled, home, quoted, refresh_functions
from jobq.migrations.stored import literal, stored_functions

revision = "0009"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "audit", "maintenance_task", "rate_state", "job", "job_attempt", "job_history", "job_key", "group_ready", "operation",
    "operation_batch", "queue", "rollup_mark", "rollup_queue", "rollup_task", "schedule", "schedule_tick", "web_user", "worker",
    "workflow", "workflow_arrival", "workflow_join", "workflow_node", "workflow_result", "workflow_turn",
    "job_step", "job_signal", "job_wakeup",
)  # fmt: skip
SEQUENCES = ("permit", "notify_mode")


def upgrade() -> None:
    for file in ("jobs", "history", "queues", "page", "workflows", "steps"):
        execute(filled("sql", f"{file}.sql"))
    refresh_functions(former="0008")
    for file in ("triggers", "workflow_triggers"):
        execute(filled("sql", f"{file}.sql"))
    op.execute(f"SELECT count(*) FROM {quoted()}.make_partitions(7)")  # noqa: S608  (the name is quoted)


def downgrade() -> None:
    """Drop all of jobq's objects by name, without CASCADE, which would drop users' objects."""
    op.execute("DROP TABLE " + ", ".join(f"{quoted()}.{table}" for table in TABLES))
    op.execute("DROP SEQUENCE " + ", ".join(f"{quoted()}.{sequence}" for sequence in SEQUENCES))
    names = "|".join(function.name for function in stored_functions("", home() / "functions"))
    op.execute(
        f"""
        DO $do$
        DECLARE
            one regprocedure;
        BEGIN
            FOR one IN SELECT oid FROM pg_proc
                       WHERE pronamespace = {literal(quoted())}::regnamespace AND proname ~ '^({names})(_[0-9]{{4}})?$' LOOP
                EXECUTE format('DROP FUNCTION %s', one);
            END LOOP;
        END
        $do$
        """  # noqa: S608  (names of ours)
    )
