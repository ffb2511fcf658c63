"""What `jobq doctor` looks at to see what runs short and what stands still."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from jobq import queries
from jobq.cli.findings import Check, Finding, Status, rows
from jobq.cli.output import count, duration, one_line, plural

DEAD_ROWS = 50_000  # ten times what makes autovacuum start
CONNECTIONS_LEFT = 10
NOTIFY_USAGE = 0.05
IDLE_WAIT = 15.0  # seconds that a due job may wait while slots are free
_WORKERS = 50
# Of the sequence `wake`: see jobq.worker.brisk.Mode, which the command line does not load for this.
_QUIET, _BRISK = 1, 2
_TABLES = ("job", "job_key", "worker")


def connections_left(connection: psycopg.Connection[Any], _schema: str) -> Iterator[Finding]:
    """How near the server is to its limit of connections. Each worker takes four, the sentinel five, and one for schedules."""
    [(used, most)] = rows(
        connection,
        # pg_stat_activity would hide the others' from a role without pg_read_all_stats.
        "SELECT (SELECT sum(numbackends)::integer FROM pg_stat_database),"
        " current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer",
    )
    left = most - used
    yield Finding(
        check="connections",
        status=Status.WARN if left < CONNECTIONS_LEFT else Status.OK,
        message=f"{used} of {most} are taken",
        mend=""
        if left >= CONNECTIONS_LEFT
        else "raise max_connections, lower pool_size, or put a pooler before producers",
    )


def notifications(connection: psycopg.Connection[Any], _schema: str) -> Iterator[Finding]:
    """How full the server's queue of notifications is; when it is full, commits that notify fail."""
    [(usage,)] = rows(connection, "SELECT pg_notification_queue_usage()")
    if usage >= NOTIFY_USAGE:
        yield Finding(
            check="notify",
            status=Status.FAIL if usage >= 0.5 else Status.WARN,
            message=f"the server's notification queue is {usage:.0%} full; when it is full, enqueueing fails",
            mend="a session that listens holds a transaction open: see `transactions`, and end it",
        )
    else:
        yield Finding(check="notify", status=Status.OK, message=f"the notification queue is {usage:.0%} full")


def dead_rows(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Dead rows in the tables that claims read, and when they were last vacuumed. By the server's own counts."""
    told = []
    for table, dead, live, since in rows(
        connection,
        "SELECT relname, n_dead_tup, n_live_tup, extract(epoch FROM clock_timestamp()"
        " - greatest(last_vacuum, last_autovacuum))::double precision FROM pg_stat_user_tables"
        " WHERE schemaname = %s AND relname = ANY (%s) ORDER BY relname",
        schema,
        list(_TABLES),
    ):
        when = "never vacuumed" if since is None else f"vacuumed {duration(since)} ago"
        told.append(f"{table} {count(dead)}, {when}")
        if dead >= DEAD_ROWS and dead > live:
            yield Finding(
                check="dead rows",
                status=Status.WARN,
                message=f"{schema}.{table} has {count(dead)} dead rows and {count(live)} live ones, {when}: claims slow down",
                mend=f"VACUUM {schema}.{table}; if that frees none, something in `transactions` holds them back",
            )
            return
    if told:
        yield Finding(check="dead rows", status=Status.OK, message="; ".join(told))


def heartbeats(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Each worker's last heartbeat, and whether it holds the lock by which a dead one is known soon."""
    query = sql.SQL(
        "SELECT worker.id, worker.lock_server_start, worker.lock_server_start = pg_postmaster_start_time(), EXISTS ("
        " SELECT FROM pg_locks AS lock WHERE lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted"
        " AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND lock.classid = ((worker.lock_key >> 32) & 4294967295)::oid"
        " AND lock.objid = (worker.lock_key & 4294967295)::oid) FROM {} AS worker LIMIT 1000"
    ).format(sql.Identifier(schema, "worker"))
    locks = {row[0]: row[1:] for row in rows(connection, query)}
    for worker in queries.workers(connection, schema)[:_WORKERS]:
        taken, here, held = locks.get(worker.id, (None, None, False))
        if held:
            lock = "lock held"
        elif taken is None:
            lock = "without a lock, as through a pooler"
        else:
            lock = "lock lost" if here else "lock of a server before this one"
        yield Finding(
            check="heartbeats",
            status=Status.WARN if lock == "lock lost" and worker.health == "alive" else Status.OK,
            message=f"{worker.host}:{worker.pid} ({worker.state}) {duration(worker.heartbeat_seconds)} ago, "
            f"{worker.running} of {plural(worker.slots, 'slot')} busy, {lock}",
            mend="its connection was lost: if it stays so, look at its log"
            if lock == "lock lost" and worker.health == "alive"
            else "",
        )


def idle(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Jobs that are due and wait, while workers that serve their queue have slots free: what /readyz would call unready."""
    alive = [worker for worker in queries.workers(connection, schema) if worker.health == "alive"]
    for queue in queries.queues(connection, schema):
        serving = [worker for worker in alive if worker.queues is None or queue.name in worker.queues]
        free = sum(max(worker.slots - worker.running, 0) for worker in serving if worker.state == "running")
        waited = queue.oldest_ready_seconds
        if queue.paused_at is None and free and waited is not None and waited > IDLE_WAIT:
            yield Finding(
                check="idle",
                status=Status.FAIL,
                message=f"queue {queue.name} has jobs that have been due for {duration(waited)}, "
                f"and {plural(free, 'slot')} of its workers stand idle",
                mend="look for `stalled` in the workers' logs; transactions that lock the jobs are another cause",
            )


def wake(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Whether inserts notify, and else who looks for jobs instead."""
    query = sql.SQL("SELECT last_value FROM {}").format(sql.Identifier(schema, "wake"))
    [(mode,)] = rows(connection, query)
    found = rows(
        connection,
        "SELECT session.application_name FROM pg_locks AS lock JOIN pg_stat_activity AS session USING (pid)"
        " WHERE lock.locktype = 'advisory' AND lock.objsubid = 2 AND lock.granted AND lock.classid = 1785684593"
        " AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND lock.objid = %s::regclass",
        sql.Identifier(schema, "wake").as_string(connection),
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
            mend="nothing, if workers were just started or stopped: one takes the place within seconds. Through a pooler "
            "none can: set JOBQ_DIRECT_URL",
        )


def unserved(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Queues whose jobs are all for later, and that no live worker serves. (Ready ones: see `tasks`.)"""
    alive = [worker for worker in queries.workers(connection, schema) if worker.health != "silent"]
    for queue in queries.queues(connection, schema):
        waiting = queue.scheduled and not queue.ready
        if alive and waiting and not any(w.queues is None or queue.name in w.queues for w in alive):
            yield Finding(
                check="queues",
                status=Status.WARN,
                message=f"queue {queue.name} has {count(queue.scheduled)} jobs for later, and no live worker serves it",
                mend=f"start a worker with --queues {queue.name}, or one without --queues",
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
    "heartbeats": (heartbeats, "no worker has registered"),
    "wake": (wake, "fine"),
    "idle": (idle, "no due job waits for a slot that is free"),
    "queues": (unserved, "none has jobs for later without a worker"),
}
"""The same for jobq's own tables."""
