"""Schedules, and the ticks that have become jobs.

Revision: 0004
Follows: 0003
"""

from __future__ import annotations

import re
from importlib.resources import files

from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = ("schedule_tick", "schedule")


def schema() -> str:
    name: str = context.get_context().version_table_schema or "jobq"
    return '"' + name.replace('"', '""') + '"'


def upgrade() -> None:
    text = files("jobq.migrations").joinpath("sql", "0004_schedules.sql").read_text(encoding="utf-8")
    for statement in re.split(r";\n+(?=ALTER |CREATE |\Z)", text.replace("{schema}", schema())):
        if statement.strip():
            op.execute(statement.strip())


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE {schema()}.{table}")
    op.execute(f"ALTER TABLE {schema()}.worker DROP COLUMN schedules")
