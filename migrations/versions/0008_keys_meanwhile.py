"""Keys that calls took while revision 0006 was applied.

Revision: 0008
Follows: 0007
"""

from __future__ import annotations

from jobq.migrations.steps import execute, filled

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
# By itself: the lock of the keys waits for the transactions that were under way then.
separate = True
locks = ("job_key",), "ACCESS EXCLUSIVE"


def upgrade() -> None:
    execute(filled("sql", "0008_keys.sql"))


def downgrade() -> None:
    """Nothing: revision 0006 makes what this one removes, and its downgrade does without."""
