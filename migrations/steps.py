"""Building blocks of revisions and the bridge: statement files, stored functions, new parameters.

All of it works online and as printed SQL: decisions that depend on the database are made in the
database.
"""

from __future__ import annotations

import re
from pathlib import Path

from alembic import context

from jobq.migrations import stored
from jobq.migrations.stored import literal, stored_functions

# Applications call these, and users build functions and views on them.
FOR_APPLICATIONS = ("enqueue", "enqueue_one", "enqueue_keyed", "enqueue_workflow")


def schema() -> str:
    """Return the schema's name."""
    name: str = context.get_context().version_table_schema or "jobq"
    return name


def quoted() -> str:
    """Return the schema's name as an identifier."""
    return stored.quoted(schema())


def home() -> Path:
    """Return the folder of these migrations: the one whose `env.py` is running."""
    return Path(context.script.dir)


def filled(folder: str, file: str) -> str:
    """Return the text of `file` with the schema's name inserted: see README.md."""
    return stored.fill((home() / folder / file).read_text(encoding="utf-8"), schema())


def execute(text: str) -> None:
    """Execute the statements of `text`.

    Each begins with a word in capitals at the start of a line.
    """
    for statement in re.split(r";\n+(?=--|CREATE |ALTER |UPDATE |DROP |\Z)", text):
        if statement.strip():
            context.execute(statement.strip())


def refresh_functions(former: str, folder: str = "functions") -> None:
    """Create each missing stored function of `folder`, and replace each whose text has changed.

    The mark that a function contains shows whether its text has changed: see stored.py. Owner,
    rights and comments are kept.

    A function with new parameters (with defaults, at the end), or with another result, takes the
    name of the old one. If applications call it, the old one stays as ``<name>_<former>``: users'
    objects that depend on it keep it, and a running call finds it. If only workers call it, the old
    one is dropped: they try again.

    Args:
        former: The revision whose functions are replaced: the `down_revision` of the migration
            that calls this.
        folder: The folder of the functions' files, below `migrations/`. A downgrade names the
            folder with the old texts.
    """
    functions = ",\n".join(
        f"({literal(one.name)}, {literal(one.mark)}, {str(one.name in FOR_APPLICATIONS).lower()}, {literal(one.text)})"
        for one in stored_functions(schema(), home() / folder)
    )
    parts = {
        "{namespace}": literal(quoted()),
        "{former}": literal(former),
        "{inherit}": _inherit(),
        "{functions}": functions,
    }
    text = (home() / "sql" / "refresh_functions.sql").read_text(encoding="utf-8")
    context.execute(re.sub("|".join(map(re.escape, parts)), lambda match: parts[match[0]], text).rstrip().rstrip(";"))


def _inherit() -> str:
    return (home() / "sql" / "inherit.sql").read_text(encoding="utf-8")


def retire(name: str, arguments: str, to: str) -> None:
    """Rename a function, if it exists, before another takes its name: `name` becomes `name_to`.

    It is not dropped: users' objects that depend on it (a function, a view) keep it, and a running
    statement finds it. CREATE OR REPLACE cannot add a parameter, and beside a function with one
    more default a call would be ambiguous.
    """
    former, retired = f"{quoted()}.{name}({arguments})", f"{quoted()}.{name}_{to}({arguments})"
    context.execute(
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
    """Restore the name of a function that was retired as `name_former`, if it exists."""
    taken, retired = f"{quoted()}.{name}({arguments})", f"{quoted()}.{name}_{former}({arguments})"
    context.execute(
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
    """Copy owner, rights and comment of the function `of`, if it exists, to `by`."""
    context.execute(
        f"""
        DO $do$
        DECLARE
            former constant regprocedure := to_regprocedure({literal(f"{quoted()}.{of}")});
            heir constant regprocedure := {literal(f"{quoted()}.{by}")}::regprocedure;
        BEGIN
            IF former IS NULL THEN
                RETURN;
            END IF;
            {_inherit()}
        END
        $do$
        """
    )


def discard(function: str) -> None:
    """Drop a function, named with its arguments, if it exists. Dependent objects refuse that."""
    context.execute(f"DROP FUNCTION IF EXISTS {quoted()}.{function}")
