"""Expiry: an index of the live jobs that can expire.

Revision: 0005
Follows: 0002
"""

from __future__ import annotations

from alembic import context, op

revision = "0005"
down_revision = "0002"
branch_labels = None
depends_on = None


def schema() -> str:
    name: str = context.get_context().version_table_schema or "jobq"
    return '"' + name.replace('"', '""') + '"'


def upgrade() -> None:
    op.execute(
        f"CREATE INDEX job_expires_idx ON {schema()}.job (expires_at) WHERE expires_at IS NOT NULL AND state <> 'running'"
    )


def downgrade() -> None:
    op.execute(f"DROP INDEX {schema()}.job_expires_idx")
