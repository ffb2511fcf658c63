"""Workers: whether any is alive and claims, what they cannot do, and jobs of lost workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from psycopg import sql

from jobq import queries
from jobq._core.durations import format_duration
from jobq._core.text import listed, name, one_line, plural
from jobq._core.worker_problems import RUNS_ALONE
from jobq.diagnostics.finding import Check, Finding, Status, rows
from jobq.diagnostics.queues import named
from jobq.diagnostics.snapshot import Snapshot
from jobq.queries import WorkerInfo
from jobq.queries.fleet import versions_of

STRANDED = 120.0  # seconds; workers look for such jobs every minute
OVERDUE = 60.0  # seconds that a tick may be late
_NAMED = 5
_HEARTBEATS = 10


def at(worker: WorkerInfo) -> str:
    """Return ``host:pid``."""
    return f"{name(worker.host)}:{worker.pid}"


def _workers(snapshot: Snapshot) -> Iterator[Finding]:
    alive = snapshot.alive
    if not alive:
        yield _none_alive(snapshot)
    if silent := [worker for worker in snapshot.workers if worker.health == "silent"]:
        longest = max(worker.heartbeat_seconds for worker in silent)
        yield Finding(
            check="workers",
            status=Status.WARN,
            message=f"worker {listed([at(worker) for worker in silent])} sent no heartbeat for {format_duration(longest)}"
            + ("" if len(silent) == 1 else f" or less ({len(silent):,} workers)"),
            fix="look at its log; when it is gone, another worker takes its jobs and removes it",
            page="workers",
        )
    if bare := [f"{at(worker)} ({name(worker.app or '?')})" for worker in alive if not worker.tasks]:
        yield Finding(
            check="workers",
            status=Status.WARN,
            message=f"{len(bare)} of {plural(len(alive), 'live worker')} can run no job, since "
            f"{'its application has' if len(bare) == 1 else 'their applications have'} no task: {listed(bare)}",
            fix="import the modules that define the tasks in the module that makes the JobQ, or name another application",
            page="workers",
        )
    if quiet := [at(worker) for worker in alive if worker.state == "quiet"]:
        everyone = len(quiet) == len(alive)
        due = everyone and any(queue.due and queue.paused_at is None for queue in snapshot.queues)
        yield Finding(
            check="workers",
            status=Status.FAIL if due else Status.WARN,
            message=f"{len(quiet)} of {plural(len(alive), 'live worker')} {'claims' if len(quiet) == 1 else 'claim'} nothing, "
            f"since an operator asked for that"
            + ("; no other is alive, so no job starts" if everyone else "")
            + f": {listed(quiet)}",
            fix="`jobq workers resume`, or stop those that are no longer wanted",
            page="workers",
        )
    if alive:
        oldest = max(worker.heartbeat_seconds for worker in alive)
        yield Finding(
            check="workers",
            status=Status.OK,
            message=f"{len(alive)} alive, {sum(worker.running for worker in alive)} of "
            f"{plural(sum(worker.slots for worker in alive), 'slot')} busy, "
            f"oldest heartbeat {format_duration(oldest)} ago",
        )


def _none_alive(snapshot: Snapshot) -> Finding:
    """Return the finding that no worker is alive, with its effects: they have one cause."""
    open_ = [queue for queue in snapshot.queues if queue.paused_at is None]
    due = [queue for queue in open_ if queue.due]
    running, later = sum(queue.running for queue in snapshot.queues), sum(queue.scheduled for queue in open_)
    overdue = sum(schedule.overdue_seconds > OVERDUE for schedule in snapshot.schedules)
    missed = [f"no live worker serves {named(due)}"] if due else []
    if running:
        missed.append(
            f"{plural(running, 'job')} of workers that are gone {'goes' if running == 1 else 'go'} on as running"
        )
    if overdue:
        missed.append(f"{plural(overdue, 'schedule')} {'does' if overdue == 1 else 'do'} not tick")
    if later and not due:
        missed.append(f"{plural(later, 'job')} {'waits' if later == 1 else 'wait'} for a later time")
    return Finding(
        check="workers",
        status=Status.FAIL if missed else Status.WARN,
        message="no worker is alive" + (f": {'; '.join(missed)}" if missed else ": no job will start"),
        fix="start `jobq worker MODULE:ATTRIBUTE`",
        minor=not missed,
        page="workers",
    )


def _versions(snapshot: Snapshot) -> Iterator[Finding]:
    versions = versions_of(snapshot.alive)
    if len(versions) > 1:
        yield Finding(
            check="versions",
            status=Status.WARN,
            message=f"live workers run {len(versions)} versions of jobq: {listed([name(version) for version in versions], 5)}",
            fix="nothing while a deployment is under way; else restart the older ones",
            page="workers",
        )


def _stranded(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for running jobs of lost workers that a live worker should have put back."""
    if not snapshot.alive:
        return
    found = queries.stranded(snapshot.connection, snapshot.schema, seconds=STRANDED)
    if found:
        number = sum(one.number for one in found)
        who = [f"{name(one.host)}:{one.pid}" for one in found if one.host is not None]
        yield Finding(
            check="stranded",
            status=Status.FAIL,
            message=f"{plural(number, 'job')} {'is' if number == 1 else 'are'} running in the name of "
            f"{'workers without a row' if not who else 'silent workers (' + listed(who) + ')'}, "
            f"since {format_duration(max(one.oldest_seconds for one in found))}, and the live workers do not put "
            f"{'it' if number == 1 else 'them'} back",
            fix="see `problems` and the maintenance task `orphans`: a lock or a refusal keeps the workers from it",
            page="jobs",
            filters={"state": "running"},
        )


def _problems(snapshot: Snapshot) -> Iterator[Finding]:
    """Check what live workers keep retrying: claims, ends of jobs, schedules, and more."""
    alike: dict[tuple[str, str], list[tuple[WorkerInfo, dict[str, Any]]]] = defaultdict(list)
    for worker in snapshot.alive:
        for problem in worker.problems:
            alike[str(problem.get("what")), str(problem.get("error"))].append((worker, problem))
    for index, cases in enumerate(alike.values()):
        worker, first = cases[0]
        more = f" (and {plural(len(cases) - 1, 'other')} with the same error)" if len(cases) > 1 else ""
        if index >= _NAMED:
            rest = sum(len(some) for some in list(alike.values())[_NAMED:])
            yield Finding(
                check="problems",
                status=Status.FAIL,
                message=f"there {'is' if rest == 1 else 'are'} {plural(rest, 'other problem')}",
                fix="see the page of workers, or `jobq workers list --json`",
                page="workers",
            )
            return
        yield Finding(
            check="problems",
            status=Status.FAIL,
            message=f"worker {at(worker)} {one_line(describe(first), 300)}{more}",
            fix=_fix(first),
            page="workers",
        )


def _fix(problem: dict[str, Any]) -> str:
    if problem.get("what") == RUNS_ALONE:
        return (
            "look at the attempts of its failed jobs (`jobq jobs list --state failed`, `jobq jobs show`); when it has ended no "
            "runner for a minute, the task runs beside others again"
        )
    return (
        "remove what refuses it (a trigger, a constraint, a missing right, a lock, a full disk): it is tried again by itself, "
        "at least every five minutes"
    )


def describe(problem: dict[str, Any]) -> str:
    """Return one problem in words."""
    facts = ("what", "error", "since", "tries")
    subject = ", ".join(f"{key} {value}" for key, value in problem.items() if key not in facts)
    return (
        f"cannot {problem.get('what')}{f' ({subject})' if subject else ''} since {problem.get('since')}, "
        f"tried {plural(int(problem.get('tries') or 0), 'time')}: {problem.get('error')}"
    )


def _heartbeats(snapshot: Snapshot) -> Iterator[Finding]:
    """Report each worker's last heartbeat, and whether it holds its advisory lock.

    With the lock, its death is detected soon.
    """
    query = sql.SQL(
        "SELECT worker.id, worker.lock_server_start, worker.lock_server_start = pg_postmaster_start_time(), EXISTS ("
        " SELECT FROM pg_locks AS lock WHERE lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted"
        " AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND lock.classid = ((worker.lock_key >> 32) & 4294967295)::oid"
        " AND lock.objid = (worker.lock_key & 4294967295)::oid) FROM {} AS worker LIMIT 1000"
    ).format(sql.Identifier(snapshot.schema, "worker"))
    locks = {row[0]: row[1:] for row in rows(snapshot.connection, query)}
    lost = []
    for index, worker in enumerate(snapshot.workers):
        taken, here, held = locks.get(worker.id, (None, None, False))
        if held:
            lock = "lock held"
        elif taken is None:
            lock = "without a lock, as through a pooler"
        else:
            lock = "lock lost" if here else "lock of a server before this one"
        if lock == "lock lost" and worker.health == "alive":
            lost.append(worker)
        elif index < _HEARTBEATS:
            yield Finding(check="heartbeats", status=Status.OK, message=_heartbeat(worker, lock))
    if lost:
        yield Finding(
            check="heartbeats",
            status=Status.WARN,
            message=_heartbeat(lost[0], "lock lost")
            + (f"; the same of {plural(len(lost) - 1, 'other worker')}" if len(lost) > 1 else ""),
            fix="its connection was lost: if it stays so, look at its log",
            page="workers",
        )
    if (rest := len(snapshot.workers) - _HEARTBEATS) > 0:
        yield Finding(check="heartbeats", status=Status.OK, message=f"and {plural(rest, 'other worker')}")


def _heartbeat(worker: WorkerInfo, lock: str) -> str:
    return (
        f"{at(worker)} ({worker.state}) {format_duration(worker.heartbeat_seconds)} ago, "
        f"{worker.running} of {plural(worker.slots, 'slot')} busy, {lock}"
    )


WORKER_CHECKS: dict[str, tuple[Check, str]] = {
    "workers": (_workers, "fine"),
    "versions": (_versions, "all workers run one version of jobq"),
    "problems": (_problems, "no live worker reports any"),
    "stranded": (_stranded, "no job runs in the name of a worker that is gone"),
}
"""Each check by name, with the text if it finds nothing."""

HEARTBEAT_CHECKS: dict[str, tuple[Check, str]] = {"heartbeats": (_heartbeats, "no worker has registered")}
"""Only for doctor: a line for each worker."""
