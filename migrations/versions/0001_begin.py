"""Begin: jobs, history, keys, queues, workers, chores, audit, the mode of waking.

Revision: 0001
Follows: nothing
"""

from __future__ import annotations

import re
from importlib.resources import files

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = ("audit", "chore", "worker", "queue", "job_key", "job_attempt", "job_history", "job")
FUNCTIONS = (
    "enqueue(text, jsonb, text, integer, timestamptz, interval, text, text, interval, text, integer, interval, jsonb)",
    "enqueue_one(text, jsonb, text, integer, timestamptz, double precision, integer, double precision, jsonb, text, text, "
    "double precision, text)",
    "enqueue_keyed(text[], text[], text[], integer[], timestamptz[], double precision[], integer[], double precision[], "
    "text[], text[], text[], double precision[], text[])",
    "drop_partitions(text, interval)",
    "make_partitions(integer)",
    "notify_insert()",
)


def schema() -> str:
    name: str = context.get_context().version_table_schema or "jobq"
    return name


def run(file: str) -> None:
    """Execute the statements of `file`: each CREATE at the start of a line begins one."""
    quoted = '"' + schema().replace('"', '""') + '"'
    literal = "'" + schema().replace("'", "''") + "'"
    text = files("jobq.migrations").joinpath("sql", file).read_text(encoding="utf-8")
    text = text.replace("{schema}", quoted).replace("{schema_literal}", literal)
    text = text.replace("{job_id_sequence}", "'" + f"{quoted}.job_id_seq".replace("'", "''") + "'")
    for statement in re.split(r";\n+(?=--|CREATE |\Z)", text):
        if statement.strip():
            op.execute(statement.strip())


def upgrade() -> None:
    run("0001_tables.sql")
    run("0001_notify_insert.sql")
    run("0001_partitions.sql")
    run("0001_enqueue.sql")
    quoted = '"' + schema().replace('"', '""') + '"'
    op.execute(f"SELECT count(*) FROM {quoted}.make_partitions(7)")  # noqa: S608  (the name is quoted)


def downgrade() -> None:
    quoted = '"' + schema().replace('"', '""') + '"'
    for table in TABLES:
        op.execute(f"DROP TABLE {quoted}.{table}")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {quoted}.{function}")
    op.execute(f"DROP SEQUENCE {quoted}.wake")
