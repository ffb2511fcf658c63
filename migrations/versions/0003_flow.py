"""Flow: groups that run in order, with a limit or in turns; limits and rates of queues; expiry.

Revision: 0003
Follows: 0002
"""

from __future__ import annotations

from alembic import op

from jobq.migrations.steps import discard, execute, filled, inherit, quoted, reinstate, retire

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Functions that have grown by parameters, with those of before and those that are new.
ENQUEUE = {
    "enqueue": (
        "text, jsonb, text, integer, timestamptz, interval, text, text, interval, text, integer, interval, jsonb",
        ", text, interval",
    ),
    "enqueue_one": (
        "text, jsonb, text, integer, timestamptz, double precision, integer, double precision, jsonb, text, text, "
        "double precision, text",
        ", text, double precision",
    ),
    "enqueue_keyed": (
        "text[], text[], text[], integer[], timestamptz[], double precision[], integer[], double precision[], text[], "
        "text[], text[], double precision[], text[]",
        ", text[], double precision[]",
    ),
}
COLUMNS = (
    "max_running", "rate_jobs", "rate_seconds", "rate_burst", "group_mode", "group_limit", "group_retry", "group_rate_jobs",
    "group_rate_seconds", "group_rate_burst", "changed_at",
)  # fmt: skip
INDEXES = ("job_waiting_idx", "job_waiting_due_idx", "job_managed_idx", "job_grouped_idx", "job_expires_idx")


def upgrade() -> None:
    execute(filled("sql", "0003_tables.sql"))
    execute(filled("sql", "0003_groups.sql"))
    for name, (before, _) in ENQUEUE.items():
        retire(name, before, "0002")
    execute(filled("sql", "0003_enqueue.sql"))
    for name, (before, more) in ENQUEUE.items():
        inherit(f"{name}_0002({before})", f"{name}({before}{more})")
    execute(filled("sql", "0003_former.sql"))


def downgrade() -> None:
    name = quoted()
    op.execute(f"DROP TRIGGER job_enter_group ON {name}.job")
    # What waits for its group's turn is an ordinary job again.
    op.execute(
        f"UPDATE {name}.job SET state = 'ready', run_at = greatest(run_at, clock_timestamp()) WHERE state = 'waiting'"  # noqa: S608
    )
    for function, (before, more) in ENQUEUE.items():
        retire(function, before + more, "grown")
        reinstate(function, before, "0002")
    execute(filled("sql", "0001_enqueue.sql").replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    for function, (before, more) in ENQUEUE.items():
        inherit(f"{function}_grown({before}{more})", f"{function}({before})")
        discard(f"{function}_grown({before}{more})")
    text = filled("sql", "0001_notify_insert.sql")
    notify = text[text.index("CREATE FUNCTION") : text.index("CREATE TRIGGER")]
    op.execute(notify.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").strip().rstrip(";"))
    op.execute(f"DROP FUNCTION {name}.claim_managed(uuid, text, integer)")
    op.execute(f"DROP FUNCTION {name}.entry_state(text, text)")
    op.execute(f"DROP FUNCTION {name}.admits(integer, double precision, integer, timestamptz, timestamptz)")
    op.execute(f"DROP FUNCTION {name}.admits_from(integer, double precision, integer, timestamptz)")
    op.execute(f"DROP FUNCTION {name}.enter_group()")
    for table in ("gate", "job_turn"):
        op.execute(f"DROP TABLE {name}.{table}")
    for index in INDEXES:
        op.execute(f"DROP INDEX {name}.{index}")
    op.execute(f"ALTER TABLE {name}.job DROP COLUMN managed")
    for column in COLUMNS:
        op.execute(f"ALTER TABLE {name}.queue DROP COLUMN {column}")
