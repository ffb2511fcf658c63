"""Reliability: one bad row, one lock or one user's code costs one job.

Revision: 0005
Follows: 0004
"""

from __future__ import annotations

import re
from importlib.resources import files

from alembic import context, op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Functions whose row or parameters change, so that CREATE OR REPLACE cannot take their place.
REPLACED = ("claim_managed(uuid, text, integer)", "drop_partitions(text, interval)")
# What brings back the functions of revision 0004.
FORMER = ("0001_partitions.sql", "0001_notify_insert.sql", "0003_groups.sql", "0003_enqueue.sql")
COLUMNS = {
    "job": (
        "key_holds",
        "key_until_started",
        "run_alone",
        "releases",
        "parked_at",
        "parked_reason",
        "parked_signature",
        "parked_claims",
        "permit",
    ),
    "job_history": ("key_holds",),
    "job_turn": ("from_id", "from_at"),
    "gate": ("head_id", "head_at"),
    "worker": ("signatures", "problems", "lease"),
}
INDEXES = ("job_parked_idx", "job_key_until_idx", "job_permit_idx", "gate_limit_idx")
SEQUENCES = ("permit",)


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
    for statement in re.split(r";\n+(?=--|CREATE |ALTER |UPDATE |DROP |\Z)", text):
        # Of the former files the functions and triggers only: the sequence has stayed.
        if statement.strip() and "CREATE SEQUENCE" not in statement:
            op.execute(statement.strip())


def functions() -> list[str]:
    """Return the names of the stored functions, each with a file of its own."""
    folder = files("jobq.migrations").joinpath("functions")
    return sorted(entry.name.removesuffix(".sql") for entry in folder.iterdir() if entry.name.endswith(".sql"))


def upgrade() -> None:
    for sequence in SEQUENCES:
        op.execute(f"CREATE SEQUENCE {quoted()}.{sequence}")
    execute(filled("sql", "0005_tables.sql"))
    for signature in REPLACED:
        op.execute(f"DROP FUNCTION {quoted()}.{signature}")
    for name in functions():
        execute(filled("functions", f"{name}.sql"))


def downgrade() -> None:
    names = ", ".join(f"'{name}'" for name in functions())
    # CASCADE: the triggers that call them; their files bring them back.
    op.execute(
        f"""
        DO $do$
        DECLARE
            one regprocedure;
        BEGIN
            FOR one IN SELECT oid FROM pg_proc
                       WHERE pronamespace = '{quoted().replace("'", "''")}'::regnamespace AND proname IN ({names}) LOOP
                EXECUTE format('DROP FUNCTION %s CASCADE', one);
            END LOOP;
        END
        $do$
        """  # noqa: S608  (names of ours)
    )
    # A job that waits for a worker with its code is an ordinary one again.
    op.execute(
        f"UPDATE {quoted()}.job SET state = 'ready', run_at = greatest(run_at, clock_timestamp()) WHERE state = 'parked'"  # noqa: S608
    )
    # A worker of before releases these at the claim, which these jobs have behind them.
    op.execute(
        f"DELETE FROM {quoted()}.job_key AS held USING {quoted()}.job "  # noqa: S608
        "WHERE held.key = job.key AND held.job_id = job.id AND job.key_until_started AND job.state = 'running'"
    )
    execute(filled("sql", "0005_identities_back.sql"))
    for sequence in SEQUENCES:
        op.execute(f"DROP SEQUENCE {quoted()}.{sequence}")
    for index in INDEXES:
        op.execute(f"DROP INDEX {quoted()}.{index}")
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {quoted()}.{table} DROP COLUMN {column}")
    op.execute(f"DELETE FROM {quoted()}.job_attempt WHERE outcome = 'released'")  # noqa: S608
    op.execute(
        f"ALTER TABLE {quoted()}.job_attempt DROP CONSTRAINT job_attempt_outcome_check, "
        "ADD CONSTRAINT job_attempt_outcome_check "
        "CHECK (outcome IN ('error', 'timeout', 'crashed', 'cancelled', 'failed'))"
    )
    for file in FORMER:
        execute(filled("sql", file))
