"""From revision 0008, the last of the former chain, to the baseline 0009, with all data.

`env.py` crosses the bridge where it finds a database at 0008, before it looks for revisions to apply: under the same locks,
with the same patience, in the same transaction. So `jobq migrate` and `alembic upgrade head` do it alike, and later revisions
follow. Tables and columns are renamed, so workers of 0008 must be stopped first: their statements fail afterwards.

The names here are those of revision 0008. They never change, whatever is renamed elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection

from alembic import context
from alembic.util import CommandError

from jobq.migrations.steps import execute, filled, home, quoted, refresh_functions, schema
from jobq.migrations.stored import literal, stored_functions

FROM, TO = "0008", "0009"
TITLE = "The baseline, from revision 0008: what was renamed since, and the stored functions."
OLDER = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")

# Tables that were renamed since: {"former name": "present name"}. Their indexes, constraints and sequences whose names begin
# with the former name are renamed along.
TABLES: dict[str, str] = {"job_turn": "group_ready", "gate": "rate_state", "chore": "maintenance_task"}
# Everything else that differs, after these: renamed columns, sequences, triggers and trigger functions, and values in rows.
# Tables have their present names here, and {schema} stands for the quoted schema:
#     "ALTER TABLE {schema}.job_key RENAME COLUMN holds TO …",
#     "ALTER FUNCTION {schema}.enter_group() RENAME TO …",
STATEMENTS: tuple[str, ...] = (
    "ALTER SEQUENCE {schema}.wake RENAME TO notify_mode",
    "ALTER TABLE {schema}.job RENAME COLUMN losses TO worker_deaths",
    "ALTER TABLE {schema}.job RENAME COLUMN managed TO limited",
    "ALTER INDEX {schema}.job_managed_idx RENAME TO job_limited_idx",
    "ALTER TABLE {schema}.job_key RENAME COLUMN until TO expires_at",
    "ALTER TABLE {schema}.job_key RENAME CONSTRAINT job_key_until_check TO job_key_expires_at_check",
    "ALTER INDEX {schema}.job_key_until_idx RENAME TO job_key_expires_at_idx",
    "ALTER TABLE {schema}.worker RENAME COLUMN asked TO requested_state",
    "ALTER TABLE {schema}.worker RENAME CONSTRAINT worker_asked_check TO worker_requested_state_check",
    "ALTER FUNCTION {schema}.claim_managed RENAME TO claim_limited",
    "ALTER FUNCTION {schema}.managed_running RENAME TO limited_running",
    # Workers from before revision 0005 do not write theirs. What was taken for it then was the default of --lease.
    "UPDATE {schema}.worker SET lease = 30 WHERE lease IS NULL",
    "ALTER TABLE {schema}.worker ALTER lease SET DEFAULT 30, ALTER lease SET NOT NULL, "
    "ADD COLUMN suspicion double precision DEFAULT 3.5 NOT NULL",
    "ALTER TABLE {schema}.schedule DROP CONSTRAINT schedule_source_check",
    "UPDATE {schema}.schedule SET source = 'runtime' WHERE source = 'run time'",
    "ALTER TABLE {schema}.schedule ALTER source SET DEFAULT 'runtime', "
    "ADD CONSTRAINT schedule_source_check CHECK (source IN ('code', 'runtime'))",
    "ALTER TABLE {schema}.schedule ADD COLUMN group_key text, ADD COLUMN key text, ADD COLUMN expires_in double precision",
    "ALTER TABLE {schema}.job_attempt ADD COLUMN log text",
    "ALTER TABLE {schema}.job ADD COLUMN node_id bigint, ADD COLUMN node_item integer",
    "ALTER TABLE {schema}.job_history ADD COLUMN node_id bigint, ADD COLUMN node_item integer",
    "CREATE INDEX job_node_idx ON {schema}.job (node_id) WHERE node_id IS NOT NULL",
    "ALTER TABLE {schema}.schedule_tick ADD COLUMN skipped boolean DEFAULT false NOT NULL",
)

# The stored functions of 0008. Those that have no file any more, under these names, are dropped.
FUNCTIONS = (
    "admits", "admits_from", "claim_managed", "drop_partitions", "enqueue", "enqueue_keyed", "enqueue_one", "enter_group",
    "entry_state", "make_partition", "make_partitions", "managed_running", "notify_insert", "oldest_program", "prune_rest",
    "rest_due", "take_key",
)  # fmt: skip
# Functions of former revisions, under the names by which they went on. They stay where something of a user's depends on them.
RETIRED = (
    "enqueue_0002", "enqueue_one_0002", "enqueue_keyed_0002", "enqueue_0005", "enqueue_one_0005", "enqueue_keyed_0005",
)  # fmt: skip


def refusal(name: str, found: str) -> str:
    """Return the sentence for schema `name` at `found`, one of the revisions before 0008."""
    return (
        f"schema {name!r} is at revision {found}, and this jobq upgrades from {FROM} on: bring it to {FROM} with "
        f"`jobq migrate` of the last jobq that has revision {FROM}, then run `jobq migrate` of this one; "
        f"or, if its jobs can go, DROP SCHEMA {name} CASCADE and run `jobq migrate`"
    )


def cross_if_needed(heads: Collection[str]) -> None:
    """Cross where `heads`, what the database is at, is 0008. Raises CommandError, with what to do, for an older revision."""
    for found in heads:
        if found in OLDER:
            raise CommandError(refusal(schema(), found))
        if found == FROM:
            cross()


def cross() -> None:
    """Make a schema at 0008 what the baseline makes."""
    for former, present in TABLES.items():
        _rename(former, present)
    for statement in STATEMENTS:
        context.execute(statement.replace("{schema}", quoted()))
    for file in ("workflows", "steps"):
        execute(filled("sql", f"{file}.sql"))
    refresh_functions(former=FROM)
    execute(filled("sql", "workflow_triggers.sql"))
    _drop_functions()
    context.execute(
        f"UPDATE {quoted()}.{context.get_context().version_table} SET version_num = {literal(TO)} "  # noqa: S608  (ours)
        f"WHERE version_num = {literal(FROM)}"
    )


def _rename(former: str, present: str) -> None:
    """Rename a table, and with it what is named after it."""
    context.execute(f"ALTER TABLE {quoted()}.{former} RENAME TO {present}")
    context.execute(
        f"""
        DO $do$
        DECLARE
            renamed constant regclass := {literal(f"{quoted()}.{present}")}::regclass;
            one record;
        BEGIN
            FOR one IN SELECT conname AS name FROM pg_constraint
                       WHERE conrelid = renamed AND starts_with(conname, {literal(f"{former}_")}) LOOP
                EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', renamed, one.name,
                               {literal(present)} || substr(one.name, {len(former) + 1}));
            END LOOP;
            -- The index of a constraint has been renamed with it.
            FOR one IN SELECT oid::regclass AS known, relname AS name,
                              CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'INDEX' END AS kind FROM pg_class
                       WHERE oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = renamed
                                     UNION ALL SELECT objid FROM pg_depend WHERE refobjid = renamed AND deptype IN ('a', 'i'))
                         AND relkind IN ('i', 'S') AND starts_with(relname, {literal(f"{former}_")}) LOOP
                EXECUTE format('ALTER %s %s RENAME TO %I', one.kind, one.known,
                               {literal(present)} || substr(one.name, {len(former) + 1}));
            END LOOP;
        END
        $do$
        """  # noqa: S608  (names of ours)
    )


def _drop_functions() -> None:
    """Drop those of 0008 that are no longer there, and those of former revisions upon which nothing is built."""
    kept = {function.name for function in stored_functions(schema(), home() / "functions")}
    gone = [name for name in FUNCTIONS if name not in kept]
    context.execute(
        f"""
        DO $do$
        DECLARE
            one record;
        BEGIN
            FOR one IN SELECT oid::regprocedure AS known, proname = ANY ({_array(RETIRED)}) AS retired FROM pg_proc
                       WHERE pronamespace = {literal(quoted())}::regnamespace
                         AND proname = ANY ({_array((*gone, *RETIRED))}) LOOP
                BEGIN
                    EXECUTE format('DROP FUNCTION %s', one.known);
                EXCEPTION WHEN dependent_objects_still_exist THEN
                    IF NOT one.retired THEN
                        RAISE;
                    END IF;
                END;
            END LOOP;
        END
        $do$
        """  # noqa: S608  (names of ours)
    )


def _array(names: Collection[str]) -> str:
    return f"ARRAY[{', '.join(map(literal, names))}]::name[]"
