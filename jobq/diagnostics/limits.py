"""Queues with limits, rates or group rules: does something stand still that should progress?

Queries bound what they read, because checks run when the database already has problems.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql
from psycopg.rows import tuple_row

from jobq._core.durations import format_duration
from jobq._core.text import be, listed, name, plural, wait
from jobq.diagnostics.finding import Check, Finding, Status, rows
from jobq.diagnostics.snapshot import Snapshot
from jobq.queries import QueueInfo

_STILL = 60  # seconds
_GROUPS = 2_000  # checked in each queue
_TURNS = 20_000  # read in each queue
_RUNNING = 10_001


def _limits(snapshot: Snapshot) -> Iterator[Finding]:
    """Check whether a limit is used up by jobs that no worker runs any more."""
    held = sql.SQL(
        "SELECT entry.queue, count(*) FROM (SELECT queue, worker_id, coalesce(started_at, '-infinity') AS started_at FROM {job}"
        " WHERE state = 'running' AND limited ORDER BY queue, group_key LIMIT %s) AS entry"
        " LEFT JOIN {worker} AS holder ON holder.id = entry.worker_id"
        " AND holder.heartbeat_at > now() - holder.lease * interval '1 second'"
        " WHERE holder.id IS NULL AND entry.started_at < now() - %s * interval '1 second' GROUP BY 1"
    ).format(job=sql.Identifier(snapshot.schema, "job"), worker=sql.Identifier(snapshot.schema, "worker"))
    limited = [
        queue for queue in snapshot.queues if queue.settings.limit is not None or queue.settings.groups is not None
    ]
    if not limited:
        return
    orphaned = dict(rows(snapshot.connection, held, _RUNNING, _STILL))
    if hit := [queue for queue in limited if orphaned.get(queue.name)]:
        number = sum(orphaned[queue.name] for queue in hit)
        limit = hit[0].settings.limit
        of = f" of the {limit:,} that its limit lets run" if len(hit) == 1 and limit is not None else ""
        which = f"queue {name(hit[0].name)}" if len(hit) == 1 else f"{len(hit):,} queues"
        some = "" if len(hit) == 1 else f": {listed([name(queue.name) for queue in hit])}"
        yield Finding(
            check="limits",
            status=Status.WARN,
            message=f"{which}: {number:,}{of} {be(number)} held by jobs whose worker is not alive{some}",
            fix="start a worker, which puts them back; if one is alive, see its log and the maintenance tasks",
            page="queues",
        )
    for queue in limited[: snapshot.most_queues if snapshot.thorough else 0]:
        limit = queue.settings.limit
        if limit is not None and queue.running > limit and not orphaned.get(queue.name):
            yield Finding(
                check="limits",
                status=Status.OK,
                message=f"queue {name(queue.name)}: {plural(queue.running, 'job')} run, more than its limit of {limit:,}, "
                "which was set or lowered meanwhile; none begins until they are fewer",
            )


def _turns(snapshot: Snapshot) -> Iterator[Finding]:
    """Check whether ready groups are not claimed although a worker could."""
    facts = sql.SQL(
        "SELECT (SELECT extract(epoch FROM now() - due_at)::double precision FROM {turn} WHERE queue = %s"
        " ORDER BY queue, due_at LIMIT 1),"
        " (SELECT count(*) FROM (SELECT FROM {job} WHERE state = 'running' AND limited AND queue = %s"
        " ORDER BY queue, group_key LIMIT %s) AS entry),"
        " EXISTS (SELECT FROM {rate_state} WHERE queue = %s AND group_key = '' AND paid_until > now() - interval '1 minute')"
    ).format(**{key: sql.Identifier(snapshot.schema, table) for key, table in _TABLES.items()})
    hit: list[tuple[float, QueueInfo]] = []
    free = 0
    for queue in [queue for queue in snapshot.queues if queue.waiting and queue.paused_at is None][
        : snapshot.most_queues
    ]:
        idle = [worker for worker in snapshot.claiming(queue.name) if worker.running < worker.slots]
        if not idle:
            continue
        params = (queue.name, queue.name, _RUNNING, queue.name)
        [(still, held, rated)] = rows(snapshot.connection, facts, *params)
        full = queue.settings.limit is not None and held >= queue.settings.limit
        busy = queue.settings.rate is not None and rated
        if still is not None and still > _STILL and not full and not busy:
            hit.append((still, queue))
            free = max(free, len(idle))
    if hit:
        which = f"queue {name(hit[0][1].name)}" if len(hit) == 1 else f"{len(hit):,} queues"
        some = "" if len(hit) == 1 else f": {listed([name(queue.name) for _, queue in hit])}"
        yield Finding(
            check="turns",
            status=Status.WARN,
            message=f"{which}: the group that is next in line has been for "
            f"{format_duration(max(still for still, _ in hit))}, and "
            f"{plural(free, 'worker')} with free slots serve{'s' if free == 1 else ''} the queue{some}",
            fix="see the workers' logs; claims of such a queue follow one another: pg_locks tells who holds the "
            "advisory lock on it",
            page="queues",
        )


def _groups(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for groups with waiting jobs, no running job and no ready row.

    No claim looks at them.
    """
    lost = sql.SQL(
        "WITH RECURSIVE one AS ("
        "(SELECT group_key FROM {job} WHERE state = 'waiting' AND queue = %(queue)s AND group_key IS NOT NULL"
        " ORDER BY queue, group_key LIMIT 1)"
        " UNION ALL SELECT following.group_key FROM one CROSS JOIN LATERAL ("
        "SELECT group_key FROM {job} AS job WHERE state = 'waiting' AND queue = %(queue)s AND job.group_key > one.group_key"
        " ORDER BY queue, job.group_key LIMIT 1) AS following),"
        " few AS MATERIALIZED (SELECT group_key FROM one LIMIT %(groups)s),"
        " turns AS MATERIALIZED (SELECT group_key FROM {turn} WHERE queue = %(queue)s ORDER BY queue, due_at LIMIT %(turns)s)"
        " SELECT few.group_key, (SELECT count(*) FROM turns) FROM few"
        " WHERE few.group_key NOT IN (SELECT group_key FROM turns)"
        " AND NOT EXISTS (SELECT FROM {job} AS held WHERE held.state = 'running' AND held.limited"
        " AND held.queue = %(queue)s AND held.group_key = few.group_key)"
        " ORDER BY few.group_key"
    ).format(**{key: sql.Identifier(snapshot.schema, table) for key, table in _TABLES.items()})
    hit: dict[str, list[str]] = {}
    groups = _GROUPS if snapshot.thorough else 100
    for queue in [queue for queue in snapshot.queues if queue.waiting][: snapshot.most_queues]:
        params = {"queue": queue.name, "groups": groups, "turns": _TURNS}
        with snapshot.connection.cursor(row_factory=tuple_row) as cursor:
            found = cursor.execute(lost, params).fetchall()
        # With this many rows, the missing ones may come later.
        if found and found[0][1] < _TURNS:
            hit[queue.name] = [group for group, _ in found]
    if hit:
        number, first = sum(map(len, hit.values())), next(iter(hit))
        give = _GIVE.format(
            turn=sql.Identifier(snapshot.schema, "group_ready"),
            job=sql.Identifier(snapshot.schema, "job"),
            queues=sql.SQL(", ").join(map(sql.Literal, hit)),
        )
        which = (
            f"queue {name(first)}" if len(hit) == 1 else f"{len(hit):,} queues ({listed([name(one) for one in hit])})"
        )
        yield Finding(
            check="groups",
            status=Status.WARN,
            message=f"{which}: {plural(number, 'group')} of those looked at {wait(number)} without a turn, such as "
            f"{name(hit[first][0])}; this should not happen unless rows are deleted by hand: report it",
            fix="a worker gives them turns within a minute, by the maintenance task `turns`: see that one is alive; or "
            f"{give.as_string(snapshot.connection)}",
            page="queues",
        )


_GIVE = sql.SQL(
    "INSERT INTO {turn} (queue, group_key) SELECT DISTINCT queue, group_key FROM {job}"
    " WHERE state = 'waiting' AND queue IN ({queues})"
)
_TABLES = {"turn": "group_ready", "job": "job", "rate_state": "rate_state"}

FLOW_CHECKS: dict[str, tuple[Check, str]] = {
    "limits": (_limits, "no limit is used up by jobs that no worker runs"),
    "turns": (_turns, "no group is next in line for long"),
    "groups": (_groups, "every group with waiting jobs has a turn or a running job"),
}
"""Each check by name, with the text if it finds nothing."""
