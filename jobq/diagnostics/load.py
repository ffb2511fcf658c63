"""What runs short: connections, notifications, vacuum; and how workers are woken."""

from __future__ import annotations

import re
from collections.abc import Iterator

from psycopg import sql

from jobq.diagnostics.finding import Check, Finding, Status, rows
from jobq.diagnostics.snapshot import Snapshot
from jobq.text import duration, one_line

DEAD_ROWS = 50_000  # ten times what makes autovacuum start
CONNECTIONS_LEFT = 10
FEW_CONNECTIONS = 5  # a worker takes four
NOTIFY_USAGE = 0.05
# Of the sequence `wake`: see jobq.worker.brisk.Mode, which the command line does not load for this.
_QUIET, _BRISK = 1, 2
_TABLES = ("job", "job_key", "worker")


def connections_left(snapshot: Snapshot) -> Iterator[Finding]:
    """How near the server is to its limit of connections. Each worker takes four, the sentinel five, and one for schedules."""
    [(used, most)] = rows(
        snapshot.connection,
        # pg_stat_activity would hide the others' from a role without pg_read_all_stats.
        "SELECT (SELECT sum(numbackends)::integer FROM pg_stat_database),"
        " current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer",
    )
    left = most - used
    yield Finding(
        check="connections",
        status=Status.OK if left >= CONNECTIONS_LEFT else Status.WARN if left >= FEW_CONNECTIONS else Status.FAIL,
        message=f"{used} of {most} connections are taken",
        fix=""
        if left >= CONNECTIONS_LEFT
        else "raise max_connections, lower pool_size, or put a pooler before producers",
    )


def notifications(snapshot: Snapshot) -> Iterator[Finding]:
    """How full the server's queue of notifications is; when it is full, commits that notify fail."""
    [(usage,)] = rows(snapshot.connection, "SELECT pg_notification_queue_usage()")
    if usage >= NOTIFY_USAGE:
        yield Finding(
            check="notify",
            status=Status.FAIL if usage >= 0.5 else Status.WARN,
            message=f"the server's notification queue is {usage:.0%} full; when it is full, enqueueing fails",
            fix="a session that listens holds a transaction open: see `transactions`, and end it",
        )
    else:
        yield Finding(check="notify", status=Status.OK, message=f"the notification queue is {usage:.0%} full")


def dead_rows(snapshot: Snapshot) -> Iterator[Finding]:
    """Dead rows in the tables that claims read, and when they were last vacuumed. By the server's own counts."""
    told = []
    for table, dead, live, since in rows(
        snapshot.connection,
        "SELECT relname, n_dead_tup, n_live_tup, extract(epoch FROM clock_timestamp()"
        " - greatest(last_vacuum, last_autovacuum))::double precision FROM pg_stat_user_tables"
        " WHERE schemaname = %s AND relname = ANY (%s) ORDER BY relname",
        snapshot.schema,
        list(_TABLES),
    ):
        when = "never vacuumed" if since is None else f"vacuumed {duration(since)} ago"
        told.append(f"{table} {dead:,}, {when}")
        if dead >= DEAD_ROWS and dead > live:
            yield Finding(
                check="dead rows",
                status=Status.WARN,
                message=f"{snapshot.schema}.{table} has {dead:,} dead rows and {live:,} live ones, {when}: claims slow down",
                fix=f"VACUUM {snapshot.schema}.{table}; if that frees none, something in `transactions` holds them back",
            )
            return
    if told:
        yield Finding(check="dead rows", status=Status.OK, message="; ".join(told))


def wake(snapshot: Snapshot) -> Iterator[Finding]:
    """Whether inserts notify, and else who looks for jobs instead."""
    query = sql.SQL("SELECT last_value FROM {}").format(sql.Identifier(snapshot.schema, "wake"))
    [(mode,)] = rows(snapshot.connection, query)
    found = rows(
        snapshot.connection,
        "SELECT session.application_name FROM pg_locks AS lock JOIN pg_stat_activity AS session USING (pid)"
        " WHERE lock.locktype = 'advisory' AND lock.objsubid = 2 AND lock.granted AND lock.classid = 1785684593"
        " AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND lock.objid = %s::regclass",
        sql.Identifier(snapshot.schema, "wake").as_string(snapshot.connection),
    )
    if mode == _QUIET:
        yield Finding(check="wake", status=Status.OK, message="quiet: inserts notify the workers")
    elif found:
        _, _, pid, host = (*found[0][0].split(" ", 3), "", "", "", "")[:4]
        how = "brisk: inserts are silent" if mode == _BRISK else "settling: inserts notify again"
        yield Finding(check="wake", status=Status.OK, message=f"{how}; process {pid} of {host} looks for jobs")
    else:
        yield Finding(
            check="wake",
            status=Status.WARN,
            message="inserts are or were silent, and no worker looks for them: jobs start with a delay of up to a second",
            fix="nothing, if workers were just started or stopped: one takes the place within seconds. Through a pooler "
            "none can: set JOBQ_DIRECT_URL",
        )


def shortened(query: str | None) -> str:
    """Return a statement fit for a report: its values hidden, on one line, not long."""
    if not query:
        return ""
    hidden = re.sub(r"\$(\w*)\$.*?\$\1\$", "'…'", query, flags=re.DOTALL)
    hidden = re.sub(r"[eE]?'(?:[^'\\]|''|\\.)*(?:'|$)", "'…'", hidden)
    hidden = re.sub(r"(?<![\w$])\d+(?:\.\d+)?\b", "…", hidden)
    return one_line(" ".join(hidden.split()), 100)


LOAD_CHECKS: dict[str, tuple[Check, str]] = {
    "connections": (connections_left, "fine"),
    "notify": (notifications, "fine"),
}
"""Each check of the server's by its name, with what to say when it finds nothing."""

STANDSTILL_CHECKS: dict[str, tuple[Check, str]] = {
    "dead rows": (dead_rows, "nothing is known of them yet"),
    "wake": (wake, "fine"),
}
"""The same for jobq's own tables."""
