"""What `jobq doctor` looks at in queues with limits, rates or rules for groups: does something stand still that should go on?

Queries bound what they read: the doctor is called when the database is already unwell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from jobq import queries
from jobq.cli.findings import Check, Finding, Status, rows
from jobq.cli.output import duration, one_line, plural
from jobq.queries.values import SILENT_SECONDS

_STILL = 60  # seconds
_GROUPS = 2_000  # looked at in each queue
_TURNS = 20_000  # read of each queue
_RUNNING = 10_001


def _limits(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Whether a limit is used up by jobs that nobody runs any more."""
    held = sql.SQL(
        "SELECT count(*), count(*) FILTER (WHERE holder.id IS NULL AND entry.started_at < now() - %s * interval '1 second')"
        " FROM (SELECT worker_id, coalesce(started_at, '-infinity') AS started_at FROM {job}"
        " WHERE state = 'running' AND managed AND queue = %s ORDER BY queue, group_key LIMIT %s) AS entry"
        " LEFT JOIN {worker} AS holder ON holder.id = entry.worker_id"
        " AND holder.heartbeat_at > now() - coalesce(holder.lease, %s) * interval '1 second'"
    ).format(job=sql.Identifier(schema, "job"), worker=sql.Identifier(schema, "worker"))
    for queue in queries.queues(connection, schema):
        limit = queue.settings.limit
        if limit is None and queue.settings.groups is None:
            continue
        [(number, orphaned)] = rows(connection, held, _STILL, queue.name, _RUNNING, SILENT_SECONDS)
        if orphaned:
            of = "" if limit is None else f" of the {limit:,} that its limit lets run"
            yield Finding(
                check="limits",
                status=Status.WARN,
                message=f"queue {queue.name}: {orphaned:,}{of} are held by jobs whose worker is not alive",
                mend="start a worker, which puts them back; if one is alive, see its log and the chores",
            )
        elif limit is not None and number > limit:
            yield Finding(
                check="limits",
                status=Status.OK,
                message=f"queue {queue.name}: {plural(number, 'job')} run, more than its limit of {limit:,}, which was set "
                "or lowered meanwhile; none begins until they are fewer",
            )


def _turns(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Whether groups are next in line and nobody takes them, though somebody could."""
    alive = [worker for worker in queries.workers(connection, schema) if worker.health == "alive"]
    idle = [worker for worker in alive if worker.state == "running" and worker.running < worker.slots]
    facts = sql.SQL(
        "SELECT (SELECT extract(epoch FROM now() - due_at)::double precision FROM {turn} WHERE queue = %s"
        " ORDER BY queue, due_at LIMIT 1),"
        " (SELECT count(*) FROM (SELECT FROM {job} WHERE state = 'running' AND managed AND queue = %s"
        " ORDER BY queue, group_key LIMIT %s) AS entry),"
        " EXISTS (SELECT FROM {gate} WHERE queue = %s AND group_key = '' AND paid_until > now() - interval '1 minute')"
    ).format(**{name: sql.Identifier(schema, table) for name, table in _TABLES.items()})
    for queue in queries.queues(connection, schema):
        serving = [worker for worker in idle if worker.queues is None or queue.name in worker.queues]
        if not queue.waiting or queue.paused_at is not None or not serving:
            continue
        [(still, held, rated)] = rows(connection, facts, queue.name, queue.name, _RUNNING, queue.name)
        full = queue.settings.limit is not None and held >= queue.settings.limit
        busy = queue.settings.rate is not None and rated
        if still is not None and still > _STILL and not full and not busy:
            yield Finding(
                check="turns",
                status=Status.WARN,
                message=f"queue {queue.name}: the group that is next in line has been for {duration(still)}, and "
                f"{plural(len(serving), 'worker')} with free slots serve the queue",
                mend="see the workers' logs; claims of such a queue follow one another: pg_locks tells who holds the "
                "advisory lock on it",
            )


def _groups(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Whether a group has waiting jobs, none that runs, and no turn: nobody would ever look at it."""
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
        " AND NOT EXISTS (SELECT FROM {job} AS held WHERE held.state = 'running' AND held.managed"
        " AND held.queue = %(queue)s AND held.group_key = few.group_key)"
        " ORDER BY few.group_key"
    ).format(**{name: sql.Identifier(schema, table) for name, table in _TABLES.items()})
    for queue in queries.queues(connection, schema):
        if not queue.waiting:
            continue
        params = {"queue": queue.name, "groups": _GROUPS, "turns": _TURNS}
        found = connection.execute(lost, params).fetchall()
        # Among so many turns the missing ones may be behind.
        if found and found[0][1] < _TURNS:
            mend = _GIVE.format(
                turn=sql.Identifier(schema, "job_turn"),
                job=sql.Identifier(schema, "job"),
                queue=sql.Literal(queue.name),
            )
            yield Finding(
                check="groups",
                status=Status.WARN,
                message=f"queue {queue.name}: {plural(len(found), 'group')} of those looked at wait without a turn, such as "
                f"{one_line(found[0][0], 60)}; this should not happen unless somebody deletes rows: report it",
                mend="a worker gives them turns within a minute, by the chore `turns`: see that one is alive; or "
                f"{mend.as_string(connection)}",
            )


_GIVE = sql.SQL(
    "INSERT INTO {turn} (queue, group_key) SELECT DISTINCT queue, group_key FROM {job}"
    " WHERE state = 'waiting' AND queue = {queue}"
)
_TABLES = {"turn": "job_turn", "job": "job", "gate": "gate"}

FLOW_CHECKS: dict[str, tuple[Check, str]] = {
    "limits": (_limits, "no limit is used up by jobs that nobody runs"),
    "turns": (_turns, "no group is next in line for long"),
    "groups": (_groups, "every group with waiting jobs has a turn or a running job"),
}
"""Each check by its name, with what to say when it finds nothing."""
