"""Finished jobs in the order in which they finished: indexes on the history of those that did not succeed.

Revision: 0007
Follows: 0006
"""

from __future__ import annotations

from alembic import op

from jobq.migrations.steps import schema

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
# It needs none of the locks that the revisions before it need, and takes longer: it is applied by itself, after them.
separate = True
locks = ("job_history_failed", "job_history_cancelled", "job_history_expired"), "SHARE"

# Succeeded jobs have none: each acknowledgement would pay for it.
STATES = ("failed", "cancelled", "expired")


def upgrade() -> None:
    """Builds the indexes on the partitions there are: what fails or is cancelled waits, about a second for a million rows."""
    for state in STATES:
        table = f"job_history_{state}"
        op.create_index(f"{table}_finished_idx", table, ["finished_at", "id"], schema=schema())


def downgrade() -> None:
    for state in STATES:
        op.drop_index(f"job_history_{state}_finished_idx", f"job_history_{state}", schema=schema())
