"""Keys belong to tasks, and every stored value can be read.

Revision: 0006
Follows: 0005
"""

from __future__ import annotations

import re
from importlib.resources import files

from alembic import context, op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Functions that have grown by parameters: CREATE OR REPLACE cannot take the place of the former ones, and beside those a call
# would be ambiguous. On a new database revision 0005 has made the newest ones.
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
    "take_key": ("text, bigint, text", ", text, text"),
}
FUNCTIONS = ("enqueue_keyed", "enqueue_one", "enqueue", "take_key", "notify_insert")


def schema() -> str:
    name: str = context.get_context().version_table_schema or "jobq"
    return name


def quoted() -> str:
    return '"' + schema().replace('"', '""') + '"'


def filled(folder: str, file: str) -> str:
    """Return the text of `file` with the schema's name filled in."""
    literal = "'" + schema().replace("'", "''") + "'"
    text = files("jobq.migrations").joinpath(folder, file).read_text(encoding="utf-8")
    text = text.replace("{schema}", quoted()).replace("{schema_literal}", literal)
    return text.replace("{job_id_sequence}", "'" + f"{quoted()}.job_id_seq".replace("'", "''") + "'")


def execute(text: str) -> None:
    """Execute the statements of `text`: each begins with a word in capitals at the start of a line."""
    for statement in re.split(r";\n+(?=--|CREATE |ALTER |UPDATE |\Z)", text):
        if statement.strip():
            op.execute(statement.strip())


def upgrade() -> None:
    execute(filled("sql", "0006_tables.sql"))
    for name, (former, _) in GROWN.items():
        op.execute(f"DROP FUNCTION IF EXISTS {quoted()}.{name}({former})")
    for name in FUNCTIONS:
        execute(filled("functions", f"{name}.sql"))


def downgrade() -> None:
    for name, (former, more) in GROWN.items():
        op.execute(f"DROP FUNCTION {quoted()}.{name}({former}{more})")
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
