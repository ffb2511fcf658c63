"""What `jobq doctor` looks at in the server and its settings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg

from jobq import queries
from jobq.cli.checks_load import shortened
from jobq.cli.exits import Exit
from jobq.cli.findings import Check, Finding, Status, rows
from jobq.cli.output import duration, plural

OLDEST_SERVER = 14
LONG_TRANSACTION = 300  # seconds
CLOCK_SKEW = 2.0  # seconds


def _server(connection: psycopg.Connection[Any], _schema: str) -> Iterator[Finding]:
    number = connection.info.server_version
    version = f"PostgreSQL {number // 10000}.{number % 10000}"
    if number < OLDEST_SERVER * 10000:
        yield Finding(
            check="server",
            status=Status.FAIL,
            message=f"{version} is too old",
            mend=f"upgrade to PostgreSQL {OLDEST_SERVER} or newer",
            exit_code=Exit.CONFIGURATION,
        )
        return
    [(standby,)] = rows(connection, "SELECT pg_is_in_recovery()")
    if standby:
        yield Finding(
            check="server",
            status=Status.FAIL,
            message=f"{version} is a standby, which is read-only",
            mend="name the primary in JOBQ_DATABASE_URL",
            exit_code=Exit.CONFIGURATION,
        )
        return
    yield Finding(check="server", status=Status.OK, message=version)


def _connection(connection: psycopg.Connection[Any], _schema: str) -> Iterator[Finding]:
    [(pid,)] = rows(connection, "SELECT pg_backend_pid()")
    # A pooler hands out cancel keys of its own, so the process id of the handshake is not the server's.
    if pid != connection.info.backend_pid:
        yield Finding(
            check="connection",
            status=Status.WARN,
            message="a pooler such as PgBouncer stands between: workers claim more slowly, hear no notification "
            "unless JOBQ_DIRECT_URL is set, and a killed worker's jobs wait for its whole lease",
            mend="nothing, if that is wanted; else let workers connect directly, or set JOBQ_POOLER=none where the "
            "pooler is in session mode. Enqueueing through it is fine",
        )


def _clock(connection: psycopg.Connection[Any], _schema: str) -> Iterator[Finding]:
    before = datetime.now(UTC)
    start = time.monotonic()
    [(server,)] = rows(connection, "SELECT clock_timestamp()")
    half = (time.monotonic() - start) / 2
    skew = (server - before).total_seconds() - half
    if abs(skew) > CLOCK_SKEW:
        yield Finding(
            check="clock",
            status=Status.WARN,
            message=f"the server's clock is {duration(abs(skew))} "
            f"{'ahead of' if skew > 0 else 'behind'} this machine's",
            mend="run NTP on both; jobq goes by the server's clock, your run_at by this one's",
        )
    else:
        yield Finding(check="clock", status=Status.OK, message=f"within {duration(CLOCK_SKEW)} of the server's")


def _durability(connection: psycopg.Connection[Any], _schema: str) -> Iterator[Finding]:
    for name, loss in (
        ("fsync", "a crash of the machine can destroy the database"),
        ("full_page_writes", "a crash of the machine can destroy the database"),
        ("synchronous_commit", "a crash of the server can lose the last committed jobs"),
    ):
        [(value,)] = rows(connection, "SELECT current_setting(%s)", name)
        if value == "off":
            yield Finding(
                check="durability",
                status=Status.WARN,
                message=f"{name} is off: {loss}",
                mend=f"set {name} = on, except where losing jobs does not matter",
            )


def _autovacuum(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    off = [
        name
        for name in ("autovacuum", "track_counts")
        if rows(connection, "SELECT current_setting(%s)", name) == [("off",)]
    ]
    for name in off:
        yield Finding(
            check="autovacuum",
            status=Status.FAIL,
            message=f"{name} is off: the job table will bloat until claims are slow",
            mend=f"set {name} = on and reload",
            exit_code=Exit.CONFIGURATION,
        )
    tables = rows(
        connection,
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%s))"
        " AND 'autovacuum_enabled=false' = ANY(reloptions) ORDER BY relname LIMIT 20",
        schema,
    )
    for (table,) in tables:
        yield Finding(
            check="autovacuum",
            status=Status.FAIL,
            message=f"it is switched off for table {schema}.{table}",
            mend=f"ALTER TABLE {schema}.{table} RESET (autovacuum_enabled)",
            exit_code=Exit.CONFIGURATION,
        )
    if not off and not tables:
        yield Finding(check="autovacuum", status=Status.OK, message="on")


def _transactions(connection: psycopg.Connection[Any], _schema: str) -> Iterator[Finding]:
    for pid, who, state, seconds, query in rows(
        connection,
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
            message=f"process {pid} ({who}, {state}) has one open for {duration(seconds)}: vacuum cannot clean up"
            + (f"; its statement: {said}" if (said := shortened(query)) else ""),
            mend=f"end it with SELECT pg_terminate_backend({pid}), and set idle_in_transaction_session_timeout",
        )
    for name, seconds in rows(
        connection,
        "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::double precision FROM pg_prepared_xacts"
        " WHERE prepared < clock_timestamp() - make_interval(secs => %s) ORDER BY prepared LIMIT 5",
        LONG_TRANSACTION,
    ):
        yield Finding(
            check="transactions",
            status=Status.WARN,
            message=f"prepared transaction {name!r} is open for {duration(seconds)}: vacuum cannot clean up",
            mend="COMMIT PREPARED or ROLLBACK PREPARED it",
        )
    for slot, age in rows(
        connection,
        "SELECT slot_name, greatest(age(xmin), age(catalog_xmin)) FROM pg_replication_slots"
        " WHERE NOT active AND greatest(age(xmin), age(catalog_xmin)) > 100000 LIMIT 5",
    ):
        yield Finding(
            check="transactions",
            status=Status.WARN,
            message=f"the unused replication slot {slot!r} holds back vacuum by {plural(age, 'transaction')}",
            mend=f"drop it if nobody needs it: SELECT pg_drop_replication_slot('{slot}')",
        )


def schema_fits(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    from jobq import migrate

    head = migrate.head()
    try:
        with connection.transaction():
            found = queries.schema_revision(connection, schema)
    except psycopg.errors.InsufficientPrivilege:
        [(role,)] = rows(connection, "SELECT current_user")
        yield Finding(
            check="schema",
            status=Status.FAIL,
            message=f"role {role} may not read schema {schema!r}",
            mend="grant it one of the roles in deploy/",
            exit_code=Exit.CONFIGURATION,
        )
        return
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        found = None
    if found == head:
        yield Finding(check="schema", status=Status.OK, message=f"{schema!r} is at revision {found}")
        return
    known = found is None or found < head  # revisions are numbered
    yield Finding(
        check="schema",
        status=Status.FAIL,
        message=f"{schema!r} "
        + ("has no jobq tables" if found is None else f"is at revision {found}, this jobq needs {head}"),
        mend="run `jobq migrate`" if known else "it was made by a newer jobq: upgrade this one",
        exit_code=Exit.CONFIGURATION,
    )


def _encoding(connection: psycopg.Connection[Any], _schema: str) -> Iterator[Finding]:
    [(value,)] = rows(connection, "SELECT current_setting('server_encoding')")
    if value != "UTF8":
        yield Finding(
            check="encoding",
            status=Status.FAIL,
            message=f"the database has the encoding {value}, in which not every text can be stored",
            mend="create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name that",
            exit_code=Exit.CONFIGURATION,
        )


SERVER_CHECKS: dict[str, tuple[Check, str]] = {
    "server": (_server, "fine"),
    "encoding": (_encoding, "UTF8"),
    "connection": (_connection, "direct, no pooler in between"),
    "clock": (_clock, "fine"),
    "durability": (_durability, "commits are flushed to disk"),
    "autovacuum": (_autovacuum, "on"),
    "transactions": (_transactions, f"none is older than {duration(LONG_TRANSACTION)}"),
}
"""Each check by its name, with what to say when it finds nothing."""
