"""Flow: groups that run in order, with a limit or in turns; limits and rates of queues; expiry.

Revision: 0003
Follows: 0002
"""

from __future__ import annotations

import re
from importlib.resources import files

from alembic import context, op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ENQUEUE = (
    "enqueue(text, jsonb, text, integer, timestamptz, interval, text, text, interval, text, integer, interval, jsonb{})",
    "enqueue_one(text, jsonb, text, integer, timestamptz, double precision, integer, double precision, jsonb, text, text, "
    "double precision, text{})",
    "enqueue_keyed(text[], text[], text[], integer[], timestamptz[], double precision[], integer[], double precision[], "
    "text[], text[], text[], double precision[], text[]{})",
)
ADDED = (", text, interval", ", text, double precision", ", text[], double precision[]")
COLUMNS = (
    "max_running", "rate_jobs", "rate_seconds", "rate_burst", "group_mode", "group_limit", "group_retry", "group_rate_jobs",
    "group_rate_seconds", "group_rate_burst", "changed_at",
)  # fmt: skip
INDEXES = ("job_waiting_idx", "job_waiting_due_idx", "job_managed_idx", "job_grouped_idx", "job_expires_idx")


def schema() -> str:
    name: str = context.get_context().version_table_schema or "jobq"
    return name


def quoted() -> str:
    return '"' + schema().replace('"', '""') + '"'


def run(file: str) -> str:
    """Return the text of `file` with the schema's name filled in."""
    literal = "'" + schema().replace("'", "''") + "'"
    text = files("jobq.migrations").joinpath("sql", file).read_text(encoding="utf-8")
    text = text.replace("{schema}", quoted()).replace("{schema_literal}", literal)
    return text.replace("{job_id_sequence}", "'" + f"{quoted()}.job_id_seq".replace("'", "''") + "'")


def execute(text: str) -> None:
    """Execute the statements of `text`: each CREATE or ALTER at the start of a line begins one."""
    for statement in re.split(r";\n+(?=--|CREATE |ALTER |\Z)", text):
        if statement.strip():
            op.execute(statement.strip())


def upgrade() -> None:
    execute(run("0003_tables.sql"))
    execute(run("0003_groups.sql"))
    for signature in ENQUEUE:
        op.execute(f"DROP FUNCTION {quoted()}.{signature.format('')}")
    execute(run("0003_enqueue.sql"))


def downgrade() -> None:
    name = quoted()
    op.execute(f"DROP TRIGGER job_enter_group ON {name}.job")
    # What waits for its group's turn is an ordinary job again.
    op.execute(
        f"UPDATE {name}.job SET state = 'ready', run_at = greatest(run_at, clock_timestamp()) WHERE state = 'waiting'"  # noqa: S608
    )
    for signature, added in zip(ENQUEUE, ADDED, strict=True):
        op.execute(f"DROP FUNCTION {name}.{signature.format(added)}")
    execute(run("0001_enqueue.sql"))
    before = run("0001_notify_insert.sql")
    notify = before[before.index("CREATE FUNCTION") : before.index("CREATE TRIGGER")]
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
        op.execute(f"ALTER TABLE {name}.queue DROP COLUMN {column} CASCADE")
