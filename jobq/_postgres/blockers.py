"""What blocks a migration, with fixes.

Blockers are sessions that lock jobq's tables, and refusals of the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from jobq._core.durations import format_duration
from jobq._core.text import listed, name, one_line
from jobq.errors import MigrationRefused

LOCK_TIMEOUT = 0.4
"""Most seconds that a migration waits for its locks. Users of the tables wait behind it."""

# Includes prepared transactions, which have no process. A role without pg_read_all_stats sees no
# times of other roles' sessions.
_BLOCKERS = """
SELECT locks.pid, coalesce(activity.usename::text, prepared.owner::text) AS role, activity.application_name, activity.state,
       CASE WHEN activity.backend_type <> 'client backend' THEN activity.backend_type END AS backend, prepared.gid,
       extract(epoch FROM statement_timestamp() - coalesce(activity.xact_start, prepared.prepared))::float8 AS seconds,
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
  AND (%(all)s OR locks.mode NOT IN ('AccessShareLock', 'RowShareLock'))
  AND coalesce(activity.xact_start < statement_timestamp() - %(seconds)s * interval '1 second',
               prepared.prepared < statement_timestamp() - %(seconds)s * interval '1 second', true)
GROUP BY locks.pid, role, activity.application_name, activity.state, backend, prepared.gid, seconds, activity.query
ORDER BY seconds DESC NULLS LAST
LIMIT 5
"""


class NotFree(Exception):
    """The locks were not free in time."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session, or a prepared transaction (`pid` None), whose transaction locks jobq's tables."""

    pid: int | None
    role: str | None
    application: str | None
    state: str | None
    backend: str | None
    """The kind of a process that is no client: ``autovacuum worker``."""
    gid: str | None
    seconds: float | None
    """The age of its transaction; None if this role may not see it."""
    query: str | None
    tables: tuple[str, ...]

    def __str__(self) -> str:
        held = f"has held {listed(list(self.tables), 3)}"
        if self.seconds is not None:
            held += f" for {format_duration(self.seconds)}"
        if self.pid is None:
            return f"the prepared transaction {self.gid!r} of {name(self.role or '?')} {held}"
        if self.backend is not None:
            return f"process {self.pid} ({self.backend}) {held}"
        who = ", ".join(name(text) for text in (self.role or "?", self.application, self.state) if text)
        return f"process {self.pid} ({who}) {held}" + (f": {one_line(self.query, 80)}" if self.query else "")

    @property
    def fix(self) -> str:
        """The action that ends it."""
        if self.pid is None:
            return f"COMMIT PREPARED or ROLLBACK PREPARED '{self.gid}'"
        return f"SELECT pg_terminate_backend({self.pid})"


def find(connection: Connection, schema: str, *, older_than: float, exclusive: bool = True) -> list[Blocker]:
    """Return up to five blockers with transactions older than `older_than` seconds, oldest first.

    This ends the connection's transaction. `exclusive`: include blockers that only read.
    """
    parameters = {"schema": schema, "seconds": older_than, "all": exclusive}
    rows = connection.exec_driver_sql(_BLOCKERS, parameters).all()
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


def cancel_autovacuum(connection: Connection, schema: str, blockers: Sequence[Blocker], *, wait: float) -> None:
    """Let the server end the autovacuum workers in `blockers`.

    The server does this by itself for locks that wait longer than a migration's. The lock blocks no
    reader and no writer, only vacuum and other schema changes. `wait`: seconds.
    """
    tables = {table for blocker in blockers if blocker.backend == "autovacuum worker" for table in blocker.tables}
    quote = connection.dialect.identifier_preparer.quote_identifier
    for table in sorted(tables):
        try:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(1000 * wait):d}")
            connection.exec_driver_sql(f"LOCK TABLE {quote(schema)}.{quote(table)} IN SHARE UPDATE EXCLUSIVE MODE")
        except DBAPIError:
            pass  # The next try of the migration shows whether it helped.
        connection.rollback()


def not_free(schema: str, seconds: float, blockers: Sequence[Blocker], revision: str | None) -> str:
    """Return the message for tables that were not free within `seconds`."""
    told = (
        f"the tables of schema {schema!r} were not free within {format_duration(seconds)}, so it stays at revision "
        f"{revision or '(no tables)'}"
    )
    if not blockers:
        return f"{told}: run it again when the database is less busy"
    fixes = "; ".join(dict.fromkeys(one.fix for one in blockers))
    return f"{told}: {'; '.join(map(str, blockers))}. End what holds them ({fixes}), or wait for it, and run it again"


# Fixes for refusals because of the database's content, by SQLSTATE class or by whole SQLSTATE.
_FIXES = {
    "2BP01": "drop these objects, or create them again without it, and run it again",
    "42501": "run it as a role that owns the schema and its tables, or may create the schema in the database",
    "42P07": "an object of this name stands in the schema and is not jobq's: rename it, and run it again",
    "42710": "an object of this name stands in the schema and is not jobq's: rename it, and run it again",
    "42723": "a function of this name stands in the schema and is not jobq's: rename it, and run it again",
    "23": "change these rows, and run it again",
    "42": "the schema's objects are not those of its revision: put right what `jobq doctor` shows, and run it again",
    "2B": "drop what depends on it, and run it again",
    "0A": "change what it names, and run it again",
    "54": "make it smaller, and run it again",
    "55": "end what it names, or disable a deferred trigger of yours, and run it again",
    "P0": "an event trigger or a function of yours refuses it: change or disable that, and run it again",
}


def raise_refused(error: DBAPIError, schema: str, revision: str | None) -> None:
    """Raise MigrationRefused with the server's message, detail and a fix.

    For other causes, this returns.
    """
    refusal = error.orig
    if not isinstance(refusal, psycopg.Error) or refusal.sqlstate is None:
        return
    fix = _FIXES.get(refusal.sqlstate) or _FIXES.get(refusal.sqlstate[:2])
    if fix is None:
        return
    said = [refusal.diag.message_primary or str(refusal)]
    if refusal.diag.message_detail:
        said.append("; ".join(refusal.diag.message_detail.splitlines()))
    # The server's hint about dependent objects is CASCADE, which would drop the user's objects.
    if refusal.diag.message_hint and not refusal.sqlstate.startswith("2B"):
        said.append(refusal.diag.message_hint)
    told = ". ".join(text.rstrip(".") for text in said)
    raise MigrationRefused(
        f"the database refuses the migration: {told}. Schema {schema!r} stays at revision {revision or '(no tables)'}: {fix}"
    ) from error
