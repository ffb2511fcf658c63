"""Scarce resources: connections, notifications, vacuum; and the notify mode."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jobq._core.durations import format_duration
from jobq._core.text import one_line
from jobq._postgres.statements import fetch
from jobq.diagnostics.finding import Check, Finding, Status, rows
from jobq.diagnostics.snapshot import Snapshot

DEAD_ROWS = 50_000  # ten times the number at which autovacuum starts
CONNECTIONS_LEFT = 10
FEW_CONNECTIONS = 5  # a worker uses four
NOTIFY_USAGE = 0.05
# Values of the notify mode: see jobq._worker.wakeup.policy.NotifyMode. The command line does not
# load that module for this.
_NOTIFY, _POLL = 1, 2
_TABLES = ("job", "job_key", "worker")


def connections_left(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the server's connection limit.

    Each worker uses four, the lead poller five, and schedules one more.
    """
    [(used, most)] = rows(
        snapshot.connection,
        # pg_stat_activity would hide other roles' sessions without pg_read_all_stats.
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
    """Check the server's notification queue. If it is full, commits that notify fail."""
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
    """Check dead rows and the last vacuum of the tables that claims read.

    The numbers are the server's counts.
    """
    told = []
    for table, dead, live, since in rows(
        snapshot.connection,
        "SELECT relname, n_dead_tup, n_live_tup, extract(epoch FROM clock_timestamp()"
        " - greatest(last_vacuum, last_autovacuum))::double precision FROM pg_stat_user_tables"
        " WHERE schemaname = %s AND relname = ANY (%s) ORDER BY relname",
        snapshot.schema,
        list(_TABLES),
    ):
        when = "never vacuumed" if since is None else f"vacuumed {format_duration(since)} ago"
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
    """Check whether inserts notify, and, if not, which worker is the lead poller."""
    found = fetch(snapshot.connection, snapshot.schema, "poller_lead", {})[0]
    mode = found["mode"]
    if mode == _NOTIFY:
        yield Finding(check="wake", status=Status.OK, message="notify: inserts notify the workers")
    elif found["led"]:
        _, _, pid, host = (*(found["application_name"] or "").split(" ", 3), "", "", "", "")[:4]
        how = "poll: inserts do not notify" if mode == _POLL else "draining: inserts notify again"
        who = f"process {pid} of {host}" if pid and host else "a worker"
        yield Finding(check="wake", status=Status.OK, message=f"{how}; {who} looks for jobs")
    else:
        yield Finding(
            check="wake",
            status=Status.WARN,
            message="inserts are or were silent, and no worker looks for them: jobs start with a delay of up to a second",
            fix="nothing, if workers were just started or stopped: one takes the place within seconds. Through a pooler "
            "none can: set JOBQ_DIRECT_URL",
        )


def shortened(query: str | None) -> str:
    """Return a statement for a report: on one line, shortened, with its values hidden."""
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
"""Each check of the server by name, with the text if it finds nothing."""

STANDSTILL_CHECKS: dict[str, tuple[Check, str]] = {
    "dead rows": (dead_rows, "nothing is known of them yet"),
    "wake": (wake, "fine"),
}
"""The same for jobq's own tables."""
