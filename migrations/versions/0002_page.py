"""The page: the audit of changes, bulk operations, rollups for its charts, its own users.

Revision: 0002
Follows: 0001
"""

from __future__ import annotations

import re
from importlib.resources import files

from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("web_user", "operation_batch", "operation", "rollup_mark", "rollup_task", "rollup_queue")


def schema() -> str:
    name: str = context.get_context().version_table_schema or "jobq"
    return '"' + name.replace('"', '""') + '"'


def upgrade() -> None:
    text = files("jobq.migrations").joinpath("sql", "0002_page.sql").read_text(encoding="utf-8")
    for statement in re.split(r";\n+(?=ALTER |CREATE |\Z)", text.replace("{schema}", schema())):
        if statement.strip():
            op.execute(statement.strip())


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE {schema()}.{table}")
    op.execute(f"UPDATE {schema()}.worker SET state = 'running' WHERE state = 'quiet'")  # noqa: S608  (the name is quoted)
    op.execute(
        f"ALTER TABLE {schema()}.worker DROP CONSTRAINT worker_state_check, DROP COLUMN asked, DROP COLUMN rss, "
        "ADD CONSTRAINT worker_state_check CHECK (state IN ('starting', 'running', 'draining'))"
    )
    op.execute(
        f"ALTER TABLE {schema()}.audit DROP COLUMN role, DROP COLUMN address, DROP COLUMN before, DROP COLUMN after"
    )
