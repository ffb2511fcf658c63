"""What keeps a migration from its work, with what to do: sessions that hold locks on jobq's tables, refusals of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from jobq.errors import MigrationRefused
from jobq.text import duration, listed, name, one_line

# Also prepared transactions: they have no process.
_BLOCKERS = """
SELECT locks.pid, coalesce(activity.usename::text, prepared.owner::text) AS role, activity.application_name, activity.state,
       CASE WHEN activity.backend_type <> 'client backend' THEN activity.backend_type END AS backend, prepared.gid,
       extract(epoch FROM clock_timestamp() - coalesce(activity.xact_start, prepared.prepared))::float8 AS seconds,
       activity.query, array_agg(DISTINCT tables.relname ORDER BY tables.relname) AS tables
FROM pg_locks AS locks
JOIN pg_class AS tables ON tables.oid = locks.relation
LEFT JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
LEFT JOIN pg_locks AS own ON locks.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'
                         AND own.virtualtransaction = locks.virtualtransaction
LEFT JOIN pg_prepared_xacts AS prepared ON prepared.transaction = own.transactionid
WHERE locks.locktype = 'relation' AND locks.granted AND locks.pid IS DISTINCT FROM pg_backend_pid()
  AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND tables.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND tables.relkind IN ('r', 'p')
  AND coalesce(activity.xact_start, prepared.prepared) < clock_timestamp() - %(seconds)s * interval '1 second'
GROUP BY locks.pid, role, activity.application_name, activity.state, backend, prepared.gid, seconds, activity.query
ORDER BY seconds DESC
LIMIT 5
"""


@dataclass(frozen=True, slots=True)
class Blocker:
    """One session, or one prepared transaction (`pid` None), with a transaction that holds locks on jobq's tables."""

    pid: int | None
    role: str | None
    application: str | None
    state: str | None
    backend: str | None
    """Its kind where it is no client's: ``autovacuum worker``."""
    gid: str | None
    seconds: float
    """The age of its transaction."""
    query: str | None
    tables: tuple[str, ...]

    def __str__(self) -> str:
        held = f"has held {listed(list(self.tables), 3)} for {duration(self.seconds)}"
        if self.pid is None:
            return f"the prepared transaction {self.gid!r} of {name(self.role or '?')} {held}"
        if self.backend is not None:
            return f"process {self.pid} ({self.backend}) {held}"
        who = f"{name(self.role or '?')}" + (f", {name(self.application)}" if self.application else "")
        return f"process {self.pid} ({who}; {self.state}) {held}: {one_line(self.query or '', 80)}"

    @property
    def fix(self) -> str:
        """What ends it."""
        if self.pid is None:
            return f"COMMIT PREPARED or ROLLBACK PREPARED '{self.gid}'"
        return f"SELECT pg_terminate_backend({self.pid})"


def find(connection: Connection, schema: str, *, older_than: float) -> list[Blocker]:
    """Return up to five with transactions older than `older_than` seconds, oldest first. Ends the connection's transaction."""
    rows = connection.exec_driver_sql(_BLOCKERS, {"schema": schema, "seconds": older_than}).all()
    connection.rollback()
    return [
        Blocker(
            pid=row.pid,
            role=row.role,
            application=row.application_name or None,
            state=row.state,
            backend=row.backend,
            gid=row.gid,
            seconds=row.seconds,
            query=row.query,
            tables=tuple(row.tables),
        )
        for row in rows
    ]


def not_free(schema: str, seconds: float, blockers: Sequence[Blocker]) -> str:
    """Return the sentence for tables that were not free within `seconds`."""
    told = f"the tables of schema {schema!r} were not free within {duration(seconds)}, so nothing was changed"
    if not blockers:
        return f"{told}: run it again when the database is less busy"
    fixes = "; ".join(dict.fromkeys(one.fix for one in blockers))
    return f"{told}: {'; '.join(map(str, blockers))}. End what holds them ({fixes}), or wait for it, and run it again"


# What the server refuses because of what stands in the database, by the class of its SQLSTATE, or by the whole.
_FIXES = {
    "2BP01": "drop these objects, or create them again without it, and run it again",
    "42501": "run it as the owner of the schema and its tables",
    "42P07": "an object of this name stands in the schema and is not jobq's: rename it, and run it again",
    "42710": "an object of this name stands in the schema and is not jobq's: rename it, and run it again",
    "42723": "a function of this name stands in the schema and is not jobq's: rename it, and run it again",
    "23": "change these rows, and run it again",
    "42": "the schema's objects are not those of its revision: put right what `jobq doctor` shows, and run it again",
    "2B": "drop what depends on it, and run it again",
    "0A": "change what it names, and run it again",
    "55": "wait for what it names, or end it, and run it again",
    "P0": "an event trigger or a function of yours refuses it: change or disable that, and run it again",
}


def raise_refused(error: DBAPIError, schema: str, revision: str | None) -> None:
    """Raise MigrationRefused with the server's message, its detail and what to do; return where the cause is another."""
    refusal = error.orig
    if not isinstance(refusal, psycopg.Error) or refusal.sqlstate is None:
        return
    fix = _FIXES.get(refusal.sqlstate) or _FIXES.get(refusal.sqlstate[:2])
    if fix is None:
        return
    said = [refusal.diag.message_primary or str(refusal)]
    if refusal.diag.message_detail:
        said.append("; ".join(refusal.diag.message_detail.splitlines()))
    # The server's hint about dependents is CASCADE, which would drop what is the user's.
    if refusal.diag.message_hint and not refusal.sqlstate.startswith("2B"):
        said.append(refusal.diag.message_hint)
    told = ". ".join(text.rstrip(".") for text in said)
    raise MigrationRefused(
        f"the database refuses the migration: {told}. Schema {schema!r} stays at revision {revision or '(no tables)'}: {fix}"
    ) from error
