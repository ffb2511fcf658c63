"""The server and its settings, and whether the schema has this jobq's revision."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from jobq import queries
from jobq._core.durations import format_duration
from jobq._core.text import listed, name, plural
from jobq._postgres.sql import REVISION
from jobq.diagnostics.finding import Check, Fault, Finding, Status, rows
from jobq.diagnostics.load import shortened
from jobq.diagnostics.snapshot import Snapshot

OLDEST_SERVER = 14
LONG_TRANSACTION = 300  # seconds
CLOCK_SKEW = 2.0  # seconds


def _server(snapshot: Snapshot) -> Iterator[Finding]:
    number = snapshot.connection.info.server_version
    version = f"PostgreSQL {number // 10000}.{number % 10000}"
    if number < OLDEST_SERVER * 10000:
        yield Finding(
            check="server",
            status=Status.FAIL,
            message=f"{version} is too old",
            fix=f"upgrade to PostgreSQL {OLDEST_SERVER} or newer",
            fault=Fault.CONFIGURATION,
        )
        return
    [(standby,)] = rows(snapshot.connection, "SELECT pg_is_in_recovery()")
    if standby:
        yield Finding(
            check="server",
            status=Status.FAIL,
            message=f"{version} is a standby, which is read-only",
            fix="name the primary in JOBQ_DATABASE_URL",
            fault=Fault.CONFIGURATION,
        )
        return
    # Not transaction_read_only, because the page uses read-only transactions.
    [(read_only,)] = rows(snapshot.connection, "SELECT current_setting('default_transaction_read_only')")
    if read_only == "on":
        [(role,)] = rows(snapshot.connection, "SELECT current_user")
        yield Finding(
            check="server",
            status=Status.FAIL,
            message=f"{version} is read-only by its settings (default_transaction_read_only is on for role {name(role)}): no "
            "job can be enqueued, started or ended",
            fix="ALTER SYSTEM, ALTER DATABASE or ALTER ROLE … SET default_transaction_read_only = off; a hosted server "
            "whose disk is full sets it: make room first",
            fault=Fault.CONFIGURATION,
            page="system",
        )
        return
    yield Finding(check="server", status=Status.OK, message=version)


def _connection(snapshot: Snapshot) -> Iterator[Finding]:
    [(pid,)] = rows(snapshot.connection, "SELECT pg_backend_pid()")
    # A pooler uses its own cancel keys, so the process id of the handshake is not the server's.
    if pid != snapshot.connection.info.backend_pid:
        yield Finding(
            check="connection",
            status=Status.WARN,
            message="a pooler such as PgBouncer stands between: workers claim more slowly, hear no notification "
            "unless JOBQ_DIRECT_URL is set, and a killed worker's jobs wait for its whole lease",
            fix="nothing, if that is wanted; else let workers connect directly, or set JOBQ_POOLER=none where the "
            "pooler is in session mode. Enqueueing through it is fine",
        )


def _clock(snapshot: Snapshot) -> Iterator[Finding]:
    before = datetime.now(UTC)
    start = time.monotonic()
    [(server,)] = rows(snapshot.connection, "SELECT clock_timestamp()")
    half = (time.monotonic() - start) / 2
    skew = (server - before).total_seconds() - half
    if abs(skew) > CLOCK_SKEW:
        yield Finding(
            check="clock",
            status=Status.WARN,
            message=f"the server's clock is {format_duration(abs(skew))} "
            f"{'ahead of' if skew > 0 else 'behind'} this machine's",
            fix="run NTP on both; jobq goes by the server's clock, your run_at by this one's",
        )
    else:
        yield Finding(check="clock", status=Status.OK, message=f"within {format_duration(CLOCK_SKEW)} of the server's")


def _durability(snapshot: Snapshot) -> Iterator[Finding]:
    lost = {
        "fsync": "a crash of the machine can destroy the database",
        "full_page_writes": "a crash of the machine can destroy the database",
        "synchronous_commit": "a crash of the server can lose the last committed jobs",
    }
    for setting, loss in lost.items():
        [(value,)] = rows(snapshot.connection, "SELECT current_setting(%s)", setting)
        if value == "off":
            yield Finding(
                check="durability",
                status=Status.WARN,
                message=f"{setting} is off: {loss}",
                fix=f"set {setting} = on, except where losing jobs does not matter",
                page="system",
            )


def _autovacuum(snapshot: Snapshot) -> Iterator[Finding]:
    off = [
        setting
        for setting in ("autovacuum", "track_counts")
        if rows(snapshot.connection, "SELECT current_setting(%s)", setting) == [("off",)]
    ]
    for setting in off:
        yield Finding(
            check="autovacuum",
            status=Status.FAIL,
            message=f"{setting} is off: the job table will bloat until claims are slow",
            fix=f"set {setting} = on and reload",
            fault=Fault.CONFIGURATION,
            page="system",
        )
    tables = [
        table
        for (table,) in rows(
            snapshot.connection,
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%s))"
            " AND 'autovacuum_enabled=false' = ANY(reloptions) ORDER BY relname LIMIT 1000",
            snapshot.schema,
        )
    ]
    if tables:
        reset = sql.SQL("ALTER TABLE {} RESET (autovacuum_enabled)").format(sql.Identifier(snapshot.schema, tables[0]))
        yield Finding(
            check="autovacuum",
            status=Status.FAIL,
            message=f"autovacuum is switched off for table {listed([f'{snapshot.schema}.{table}' for table in tables])}",
            fix=reset.as_string(snapshot.connection) + ("" if len(tables) == 1 else ", and so for each"),
            fault=Fault.CONFIGURATION,
            page="system",
        )
    if not off and not tables:
        yield Finding(check="autovacuum", status=Status.OK, message="on")


def _transactions(snapshot: Snapshot) -> Iterator[Finding]:
    for pid, who, state, seconds, query in rows(
        snapshot.connection,
        "SELECT pid, concat_ws(' ', usename, nullif(application_name, '')),"
        " coalesce(state, backend_type),"
        " extract(epoch FROM clock_timestamp() - xact_start)::double precision, query FROM pg_stat_activity"
        " WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()"
        " AND backend_type <> 'autovacuum worker'"
        " AND xact_start < clock_timestamp() - make_interval(secs => %s) ORDER BY xact_start LIMIT 5",
        LONG_TRANSACTION,
    ):
        yield Finding(
            check="transactions",
            status=Status.WARN,
            message=f"process {pid} ({who}, {state}) has a transaction open for {format_duration(seconds)}: "
            "vacuum cannot clean up" + (f"; its statement: {said}" if (said := shortened(query)) else ""),
            fix=f"end it with SELECT pg_terminate_backend({pid}), and set idle_in_transaction_session_timeout",
        )
    for gid, seconds in rows(
        snapshot.connection,
        "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::double precision FROM pg_prepared_xacts"
        " WHERE prepared < clock_timestamp() - make_interval(secs => %s) ORDER BY prepared LIMIT 5",
        LONG_TRANSACTION,
    ):
        yield Finding(
            check="transactions",
            status=Status.WARN,
            message=f"prepared transaction {gid!r} is open for {format_duration(seconds)}: vacuum cannot clean up",
            fix="COMMIT PREPARED or ROLLBACK PREPARED it",
            page="system",
        )
    for slot, age in rows(
        snapshot.connection,
        "SELECT slot_name, greatest(age(xmin), age(catalog_xmin)) FROM pg_replication_slots"
        " WHERE NOT active AND greatest(age(xmin), age(catalog_xmin)) > 100000 LIMIT 5",
    ):
        yield Finding(
            check="transactions",
            status=Status.WARN,
            message=f"the unused replication slot {slot!r} holds back vacuum by {plural(age, 'transaction')}",
            fix=f"drop it if it is no longer needed: SELECT pg_drop_replication_slot('{slot}')",
            page="system",
        )


def schema_fits(snapshot: Snapshot) -> Iterator[Finding]:
    """Check whether the schema has the revision that this jobq needs."""
    schema = name(snapshot.schema)
    try:
        with snapshot.connection.transaction():
            found = queries.schema_revision(snapshot.connection, snapshot.schema)
    except psycopg.errors.InsufficientPrivilege:
        [(role,)] = rows(snapshot.connection, "SELECT current_user")
        yield Finding(
            check="schema",
            status=Status.FAIL,
            message=f"role {name(role)} may not read schema {schema!r}",
            fix="grant it one of the roles in deploy/",
            fault=Fault.CONFIGURATION,
            page="system",
        )
        return
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        found = None
    if found == REVISION:
        yield Finding(check="schema", status=Status.OK, message=f"{schema!r} is at revision {found}")
        return
    known = found is None or found < REVISION  # revisions are numbered
    if found is not None and not known and queries.supports_this_version(snapshot.connection, snapshot.schema, found):
        yield Finding(
            check="schema",
            status=Status.WARN,
            message=f"schema {schema!r} is at revision {found}, newer than this jobq ({REVISION}), and works with it",
            fix="nothing while a deployment is under way; else upgrade this one",
            page="system",
        )
        return
    yield Finding(
        check="schema",
        status=Status.FAIL,
        message=f"schema {schema!r} "
        + ("has no jobq tables" if found is None else f"is at revision {found}, this jobq needs {REVISION}"),
        fix="run `jobq migrate`" if known else "it was made by a newer jobq: upgrade this one",
        fault=Fault.CONFIGURATION,
        page="system",
    )


def _encoding(snapshot: Snapshot) -> Iterator[Finding]:
    [(value,)] = rows(snapshot.connection, "SELECT current_setting('server_encoding')")
    if value != "UTF8":
        yield Finding(
            check="encoding",
            status=Status.FAIL,
            message=f"the database has the encoding {value}, in which not every text can be stored",
            fix="create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name that",
            fault=Fault.CONFIGURATION,
            page="system",
        )


SERVER_CHECKS: dict[str, tuple[Check, str]] = {
    "server": (_server, "fine"),
    "encoding": (_encoding, "UTF8"),
    "connection": (_connection, "direct, no pooler in between"),
    "clock": (_clock, "fine"),
    "durability": (_durability, "commits are flushed to disk"),
    "autovacuum": (_autovacuum, "on"),
    "transactions": (_transactions, f"none is older than {format_duration(LONG_TRANSACTION)}"),
}
"""Each check by name, with the text if it finds nothing."""
