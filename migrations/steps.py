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


def retire(name: str, arguments: str, to: str) -> None:
    """Rename a function, if it is there, before another takes its name: `name` becomes `name_to`.

    It is not dropped. What users have built upon it (a function, a view) keeps it, and a statement that is under way finds it.
    CREATE OR REPLACE cannot add a parameter, and beside a function with one more default a call would be ambiguous.
    """
    former, retired = f"{quoted()}.{name}({arguments})", f"{quoted()}.{name}_{to}({arguments})"
    op.execute(
        f"""
        DO $do$
        BEGIN
            IF to_regprocedure({literal(former)}) IS NULL THEN
                RETURN;
            ELSIF to_regprocedure({literal(retired)}) IS NULL THEN
                ALTER FUNCTION {former} RENAME TO {name}_{to};
            ELSE
                DROP FUNCTION {former};
            END IF;
        END
        $do$
        """
    )


def reinstate(name: str, arguments: str, former: str) -> None:
    """Give a function that was retired as `name_former` its name back, if it is there."""
    taken, retired = f"{quoted()}.{name}({arguments})", f"{quoted()}.{name}_{former}({arguments})"
    op.execute(
        f"""
        DO $do$
        BEGIN
            IF to_regprocedure({literal(retired)}) IS NOT NULL AND to_regprocedure({literal(taken)}) IS NULL THEN
                ALTER FUNCTION {retired} RENAME TO {name};
            END IF;
        END
        $do$
        """
    )


def inherit(of: str, by: str) -> None:
    """Give the function `by` the owner, the rights and the comment of the function `of`, where that one is there."""
    op.execute(
        f"""
        DO $do$
        DECLARE
            former constant regprocedure := to_regprocedure({literal(f"{quoted()}.{of}")});
            heir constant regprocedure := {literal(f"{quoted()}.{by}")}::regprocedure;
            owned_by regrole;
            said text;
            one record;
        BEGIN
            IF former IS NULL THEN
                RETURN;
            END IF;
            SELECT proowner, obj_description(oid, 'pg_proc') INTO owned_by, said FROM pg_proc WHERE oid = former;
            FOR one IN SELECT acl.grantee FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS acl
                       WHERE oid = heir AND acl.grantee <> proowner LOOP
                EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s', heir,
                               CASE WHEN one.grantee = 0 THEN 'PUBLIC' ELSE one.grantee::regrole::text END);
            END LOOP;
            IF (SELECT proowner <> owned_by FROM pg_proc WHERE oid = heir) THEN
                EXECUTE format('ALTER FUNCTION %s OWNER TO %s', heir, owned_by);
            END IF;
            FOR one IN SELECT acl.grantee, acl.is_grantable FROM pg_proc,
                              aclexplode(coalesce(proacl, acldefault('f', proowner))) AS acl
                       WHERE oid = former AND acl.privilege_type = 'EXECUTE' AND acl.grantee <> proowner LOOP
                EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', heir,
                               CASE WHEN one.grantee = 0 THEN 'PUBLIC' ELSE one.grantee::regrole::text END,
                               CASE WHEN one.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
            END LOOP;
            IF said IS NOT NULL THEN
                EXECUTE format('COMMENT ON FUNCTION %s IS %L', heir, said);
            END IF;
        END
        $do$
        """  # noqa: S608  (names of ours)
    )


def discard(function: str) -> None:
    """Drop a function, named with its arguments, if it is there. What depends on it refuses that, and is named."""
    op.execute(f"DROP FUNCTION IF EXISTS {quoted()}.{function}")
