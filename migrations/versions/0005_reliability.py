"""Reliability: one bad row, one lock or one user's code costs one job.

Revision: 0005
Follows: 0004
"""

from __future__ import annotations

import re
from importlib.resources import files

from alembic import op

from jobq.migrations.steps import discard, execute, filled, inherit, literal, quoted, retire

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Functions whose row or parameters change, so that CREATE OR REPLACE cannot take their place: with their former parameters, and
# the new ones. Only workers call them, and they try again: the former ones do not stay.
REPLACED = {
    "claim_managed": (
        "uuid, text, integer",
        ", bigint, bigint[], bigint[], text, bigint[], bigint[], text[], boolean",
    ),
    "drop_partitions": ("text, interval", ", integer"),
}
# What brings back the functions and triggers of revision 0004; the sequences have stayed.
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


def functions() -> list[str]:
    """Return the names of the stored functions, each with a file of its own."""
    folder = files("jobq.migrations").joinpath("functions")
    return sorted(entry.name.removesuffix(".sql") for entry in folder.iterdir() if entry.name.endswith(".sql"))


def upgrade() -> None:
    for sequence in SEQUENCES:
        op.execute(f"CREATE SEQUENCE {quoted()}.{sequence}")
    execute(filled("sql", "0005_tables.sql"))
    for name, (before, _) in REPLACED.items():
        retire(name, before, "former")
    for name in functions():
        execute(filled("functions", f"{name}.sql"))
    for name, (before, more) in REPLACED.items():
        inherit(f"{name}_former({before})", f"{name}({before}{more})")
        discard(f"{name}_former({before})")


def downgrade() -> None:
    # Not the functions that users build upon: those are replaced. Without CASCADE, which would take along what is theirs.
    names = ", ".join(literal(name) for name in functions() if not name.startswith("enqueue"))
    op.execute(
        f"""
        DO $do$
        DECLARE
            part record;
            one regprocedure;
        BEGIN
            FOR part IN SELECT tgname, tgrelid::regclass AS of FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
                        WHERE relnamespace = {literal(quoted())}::regnamespace AND NOT tgisinternal AND tgparentid = 0
                          AND tgname IN ('job_notify_insert', 'job_enter_group') LOOP
                EXECUTE format('DROP TRIGGER %I ON %s', part.tgname, part.of);
            END LOOP;
            FOR one IN SELECT oid FROM pg_proc
                       WHERE pronamespace = {literal(quoted())}::regnamespace AND proname IN ({names}) LOOP
                EXECUTE format('DROP FUNCTION %s', one);
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
        text = filled("sql", file)
        if file == "0003_enqueue.sql":
            text = text.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
        execute(re.sub(r"^CREATE SEQUENCE[^;]*;\n", "", text, flags=re.MULTILINE))
