"""Keys belong to tasks, and every stored value can be read.

Revision: 0006
Follows: 0005
"""

from __future__ import annotations

from alembic import op

from jobq.migrations.steps import discard, execute, filled, inherit, quoted, reinstate, retire

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Functions that have grown by parameters, with those of before and those that are new. On a new database revision 0005 has made
# the newest ones.
GROWN = {
    "enqueue": (
        "text, jsonb, text, integer, timestamptz, interval, text, text, interval, text, integer, interval, jsonb, text, "
        "interval",
        ", text",
    ),
    "enqueue_one": (
        "text, jsonb, text, integer, timestamptz, double precision, integer, double precision, jsonb, text, text, "
        "double precision, text, text, double precision",
        ", text",
    ),
    "enqueue_keyed": (
        "text[], text[], text[], integer[], timestamptz[], double precision[], integer[], double precision[], text[], "
        "text[], text[], double precision[], text[], text[], double precision[]",
        ", text[]",
    ),
}
# Only workers and operators call it, and those may try again: the former one does not stay.
TAKE_KEY = ("text, bigint, text", ", text, text")
FUNCTIONS = ("enqueue_keyed", "enqueue_one", "enqueue", "take_key", "notify_insert", "oldest_program")


def upgrade() -> None:
    execute(filled("sql", "0006_tables.sql"))
    execute(filled("sql", "0006_meanwhile.sql"))
    for name, (before, _) in GROWN.items():
        retire(name, before, "0005")
    retire("take_key", TAKE_KEY[0], "former")
    for name in FUNCTIONS:
        execute(filled("functions", f"{name}.sql"))
    for name, (before, more) in GROWN.items():
        inherit(f"{name}_0005({before})", f"{name}({before}{more})")
    inherit(f"take_key_former({TAKE_KEY[0]})", f"take_key({''.join(TAKE_KEY)})")
    discard(f"take_key_former({TAKE_KEY[0]})")
    execute(filled("sql", "0006_former.sql"))


def downgrade() -> None:
    for name, (before, more) in GROWN.items():
        retire(name, before + more, "grown")
        reinstate(name, before, "0005")
    retire("take_key", "".join(TAKE_KEY), "grown")
    # One key again whatever the task: of several holders the oldest job keeps it.
    op.execute(
        f"DELETE FROM {quoted()}.job_key AS held USING {quoted()}.job_key AS older "  # noqa: S608
        "WHERE older.key = held.key AND (older.job_id, older.scope) < (held.job_id, held.scope)"
    )
    op.execute(
        f"ALTER TABLE {quoted()}.job_key DROP CONSTRAINT job_key_pkey, DROP COLUMN scope, DROP COLUMN task, "
        "ADD CONSTRAINT job_key_pkey PRIMARY KEY (key)"
    )
    op.execute(f"ALTER TABLE {quoted()}.queue DROP CONSTRAINT queue_rate_seconds_check")
    op.execute(f"ALTER TABLE {quoted()}.job_history DROP COLUMN key_scope")
    op.execute(
        f"ALTER TABLE {quoted()}.job DROP COLUMN key_scope, DROP CONSTRAINT job_timeout_check, "
        "ADD CONSTRAINT job_timeout_check CHECK (timeout > 0)"
    )
    execute(filled("sql", "0006_enqueue_back.sql"))
    for name, (before, more) in (GROWN | {"take_key": TAKE_KEY}).items():
        inherit(f"{name}_grown({before}{more})", f"{name}({before})")
        discard(f"{name}_grown({before}{more})")
