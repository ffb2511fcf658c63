"""The objects of a jobq schema.

These are tables, columns, indexes, constraints, triggers, functions and sequences.

`inventory.json` has the objects of this jobq's revision, as in a freshly migrated database.
Command:

    python -m jobq.diagnostics.inventory postgresql://… > jobq/diagnostics/inventory.json

The command writes it again; a test compares it with a migrated database. Text that servers of
different versions print differently (definitions) is kept for repairs, and not compared.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql

from jobq.diagnostics.finding import rows
from jobq.migrations.stored import stored_functions

# Partitions of single days are created and dropped.
_DAY = "_[0-9]{8}$"
_TABLES = (
    "SELECT class.oid, class.relname, class.relreplident::text FROM pg_class AS class"
    " WHERE class.relnamespace = to_regnamespace(quote_ident(%s)) AND class.relkind IN ('r', 'p') AND class.relname !~ %s"
    " ORDER BY class.relname"
)
_COLUMNS = (
    "SELECT attribute.attrelid, attribute.attname, format_type(attribute.atttypid, attribute.atttypmod),"
    " attribute.attnotnull,"
    " CASE WHEN attribute.attidentity <> '' THEN 'identity' WHEN attribute.atthasdef THEN 'default' ELSE '' END"
    " FROM pg_attribute AS attribute"
    " WHERE attribute.attrelid = ANY (%s::oid[]) AND attribute.attnum > 0 AND NOT attribute.attisdropped"
    " ORDER BY attribute.attrelid, attribute.attname"
)
_INDEXES = (
    "SELECT class.relname, of.relname, index.indisunique, index.indpred IS NOT NULL,"
    " ARRAY(SELECT pg_get_indexdef(index.indexrelid, n, true) FROM generate_series(1, index.indnatts) AS n),"
    " index.indisvalid AND index.indisready, pg_get_indexdef(index.indexrelid)"
    " FROM pg_index AS index JOIN pg_class AS class ON class.oid = index.indexrelid"
    " JOIN pg_class AS of ON of.oid = index.indrelid"
    " WHERE index.indrelid = ANY (%s::oid[]) ORDER BY class.relname"
)
_CONSTRAINTS = (
    "SELECT class.relname, entry.conname, entry.contype::text, entry.convalidated, pg_get_constraintdef(entry.oid)"
    " FROM pg_constraint AS entry JOIN pg_class AS class ON class.oid = entry.conrelid"
    # From version 18 on, NOT NULL is a separate constraint; here it belongs to the column.
    " WHERE entry.conrelid = ANY (%s::oid[]) AND entry.contype IN ('c', 'p', 'u', 'f', 'x')"
    " ORDER BY class.relname, entry.conname"
)
_TRIGGERS = (
    "SELECT class.relname, entry.tgname, entry.tgtype::integer, code.proname, entry.tgenabled::text,"
    " pg_get_triggerdef(entry.oid) FROM pg_trigger AS entry JOIN pg_class AS class ON class.oid = entry.tgrelid"
    " JOIN pg_proc AS code ON code.oid = entry.tgfoid"
    " WHERE entry.tgrelid = ANY (%s::oid[]) AND NOT entry.tgisinternal ORDER BY class.relname, entry.tgname"
)
_FUNCTIONS = (
    "SELECT code.proname, oidvectortypes(code.proargtypes), language.lanname, code.prosrc FROM pg_proc AS code"
    " JOIN pg_language AS language ON language.oid = code.prolang"
    " WHERE code.pronamespace = to_regnamespace(quote_ident(%s))"
    # Without functions of old revisions (migrations/steps.py, retire): only users' objects need
    # them.
    " AND code.proname !~ '_[0-9]{4}$' ORDER BY code.proname, 2"
)
_SEQUENCES = (
    "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND relkind = 'S'"
    " ORDER BY relname"
)


def read(connection: psycopg.Connection[Any], schema: str) -> dict[str, Any]:
    """Return the objects in `schema`, by kind and name.

    This reads only catalogues, as any role may.
    """
    tables = rows(connection, _TABLES, schema, _DAY)
    oids, names = [oid for oid, _, _ in tables], {oid: name for oid, name, _ in tables}
    quoted = sql.Identifier(schema).as_string(connection)
    found: dict[str, Any] = {
        "tables": {name: {"identity": identity, "columns": {}} for _, name, identity in tables},
        "indexes": {},
        "constraints": {},
        "triggers": {},
        "functions": {},
        "sequences": [name for (name,) in rows(connection, _SEQUENCES, schema)],
    }
    for oid, name, kind, required, default in rows(connection, _COLUMNS, oids):
        found["tables"][names[oid]]["columns"][name] = [kind, required, default]
    for name, table, unique, partial, columns, valid, text in rows(connection, _INDEXES, oids):
        found["indexes"][name] = {
            "table": table, "unique": unique, "partial": partial, "columns": columns, "valid": valid,
            "definition": _general(text, schema, quoted),
        }  # fmt: skip
    for table, name, kind, valid, text in rows(connection, _CONSTRAINTS, oids):
        found["constraints"][f"{table}.{name}"] = {"kind": kind, "valid": valid, "definition": text}
    for table, name, kind, function, enabled, text in rows(connection, _TRIGGERS, oids):
        found["triggers"][f"{table}.{name}"] = {
            "kind": kind, "function": function, "enabled": enabled, "definition": _general(text, schema, quoted),
        }  # fmt: skip
    for name, arguments, language, source in rows(connection, _FUNCTIONS, schema):
        found["functions"][f"{name}({arguments})"] = {"language": language, "source": source}
    return found


def expected() -> dict[str, Any]:
    """Return the objects of this jobq's revision. `functions` are without their sources."""
    found: dict[str, Any] = json.loads(files("jobq.diagnostics").joinpath("inventory.json").read_text(encoding="utf-8"))
    return found


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """Return `found` without version-dependent text and without functions' sources."""
    return {
        kind: {
            name: {key: value for key, value in one.items() if key not in ("definition", "source")}
            for name, one in objects.items()
        }
        if isinstance(objects, dict)
        else objects
        for kind, objects in found.items()
        if kind != "revision"
    }


def sources(schema: str) -> dict[str, str]:
    """Return the source of each stored function of this revision by name, for `schema`.

    The sources come from the files that the migrations apply (migrations/functions).
    """
    return {function.name: function.source for function in stored_functions(schema)}


def _general(text: str, schema: str, quoted: str) -> str:
    """Return a definition with ``{schema}`` in place of the schema's name."""
    return text.replace(f"{quoted}.", "{schema}.")


def main() -> None:
    """Print the inventory of schema `jobq` in the database named on the command line."""
    from jobq._postgres import connecting
    from jobq._postgres.sql import REVISION

    with connecting.connect(sys.argv[1], "inventory") as connection:
        found = read(connection, "jobq")
    for function in found["functions"].values():
        del function["source"]
    sys.stdout.write(json.dumps({"revision": REVISION, **found}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
