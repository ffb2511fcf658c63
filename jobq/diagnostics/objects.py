"""Whether the schema has all objects of its revision.

These are tables, columns, indexes, constraints, triggers and functions.

The revision in the database is only a label: an index may have been
dropped since, or triggers disabled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import sql

from jobq._core.text import be, listed, plural
from jobq.diagnostics import inventory
from jobq.diagnostics.finding import Check, Fault, Finding, Status, rows
from jobq.diagnostics.snapshot import Snapshot

_AGAIN = "take it from what `jobq migrate --sql` prints"
_FUNCTION_AGAIN = (
    "run the DO block in which `jobq migrate --sql` prints its text: functions that are right stay as they are"
)
_UNEQUAL_PARTITIONS = (
    "SELECT class.relname FROM pg_class AS class JOIN pg_inherits ON pg_inherits.inhrelid = class.oid"
    " JOIN pg_class AS parent ON parent.oid = pg_inherits.inhparent"
    " WHERE class.relnamespace = to_regnamespace(quote_ident(%s)) AND class.relkind = 'r'"
    " AND class.relreplident <> parent.relreplident ORDER BY class.relname LIMIT 1000"
)


class _Objects:
    """The objects found and the objects expected, and findings about their differences."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._connection, self._schema = snapshot.connection, snapshot.schema
        self.found, self.expected = inventory.read(snapshot.connection, snapshot.schema), inventory.expected()

    def missing(self, kind: str) -> list[str]:
        """Return the names of expected objects of `kind` that are missing."""
        return [name for name in self.expected[kind] if name not in self.found[kind]]

    def pairs(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        """Yield each existing object of `kind`.

        The values are its name, its actual form, and its expected form.
        """
        for name, wanted in self.expected[kind].items():
            if (there := self.found[kind].get(name)) is not None:
                yield name, there, wanted

    def sql(self, text: str, *names: str) -> str:
        """Return `text` with ``{}`` replaced by the names, each quoted and with its schema."""
        filled = sql.SQL(text).format(*(sql.Identifier(self._schema, name) for name in names))
        return filled.as_string(self._connection)

    def quoted(self, name: str) -> str:
        """Return `name` quoted."""
        return sql.Identifier(name).as_string(self._connection)

    def sources(self) -> dict[str, str]:
        """Return the expected sources of functions by name."""
        return inventory.sources(self._schema)

    def definition(self, kind: str, name: str) -> str:
        """Return the statement that creates an object."""
        text: str = self.expected[kind][name]["definition"]
        return text.replace("{schema}", self.quoted(self._schema))


def _objects(snapshot: Snapshot) -> Iterator[Finding]:
    objects = _Objects(snapshot)
    yield from _tables(objects)
    yield from _indexes(objects)
    yield from _constraints(objects)
    yield from _triggers(objects)
    yield from _functions(objects)
    yield from _identities(snapshot, objects)


def _finding(what: str, names: list[str], predicate: str, fix: str, status: Status = Status.FAIL) -> Iterator[Finding]:
    """Yield one finding about `names`, if there are any; several of them have one cause."""
    if names:
        which = f"{what} {names[0]} {be(1)}" if len(names) == 1 else f"{plural(len(names), what)} {be(2)}"
        which = which.replace("indexs", "indexes")
        some = "" if len(names) == 1 else f": {listed(names, 10)}"
        yield Finding(
            check="objects",
            status=status,
            message=f"{which} {predicate}{some}",
            fix=fix if len(names) == 1 else f"{fix}; and so for each",
            fault=Fault.CONFIGURATION,
            page="system",
        )


def _tables(objects: _Objects) -> Iterator[Finding]:
    yield from _finding("table", objects.missing("tables"), "missing", f"restore it from a backup, or {_AGAIN}")
    sequences = [name for name in objects.expected["sequences"] if name not in objects.found["sequences"]]
    yield from _finding("sequence", sequences, "missing", _AGAIN)
    missing, other = [], []
    for table, there, wanted in objects.pairs("tables"):
        for column, kind in wanted["columns"].items():
            if column not in there["columns"]:
                missing.append(f"{table}.{column}")
            elif there["columns"][column] != kind:
                other.append(f"{table}.{column}")
    yield from _finding("column", missing, "missing", _AGAIN)
    yield from _finding("column", other, "of another type, NOT NULL or default than its revision has", _AGAIN)


def _indexes(objects: _Objects) -> Iterator[Finding]:
    # The index of a key is reported as a missing constraint.
    keys = {name.partition(".")[2] for name in objects.missing("constraints")}
    missing = [name for name in objects.missing("indexes") if name not in keys]
    if missing:
        make = objects.definition("indexes", missing[0])
        yield from _finding("index", missing, "missing, and what reads by it reads whole tables", make)
    invalid, other = [], []
    for name, there, wanted in objects.pairs("indexes"):
        if not there["valid"]:
            invalid.append(name)
        elif any(there[key] != wanted[key] for key in ("table", "unique", "partial", "columns")):
            other.append(name)
    if invalid:
        yield from _finding("index", invalid, "invalid: it is not used", objects.sql("REINDEX INDEX {}", invalid[0]))
    if other:
        make = f"{objects.sql('DROP INDEX {}', other[0])}; {objects.definition('indexes', other[0])}"
        yield from _finding("index", other, "another one than its revision has", make)


def _constraints(objects: _Objects) -> Iterator[Finding]:
    def add(name: str) -> str:
        table, _, constraint = name.partition(".")
        made = objects.expected["constraints"][name]["definition"]
        return f"{objects.sql('ALTER TABLE {}', table)} ADD CONSTRAINT {objects.quoted(constraint)} {made}"

    # The constraints of a missing table are missing with it.
    gone = set(objects.missing("tables"))
    missing = [name for name in objects.missing("constraints") if name.partition(".")[0] not in gone]
    if missing:
        yield from _finding("constraint", missing, "missing", add(missing[0]))
    pairs = list(objects.pairs("constraints"))
    invalid = [name for name, there, wanted in pairs if wanted["valid"] and not there["valid"]]
    if invalid:
        table, _, constraint = invalid[0].partition(".")
        validate = f"{objects.sql('ALTER TABLE {}', table)} VALIDATE CONSTRAINT {objects.quoted(constraint)}"
        yield from _finding("constraint", invalid, "not valid: rows may break it", validate, Status.WARN)


def _triggers(objects: _Objects) -> Iterator[Finding]:
    gone = set(objects.missing("tables"))
    missing = [name for name in objects.missing("triggers") if name.partition(".")[0] not in gone]
    effect = "inserted jobs wake no worker, and groups get no turn"
    if missing:
        yield from _finding("trigger", missing, f"missing: {effect}", objects.definition("triggers", missing[0]))
    pairs = list(objects.pairs("triggers"))
    # O: origin, the usual value; A: always. D: disabled; R: only on a replica.
    off = [name for name, there, _ in pairs if there["enabled"] not in ("O", "A")]
    if off:
        table, _, trigger = off[0].partition(".")
        enable = f"{objects.sql('ALTER TABLE {}', table)} ENABLE TRIGGER {objects.quoted(trigger)}"
        yield from _finding("trigger", off, f"disabled: {effect}", enable)
    other = [name for name, there, wanted in pairs if any(there[key] != wanted[key] for key in ("kind", "function"))]
    yield from _finding("trigger", other, "another one than its revision has", _AGAIN)


def _functions(objects: _Objects) -> Iterator[Finding]:
    yield from _finding("function", objects.missing("functions"), "missing", _FUNCTION_AGAIN)
    sources = objects.sources()
    other = [
        name
        for name, there, _ in objects.pairs("functions")
        if (source := sources.get(name.partition("(")[0])) is not None and there["source"] != source
    ]
    yield from _finding("function", other, "another one than its revision has", _FUNCTION_AGAIN, Status.WARN)


def _identities(snapshot: Snapshot, objects: _Objects) -> Iterator[Finding]:
    other = [name for name, there, wanted in objects.pairs("tables") if there["identity"] != wanted["identity"]]
    other += [name for (name,) in rows(snapshot.connection, _UNEQUAL_PARTITIONS, snapshot.schema) if name not in other]
    if other:
        wanted = objects.expected["tables"].get(other[0], {"identity": "f"})["identity"]
        kind = {"f": "FULL", "d": "DEFAULT", "n": "NOTHING"}.get(wanted, "FULL")
        yield from _finding(
            "table",
            other,
            "of another replica identity than its revision has: a publication may keep its rows from being changed",
            objects.sql("ALTER TABLE {} REPLICA IDENTITY ", other[0]) + kind,
            Status.WARN,
        )


OBJECT_CHECKS: dict[str, tuple[Check, str]] = {
    "objects": (_objects, "tables, indexes, triggers and functions are as they should be")
}
"""Each check by name, with the text if it finds nothing."""
