"""What the revisions share: the schema's name, files of statements, and functions whose parameters grow."""

from __future__ import annotations

import re
from importlib.resources import files

from alembic import context, op


def schema() -> str:
    """Return the schema's name."""
    name: str = context.get_context().version_table_schema or "jobq"
    return name


def quoted() -> str:
    """Return the schema's name as an identifier."""
    return '"' + schema().replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def filled(folder: str, file: str) -> str:
    """Return the text of `file` with the schema's name filled in: see functions/README.md."""
    text = files("jobq.migrations").joinpath(folder, file).read_text(encoding="utf-8")
    text = text.replace("{schema}", quoted()).replace("{schema_literal}", literal(schema()))
    return text.replace("{job_id_sequence}", literal(f"{quoted()}.job_id_seq"))


def execute(text: str) -> None:
    """Execute the statements of `text`: each begins with a word in capitals at the start of a line."""
    for statement in re.split(r";\n+(?=--|CREATE |ALTER |UPDATE |DROP |\Z)", text):
        if statement.strip():
            op.execute(statement.strip())


def retire(name: str, arguments: str, revision: str) -> None:
    """Rename a function whose parameters are about to grow: `name` becomes `name_revision`, if it is there.

    It is not dropped. What users have built upon it (a function, a view) keeps it, and a statement that is under way finds it.
    CREATE OR REPLACE cannot add a parameter, and beside a function with one more default a call would be ambiguous.
    """
    former, retired = f"{quoted()}.{name}({arguments})", f"{quoted()}.{name}_{revision}({arguments})"
    op.execute(
        f"""
        DO $do$
        BEGIN
            IF to_regprocedure({literal(former)}) IS NOT NULL AND to_regprocedure({literal(retired)}) IS NULL THEN
                ALTER FUNCTION {former} RENAME TO {name}_{revision};
            END IF;
        END
        $do$
        """
    )


def succeed(name: str, arguments: str, more: str, revision: str) -> None:
    """Let those who may call the retired function call the one that has taken its name, and no others."""
    retired, grown = f"{quoted()}.{name}_{revision}({arguments})", f"{quoted()}.{name}({arguments}{more})"
    op.execute(
        f"""
        DO $do$
        DECLARE
            former constant regprocedure := to_regprocedure({literal(retired)});
            one record;
        BEGIN
            IF (SELECT proacl IS NULL FROM pg_proc WHERE oid = former) IS DISTINCT FROM false THEN
                RETURN;
            END IF;
            REVOKE ALL ON FUNCTION {grown} FROM PUBLIC;
            FOR one IN SELECT acl.grantee FROM pg_proc, aclexplode(proacl) AS acl
                       WHERE pg_proc.oid = former AND acl.privilege_type = 'EXECUTE' AND acl.grantee <> proowner LOOP
                EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', {literal(grown)}::regprocedure,
                               CASE WHEN one.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(one.grantee)) END);
            END LOOP;
        END
        $do$
        """  # noqa: S608  (names of ours)
    )


def reinstate(name: str, arguments: str, more: str, revision: str) -> None:
    """Drop the function that has grown, and give the retired one its name back, if it is there."""
    former, retired = f"{quoted()}.{name}({arguments})", f"{quoted()}.{name}_{revision}({arguments})"
    op.execute(f"DROP FUNCTION {quoted()}.{name}({arguments}{more})")
    op.execute(
        f"""
        DO $do$
        BEGIN
            IF to_regprocedure({literal(retired)}) IS NOT NULL AND to_regprocedure({literal(former)}) IS NULL THEN
                ALTER FUNCTION {retired} RENAME TO {name};
            END IF;
        END
        $do$
        """
    )
