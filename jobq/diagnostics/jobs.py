"""What `jobq doctor` looks at in jobq's own tables.

Queries bound what they read: the doctor is called when the database is already unwell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from jobq import queries
from jobq.cli.checks_partitions import PARTITION_CHECKS
from jobq.cli.findings import Check, Finding, Status, rows
from jobq.cli.output import count, duration, one_line, plural

_SAMPLE = 500  # jobs looked at in each queue, in the order of the claim
_QUEUES = 200
_OVERDUE = 300  # seconds
_STILL = 60  # seconds without a batch of an operation that nothing slows
# What each does to a table or to some of its columns; a producer needs INSERT on job alone. See deploy/roles.sql.
_NEEDED = {
    "work": {
        "job": "SELECT, INSERT, UPDATE, DELETE",
        "job_history": "SELECT, INSERT",
        "job_attempt": "SELECT, INSERT",
        "job_key": "SELECT, DELETE",
        "queue": "SELECT",
        "worker": "SELECT, INSERT, UPDATE, DELETE",
        "chore": "SELECT, INSERT, UPDATE",
        "rollup_queue": "SELECT, INSERT, UPDATE, DELETE",
        "rollup_task": "SELECT, INSERT, UPDATE, DELETE",
        "rollup_mark": "SELECT, INSERT, UPDATE, DELETE",
        "schedule": "SELECT, INSERT, UPDATE",
        "schedule_tick": "SELECT, INSERT, DELETE",
    },
    "operate": {
        "job": "SELECT, INSERT, UPDATE, DELETE",
        "job_history": "SELECT, INSERT, UPDATE, DELETE",
        "job_attempt": "SELECT, DELETE",
        "job_key": "SELECT, DELETE",
        "queue": "SELECT, INSERT, UPDATE",
        "job_turn": "SELECT, INSERT",
        "gate": "SELECT, INSERT, UPDATE, DELETE",
        "worker": "SELECT, UPDATE",
        "chore": "SELECT",
        "audit": "SELECT, INSERT",
        "rollup_queue": "SELECT",
        "rollup_task": "SELECT",
        "operation": "SELECT, INSERT, UPDATE",
        "operation_batch": "SELECT, INSERT",
        "schedule": "SELECT, INSERT, UPDATE, DELETE",
        "schedule_tick": "SELECT",
    },
}


def _privileges(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Whether this role may work, or operate; who may do neither is told what it lacks."""
    lacking = {purpose: list(_lacking(connection, schema, needed)) for purpose, needed in _NEEDED.items()}
    able = [purpose for purpose, missing in lacking.items() if not missing]
    if len(able) == len(_NEEDED):
        return
    [(role,)] = rows(connection, "SELECT current_user")
    if able:
        yield Finding(check="privileges", status=Status.OK, message=f"role {role} may {' and '.join(able)}")
        return
    yield Finding(
        check="privileges",
        status=Status.WARN,
        message=f"role {role} lacks " + "; ".join(f"{', '.join(lacks)} to {what}" for what, lacks in lacking.items()),
        mend="run deploy/roles.sql and grant it one of its roles, unless it is only to enqueue or to view",
    )


def _lacking(connection: psycopg.Connection[Any], schema: str, needed: dict[str, str]) -> Iterator[str]:
    for table, privileges in needed.items():
        name = sql.Identifier(schema, table).as_string(connection)
        lacks = [privilege for privilege in privileges.split(", ") if not _has(connection, name, privilege)]
        if lacks:
            yield f"{'/'.join(lacks)} on {table}"


def _has(connection: psycopg.Connection[Any], table: str, privilege: str) -> bool:
    if privilege == "UPDATE":
        return bool(rows(connection, "SELECT has_any_column_privilege(%s, 'UPDATE')", table)[0][0])
    return bool(rows(connection, "SELECT has_table_privilege(%s, %s)", table, privilege)[0][0])


def _workers(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    every = queries.workers(connection, schema)
    alive = [worker for worker in every if worker.health == "alive"]
    for worker in every:
        if worker.health != "alive":
            yield Finding(
                check="workers",
                status=Status.WARN,
                message=f"{worker.host}:{worker.pid} sent no heartbeat for {duration(worker.heartbeat_seconds)}",
                mend="look at its log; when it is gone, another worker takes its jobs and removes it",
            )
    if bare := [f"{worker.host}:{worker.pid} ({worker.app})" for worker in alive if not worker.tasks]:
        yield Finding(
            check="workers",
            status=Status.WARN,
            message=f"{len(bare)} of {len(alive)} can run no job, for their application has no task: "
            + ", ".join(bare[:_QUEUES]),
            mend="import the modules that define the tasks in the module that makes the JobQ, or name another application",
        )
    if quiet := [f"{worker.host}:{worker.pid}" for worker in alive if worker.state == "quiet"]:
        yield Finding(
            check="workers",
            status=Status.WARN,
            message=f"{len(quiet)} of {len(alive)} claim nothing, since an operator made them quiet: "
            + ", ".join(quiet[:_QUEUES]),
            mend="`jobq workers resume`, or stop those that are no longer wanted",
        )
    if alive:
        oldest = max(worker.heartbeat_seconds for worker in alive)
        yield Finding(
            check="workers",
            status=Status.OK,
            message=f"{len(alive)} alive, {sum(worker.running for worker in alive)} of "
            f"{plural(sum(worker.slots for worker in alive), 'slot')} busy, "
            f"oldest heartbeat {duration(oldest)} ago",
        )
    else:
        yield Finding(
            check="workers",
            status=Status.WARN,
            message="none is alive: no job will start",
            mend="start `jobq worker MODULE:ATTRIBUTE`",
        )


def _tasks(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    alive = [worker for worker in queries.workers(connection, schema) if worker.health != "silent"]
    if not alive:
        yield Finding(check="tasks", status=Status.OK, message="no live worker to compare the waiting tasks with")
        return
    waiting = [queue.name for queue in queries.queues(connection, schema) if queue.ready or queue.waiting][:_QUEUES]
    unknown: dict[str, list[str]] = defaultdict(list)
    for queue in waiting:
        serving = [worker for worker in alive if worker.queues is None or queue in worker.queues]
        if not serving:
            yield Finding(
                check="tasks",
                status=Status.FAIL,
                message=f"queue {queue} has jobs to run, and no live worker serves it",
                mend=f"start a worker with --queues {queue}, or one without --queues",
            )
            continue
        known = {task for worker in serving for task in worker.tasks}
        sample = sql.SQL(
            "SELECT DISTINCT task FROM ((SELECT task FROM {job} WHERE state = 'ready' AND queue = %s"
            " AND run_at <= now() ORDER BY priority, run_at, id LIMIT %s) UNION ALL (SELECT task FROM {job}"
            " WHERE state = 'waiting' AND queue = %s ORDER BY queue, group_key, id LIMIT %s)) AS sample"
        ).format(job=sql.Identifier(schema, "job"))
        for (task,) in rows(connection, sample, queue, _SAMPLE, queue, _SAMPLE):
            if task not in known:
                unknown[task].append(queue)
    for task, where in sorted(unknown.items()):
        yield Finding(
            check="tasks",
            status=Status.FAIL,
            message=f"no live worker of queue {', '.join(where)} knows task {task}: its jobs wait",
            mend="deploy the application that has it, or `jobq jobs cancel --task` them",
        )


def _parked(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    for parked in queries.parked_tasks(connection, schema):
        if parked.may and parked.seconds < _STILL:
            # On its way to a worker whose code can run it.
            continue
        mend = (
            "start more workers of the newer code, or look whether they serve the queue and are not quiet"
            if parked.may
            else "deploy workers whose application has it; or `jobq jobs cancel --where 'state:parked task:"
            f"{parked.task}'`"
        )
        yield Finding(
            check="parked",
            status=Status.WARN if parked.may else Status.FAIL,
            message=f"{parked.sentence}: {plural(parked.number, 'job')} of queue {', '.join(parked.queues[:5])} waits"
            if parked.number == 1
            else f"{parked.sentence}: {plural(parked.number, 'job')} of queue {', '.join(parked.queues[:5])} wait",
            mend=mend,
        )


def _paused(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    for queue in queries.queues(connection, schema):
        if queue.paused_at is not None and (queue.ready or queue.waiting):
            why = f" ({one_line(queue.pause_reason, 60)})" if queue.pause_reason else ""
            yield Finding(
                check="paused",
                status=Status.WARN,
                message=f"queue {queue.name} was paused by {queue.paused_by or 'somebody'}{why}, "
                f"and {_backlog(queue)} wait",
                mend=f"`jobq queues resume {queue.name}`",
            )


def _backlog(queue: queries.QueueInfo) -> str:
    ready, waiting = (f"{count(number, queue.counted_to)}" for number in (queue.ready, queue.waiting))
    if not queue.waiting:
        return f"{ready} ready jobs"
    return f"{ready} ready jobs and {waiting} with groups" if queue.ready else f"{waiting} jobs with groups"


def _chores(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    for chore in queries.chores(connection, schema):
        if chore.last_error:
            yield Finding(
                check="chores",
                status=Status.WARN,
                message=f"{chore.name} failed when it last ran: {one_line(chore.last_error)}",
                mend="see the message; it is tried again by itself",
            )
        elif chore.overdue_seconds > _OVERDUE:
            yield Finding(
                check="chores",
                status=Status.WARN,
                message=f"{chore.name} is overdue by {duration(chore.overdue_seconds)}",
                mend="start a worker: workers do the chores",
            )


def _operations(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    for operation in queries.operations(connection, schema, limit=100):
        what = f"operation {operation.id} ({operation.action} {one_line(operation.filter, 60)})"
        if operation.state == "failed":
            yield Finding(
                check="operations",
                status=Status.WARN,
                message=f"{what} failed: {one_line(operation.error)}",
                mend=f"see the message; then `jobq operations resume {operation.id}`, or cancel it",
            )
        moved_at = operation.progressed_at or operation.started_at
        if operation.state != "running" or moved_at is None:
            continue
        still = (operation.read_at - moved_at).total_seconds()
        # A rate of less than one a second makes each batch of one job wait.
        if still > _STILL + (2 / operation.rate if operation.rate else 0):
            yield Finding(
                check="operations",
                status=Status.WARN,
                message=f"{what} has stood still for {duration(still)}: no page carries it out",
                mend=f"start `jobq web`, or `jobq operations run {operation.id}`",
            )


JOB_CHECKS: dict[str, tuple[Check, str]] = {
    "privileges": (_privileges, "this role may work and operate"),
    **PARTITION_CHECKS,
    "workers": (_workers, "fine"),
    "tasks": (_tasks, "no waiting task seen is without a worker that knows it"),
    "parked": (_parked, "no job waits for a worker with other code"),
    "paused": (_paused, "no paused queue has a backlog"),
    "chores": (_chores, "none is overdue or failing"),
    "operations": (_operations, "no bulk operation stands still"),
}
"""Each check by its name, with what to say when it finds nothing."""
